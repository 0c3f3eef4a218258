"""Several operations of one command, side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from novactl.cluster import Cluster
from novactl.db.crossing import uncrossed
from novactl.errors import NovaError, Partial

T = TypeVar("T")


def side_by_side(cluster: Cluster, targets: Sequence[Any], act: Callable[[Any], T], noun: str) -> list[T]:
    """`act` on each target, `operation.parallel` at a time; the results in order.

    One target: its error is raised as it is. Several: all are tried; some failing is Partial, with every reason; all
    failing is the first's error.
    """
    if len(targets) == 1:
        return [act(targets[0])]
    return all_of(list(in_threads(cluster, targets, act, cluster.config["operation.parallel"])), noun)


def all_of(found: Sequence[T | NovaError], noun: str) -> list[T]:
    """What was found, if nothing failed. Raises as `side_by_side` does."""
    failed = [error for error in found if isinstance(error, NovaError)]
    if not failed:
        return [result for result in found if not isinstance(result, NovaError)]
    if len(failed) == len(found):
        raise failed[0]
    raise Partial(
        f"{len(found) - len(failed)} of {len(found)} {noun}s done, {len(failed)} failed",
        reasons=[line for error in failed for line in (error.message, *(f"  {reason}" for reason in error.reasons))],
        hint=failed[0].hint, command=failed[0].command)


def in_threads(cluster: Cluster, targets: Sequence[Any], act: Callable[[Any], T], width: int) -> Iterator[T | NovaError]:
    """What `act` returned or raised for each, in order, as soon as it is there; another error than NovaError is raised here.

    Who is interrupted while waiting is not kept: the threads are daemons, and nothing new is begun.
    """
    found: dict[int, T | BaseException] = {}
    ready, lock, numbers = [threading.Event() for _ in targets], threading.Lock(), iter(range(len(targets)))

    def work() -> None:
        try:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                try:
                    found[number] = uncrossed(lambda number=number: act(targets[number]))
                except BaseException as error:  # noqa: BLE001 - handed to the waiting thread, which raises it
                    found[number] = error
                ready[number].set()
        finally:
            cluster.db.close()                                # this thread's connection

    for number in range(min(width, len(targets))):
        threading.Thread(target=work, name=f"crew-{number}", daemon=True).start()
    try:
        for number, event in enumerate(ready):
            event.wait()
            result = found.pop(number)
            if isinstance(result, BaseException) and not isinstance(result, NovaError):
                raise result
            yield result
    finally:
        with lock:
            numbers = iter(())
