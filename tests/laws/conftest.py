import os
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from novactl.cluster import Cluster
from tests.laws import ledger

# A busy machine is no counterexample. The suite asks the same examples each time, so that a red run is about a change;
# HYPOTHESIS_PROFILE=explore asks others, and more of them.
settings.register_profile("novactl", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "novactl"))


@pytest.fixture(scope="session")
def clusters() -> Iterator[Callable[[str], Cluster]]:
    """`clusters("mariadb")`: an empty cluster on such a database (`tests.databases.EACH`)."""
    with ledger.kept() as of:
        yield of
