import pytest

from novactl.enroll.shell import LocalShell
from novactl.errors import EnrolFailed, Unreachable

HOSTILE = ["; touch hacked", "$(touch hacked)", "`touch hacked`", "' ; touch hacked '", "--help", "a\nb", "*", "\\", '"']


def test_arguments_are_never_shell() -> None:
    """What is passed as an argument comes out as it went in, whatever a shell would make of it."""
    shell = LocalShell()
    printed = shell.run('for a; do printf "%s\\0" "$a"; done | od -An -v -tx1', args=HOSTILE).stdout
    assert bytes.fromhex(printed).decode().split("\0")[:-1] == HOSTILE
    assert shell.run(["printf", "%s", HOSTILE[1]]).stdout == HOSTILE[1]


def test_a_failing_command_is_an_answer() -> None:
    """`run` returns the status and what was said; `must` raises with it."""
    output = LocalShell().run("echo why >&2; exit 3")
    assert (output.status, output.ok, output.stderr) == (3, False, "why\n")
    with pytest.raises(EnrolFailed, match="trying it on this machine failed") as failed:
        LocalShell().must("trying it", "echo why >&2; exit 3")
    assert failed.value.reasons == ("why",)


def test_a_command_that_hangs_is_left() -> None:
    """After its time it is Unreachable, not for ever."""
    with pytest.raises(Unreachable, match="within 0.2 s"):
        LocalShell().run(["sleep", "30"], timeout_s=0.2)


def test_a_file_is_replaced_whole(tmp_path) -> None:
    """`put` writes content and mode, makes the folder, and leaves nothing beside it."""
    target = tmp_path / "new folder" / "it's.txt"
    shell = LocalShell()
    shell.put(b"one\x00", str(target), 0o640)
    shell.put(b"two\xff" * 100_000, str(target), 0o600)
    assert target.read_bytes() == b"two\xff" * 100_000
    assert target.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in target.parent.iterdir()] == ["it's.txt"]


def test_the_log_has_no_input() -> None:
    """What is sent to a command's input is not written to the log."""
    lines: list[str] = []
    LocalShell(lines.append).run("cat >/dev/null", input=b"s3cret", args=["shown"])
    assert lines and "shown" in lines[0] and "s3cret" not in "".join(lines)
