"""One try of the campaign; `make chaos` runs more."""

from __future__ import annotations

from tests.campaigns import chaos


def test_killed_anywhere_it_comes_out_the_same() -> None:
    # A training that is killed at a write, twice: kills in time would hit another place where the
    # machine is busy.
    assert chaos.main(["--tries", "1", "--seed", "155"]) == 0


def test_a_try_is_the_same_every_time() -> None:
    plans = {str(chaos.Try.of(seed, number)) for seed in (0, 1) for number in range(30)}
    assert len(plans) > 50
    assert str(chaos.Try.of(1, 7)) == str(chaos.Try.of(1, 7))
