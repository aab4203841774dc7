"""Items made ahead in another thread."""

import itertools
import threading

import pytest

from deepstab.video.ahead import Channel, ClosedError, ahead


class TestChannel:
    def test_items_then_error(self):
        channel = Channel(4)
        channel.put(1)
        channel.close(RuntimeError("late"))
        items = iter(channel)
        assert next(items) == 1
        with pytest.raises(RuntimeError, match="late"):
            next(items)

    def test_cancel_frees_a_waiting_sender(self):
        channel = Channel(1)
        channel.put(0)
        failed = []

        def send():
            try:
                channel.put(1)
            except ClosedError:
                failed.append(True)

        thread = threading.Thread(target=send)
        thread.start()
        channel.cancel()
        thread.join(5)
        assert failed == [True]
        with pytest.raises(ClosedError):
            next(iter(channel))

    def test_items_made_ahead_come_in_order_and_then_the_error(self):
        def items():
            yield from range(20)
            raise RuntimeError("late")

        taken = ahead(items())
        assert [next(taken) for _ in range(20)] == list(range(20))
        with pytest.raises(RuntimeError, match="late"):
            next(taken)

    def test_who_stops_taking_stops_the_making(self):
        closed = threading.Event()

        def items():
            try:
                yield from itertools.count()
            finally:
                closed.set()

        taken = ahead(items())
        assert next(taken) == 0
        taken.close()
        assert closed.wait(5)
        assert "deepstab-ahead" not in {thread.name for thread in threading.enumerate()}
