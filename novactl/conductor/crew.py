"""Several operations of one command, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from novactl.cluster import Cluster
from novactl.errors import NovaError, Partial

T = TypeVar("T")


def side_by_side(cluster: Cluster, targets: Sequence[Any], act: Callable[[Any], T], noun: str) -> list[T]:
    """`act` on each target, `operation.parallel` at a time; the results in order.

    One target: its error is raised as it is. Several: all are tried; some failing is Partial, with every reason; all
    failing is the first's error.
    """
    if len(targets) == 1:
        return [act(targets[0])]
    from concurrent.futures import ThreadPoolExecutor

    def tried(target: Any) -> T | NovaError:
        try:
            return act(target)
        except NovaError as error:
            return error
        finally:
            cluster.db.close()                                # this thread's connection

    with ThreadPoolExecutor(max_workers=cluster.config["operation.parallel"], thread_name_prefix="crew") as pool:
        found = list(pool.map(tried, targets))
    failed = [error for error in found if isinstance(error, NovaError)]
    if not failed:
        return [result for result in found if not isinstance(result, NovaError)]
    if len(failed) == len(found):
        raise failed[0]
    raise Partial(
        f"{len(found) - len(failed)} of {len(found)} {noun}s done, {len(failed)} failed",
        reasons=[line for error in failed for line in (error.message, *(f"  {reason}" for reason in error.reasons))],
        hint=failed[0].hint, command=failed[0].command)
