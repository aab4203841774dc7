"""The campaign's first tries; `make chaos` runs more."""

from __future__ import annotations

from tests.campaigns import chaos


def test_killed_anywhere_it_comes_out_the_same() -> None:
    # Three of them, of training and of what follows it.
    assert chaos.main(["--tries", "3", "--seed", "1"]) == 0


def test_a_try_is_the_same_every_time() -> None:
    plans = {str(chaos.Try.of(seed, number)) for seed in (0, 1) for number in range(30)}
    assert len(plans) > 50
    assert str(chaos.Try.of(1, 7)) == str(chaos.Try.of(1, 7))
