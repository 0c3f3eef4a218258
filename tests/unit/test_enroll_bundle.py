import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from nodeagent import __version__
from novactl.enroll import bundle, paths, unit

SYSTEM_PYTHON = paths.PYTHON


def test_the_same_bytes_every_time(tmp_path: Path) -> None:
    """Two builds are equal, and so is one in another process, from a copy with other times."""
    first = bundle.build()
    assert first == bundle.build()
    copy = tmp_path / "elsewhere"
    for package in ("novactl", "nodeagent"):
        shutil.copytree(Path(bundle.__file__).parents[2] / package, copy / package, copy_function=shutil.copy,
                        ignore=shutil.ignore_patterns("__pycache__"))
    code = "from novactl.enroll import bundle; print(bundle.build().sha256)"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == first.sha256


def test_what_is_in_it(tmp_path: Path) -> None:
    """The agent's sources and an entry point, nothing of novactl and nothing compiled."""
    file = tmp_path / "nodeagent.pyz"
    file.write_bytes(bundle.build().content)
    names = zipfile.ZipFile(file).namelist()
    assert names == sorted(names) and "__main__.py" in names and "nodeagent/wire.py" in names
    assert all(name.endswith(".py") and not name.startswith("novactl") for name in names)


def test_it_runs_on_the_distributions_python(tmp_path: Path) -> None:
    """`nodeagent.pyz version` on the system's Python prints the version."""
    file = tmp_path / "nodeagent.pyz"
    file.write_bytes(bundle.build().content)
    done = subprocess.run([SYSTEM_PYTHON, str(file), "version"], capture_output=True, text=True, cwd="/", check=True)
    assert __version__ in done.stdout


def test_another_content_is_another_folder() -> None:
    """The folder on the node names version and content, so that the one before can come back."""
    built = bundle.build()
    assert built.folder == f"{__version__}-{built.sha256[:12]}"


def test_the_unit_is_hardened() -> None:
    """What the recipe demands of the unit is in it, each directive once."""
    lines = [line for line in unit.SYSTEMD_UNIT.splitlines() if "=" in line and not line.startswith("#")]
    given = dict(line.split("=", 1) for line in lines)
    assert len(given) == len(lines)
    assert given["User"] == "nodeagent" and given["NoNewPrivileges"] == "yes" and given["ProtectSystem"] == "strict"
    assert given["SystemCallFilter"] == "@system-service" and given["Restart"] == "always" and given["Type"] == "notify"
    assert paths.POOL_DIR in given["ReadWritePaths"] and paths.STATE_DIR in given["ReadWritePaths"]


def test_the_supervisor_is_posix_shell(tmp_path: Path) -> None:
    """dash accepts it, and without a subcommand it tells how it is used."""
    script = tmp_path / "supervise"
    script.write_text(unit.SUPERVISOR)
    subprocess.run(["sh", "-n", str(script)], check=True)
    told = subprocess.run(["sh", str(script)], capture_output=True, text=True)
    assert (told.returncode, "start|stop" in told.stderr) == (2, True)
