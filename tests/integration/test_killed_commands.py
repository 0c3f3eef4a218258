"""The command line killed with SIGKILL in the middle of its work: the next command cleans up."""

import subprocess
import time

import pytest

from tests.lab.fleet import PATIENCE_S, Fleet, until

STEPS = ("place", "image", "disk", "seed", "define", "start")


def kill_at(fleet: Fleet, words: tuple[str, ...], step: str) -> bool:
    """Run `novactl words` and SIGKILL it once its operation has begun `step`. False if it ended by itself first."""
    last = fleet.rows("SELECT coalesce(max(rowid), 0) FROM operation")[0][0]
    running = fleet.begin(*words)
    try:
        with fleet.database() as database:
            query = ("SELECT 1 FROM operation_step s JOIN operation o ON o.id = s.operation_id "
                     "WHERE o.rowid > ? AND s.name = ? LIMIT 1")
            deadline = time.monotonic() + PATIENCE_S
            while running.poll() is None and time.monotonic() < deadline:
                if database.execute(query, (last, step)).fetchone():
                    break
        alive = running.poll() is None
    finally:
        running.kill()
        running.communicate()
    return alive


@pytest.mark.parametrize("step", STEPS)
def test_create_killed(fleet: Fleet, step: str) -> None:
    """Killed in any step of a create, the next command leaves no domain, disk, claim or operation, and the name is free."""
    create_killed(fleet, step)
    assert nothing_left(fleet)
    assert all(host.domains() == {} for host in fleet.lab.hosts)
    assert fleet.create("web1")["status"] == "ACTIVE"


def create_killed(fleet: Fleet, step: str, *words: str) -> None:
    """Nobody looks all the time on a machine that has much to do: where the command was faster, it is given again."""
    for _ in range(5):
        if kill_at(fleet, ("server", "create", "web1", "--flavor", "tiny", "--image", "guest", *words), step):
            return
        fleet.novactl("server", "delete", "web1", "--yes")
    raise AssertionError(f"it ended before {step}")


def nothing_left(fleet: Fleet) -> bool:
    """One more command: no server is there, and nothing stays of any, also where it leaves the rest of that to the background."""
    fleet.novactl("server", "list")
    until(lambda: not fleet.rows("SELECT 1 FROM server WHERE deleted_at IS NULL") and fleet.leftovers() == {}, "nothing is left")
    return all(host.domains() == {} for host in fleet.lab.hosts)


def delete_steps(fleet: Fleet) -> list[str]:
    """The names of a delete's steps, as the last one left them in the journal."""
    found = fleet.rows(
        "SELECT s.name FROM operation_step s WHERE s.operation_id = "
        "(SELECT id FROM operation WHERE kind = 'server.delete' AND state = 'ok' ORDER BY created_at DESC LIMIT 1) ORDER BY s.position")
    return [name for (name,) in found]


def test_delete_killed(fleet: Fleet) -> None:
    """Killed in any step of a delete, the next command ends it: no domain, disk, claim, operation or server is left."""
    fleet.create("web0")
    fleet.novactl("server", "delete", "web0", "--yes")
    steps = delete_steps(fleet)
    assert len(steps) >= 3
    for number, step in enumerate(steps):
        fleet.create(f"web{number}")
        kill_at(fleet, ("server", "delete", f"web{number}", "--yes"), step)
        assert nothing_left(fleet), step


def test_killed_and_the_cleaner_killed_too(fleet: Fleet) -> None:
    """The command that cleans up may be killed as well: the one after it ends the work."""
    create_killed(fleet, "start")
    cleaner = fleet.begin("server", "list")
    until(lambda: cleaner.poll() is not None or fleet.rows(
        "SELECT 1 FROM operation_step WHERE state = 'undone' AND operation_id = "
        "(SELECT id FROM operation ORDER BY created_at DESC LIMIT 1)"), "the cleaner is at work")
    cleaner.kill()
    cleaner.communicate()
    assert nothing_left(fleet)


def test_killed_while_its_node_is_gone(fleet: Fleet) -> None:
    """What a dead command left on a node that is cut off is cleaned by the first command after the node is back."""
    create_killed(fleet, "start", "--node", "h2")
    fleet.lab.host("h2").cut()
    fleet.novactl("server", "list")
    assert fleet.leftovers()
    fleet.lab.heal()
    until(lambda: (fleet.novactl("server", "list"), fleet.leftovers())[1] == {}, "nothing is left")
    assert fleet.lab.host("h2").domains() == {}


def test_ten_at_once(fleet: Fleet) -> None:
    """Several commands at once never meet a locked database, and each does its own."""
    running = [fleet.begin("flavor", "create", f"size{number}", "--ram", "1G") for number in range(10)]
    results = [(process.communicate(timeout=PATIENCE_S), process.returncode) for process in running]
    assert [status for _, status in results] == [0] * 10, results
    names = [f"size{number}" for number in range(10)]
    removing = [fleet.begin("flavor", "delete", name, "--yes") for name in names]
    assert [subprocess.Popen.wait(process, PATIENCE_S) for process in removing] == [0] * 10
    for process in removing:
        process.communicate()
