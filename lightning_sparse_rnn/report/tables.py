"""The report's tables: what stands in them."""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lightning_sparse_rnn.report.groups import Group, by_corpus, differing_settings
from lightning_sparse_rnn.report.series import per_tensor, short
from lightning_sparse_rnn.report.significance import paired_difference
from lightning_sparse_rnn.report.table import Table
from lightning_sparse_rnn.runs.reading import Run

__all__ = [
    "NAMES",
    "accounting",
    "budgets",
    "comparisons",
    "differences",
    "distances_between",
    "moves_by_tensor",
    "runs_table",
    "settings",
]

#: What tables' names are, those of a corpus with a number where there are several.
NAMES = re.compile(r"(comparison|differences)(_\d+)?|accounting|settings|runs|budgets|distances(_from_start)?")


def comparisons(groups: Sequence[Group]) -> dict[str, Table]:
    """Return a table for each corpus that has finished runs: mean ± standard deviation over seeds, best method first.

    ``groups`` come sorted, as :func:`~lightning_sparse_rnn.report.groups.group_runs` returns them.
    """
    finished = {corpus: [group for group in own if group.finished] for corpus, own in by_corpus(groups).items()}
    text = (
        "Mean ± standard deviation over seeds; lower is better. Gap to dense: of the mean test perplexity, to that of "
        "the best dense network."
    )
    if len(finished) > 1:
        text += " Perplexities on different corpora cannot be compared: each has a table."
    return {
        corpus: Table(
            name="comparison" if len(finished) == 1 else f"comparison_{number}",
            title=f"Perplexity on {corpus}",
            text=text,
            columns=[
                "method",
                "seeds",
                "test",
                "validation",
                "gap to dense",
                "unigram",
                "sparsity",
                "live weights",
                "epochs",
                "seconds",
            ],
            rows=[_comparison(group, _dense(own)) for group in own],
            best=0 if len(own) > 1 and own[0].values("test_ppl") else None,
        )
        for number, (corpus, own) in enumerate(finished.items(), start=1)
        if own
    }


def _comparison(group: Group, dense: float) -> list[Any]:
    return [
        group.name,
        len(group.values("test_ppl")),
        _mean_and_deviation(group.values("test_ppl")),
        _mean_and_deviation(group.values("val_ppl")),
        _gap(group.mean("test_ppl"), dense),
        _rounded(group.mean("unigram_ppl"), 1),
        _rounded(group.mean("sparsity"), 4),
        _rounded(group.mean("live_weights"), 0),
        _rounded(group.mean("epochs"), 0),
        _rounded(group.mean("seconds"), 0),
    ]


def _dense(groups: Sequence[Group]) -> float:
    return min((group.mean("test_ppl") for group in groups if group.method == "dense"), default=float("inf"))


def _gap(mean: float, dense: float) -> str | None:
    if not math.isfinite(mean) or not math.isfinite(dense):
        return None
    return f"{mean - dense:+.2f} ({100 * (mean / dense - 1):+.1f} %)" if mean != dense else "0"


def differences(groups: Sequence[Group]) -> dict[str, Table]:
    """Return a table for each corpus of how test perplexities differ, seed by seed, from those of one method.

    The reference is Selfish, the best of its groups if there are several, and the best method where there is none.
    """
    found: dict[str, Table] = {}
    corpora = by_corpus(groups)
    for number, (corpus, own) in enumerate(corpora.items(), start=1):
        finished = [group for group in own if group.values("test_ppl")]
        if len(finished) < 2:
            continue
        reference = next((group for group in finished if group.method == "selfish"), finished[0])
        rows = [_difference(group, reference) for group in finished if group is not reference]
        if rows := [row for row in rows if row]:
            found[corpus] = Table(
                name="differences" if len(corpora) == 1 else f"differences_{number}",
                title=f"Test perplexity beside {reference.name}",
                text=f"Each method's test perplexity minus that of {reference.name} with the same seed, in the mean "
                "over the seeds that both have: above 0 the method is worse. From, to: Student's 95 % interval of the "
                "mean over paired seeds; if it holds 0, these seeds do not tell the two apart, and a single seed has "
                "no interval. Of twenty methods that do not differ, about one is told apart by chance.",
                columns=["method", "seeds", "difference", "from", "to", "told apart"],
                rows=rows,
            )
    return found


def _difference(group: Group, reference: Group) -> list[Any] | None:
    found = paired_difference(group.by_seed("test_ppl"), reference.by_seed("test_ppl"))
    if found is None:
        return None
    if found.interval is None:
        return [group.name, found.pairs, round(found.mean, 2), None, None, None]
    low, high = found.interval
    apart = "worse" if low > 0 else "better" if high < 0 else "no"
    return [group.name, found.pairs, round(found.mean, 2), round(low, 2), round(high, 2), apart]


def accounting(groups: Sequence[Group]) -> Table | None:
    """Return what the groups would cost if zeros were free, and how much of their topologies they exchanged."""
    table = Table(
        name="accounting",
        title="What it would cost if zeros were free",
        text="Inference and training: multiplications relative to the dense network. This is a count and not a time, "
        "since today's hardware multiplies by zeros at full price. Explored: share of all positions that were live at "
        "any time. Turnover: share of live weights that an update replaces, on average.",
        columns=["method", "live weights", "inference", "training", "explored", "turnover"],
    )
    for group in groups:
        if group.values("accounting.inference_flops"):
            costs = ("inference_flops", "training_flops", "explored", "turnover")
            shares = [_rounded(group.mean(f"accounting.{name}"), 3) for name in costs]
            table.rows.append([group.name, _rounded(group.mean("live_weights"), 0), *shares])
    return table if table.rows else None


def settings(groups: Sequence[Group]) -> Table | None:
    """Return the settings in which groups differ.

    What only one class has is no difference of settings: a dense network has no prune rate. Groups are compared in the
    settings of a class where they have that class. Which classes they have, their configs' names say, and where these
    are the same, ``_target_``.
    """
    differing = {name: values for name, values in differing_settings(groups).items() if _tells(name, groups)}
    if not differing:
        return None
    return Table(
        name="settings",
        title="Settings that differ",
        text="All other settings are the same in every run that has them, apart from seeds and places. Where several "
        "settings differ in the same way, one stands for all.",
        columns=["method", *differing],
        rows=[[group.name, *(values[index] for values in differing.values())] for index, group in enumerate(groups)],
    )


def _tells(name: str, groups: Sequence[Group]) -> bool:
    """Whether a setting that differs says something that neither methods' names nor those of other configs say."""
    if name == "chosen.method":  # part of the group's name already
        return False
    section, _, key = name.rpartition(".")
    if key == "_target_":
        config = f"chosen.{name.partition('.')[0]}"
        return len({group.runs[0].settings.get(config) for group in groups}) == 1
    values: dict[Any, set[str]] = {}
    for group in groups:
        of_class = values.setdefault(group.runs[0].settings.get(f"{section}._target_"), set())
        of_class.add(repr(group.runs[0].settings.get(name)))
    return any(len(found) > 1 for found in values.values())


def runs_table(groups: Sequence[Group], unreadable: Iterable[Run]) -> Table:
    """Return a table with a row for each run, finished or not, that says what is wrong with it."""
    table = Table(
        name="runs",
        title="Every run",
        text="An unfinished run goes on when its command is given again. Averaging began: in which epoch, the first of "
        "which is 1.",
        columns=["method", "seed", "test", "validation", "epochs", "averaging began", "remarks", "folder"],
    )
    seeds = Counter((group.name, repr(run.seed)) for group in groups for run in group.runs)
    for name, run in [
        *((group.name, run) for group in groups for run in group.runs),
        *(("", run) for run in unreadable),
    ]:
        results = run.results or {}
        remarks = [*([] if run.results else ["unfinished"]), *run.problems]
        if seeds[name, repr(run.seed)] > 1 and run.settings:
            remarks.append("another run has the same settings and seed")
        began = results.get("averaging_began_epoch")
        table.rows.append(
            [
                name,
                run.seed,
                _rounded(results.get("test_ppl"), 2),
                _rounded(results.get("val_ppl"), 2),
                len(run.metrics),
                began + 1 if isinstance(began, int) else None,
                "; ".join(remarks),
                str(run.folder),
            ]
        )
    return table


def budgets(groups: Sequence[Group]) -> Table | None:
    """Return the share of each tensor that was live at the start and at the end of each group's first sparse run."""
    shares: dict[str, dict[str, str]] = {}
    for group in groups:
        run = next((run for run in group.runs if run.topology), None)
        if run is not None:
            live, total = per_tensor(run.topology, "live"), per_tensor(run.topology, "total")
            shares[group.name] = {
                short(tensor): _from_to(
                    points[0][1] / max(1, total[tensor][0][1]), points[-1][1] / max(1, total[tensor][-1][1])
                )
                for tensor, points in live.items()
            }
    tensors = list(dict.fromkeys(tensor for own in shares.values() for tensor in own))
    if not shares:
        return None
    return Table(
        name="budgets",
        title="Layers' budgets",
        text="The share of each weight tensor that is live in the first run of each method: at the start → at the end, "
        "or one number if these are equal.",
        columns=["method", *tensors],
        rows=[[name, *(own.get(tensor) for tensor in tensors)] for name, own in shares.items()],
    )


def distances_between(names: Sequence[str], values: Sequence[Sequence[float | None]]) -> Table:
    """Return the distance between each two final topologies."""
    return Table(
        name="distances",
        title="Distances between final topologies",
        text="Mean over tensors; 0: the same, 1: nothing in common. On the diagonal: between two seeds of one method.",
        columns=["method", *names],
        rows=[[own, *(_rounded(value, 3) for value in row)] for own, row in zip(names, values, strict=True)],
        folded=True,
    )


def moves_by_tensor(found: Mapping[str, Mapping[str, float]]) -> Table:
    """Return the distance of each tensor's last topology from its first."""
    tensors = list(dict.fromkeys(tensor for own in found.values() for tensor in own))
    return Table(
        name="distances_from_start",
        title="Distance of each tensor's topology from its first",
        text="Between the first and the last topology that the first run of each method has kept.",
        columns=["method", *(short(tensor) for tensor in tensors)],
        rows=[[name, *(_rounded(own.get(tensor), 3) for tensor in tensors)] for name, own in found.items()],
    )


def _mean_and_deviation(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f}" if values else ""


def _from_to(first: float, last: float) -> str:
    before, after = f"{first:.3f}", f"{last:.3f}"
    return after if before == after else f"{before} → {after}"


def _rounded(value: Any, digits: int) -> float | int | None:
    if not isinstance(value, (int, float)) or value in (float("inf"), float("-inf")) or value != value:
        return None
    return round(value, digits) if digits else round(value)
