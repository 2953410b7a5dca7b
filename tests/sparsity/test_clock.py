"""When updates are due and at which rate and density, in plain numbers: resumed as uninterrupted, and without jumps."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_sparse_rnn.sparsity.clock import Moment, UpdateClock
from lightning_sparse_rnn.sparsity.rules.schedules import PruneRate, SparsityRamp

LIMITS = {"epochs": 3.0, "steps": -1.0, "seconds": -1.0}


def linear(**options: Any) -> UpdateClock:
    """A clock whose rate is what is left of training."""
    return UpdateClock(PruneRate(0.999, 0.0, "linear"), **options)


def left(clock: UpdateClock, moment: Moment) -> float:
    return clock.rate(moment) / 0.999


@dataclass(frozen=True)
class Run:
    """A run of epochs with these numbers of batches, an optimizer step every so many batches and at an epoch's end."""

    lengths: tuple[int, ...]
    accumulate: int
    every_n_epochs: int | None
    every_n_steps: int | None

    def clock(self) -> UpdateClock:
        ramp = SparsityRamp(0.1, 0.8, "linear", 0.7) if self.every_n_epochs or self.every_n_steps else None
        return linear(every_n_epochs=self.every_n_epochs, every_n_steps=self.every_n_steps, ramp=ramp)

    def moment(self, clock: UpdateClock, epoch: int) -> Moment:
        """As a Trainer gives it: of the whole run, it knows the length of the present epoch alone."""
        steps = math.ceil(self.lengths[epoch] / self.accumulate)
        return Moment(
            {"steps": clock.steps},
            {"steps": steps * len(self.lengths)},
            {"steps": steps * (len(self.lengths) - epoch)},
        )

    def go(self, stop: int | None = None) -> tuple[list[Any], list[dict[str, Any]]]:
        """Return the updates, and the clock's state after every batch; from batch ``stop`` on with a clock resumed."""
        clock, updates, states = self.clock(), [], []
        clock.begin(LIMITS)
        batch = 0
        for epoch, length in enumerate(self.lengths):
            clock.share_done(self.moment(clock, epoch))
            for at in range(length):
                if clock.tick(epoch):
                    moment = self.moment(clock, epoch)
                    updates.append((epoch, clock.steps, clock.rate(moment), clock.density(moment, 0.1)))
                    clock.updated()
                if (at + 1) % self.accumulate == 0 or at + 1 == length:
                    clock.count_step()
                states.append(copy.deepcopy(clock.state_dict()))
                batch += 1
                if batch == stop:
                    clock = self.clock()
                    clock.load_state_dict(states[-1])
                    clock.begin(LIMITS)
        return updates, states


runs = st.builds(
    Run,
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5).map(tuple),
    accumulate=st.integers(1, 4),
    every_n_epochs=st.none() | st.integers(1, 3),
    every_n_steps=st.none() | st.integers(1, 5),
)


@given(run=runs, data=st.data())
def test_a_resumed_clock_is_the_uninterrupted_one(run: Run, data: st.DataObject) -> None:
    whole, states = run.go()
    resumed, again = run.go(stop=data.draw(st.integers(1, sum(run.lengths))))
    assert resumed == whole
    assert again == states


@given(run=runs)
def test_updates_come_as_often_as_asked_and_never_fall_back(run: Run) -> None:
    updates, _ = run.go()
    if run.every_n_steps is not None:
        steps = [step for _, step, _, _ in updates]
        assert all(later - earlier >= run.every_n_steps for earlier, later in zip([0, *steps], steps, strict=False))
    elif run.every_n_epochs is not None:
        every = run.every_n_epochs
        assert [epoch for epoch, *_ in updates] == list(range(every, len(run.lengths), every))
    else:
        assert updates == []
    rates = [rate for _, _, rate, _ in updates]
    densities = [density for *_, density in updates]
    assert rates == sorted(rates, reverse=True)
    assert densities == sorted(densities, reverse=True)


@given(run=runs)
def test_with_epochs_of_one_length_the_rate_is_that_of_the_share_of_all_steps(run: Run) -> None:
    run = Run((run.lengths[0],) * len(run.lengths), run.accumulate, run.every_n_epochs, run.every_n_steps)
    total = math.ceil(run.lengths[0] / run.accumulate) * len(run.lengths)
    for _, step, rate, density in run.go()[0]:
        assert rate == run.clock().schedule.at(step / total)  # to the last bit
        assert density == 1.0 - max(run.clock().ramp.at(step / total), 0.1)


@given(lengths=st.lists(st.integers(1, 50), min_size=2, max_size=6))
def test_the_share_goes_to_one_without_a_jump_whatever_the_epochs_lengths(lengths: list[int]) -> None:
    run = Run(tuple(lengths), 1, None, 1)
    clock, shares = run.clock(), [0.0]
    for epoch, length in enumerate(lengths):
        for _ in range(length):
            shares.append(clock.share_done(run.moment(clock, epoch)))
            # A step is at most its share of what would be left if all epochs to come were as long as this one.
            assert 0.0 <= shares[-1] - shares[-2] <= 1.0 / (min(lengths) * (len(lengths) - epoch)) + 1e-12
            clock.count_step()
    assert clock.share_done(run.moment(clock, len(lengths) - 1)) == pytest.approx(1.0)


def test_the_largest_share_counts_of_what_has_an_end() -> None:
    clock = linear()
    ends = {"steps": 10, "seconds": 100.0}
    assert left(clock, Moment({"steps": 1, "seconds": 50.0}, ends)) == pytest.approx(0.5)
    assert left(clock, Moment({"steps": 8, "seconds": 60.0}, ends)) == pytest.approx(0.2)
    assert left(clock, Moment({"steps": 12, "seconds": 60.0}, ends)) == 0.0


def test_an_end_that_is_learned_later_is_gone_to_from_where_the_share_is() -> None:
    clock = linear(every_n_steps=1)
    assert left(clock, Moment({"epochs": 0.7}, {})) == 1.0
    assert left(clock, Moment({"epochs": 1.0}, {"epochs": 3}, {"epochs": 2.0})) == 1.0
    assert left(clock, Moment({"epochs": 2.0}, {"epochs": 3}, {"epochs": 1.0})) == pytest.approx(0.5)


def test_other_limits_begin_another_schedule_and_the_same_do_not() -> None:
    clock = linear()
    clock.begin(LIMITS)
    assert left(clock, Moment({"steps": 5}, {"steps": 10})) == pytest.approx(0.5)
    clock.begin(LIMITS)
    assert left(clock, Moment({"steps": 5}, {"steps": 20}, {"steps": 15})) == pytest.approx(0.5)
    clock.begin({**LIMITS, "epochs": 6.0})
    assert left(clock, Moment({"steps": 5}, {"steps": 20}, {"steps": 15})) == pytest.approx(0.75)


def test_a_state_of_before_ends_were_saved_goes_by_the_whole_run() -> None:
    clock = linear()
    clock.load_state_dict({"due": True, "steps": 5, "last_epoch": 1, "last_step": 5})
    assert clock.due
    clock.begin(LIMITS)
    assert left(clock, Moment({"steps": 5}, {"steps": 20}, {"steps": 15})) == pytest.approx(0.75)


def test_an_update_stays_due_until_it_is_made() -> None:
    clock = linear()
    assert not clock.tick(0)
    assert clock.tick(1)
    assert not clock.tick(1)
    assert clock.due
    clock.updated()
    assert not clock.due
    assert clock.tick(2)


@pytest.mark.parametrize("every", [0, -1, 1.5, True, math.nan])
@pytest.mark.parametrize("name", ["every_n_epochs", "every_n_steps"])
def test_numbers_that_say_no_interval_are_refused(name: str, every: float) -> None:
    with pytest.raises(ValueError, match=rf"`update_{name}` to be a whole number of at least 1, got {every}"):
        linear(**{name: every})
