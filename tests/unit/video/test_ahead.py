"""Items made, and worked on, in another thread."""

import itertools
import threading

import pytest

from deepstab.video.ahead import ahead, in_thread


def our_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("deepstab")]


class TestInThread:
    def test_results_come_in_order_from_one_other_thread(self):
        names = []

        def double(item):
            names.append(threading.current_thread().name)
            return 2 * item

        assert list(in_thread(double, range(30), name="deepstab-x")) == list(range(0, 60, 2))
        assert set(names) == {"deepstab-x_0"}
        assert our_threads() == []

    @pytest.mark.parametrize("num_taken", [0, 1, 20])
    def test_few_items_wait(self, num_taken):
        given = itertools.count()
        results = in_thread(lambda item: item, given, name="deepstab-x")
        for _ in range(num_taken):
            next(results)
        results.close()
        assert next(given) <= num_taken + 8
        assert our_threads() == []

    def test_an_error_is_raised_in_place_of_its_result_and_nothing_goes_on(self):
        done = []

        def fail_at_three(item):
            if item == 3:
                raise RuntimeError("three")
            done.append(item)
            return item

        results = in_thread(fail_at_three, itertools.count(), name="deepstab-x")
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(RuntimeError, match="three"):
            next(results)
        assert len(done) < 12
        assert our_threads() == []

    def test_an_error_of_the_items_ends_the_thread(self):
        def items():
            yield 1
            raise RuntimeError("mine")

        with pytest.raises(RuntimeError, match="mine"):
            list(in_thread(str, items(), name="deepstab-x"))
        assert our_threads() == []


class TestAhead:
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
        assert our_threads() == []
