"""The new nouns from the command line: what is typed, what comes back, and what a wrong line is told."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from novactl.api import groups
from tests.unit.cli_world import Prompt
from tests.unit.nouns_world import put_server, quiet_world
from tests.world import World


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prompt]:
    """Whom every bad line is told to: nothing of it may change, so one world does for all."""
    world = quiet_world(tmp_path_factory.mktemp("world"))
    asked = Prompt(world.env)
    for line in (
        "aggregate create rack1 --zone z1", "aggregate create rack2 --zone z2", "aggregate create full", "aggregate add-node full n1",
        "aggregate add-node rack1 n1", "server-group create web --policy anti-affinity", "project create shop",
        "quota set shop groups=0", "flavor create db --ram 4G --vcpus 4", "node set n1 --inventory CUSTOM_GPU=4",
    ):
        ran = asked.run(*shlex.split(line))
        assert ran.status == 0, ran.err
    group = groups.show(world.cluster, "web")
    put_server(world, "web1", "n1", amounts={"VCPU": 2, "CUSTOM_GPU": 1}, zone="z1", group=group.id)
    before = seen(asked)
    yield asked
    after = seen(asked)
    world.stop()
    assert after == before


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[World]:
    made = quiet_world(tmp_path)
    yield made
    made.stop()


def seen(prompt: Prompt) -> list[str]:
    nouns = ("aggregate", "server-group", "project", "quota", "flavor", "image", "keypair", "trait", "resource-class", "zone")
    node = prompt.run("node", "show", "n1", "--cached", "-o", "json").json
    return [prompt.run(noun, "list", "-o", "json").out for noun in nouns] + [str(node["inventories"]), str(node["traits"]), node["zone"]]


BAD = [
    ("aggregate create rack1", 4, "aggregate 'rack1' exists already"),
    ("aggregate create x --property ssd", 2, "'ssd' is not KEY=VALUE"),
    ("aggregate create x --property max_instances_per_host=lots", 2, "max_instances_per_host takes a whole number, not 'lots'"),
    ("aggregate create x --property cpu_weight_multiplier=x", 2, "cpu_weight_multiplier takes a number"),
    ("aggregate create x --property cpus_weight_multiplier=2", 2, "no weigher reads cpus_weight_multiplier"),
    ("aggregate create x --property ram_allocation_ratio=2", 2, "try: novactl node set NODE... --ram-ratio 2"),
    ("aggregate create x --zone 'a b'", 2, "zone name 'a b' is not valid"),
    ("aggregate show rakc1", 3, "did you mean rack1"),
    ("aggregate set rack1", 2, "nothing to set"),
    ("aggregate unset rack1", 2, "nothing to take away"),
    ("aggregate set rack1 --zone z9", 4, "node n1 cannot leave zone z1 for z9: 1 server asked for that zone: web1"),
    ("aggregate set full --zone z2", 4, "node n1 would be in two zones:"),
    ("aggregate add-node rack2 n1 n2", 4, "(aggregate rack1) and z2 (aggregate rack2)"),
    ("aggregate add-node rack2 n9", 3, "no node 'n9'"),
    ("aggregate remove-node rack1 n1", 4, "node n1 cannot leave zone z1"),
    ("aggregate delete full", 4, "aggregate full has 1 node: n1"),
    ("aggregate delete rack1 --force", 4, "node n1 cannot leave zone z1"),
    ("aggregate delete full rack1", 2, "--yes"),
    ("server-group create g --policy near", 2, "there is no policy 'near'"),
    ("server-group create g", 2, "--policy"),
    ("server-group create g --policy affinity --max-per-host 2", 2, "--max-per-host belongs to anti-affinity"),
    ("server-group create g --policy anti-affinity --max-per-host 0", 2, "--max-per-host"),
    ("server-group create g --policy anti-affinity --scope 'a b'", 2, "not the name of a node label"),
    ("server-group create web --policy affinity", 4, "server-group 'web' exists already"),
    ("server-group create g --policy affinity --project nobody", 3, "no project 'nobody'"),
    ("server-group create g --policy affinity --project shop", 8, "quota groups of project shop: 0 of 0 used, 1 more asked"),
    ("server-group delete web", 4, "server group web has 1 member: web1"),
    ("project create shop", 4, "project 'shop' exists already"),
    ("project create default", 4, "project 'default' exists already"),
    ("project delete default --yes", 4, "the default project cannot be deleted"),
    ("project set shop", 2, "--description"),
    ("quota set shop", 2, "no limit is given"),
    ("quota set servers=1", 2, "name a project first"),
    ("quota set --default", 2, "Missing argument"),
    ("quota set shop servers", 2, "'servers' is not KEY=VALUE"),
    ("quota set shop serverz=1", 2, "one of servers, cores, ram, disk"),
    ("quota set shop servers=-2", 2, "a whole number, unlimited, or default"),
    ("quota set shop ram=much", 2, "write '512M'"),
    ("quota set default servers=0", 4, "project default uses 1 of servers, the limit would be 0"),
    ("quota set --default servers=0", 4, "project default uses 1 of servers, the limit would be 0"),
    ("quota set nobody servers=1", 3, "no project 'nobody'"),
    ("quota show nobody", 3, "no project 'nobody'"),
    ("node set n1", 2, "nothing to set"),
    ("node set n1 --cpu-ratio 0", 2, "'0' is not a ratio"),
    ("node set n1 --cpu-ratio=-2", 2, "'-2' is not a ratio"),
    ("node set n1 --ram-ratio 1.2345", 2, "finer than thousandths"),
    ("node set n1 --disk-ratio lots", 2, "'lots' is not a ratio"),
    ("node set n1 --reserved-ram 17G", 2, "node n1: 17.0 GiB reserved is more than the 16.0 GiB it has of MEMORY_MB"),
    ("node set n1 --reserved-disk 101", 2, "101 GiB reserved is more than the 100 GiB"),
    ("node set n1 --reserved-cpus -1", 2, "--reserved-cpus"),
    ("node set n1 --inventory GPU=1", 2, "there is no resource class 'GPU'"),
    ("node set n1 --inventory MEMORY_MB=1", 2, "how much MEMORY_MB a node has is what its agent reports"),
    ("node set n1 --inventory CUSTOM_GPU=2,reserved=3", 2, "3 reserved is more than the total of 2"),
    ("node set n1 --trait AVX2", 2, "there is no trait 'AVX2'"),
    ("node set n1 --zone z2", 4, "node n1 would be in two zones: z2 (the node itself) and z1 (aggregate rack1)"),
    ("node set n1 --dedicated-cpus 6-9", 2, "node n1 has no CPU 8-9"),
    ("node set n1 --dedicated-cpus x", 2, "'x' is not a CPU number"),
    ("node unset n1", 2, "nothing to take away"),
    ("node unset n1 --inventory CUSTOM_GPU", 4, "node n1: CUSTOM_GPU is in use, 1 of it is claimed"),
    ("node unset n1 --inventory VCPU", 2, "its agent reports"),
    ("flavor create f --ram 1G --property gpu=1", 2, "a key needs a scope: capabilities:gpu"),
    ("flavor create f --ram 1G --property capabilities:gpu=1", 2, "there is no capability 'gpu'"),
    ("flavor create f --ram 1G --property 'capabilities:free_ram_mb=>> 1'", 2, "'>>' is no operator"),
    ("flavor create f --ram 1G --property resources:GPU=1", 2, "there is no resource class 'GPU'"),
    ("flavor create f --ram 1G --property trait:AVX=required", 2, "there is no trait 'AVX'"),
    ("flavor create f --ram 1G --property trait:CUSTOM_A=yes", 2, "required or forbidden, not 'yes'"),
    ("flavor set db", 2, "nothing to set"),
    ("flavor set db --property hw:numa_nodes=3", 2, "cannot be shared out equally"),
    ("flavor unset db", 2, "--property"),
    ("image set guest --property license=x", 2, "a property of your own begins with custom_"),
    ("image set guest --property hw_architecture=s390x", 2, "image guest is x86_64"),
    ("image set guest", 2, "--property"),
    ("keypair create k --private-key /nowhere/k", 2, "cannot write /nowhere/k"),
    ("keypair list --project nobody", 3, "no project 'nobody'"),
    ("cluster set", 2, "nothing to set"),
]


@pytest.mark.parametrize("line,status,said", BAD, ids=[line for line, _, _ in BAD])
def test_a_wrong_line_is_told_what_is_wrong(prompt: Prompt, line: str, status: int, said: str) -> None:
    """Each is refused with its exit status and a sentence; stdout stays empty and nothing changes (see the fixture)."""
    ran = prompt.run(*shlex.split(line))
    assert (ran.status, ran.out) == (status, "")
    assert said in ran.err


def test_a_day_with_the_new_nouns(fresh: World) -> None:
    """What an admin types from an empty rack to a shop with quotas; each line can be repeated where its verb says so."""
    prompt = Prompt(fresh.env)

    def run(line: str) -> str:
        ran = prompt.run(*shlex.split(line))
        assert ran.status == 0, ran.err
        return ran.out

    run("aggregate create rack1 --zone z1 --property ssd=true")
    for _ in range(2):
        assert run("aggregate add-node rack1 n1 n2 -c name,zone,size,nodes --no-headers") == "rack1\tz1\t2\tn1,n2\n"
        run("aggregate set rack1 --property ssd=false")
        run("node set n1 n2 --inventory CUSTOM_GPU=4,max=2 --trait CUSTOM_NVLINK --label rack=r1 --cpu-ratio 2.5 --reserved-ram 4G")
    assert run("zone list --no-headers") == "z1\t2\t0\track1\n"
    assert run("resource-class list --no-headers").splitlines()[-1] == "CUSTOM_GPU\tcustom\t2\t8\t8\t0"
    assert "CUSTOM_NVLINK\t2\tcustom" in run("trait list")
    assert "VCPU: total 8, reserved 0, ratio 2.5; used 0 of 20, free 20" in run("node show n1 --cached -o table")
    run("flavor create gpu1 --ram 4G --property resources:CUSTOM_GPU=1 --property trait:CUSTOM_NVLINK=required --description 'one GPU'")
    run("flavor set gpu1 --property 'aggregate_instance_extra_specs:ssd=false'")
    assert run("flavor show gpu1 -o tsv").count("resources:CUSTOM_GPU=1") == 1
    run("image set guest --property os_distro=debian")
    run("project create shop --description 'web shop'")
    run("quota set --default servers=10 cores=40")
    out = run("quota set shop servers=2 ram=8G cores=default -o csv")
    assert "servers,0,2,project\ncores,0,40,default\nram_mb,0,8192,project\n" in out
    assert "ram_mb 0 MiB 8.0 GiB project" in " ".join(run("quota show shop -o table").split())
    run("server-group create web --policy anti-affinity --scope rack --max-per-host 2 --project shop")
    assert run("server-group list --project shop -o name") == "web\n"
    run("cluster set --n-plus-1")
    assert '"n_plus_1": true' in run("cluster show -o json")
    for line in (
        "server-group delete web", "project delete shop", "node unset n1 n2 --inventory CUSTOM_GPU --trait CUSTOM_NVLINK --label rack",
        "aggregate delete rack1 --force", "aggregate ls", "flavor rm gpu1",
    ):
        run(line)
    assert run("zone list --no-headers") == ""


def test_a_warning_goes_to_the_person(fresh: World) -> None:
    """Setting less than is in use works, says so on stderr, and in JSON the numbers tell; a dry run says that it was one."""
    prompt = Prompt(fresh.env)
    put_server(fresh, "web", "n1", amounts={"VCPU": 8})
    tried = prompt.run("node", "set", "n1", "--cpu-ratio", "0.5", "--dry-run")
    assert tried.status == 0 and "warning: node n1: 8 of VCPU in use, of 4" in tried.err and "dry run: nothing was changed" in tried.err
    ran = prompt.run("node", "set", "n1", "--cpu-ratio", "0.5", "-o", "json")
    vcpu = ran.json["inventories"][0]
    assert ran.status == 0 and ran.err == "" and (vcpu["capacity"], vcpu["used"], vcpu["free"]) == (4, 8, -4)
    several = prompt.run("node", "set", "n1", "n2", "--label", "rack=r1")
    assert several.status == 0 and several.out.count("\ttrue\t") == 2 and "2 ok, 0 failed" in several.err
