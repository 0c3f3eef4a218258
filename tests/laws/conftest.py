from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from novactl.cluster import Cluster
from tests.laws import ledger

# A busy machine is no counterexample.
settings.register_profile("novactl", deadline=None)
settings.load_profile("novactl")


@pytest.fixture(scope="session")
def clusters() -> Iterator[Callable[[str], Cluster]]:
    """`clusters("sqlite")`, `clusters("postgresql")`: an empty cluster on such a database."""
    with ledger.kept() as of:
        yield of
