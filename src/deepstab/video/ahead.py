"""Work done in a thread of its own, a few items ahead of who takes the results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import repeat, takewhile
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items between two threads: enough to even out, little enough to hold in memory at 4K.
_AHEAD = 8
_END: Any = object()


def in_thread(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    name: str,
    most_waiting: int = _AHEAD,
) -> Generator[Result, None, None]:
    """Call a function for one item after another, in a thread that is some items behind.

    No thread is left when the generator ends, is closed, or either side fails.

    Args:
        function: called in the thread.
        items: taken by whoever takes the results, at most a few more than were worked on.
        name: of the thread.
        most_waiting: items that are held at once, results included.

    Yields:
        The results in order; an error of the function is raised in the place of its result.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(1, name) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == most_waiting:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def ahead(items: Iterator[Item], *, name: str = "deepstab-ahead") -> Generator[Item, None, None]:
    """Make items in a thread of their own, a few ahead of who takes them.

    Args:
        items: iterated in that thread, and closed when it has ended.
        name: of the thread.

    Yields:
        The same items; an error among them is raised in its place.
    """
    made = in_thread(lambda _: next(items, _END), repeat(None), name=name)
    try:
        with closing(made):
            yield from takewhile(lambda item: item is not _END, made)
    finally:
        if isinstance(items, Generator):
            items.close()
