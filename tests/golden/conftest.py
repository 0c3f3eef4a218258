"""Golden files: `pytest tests/golden --regen` rewrites them; the diff is what is reviewed."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """golden(name, text): `text` equals the file `name` beside the test."""
    folder = Path(request.path).parent
    regenerate = request.config.getoption("--regen", default=False)

    def check(name: str, text: str) -> None:
        file = folder / name
        if regenerate:
            file.write_text(text, encoding="utf-8")
        assert file.exists(), f"{file} is missing: run pytest {folder} --regen and look at it"
        assert text == file.read_text(encoding="utf-8"), f"{name} differs: run pytest {folder} --regen and look at the diff"

    return check
