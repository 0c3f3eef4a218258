"""What a caller may rely on in a server's life, whichever driver is behind it."""

import dataclasses
import uuid
from pathlib import Path

from nodeagent import wire
from nodeagent.drivers.base import Mark
from nodeagent.drivers.fake import _Guest
from nodeagent.wire import Code, DomainRef, Stop
from tests.contract.kit import ISO, Node, until


def ref(spec: wire.DomainSpec) -> DomainRef:
    return DomainRef(spec.server, spec.epoch)


def power(node: Node, server: str) -> str:
    return node.ok("domain.state", DomainRef(server)).power_state


def test_a_server_lives(node: Node) -> None:
    """Defined is off; started is running; stopped is off; undefined is absent."""
    spec = node.define(node.put_image())
    seen = [power(node, spec.server)]
    seen.append(node.ok("domain.start", ref(spec)).power_state)
    seen.append(node.ok("domain.stop", Stop(spec.server, 1, 5.0)).power_state)
    node.ok("domain.undefine", ref(spec))
    seen.append(power(node, spec.server))
    assert seen == ["SHUTDOWN", "RUNNING", "SHUTDOWN", "ABSENT"]


def test_state_says_what_was_asked_for(node: Node) -> None:
    """A state carries the spec's name, sizes and epoch, and the operation that defined it; list and report say the same."""
    spec = node.define(node.put_image(), name="db.7", vcpus=2, memory_mb=96, epoch=3)
    state = node.ok("domain.state", DomainRef(spec.server))
    assert (state.name, state.vcpus, state.memory_mb, state.epoch, state.operation) == ("db.7", 2, 96, 3, node.operation)
    assert node.ok("domain.list").domains == (state,)
    assert node.ok("inventory.read", wire.InventoryRead(0)).domains == (state,)


def test_every_verb_may_come_again(node: Node) -> None:
    """Each mutation succeeds a second time under another request id and leaves what the first left."""
    spec = node.define(node.put_image())
    for _ in range(2):
        node.ok("domain.define", spec)
    for _ in range(2):
        assert node.ok("domain.start", ref(spec)).power_state == "RUNNING"
    for _ in range(2):
        assert node.ok("domain.destroy", ref(spec)).power_state == "SHUTDOWN"
    for method in ("domain.undefine", "disk.delete", "seed.delete"):
        for _ in range(2):
            node.ok(method, ref(spec))
    assert node.ok("domain.list").domains == ()


def test_what_is_absent_counts_as_deleted(node: Node) -> None:
    """Destroying and deleting a server that never was succeeds; starting it is refused as not found."""
    unknown = DomainRef(str(uuid.uuid4()), 1)
    for method in ("domain.destroy", "domain.undefine", "disk.delete", "seed.delete"):
        node.ok(method, unknown)
    for method, args in (("domain.start", unknown), ("domain.stop", Stop(unknown.server, 1)), ("console.log", unknown)):
        assert node.refusal(method, args).code == Code.NOT_FOUND


def test_a_running_server_keeps_its_domain_and_disk(node: Node) -> None:
    """While it runs, undefine and disk.delete are refused and it runs on."""
    spec = node.define(node.put_image())
    node.ok("domain.start", ref(spec))
    assert node.refusal("domain.undefine", ref(spec)).code == Code.CONFLICT
    assert node.refusal("disk.delete", ref(spec)).code == Code.CONFLICT
    assert power(node, spec.server) == "RUNNING"


def test_reboot_is_another_run(node: Node) -> None:
    """After a reboot, soft or hard, the guest runs, and in another run than before."""
    spec = node.define(node.put_image())
    node.ok("domain.start", ref(spec))
    for hard in (False, True):
        before = node.agent.driver.run_id(spec.server)
        assert node.ok("domain.reboot", wire.Reboot(spec.server, 1, hard, 5.0)).power_state == "RUNNING"
        assert node.agent.driver.run_id(spec.server) not in (before, "")


def test_a_reboot_that_was_done_is_not_done_again(node: Node) -> None:
    """Killed between a reboot's effect and its answer, the agent does not reboot again when asked again."""
    spec = node.define(node.put_image())
    node.ok("domain.start", ref(spec))
    request = node.request("domain.reboot", wire.Reboot(spec.server, 1, True))
    record, node.agent.ledger.record = node.agent.ledger.record, lambda *_: None
    node.ask(request)
    node.agent.ledger.record = record
    run = node.agent.driver.run_id(spec.server)
    assert node.ask(request)[0].kind == wire.RESULT
    assert node.agent.driver.run_id(spec.server) == run


def test_a_restarted_agent_finds_its_servers(node: Node) -> None:
    """Specs come back from the domains themselves; running guests are left alone."""
    first, second = (node.define(node.put_image(), name=name) for name in ("one", "two"))
    node.ok("domain.start", ref(first))
    if node.config.driver == "fake":  # libvirt's test driver forgets with its last connection
        node.restart()
    else:
        node.agent.driver._specs.clear()
    assert sorted(node.agent.driver.specs(), key=lambda spec: spec.name) == [first, second]
    assert [state.power_state for state in sorted(node.ok("domain.list").domains, key=lambda s: s.name)] == ["RUNNING", "SHUTDOWN"]


def test_the_node_counts_for_itself(node: Node) -> None:
    """A domain that would pass the limits of node.prepare is refused with the numbers; redefining one counts it once."""
    node.prepare(VCPU=3, MEMORY_MB=1000)
    sha256 = node.put_image()
    spec = node.define(sha256, vcpus=2)
    node.ok("domain.define", spec)
    failure = node.refusal("domain.define", node.spec(sha256, vcpus=2))
    assert (failure.code, failure.elsewhere, failure.retryable) == (Code.NO_FIT, True, False)
    assert failure.message == "VCPU: needs 2, has 1 of 3 (2 used)"
    assert node.refusal("domain.define", node.spec(sha256, memory_mb=937)).message == "MEMORY_MB: needs 937, has 936 of 1000 (64 used)"
    assert len(node.ok("domain.list").domains) == 1


def test_unprepare_waits_for_the_servers(node: Node) -> None:
    """With a server left, unprepare is refused and names it; without, it leaves no image behind."""
    spec = node.define(node.put_image(), name="last")
    failure = node.refusal("node.unprepare")
    assert failure.code == Code.CONFLICT and "last" in failure.message
    for method in ("domain.undefine", "disk.delete", "seed.delete"):
        node.ok(method, ref(spec))
    node.ok("node.unprepare")
    assert list(node.pool.iterdir()) == []
    node.prepare()


def test_a_disk_in_use_is_not_made_anew(node: Node) -> None:
    """disk.create keeps the disk of a defined domain; one without a domain was never acknowledged and is made anew."""
    sha256 = node.put_image()
    spec = node.spec(sha256)
    for _ in range(2):
        node.ok("disk.create", wire.DiskSpec(spec.server, 1, sha256, 1))
    node.ok("domain.define", spec)
    node.ok("disk.create", wire.DiskSpec(spec.server, 1, sha256, 2))
    assert node.agent.driver.image_users(sha256) == [spec.server]


def test_a_disk_of_an_older_epoch_is_made_anew(node: Node) -> None:
    """What was left of a server while it was elsewhere is not taken for its disk: it goes with its domain, unless that runs."""
    sha256 = node.put_image()
    spec = node.define(sha256)
    disk = node.pool / f"disk-{spec.server}.qcow2"
    disk.write_text("data of last year")
    node.ok("domain.start", ref(spec))
    later = wire.DiskSpec(spec.server, 2, sha256, 1)
    assert node.refusal("disk.create", later).code == Code.CONFLICT and disk.read_text() == "data of last year"
    node.ok("domain.destroy", DomainRef(spec.server, 2))
    node.ok("disk.create", later)
    assert node.agent.driver.spec(spec.server) is None
    assert not disk.exists() or disk.read_text() != "data of last year"
    node.ok("domain.define", dataclasses.replace(spec, epoch=2))
    disk.write_text("its own")
    node.ok("disk.create", later)
    assert disk.read_text() == "its own"


def test_an_image_under_a_disk_stays(node: Node) -> None:
    """image.delete is refused while a disk is an overlay on it, and works when the disk is gone."""
    spec = node.define(node.put_image())
    failure = node.refusal("image.delete", wire.ImageRef(spec.image_sha256))
    assert failure.code == Code.CONFLICT and spec.server in failure.message
    for method in ("domain.undefine", "disk.delete", "seed.delete"):
        node.ok(method, ref(spec))
    node.ok("image.delete", wire.ImageRef(spec.image_sha256))
    assert node.ok("image.list").images == ()


def test_without_the_image_there_is_no_disk(node: Node) -> None:
    """Disk and domain on an image that is not here are refused as not found, to be tried again after it came."""
    spec = node.spec("0" * 64)
    for method, args in (("disk.create", wire.DiskSpec(spec.server, 1, "0" * 64, 1)), ("domain.define", spec)):
        failure = node.refusal(method, args)
        assert (failure.code, failure.retryable) == (Code.NOT_FOUND, True)


def test_what_goes_off_says_why(node: Node) -> None:
    """Off by itself, powered off, died: each is told apart; one that has not run yet has no reason, nor one that runs."""
    spec = node.define(node.put_image())
    seen = [node.ok("domain.state", DomainRef(spec.server)).reason]
    node.ok("domain.start", ref(spec))
    seen.append(node.ok("domain.state", DomainRef(spec.server)).reason)
    node.agent.driver.shut_down(spec.server)
    until(lambda: power(node, spec.server) == "SHUTDOWN")
    seen.append(node.ok("domain.list").domains[0].reason)
    node.ok("domain.start", ref(spec))
    node.ok("domain.destroy", ref(spec))
    seen.append(node.ok("inventory.read", wire.InventoryRead(0)).domains[0].reason)
    assert seen == ["", "", "shutdown", "destroyed"]


def test_who_started_a_run_is_known(node: Node) -> None:
    """A run that the agent started is told as its own; one that somebody else started on the host is not."""
    spec = node.define(node.put_image())
    started = node.ok("domain.start", ref(spec))
    assert started.run and started.started_by_us and node.ok("domain.list").domains == (started,)
    node.agent.driver.destroy(spec.server)
    node.agent.driver.start_domain(spec.server)
    (strange,) = node.ok("domain.list").domains
    assert strange.run not in ("", started.run) and not strange.started_by_us
    rebooted = node.ok("domain.reboot", wire.Reboot(spec.server, 1, True))
    assert rebooted.started_by_us and node.ok("domain.list").domains[0].started_by_us


def test_domains_come_in_pages(node: Node) -> None:
    """Each page begins where the one before ended; together they are all, in the order of ids, and the last says that it is."""
    sha256 = node.put_image()
    servers = sorted(node.define(sha256, mac=f"52:54:00:00:00:0{number}").server for number in range(3))
    page, found = node.ok("domain.list", wire.Page(limit=2)), []
    assert page.next == servers[1]
    found += page.domains
    page = node.ok("domain.list", wire.Page(page.next, 2))
    assert page.next == ""
    assert [state.server for state in (*found, *page.domains)] == servers
    assert node.ok("domain.list").next == "" and len(node.ok("domain.list").domains) == 3


def test_files_without_a_domain_are_told(node: Node) -> None:
    """Ids of servers of which the pool has a seed or a disk, but the node no domain; other files are nobody's."""
    spec = node.define(node.put_image())
    stray, (other, third) = str(uuid.uuid4()), (str(uuid.uuid4()), str(uuid.uuid4()))
    node.ok("seed.write", DomainRef(stray, 1), ISO)
    (node.pool / f"disk-{other}.qcow2.part").write_bytes(b"")
    (node.pool / f"disk-{third}.raw").write_bytes(b"")
    assert node.ok("inventory.read", wire.InventoryRead(0)).files == tuple(sorted((stray, other)))
    node.ok("seed.delete", DomainRef(stray, 1))
    (node.pool / f"disk-{other}.qcow2.part").unlink()
    (node.pool / f"disk-{third}.raw").unlink()
    assert node.ok("inventory.read", wire.InventoryRead(0)).files == ()
    assert power(node, spec.server) == "SHUTDOWN"


def test_others_domains_are_listed(tmp_path: Path) -> None:
    """What is not ours is told by name with its particulars, however odd its name is, and never more than a message bears."""
    plain = [{"name": f"vm{n:04}", "uuid": str(uuid.uuid4()), "power_state": "RUNNING", "vcpus": 2, "memory_mb": 64} for n in range(200)]
    nodes = [Node(tmp_path, fake={"wild": plain})]
    report = nodes[0].ok("inventory.read", wire.InventoryRead(0))
    assert report.foreign_domains == 200 and len(report.wild) == 64 and report.wild[0] == wire.WildDomain(**plain[0])
    nodes[0].down()
    (tmp_path / "lv").mkdir()
    real = Node(tmp_path / "lv", driver="libvirt", architecture="i686")
    told = real.ok("inventory.read", wire.InventoryRead(0))  # libvirt's test driver has a domain of its own: "test"
    assert told.foreign_domains == len(told.wild) >= 1
    one = next(domain for domain in told.wild if domain.name == "test")
    assert (one.power_state, one.vcpus, one.memory_mb) == ("RUNNING", 2, 8192)
    real.down()


def test_a_node_of_many_servers_reports(tmp_path: Path) -> None:
    """Of 1,500 servers as many are in the report as fit, the others are counted, and pages have them all."""
    node = Node(tmp_path)
    spec = node.spec("5e" * 32, name="a-rather-long-name-of-a-server-as-they-come-in-practice")
    with node.agent.driver._lock:
        for _ in range(1500):
            one = dataclasses.replace(spec, server=str(uuid.uuid4()))
            node.agent.driver._guests[one.server] = _Guest(one, Mark(str(uuid.uuid4()), "r"), "RUNNING", 1)
    report = node.ok("inventory.read", wire.InventoryRead(0))
    assert report.domains_left == 1500 - len(report.domains) > 0
    found, after = list(report.domains), report.domains[-1].server
    while after:
        page = node.ok("domain.list", wire.Page(after))
        found += page.domains
        after = page.next
    assert [state.server for state in found] == sorted(node.agent.driver._guests)
    node.down()


def test_specs_come_as_they_were_given(node: Node) -> None:
    """domain.specs has all that the servers were defined from, in pages; image.list what is known of their images."""
    sha256 = node.put_image()
    given = sorted((node.define(sha256, name=f"s{n}", mac=f"52:54:00:00:00:0{n}", epoch=n + 1, flavor="tiny") for n in range(3)),
                   key=lambda spec: spec.server)
    page = node.ok("domain.specs", wire.Page(limit=2))
    assert (list(page.specs), page.next) == (given[:2], given[1].server)
    assert node.ok("domain.specs", wire.Page(page.next)) == wire.DomainSpecs((given[2],))
    assert node.ok("image.list").images == (wire.CachedImage(sha256, 1 << 20, "raw", 1 << 20),)


def strange(node: Node) -> tuple[str, str]:
    """UUID and name of a domain that is not ours: libvirt's test driver has one, the fake is given one."""
    if node.config.driver == "fake":
        plain = {"name": "test", "uuid": str(uuid.uuid4()), "power_state": "RUNNING", "vcpus": 2, "memory_mb": 8192}
        node.agent.driver._wild[plain["uuid"]] = plain
    (one,) = [domain for domain in node.ok("inventory.read", wire.InventoryRead(0)).wild if domain.name == "test"]
    return one.uuid, one.name


def test_a_strange_domain_is_taken_in_and_given_back(node: Node) -> None:
    """Adopted it is a server that runs on as it did, is listed and counted as one; released it is as it was before."""
    id_, name = strange(node)
    spec = dataclasses.replace(node.ok("domain.wild", DomainRef(id_)), epoch=3, name="taken")
    assert (spec.vcpus, spec.memory_mb, spec.adopted, spec.image_sha256) == (2, 8192, name, wire.NO_IMAGE)
    assert node.ok("domain.list").domains == () and node.refusal("domain.start", DomainRef(id_, 3)).code == Code.NOT_FOUND
    for _ in range(2):
        node.ok("domain.adopt", spec)
    (state,) = node.ok("domain.list").domains
    assert (state.server, state.name, state.power_state, state.epoch) == (id_, "taken", "RUNNING", 3)
    assert node.ok("domain.specs").specs == (spec,) and node.refusal("domain.wild", DomainRef(id_)).code == Code.NOT_FOUND
    report = node.ok("inventory.read", wire.InventoryRead(0))
    assert [domain.uuid for domain in report.wild] == [] and report.foreign_domains == 0
    run = node.agent.driver.run_id(id_)
    assert run
    node.ok("domain.define", dataclasses.replace(spec, epoch=4))
    assert node.ok("domain.list").domains[0].epoch == 4 and node.agent.driver.run_id(id_) == run
    for _ in range(2):
        node.ok("domain.release", DomainRef(id_, 4))
    assert node.ok("domain.list").domains == () and strange_again(node) == [(id_, name, "RUNNING")]


def strange_again(node: Node) -> list[tuple[str, str, str]]:
    return [(domain.uuid, domain.name, domain.power_state) for domain in node.ok("inventory.read", wire.InventoryRead(0)).wild]


def test_an_adopted_server_is_powered_as_any_other(node: Node) -> None:
    """Stopped, started and rebooted; what we made ourselves is neither adopted nor released."""
    id_, _ = strange(node)
    spec = dataclasses.replace(node.ok("domain.wild", DomainRef(id_)), epoch=1)
    node.ok("domain.adopt", spec)
    assert node.ok("domain.stop", Stop(id_, 1, 1.0)).power_state == "SHUTDOWN"
    assert node.ok("domain.start", DomainRef(id_, 1)).power_state == "RUNNING"
    assert node.ok("domain.reboot", wire.Reboot(id_, 1, True)).power_state == "RUNNING"
    own = node.define(node.put_image())
    assert node.refusal("domain.release", ref(own)).code == Code.CONFLICT
    node.ok("domain.release", DomainRef(id_, 1))
