"""Filters and weighers of installed packages: switched on by settings, named when they break, never a traceback."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from novactl import plugins
from novactl.config import Config, load_config
from novactl.errors import BadConfig, PluginFailed
from novactl.model.facts import Facts
from novactl.model.node import NodeState
from novactl.model.resources import DISK_GB, MEMORY_MB, VCPU, Inventory
from novactl.scheduler.fleet import Fleet
from novactl.scheduler.pipeline import pick, place
from novactl.scheduler.request import NodeView, Request
from tests.unit.cli_world import Prompt

EXAMPLE = Path(__file__).parents[2] / "examples" / "plugin"
NEW_YEAR_2031 = 1_924_992_000.0


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(env={"HOME": str(tmp_path)})


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages can be installed into."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for remembered in (plugins._load, plugins._configured):
        remembered.cache_clear()
    yield folder
    for remembered in (plugins._load, plugins._configured):
        remembered.cache_clear()


def install(site: Path, distribution: str, code: str, *, filters: str = "", weighers: str = "") -> None:
    """A package `distribution` 2.1 whose module, of the same name, holds `code`; `filters` and `weighers` are entry-point lines."""
    (site / f"{distribution}.py").write_text(dedent(code))
    info = site / f"{distribution}-2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.1\n")
    (info / "entry_points.txt").write_text(f"[novactl.filters]\n{filters}\n[novactl.weighers]\n{weighers}\n")
    importlib.invalidate_caches()
    sys.modules.pop(distribution, None)


def node(name: str, **labels: str) -> NodeView:
    return NodeView(
        id=name, name=name, state=NodeState.ENABLED, facts=Facts(architecture="x86_64", labels=labels), reported_at=NEW_YEAR_2031, used={},
        inventories={VCPU: Inventory(VCPU, 8), MEMORY_MB: Inventory(MEMORY_MB, 8192), DISK_GB: Inventory(DISK_GB, 100)})


REQUEST = Request(
    server="web1", amounts={VCPU: 1, MEMORY_MB: 1024, DISK_GB: 10}, architecture="x86_64", now=NEW_YEAR_2031)


# ---- the example


@pytest.fixture
def example(site: Path, tmp_path: Path) -> Path:
    """examples/plugin, installed by pip without a network."""
    shutil.copytree(EXAMPLE, tmp_path / "plugin")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index",
         "--no-build-isolation", "--target", str(site), str(tmp_path / "plugin")], check=True, capture_output=True)
    importlib.invalidate_caches()
    sys.modules.pop("novactl_example", None)
    return site


def test_the_example_places_servers(example: Path, config: Config) -> None:
    """Its filter rejects with its reason, its weigher ranks, after the settings have switched them on."""
    profile = plugins.configured(config.replace(placement__filters="+retiring", placement__weighers="price=-1"))
    nodes = [node("a", price="3"), node("b", price="2"), node("c", retire="2031-01-01"), node("d", retire="soon")]
    decision = place(REQUEST, nodes, profile)
    assert [c.node for c in decision.candidates] == ["b", "a"]
    assert decision.rejected["c"][0].text == "retiring: takes no servers since 2031-01-01"
    assert "retire=soon is no date" in decision.rejected["d"][0].text


def test_the_command_line_lists_and_tries_the_example(example: Path, tmp_path: Path) -> None:
    """`scheduler list`, `show` and `check` know where it comes from and whether it is in force."""
    prompt = Prompt({"HOME": str(tmp_path), "NOVACTL_PLACEMENT_FILTERS": "+retiring"})
    rows = {row["name"]: row for row in prompt.run("scheduler", "list", "-o", "json").json["items"]}
    assert (rows["retiring"]["enabled"], rows["price"]["enabled"]) == (True, False)
    assert rows["retiring"]["source"] == "novactl-example 1.0"
    shown = prompt.run("scheduler", "show", "price", "-o", "json").json
    assert shown["multiplier_key"] == "price_weight_multiplier" and shown["node"] == ["facts"]
    assert prompt.run("scheduler", "show", "retiring", "-o", "json").json["request"] == ["now"]
    checked = prompt.run("scheduler", "check", "-o", "json")
    found = {finding["check"]: finding for finding in checked.json["items"]}
    assert checked.status == 0 and found["filter retiring"]["detail"] == "novactl-example 1.0"
    assert found["weigher price"]["fix"] == "placement.weighers with +price puts it in force"


# ---- broken ones


def test_one_that_cannot_be_imported_is_named(site: Path, config: Config) -> None:
    """The message has plug-in, distribution, version and what went wrong."""
    install(site, "sad", "import no_such_module", filters="gpu = sad:gpu")
    with pytest.raises(BadConfig, match=r"filter 'gpu' of sad 2\.1 cannot be loaded from sad:gpu: ModuleNotFoundError: .*no_such"):
        plugins.configured(config.replace(placement__filters="+gpu"))
    assert plugins.configured(config).name == "default", "it harms nobody while it is not asked for"


@pytest.mark.parametrize(("code", "told"), [
    ("raise SystemExit(3)", "SystemExit: 3"), ("1/0", "ZeroDivisionError"), ("gpu = 7", "is no callable: 7"),
    ("class gpu: pass", "is no object"), ("", "AttributeError"),
])
def test_one_that_is_no_filter_is_refused(site: Path, config: Config, code: str, told: str) -> None:
    """At loading, before any node is looked at."""
    install(site, "sad", code, filters="gpu = sad:gpu")
    with pytest.raises(BadConfig, match=r"filter 'gpu' of sad 2\.1") as refused:
        plugins.configured(config.replace(placement__filters="+gpu"))
    assert told in refused.value.message


@pytest.mark.parametrize(("body", "told"), [
    ("raise KeyError('rack')", "KeyError: 'rack'"), ("return 7", "it returned 7, neither a Reject nor None"),
    ("return Reject('gpu', 7)", "neither a Reject nor None"),
])
def test_a_filter_that_fails_rejects(site: Path, config: Config, body: str, told: str) -> None:
    """The node is not taken on a broken filter's word, and the reason names the package."""
    install(site, "sad", f"""
        from novactl.scheduler.request import Reject
        def gpu(request, node):
            {body}
        """, filters="gpu = sad:gpu")
    decision = place(REQUEST, [node("a")], plugins.configured(config.replace(placement__filters="+gpu")))
    (reject,) = decision.rejected["a"]
    assert reject.code == "gpu" and reject.text.startswith("filter 'gpu' of sad 2.1 failed: ") and told in reject.text


@pytest.mark.parametrize("steady,asked", [(True, 5), (False, 8)])
def test_a_steady_filter_is_asked_again_of_what_changed(site: Path, config: Config, steady: bool, asked: int) -> None:
    """Two decisions among four nodes, a server taken in between: one that says so is asked of four and then of the one that changed."""
    install(site, "calm", f"""
        class Calm:
            name, steady, asked = "calm", {steady}, []
            def __call__(self, request, node):
                self.asked.append(node.id)
        calm = Calm()
        """, filters="calm = calm:calm")
    profile = plugins.profile(filters=["enabled", "calm"])
    fleet = Fleet.of([node(name) for name in "abcd"])
    for _ in range(2):
        assert pick(REQUEST, fleet, profile).chosen is not None
        fleet.take(2, REQUEST.amounts)
    assert len(sys.modules["calm"].calm.asked) == asked


@pytest.mark.parametrize(("body", "told"), [
    ("raise KeyError('rack')", "on node a: KeyError: 'rack'"), ("return None", "on node a: it returned None, no finite number"),
    ("return float('nan')", "it returned nan"),
])
def test_a_weigher_that_fails_is_an_error(site: Path, config: Config, body: str, told: str) -> None:
    """Which node is best is not known then: nothing is placed, and the message names the package."""
    install(site, "sad", f"def gpu(request, node):\n    {body}\n", weighers="gpu = sad:gpu")
    with pytest.raises(PluginFailed, match=r"weigher 'gpu' of sad 2\.1 failed: ") as failed:
        place(REQUEST, [node("a"), node("b")], plugins.configured(config.replace(placement__weighers="+gpu=1")))
    assert told in failed.value.message and failed.value.hint.endswith("placement.weighers with -gpu")


def test_two_packages_with_one_name(site: Path, config: Config) -> None:
    """Neither is taken; both are named."""
    install(site, "sad", "def gpu(request, node): pass", filters="gpu = sad:gpu")
    install(site, "glad", "def gpu(request, node): pass", filters="gpu = glad:gpu")
    with pytest.raises(BadConfig, match=r"'gpu' is given by 2 packages: \w+ 2\.1, \w+ 2\.1"):
        plugins.configured(config.replace(placement__filters="+gpu"))


def test_no_package_takes_a_built_in_ones_place(site: Path, config: Config) -> None:
    """A plug-in called like a built-in one is not looked at."""
    install(site, "sad", "1/0", filters="resources = sad:resources")
    assert place(REQUEST, [node("a")], plugins.configured(config.replace(placement__filters="resources"))).possible == 1
    assert not plugins.installed()


def test_check_tells_of_all_that_is_broken(site: Path, tmp_path: Path) -> None:
    """Exit 1 for one in force; one that is only installed is a warning."""
    install(site, "sad", "def gpu(request, node): return 1/0", filters="gpu = sad:gpu\nodd = sad:odd")
    prompt = Prompt({"HOME": str(tmp_path)})
    ran = prompt.run("scheduler", "check", "-o", "json", NOVACTL_PLACEMENT_FILTERS="+gpu")
    found = {finding["check"]: finding for finding in ran.json["items"]}
    assert ran.status == 1 and found["filter gpu"]["verdict"] == "fail" and "sad 2.1" in found["filter gpu"]["detail"]
    assert found["filter odd"]["verdict"] == "warn" and prompt.run("scheduler", "check").status == 0
    ran = prompt.run("scheduler", "check", "-o", "json", NOVACTL_PLACEMENT_FILTERS="+odd")
    assert ran.status == 1 and ran.json["items"][0]["check"] == "settings"
    assert "AttributeError" in prompt.run("scheduler", "list").out
    shown = prompt.run("scheduler", "show", "odd")
    assert shown.status == 2 and "Traceback" not in shown.err


# ---- settings


@pytest.mark.parametrize(("text", "names"), [
    ("", ["enabled", "zone"]), ("zone", ["zone"]), ("+fresh", ["enabled", "zone", "fresh"]), ("-zone, +alive", ["enabled", "alive"]),
    ("+zone", ["enabled", "zone"]), ("zone,zone", ["zone"]),
])
def test_filters_are_a_list_or_changes(text: str, names: list[str]) -> None:
    """Names without a sign replace the profile's; with signs they change it."""
    from novactl.scheduler.settings import filter_names

    assert filter_names(text, ["enabled", "zone"]) == names


@pytest.mark.parametrize(("text", "multipliers"), [
    ("", {"balance": 1.0}), ("servers=-2", {"servers": -2.0}), ("+servers=-2", {"balance": 1.0, "servers": -2.0}),
    ("+balance=3", {"balance": 3.0}), ("-balance,+chance=0.5", {"chance": 0.5}),
])
def test_weighers_are_a_list_or_changes(text: str, multipliers: dict[str, float]) -> None:
    """As with filters, each with its multiplier."""
    from novactl.scheduler.settings import weigher_multipliers

    assert weigher_multipliers(text, {"balance": 1.0}) == multipliers


@pytest.mark.parametrize(("setting", "text", "told", "accepted"), [
    ("filters", "+fresh,zone", "mixes a whole list with changes", "or none"),
    ("filters", "-nonesuch", "takes away filter 'nonesuch', which the profile does not have", "enabled"),
    ("filters", "nonesuch", "filter 'nonesuch' is not known", "resources"),
    ("weighers", "balance", "'balance' is not understood", "ram=1.0"),
    ("weighers", "balance=much", "balance=much: is not a number", "ram=1.0"),
    ("weighers", "balance=inf", "is not a finite number", "ram=1.0"),
    ("weighers", "balance=1,balance=2", "names balance twice", "ram=1.0"),
    ("weighers", "+nonesuch=1", "weigher 'nonesuch' is not known", "balance"),
    ("profile", "nonesuch", "profile 'nonesuch' is not known", "pack"),
    ("metrics", "heat=1", "'heat' is not measured", "load_1m"),
    ("pci_aliases", "gpu=nvidia", "four hexadecimal digits", "10de:1db4"),
    ("image_properties", "os_distro", "'os_distro' is not understood", "NAME=NUMBER"),
])
def test_what_settings_accept(config: Config, setting: str, text: str, told: str, accepted: str) -> None:
    """A bad value is refused with its name and what is accepted."""
    changed = config.replace(**{f"placement__{setting}": text})
    with pytest.raises(BadConfig) as refused:
        plugins.configured(changed)
        plugins.rules(changed)
    assert told in refused.value.message and accepted in refused.value.hint


def test_rules_come_from_settings(config: Config) -> None:
    """Every rule has its setting; the defaults are Nova's."""
    made = plugins.rules(config.replace(
        placement__max_servers=7, placement__isolated_images="win, bsd", placement__metrics="load_1m=-1.5",
        placement__pci_aliases="gpu=10DE:1db4,nic=0x8086:0x10fb", placement__restrict_isolated=False))
    assert made.max_servers == 7 and made.max_io_ops == 8 and made.isolated_images == {"win", "bsd"} and not made.restrict_isolated
    assert made.metrics == {"load_1m": -1.5} and made.pci_aliases == {"gpu": ("10de", "1db4"), "nic": ("8086", "10fb")}
    assert plugins.rules(config) == type(made)()


def test_chance_settings_reach_the_profile(config: Config) -> None:
    """`host_subset_size` and `shuffle_equals` change any profile; without them it is the built-in one itself."""
    made = plugins.configured(config.replace(placement__host_subset_size=3, placement__shuffle_equals=True))
    assert (made.host_subset_size, made.shuffle_equals) == (3, True)
    assert plugins.configured(config) is plugins.PROFILES["default"]


def test_switches_in_the_environment(tmp_path: Path) -> None:
    """A yes-or-no setting is read from its words, not from being there."""
    env = {"HOME": str(tmp_path), "NOVACTL_PLACEMENT_SHUFFLE_EQUALS": "off", "NOVACTL_PLACEMENT_RESTRICT_ISOLATED": "No"}
    read = load_config(env=env)
    assert read["placement.shuffle_equals"] is False and read["placement.restrict_isolated"] is False
    with pytest.raises(BadConfig, match="NOVACTL_PLACEMENT_SHUFFLE_EQUALS: 'maybe' is neither true nor false"):
        load_config(env={**env, "NOVACTL_PLACEMENT_SHUFFLE_EQUALS": "maybe"})
