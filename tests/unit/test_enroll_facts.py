from novactl.enroll import facts
from novactl.enroll.shell import LocalShell, Output
from tests.unit.enroll_machines import CONTAINER, DEBIAN, READY, machine


def test_this_machine_answers_every_question() -> None:
    """The script runs on a real machine and says at least what every machine has."""
    found = facts.gather(LocalShell())
    assert found.machine and found.hostname and found.clock_s > 1.6e9
    assert set(found.free_kib) == set(facts.SPACE)
    assert "python3" in found.programs and found.python >= (3, 9)


def test_an_empty_answer_is_a_machine_with_nothing() -> None:
    """Sections that are missing are facts that are not so, never an exception."""
    found = facts.parse("")
    assert (found.machine, found.python, found.systemd, found.installed.config) == ("", (), False, "")


def test_os_release_with_and_without_quotes() -> None:
    """ID and ID_LIKE are found whatever their quotes."""
    found = machine(DEBIAN, os="ID='ubuntu'\nID_LIKE=debian\nPRETTY_NAME=\"Ubuntu 24.04 LTS\"")
    assert (found.os_ids, found.os_name) == (("ubuntu", "debian"), "Ubuntu 24.04 LTS")


def test_units_of_systemd() -> None:
    """A unit is active, known and started at boot only as systemctl says."""
    found = machine(READY)
    assert "libvirtd.socket" in found.active_units and "nodeagent.service" not in found.active_units
    assert found.libvirt_running and not found.installed.at_boot


def test_ports_that_are_listened_on() -> None:
    """The port of a /proc/net/tcp line is hexadecimal, in IPv4 and IPv6 alike."""
    six = "1: 00000000000000000000000000000000:1E56 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000"
    assert machine(DEBIAN, ports=DEBIAN["ports"] + "\n" + six).listening == {22, 7766}


def test_firewalls() -> None:
    """ufw, firewalld and an inet filter chain that drops are active firewalls; a chain that accepts all is none."""
    open_chain = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\t}\n}"
    assert machine(DEBIAN, firewall="Status: active").firewall == "ufw"
    assert machine(DEBIAN, firewall="firewalld running").firewall == "firewalld"
    assert machine(DEBIAN, firewall=open_chain).firewall == ""
    assert machine(DEBIAN, firewall=open_chain.replace("accept", "drop")).firewall == "nft"
    assert machine(DEBIAN, firewall="").firewall == ""


def test_files_are_read_whole() -> None:
    """A file's text comes back byte for byte, with its last newline."""
    text = '{\n "node_id": "x"\n}\n'
    assert machine(CONTAINER, config=text).installed.config == text


def test_the_agent_that_is_installed() -> None:
    """The folder `current` points at, and the checksum of what is in it."""
    digest = "a" * 64
    found = machine(CONTAINER, agent=f"/opt/novactl/agent/0.1.0-abc\n{digest}  /opt/novactl/agent/current/nodeagent.pyz").installed
    assert (found.current, found.sha256) == ("0.1.0-abc", digest)


def test_what_a_machine_says_cannot_drive_the_terminal() -> None:
    """Control characters in a machine's answer are shown, not obeyed."""
    assert Output.of(0, b"a\x1b[2Jb\n\tc\r", b"\x07").stdout == "a?[2Jb\n\tc?"
