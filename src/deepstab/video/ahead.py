"""A bounded queue between two threads that either of them can end."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from threading import Condition, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")

# Items made ahead: enough to even out.
_AHEAD = 8


class ClosedError(Exception):
    """The other side will neither send nor take anything any more."""


class Channel(Generic[Item]):
    """A bounded queue with one sender and one receiver, neither of which waits for a dead peer."""

    def __init__(self, capacity: int) -> None:
        """Create an open channel.

        Args:
            capacity: items that may wait; `put` blocks above.
        """
        self._capacity = capacity
        self._items: deque[Item] = deque()
        self._changed = Condition()
        self._is_closed = False
        self._is_canceled = False
        self._error: BaseException | None = None

    @property
    def error(self) -> BaseException | None:
        """The error the sender closed with."""
        return self._error

    def put(self, item: Item) -> None:
        """Send an item, waiting for room.

        Raises:
            ClosedError: the channel was closed or canceled.
        """
        with self._changed:
            while len(self._items) >= self._capacity and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                raise ClosedError
            self._items.append(item)
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """Send no more; the receiver gets what is waiting, then the end or `error`."""
        with self._changed:
            if not self._is_closed:
                self._is_closed = True
                self._error = error
                self._changed.notify_all()

    def cancel(self) -> None:
        """Drop what is waiting and end both sides at once."""
        with self._changed:
            self._is_closed = True
            self._is_canceled = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        """Receive items until the sender closes.

        Raises:
            ClosedError: the channel was canceled.
            BaseException: the error the sender closed with.
        """
        while True:
            with self._changed:
                while not self._items and not self._is_closed:
                    self._changed.wait()
                if self._is_canceled:
                    raise ClosedError
                if not self._items:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


def ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """Make items in a thread of their own, a few ahead of who takes them.

    Args:
        items: iterated, and closed, in that thread.

    Yields:
        The same items; an error among them is raised in its place.
    """
    channel: Channel[Item] = Channel(_AHEAD)

    def send() -> None:
        try:
            for item in items:
                channel.put(item)
        except ClosedError:
            pass  # Nobody wants more.
        except BaseException as error:
            channel.close(error)
        else:
            channel.close()
        finally:
            if isinstance(items, Generator):
                items.close()

    thread = Thread(target=send, name="deepstab-ahead")
    thread.start()
    try:
        yield from channel
    finally:
        channel.cancel()
        thread.join()
