"""When a topology is updated, and at which rate and density: plain numbers that know of no Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_sparse_rnn.sparsity.rules.schedules import PruneRate, SparsityRamp
from lightning_sparse_rnn.utilities.checks import check_whole

__all__ = ["Moment", "UpdateClock"]


@dataclass(frozen=True)
class Moment:
    """Where a run stands: for each thing that is counted, such as epochs or optimizer steps, a number under its name.

    Attributes:
        done: how many of them have passed since the run began.
        ends: with how many the run ends, for those of which that is known.
        left: how many are left from here, for the same ones. Where nothing unforeseen happens it is ``end − done``.
    """

    done: Mapping[str, float]
    ends: Mapping[str, float]
    left: Mapping[str, float] = field(default_factory=dict)


class UpdateClock:
    """Says whether an update of the topology is due, at which rate, and which density it is to leave.

    An update is due when another ``every_n_epochs`` epochs have begun, or ``every_n_steps`` optimizer steps have been
    taken since the last one was due. It stays due until :meth:`updated` is called: rules that look at gradients have to
    wait for the next step.

    Rate and density follow the share of training that is done: the largest of the shares of everything whose end is
    known. When a run learns that it ends elsewhere (an epoch has another number of batches, say), the share goes on
    from where it is, and reaches 1 at the new end: it neither jumps nor falls.

    Args:
        rate: the rate over training.
        ramp: the sparsity over training. ``None``: the density stays as it is.
        every_n_epochs, every_n_steps: how often, at least 1. ``every_n_steps`` goes before the other; without both
            there is no update.

    Raises:
        ValueError: a number is out of range, or the sparsity is to change without any update.

    Example:
        >>> clock = UpdateClock(PruneRate(0.5, 0.0, "linear"), every_n_steps=2)
        >>> for step in range(4):
        ...     if clock.tick(epoch=0):
        ...         print(step, clock.rate(Moment({"steps": step}, {"steps": 4})))
        ...         clock.updated()
        ...     clock.count_step()
        2 0.25
    """

    def __init__(
        self,
        rate: PruneRate,
        *,
        ramp: SparsityRamp | None = None,
        every_n_epochs: int | None = 1,
        every_n_steps: int | None = None,
    ) -> None:
        if every_n_epochs is not None:
            check_whole(update_every_n_epochs=every_n_epochs)
        if every_n_steps is not None:
            check_whole(update_every_n_steps=every_n_steps)
        if ramp is not None and every_n_epochs is None and every_n_steps is None:
            raise ValueError(
                "`initial_sparsity` goes to `sparsity` by updates, and with `update_every_n_epochs=None` there are "
                "none."
            )
        self.schedule = rate
        self.ramp = ramp
        self._every_n_steps = every_n_steps
        self._every_n_epochs = every_n_epochs if every_n_steps is None else None
        self._limits: dict[str, float] | None = None
        self.restart()

    @property
    def updates(self) -> bool:
        """Whether there are updates at all."""
        return self._every_n_epochs is not None or self._every_n_steps is not None

    @property
    def within_epochs(self) -> bool:
        """Whether updates come inside epochs too."""
        return self._every_n_steps is not None

    @property
    def due(self) -> bool:
        """Whether an update is due and not made yet."""
        return self._due

    @property
    def steps(self) -> int:
        """How many optimizer steps there have been."""
        return self._steps

    def restart(self, epoch: int = 0, steps: int = 0) -> None:
        """Begin a new run, at this epoch (counted from 0), after so many optimizer steps."""
        self._due = False
        self._steps = self._last_step = steps  # the step after which an update was last due
        self._last_epoch = epoch  # the last epoch that has been seen
        self._forget_ends()

    def _forget_ends(self) -> None:
        self._ends: dict[str, float] | None = None  # those that were known last; `None`: it has not been asked
        self._until: dict[str, float] = {}  # where the share is 1
        self._since: dict[str, float] = {}  # where it was `_share`
        self._share = 0.0

    def begin(self, limits: Mapping[str, float]) -> None:
        """Begin a fit under these limits. One that lengthens a run, or shortens it, gives it a new schedule."""
        if dict(limits) != self._limits:
            self._limits = dict(limits)
            self._forget_ends()

    def count_step(self) -> None:
        """Take note of an optimizer step."""
        self._steps += 1

    def tick(self, epoch: int) -> bool:
        """Return whether an update has just become due, in this epoch and after the steps counted so far."""
        began = epoch > self._last_epoch
        self._last_epoch = max(self._last_epoch, epoch)
        if self._every_n_steps is not None:
            due = self._steps - self._last_step >= self._every_n_steps
        else:
            due = self._every_n_epochs is not None and began and epoch % self._every_n_epochs == 0
        if due:
            self._last_step = self._steps
            self._due = True
        return due

    def updated(self) -> None:
        """Take note that the update that was due has been made."""
        self._due = False

    def share_done(self, moment: Moment) -> float:
        """Return the share of training that is done, in [0, 1]."""
        if dict(moment.ends) != self._ends:
            if self._ends is None:
                self._until = dict(moment.ends)
            else:
                self._share = self._share_at(moment.done)
                self._since = dict(moment.done)
                self._until = {name: moment.done[name] + left for name, left in moment.left.items()}
            self._ends = dict(moment.ends)
        return self._share_at(moment.done)

    def _share_at(self, done: Mapping[str, float]) -> float:
        of_the_rest = 0.0
        for name, end in self._until.items():
            since = self._since.get(name, 0.0)
            of_the_rest = max(of_the_rest, (done[name] - since) / (end - since) if end > since else 1.0)
        return min(1.0, self._share + (1.0 - self._share) * of_the_rest)

    def rate(self, moment: Moment) -> float:
        """Return the share of live weights that an update replaces now."""
        return self.schedule.at(self.share_done(moment))

    def density(self, moment: Moment, sparsity: float) -> float | None:
        """Return the density that an update is to leave, or ``None`` if it is the one there is.

        Args:
            moment: where the run stands.
            sparsity: what it is now. It never falls: the counts it began with are rounded tensor by tensor, and may be
                a few weights below what was asked for.
        """
        return None if self.ramp is None else 1.0 - max(self.ramp.at(self.share_done(moment)), sparsity)

    def last_share(self, steps: int, steps_per_epoch: int) -> float:
        """Return the share of training, in [0, 1), that is done when the last update of a run is due; 0 without one.

        Args:
            steps: how many optimizer steps the run has in all, at least 1.
            steps_per_epoch: how many of them an epoch has, at least 1.
        """
        every = self._every_n_steps or (self._every_n_epochs or steps) * steps_per_epoch
        return (steps - 1) // every * every / steps

    def state_dict(self) -> dict[str, Any]:
        """Return what there is to save: plain values."""
        return {
            "due": self._due,
            "steps": self._steps,
            "last_epoch": self._last_epoch,
            "last_step": self._last_step,
            "limits": None if self._limits is None else dict(self._limits),
            "ends": None if self._ends is None else dict(self._ends),
            "until": dict(self._until),
            "since": dict(self._since),
            "share": self._share,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state. One without ends, of an earlier version, has its share from the run's beginning."""
        self._due = state["due"]
        self._steps, self._last_epoch, self._last_step = state["steps"], state["last_epoch"], state["last_step"]
        self._forget_ends()
        self._limits = state.get("limits")
        if self._limits is not None:
            self._ends, self._until = state["ends"], dict(state["until"])
            self._since, self._share = dict(state["since"]), state["share"]
