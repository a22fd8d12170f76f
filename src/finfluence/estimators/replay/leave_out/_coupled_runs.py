"""Groups, to all orders: the run repeated without a group, under its own batch order.

Replay is linear in the removal. Taking away many alike rows also takes away what they contribute to the curvature,
and gradients change on the way; on small models this makes the effect 1.0 to 1.5 times the linear one. A second run
from the same first state, over the same batches without the group's rows, sees all of it, and shares most of its
noise with the first:

    s_{t+1} = U_t(s_t, mean_{i∈B_t∖S} ∇ℓ_i(θ_t)),     effect(S) = q̄(θ^S) − q̄(θ) − a_S · p

with q̄ the mean of q over the late states that the walk averages over, too: two runs at a high learning rate part, and
hop to the last step. B_t∖S is a smaller batch than B_t, hence a noisier one, and under Adam that alone moves q. p is
this shift: the mean over K placebo runs, each of which leaves out another K-th of every batch, so that together they
miss every row alike; per unit of a, by how much the noise of a batch's mean exceeds that of a batch of the usual size
from the same rows: mean_t(1/|B_t∖S| − 1/(n−|S|)) − (1/|B_t| − 1/n), without the terms in n where batches are drawn
independently.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from finfluence._progress import Progress, silent
from finfluence.ensemble import StackedQueries
from finfluence.estimators.replay.leave_out._replicas import PLACEBOS, Lane, Lanes, Placebo, Removed, Whole
from finfluence.result import one_of
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import Subsets, class_labels

Groups = Literal["auto", "linear", "paired"]
LARGE_SHARE = 0.1
FEW_LANES = 16


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which subsets [S] were paired, their effects [S, Q] (NaN for the others), and what to tell."""

    chosen: np.ndarray
    effects: np.ndarray | None
    findings: list[str]

    def correct(
        self, linear: np.ndarray, error: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return effects and errors [S, Q] with those of paired runs in place of linear ones, and the latter.

        The pair's own sampling error is not known from one run: to the linear one, half of the difference is added.
        """
        if self.effects is None:
            return linear, error, {}
        known = np.isfinite(self.effects)
        effect = np.where(known, self.effects, linear)
        error = np.where(known, np.hypot(error, (effect - linear) / 2), error)
        return effect, error, {"linear_effect": np.where(known, linear, np.nan)}


def pair(
    tape: Tape,
    queries: list[AnyQuery],
    subsets: Subsets,
    chosen: np.ndarray,
    together: int,
    seed: int,
    progress: Progress,
    late: tuple[int, ...] = (),
) -> Pairs:
    """Run the tape's training again without each chosen subset [S] (bool); say what was done, and what was not."""
    findings = _linear_finding(tape, subsets, chosen)
    if not chosen.any():
        return Pairs(chosen, None, findings)
    positions = [p for p, paired in zip(subsets.positions, chosen, strict=True) if paired]
    found = paired_effects(tape, queries, positions, together, seed, progress, late)
    effects = np.full((len(chosen), found.shape[1]), np.nan)
    effects[chosen] = found
    known = np.isfinite(effects).all(1)
    findings.append(
        f"the effects of {int(known.sum())} subsets are from runs without them under the same batch order (paired); "
        "'linear_effect' holds their linear effects"
    )
    if (lost := chosen & ~known).any():
        findings.append(
            f"the run without {_named(subsets.names[lost])} diverged: the effect given is the linear one, and doubtful"
        )
    return Pairs(known, effects, findings)


def to_pair(groups: str, sizes: np.ndarray, queries: int) -> np.ndarray:
    """Return which subsets [S] (bool) get a run of their own.

    "paired": all. "auto": those of two or more rows, if they are few: with the placebo runs no more than
    `FEW_LANES`, or than there are queries, so that they cost about as much as the walk itself.

    Raises
    ------
    ConfigError
        Another word.

    Examples
    --------
    >>> to_pair("auto", np.array([1, 20, 30]), queries=1).tolist()
    [False, True, True]
    >>> to_pair("auto", np.full(40, 2), queries=1).any()
    np.False_
    """
    one_of(groups, get_args(Groups), "groups")
    if groups == "paired":
        return np.ones(len(sizes), dtype=bool)
    several = sizes > 1
    few = several.sum() + 1 + PLACEBOS <= max(FEW_LANES, queries)
    return several & (groups == "auto" and bool(few))


def paired_seconds(tape: Tape, chosen: int, together: int, steps: int | None = None) -> float:
    """Return about how long it takes to run the training without each of `chosen` subsets; timed once for a tape."""
    if not chosen:
        return 0.0
    lanes, size = chosen + PLACEBOS, max(1, together - 1)
    key = f"seconds of {chosen} lanes, {together} together"
    if key not in tape.memo:
        alone = 0 if together > 1 else 1
        stacks, last = divmod(lanes, size)
        runner = Lanes(tape)
        step = stacks * runner.step_seconds(size + 1 - alone) if stacks else 0.0
        step += runner.step_seconds(last + 1) if last else 0.0
        tape.memo[key] = (tape.steps if steps is None else steps) * (step + alone * runner.step_seconds(1))
    return float(tape.memo[key])


def paired_effects(
    tape: Tape,
    queries: list[AnyQuery],
    groups: list[np.ndarray],
    together: int,
    seed: int,
    progress: Progress = silent,
    late: tuple[int, ...] = (),
) -> np.ndarray:
    """Return the effects [G, Q] of removing groups of row positions, by runs paired with the tape's own.

    Parameters
    ----------
    together : int
        How many runs to advance side by side, as memory allows.
    seed : int
        Of what is left out of the placebo runs, and of the rows that stand in where a batch holds none but the
        group's.
    late : tuple of int
        Numbers of steps before the states over which queries are averaged; empty: the final one.

    Returns
    -------
    array
        NaN for groups whose run diverged.

    Notes
    -----
    Cost: len(groups) + K + 1 trainings, stacked; memory of `together` states and their activations.
    """
    removed = [Removed(group, len(tape.rows), seed, tape.reshuffled) for group in groups]
    placebos = [Placebo(k, seed) for k in range(PLACEBOS)]
    moved = _moved(tape, queries, [*removed, *placebos], together, progress, late or (tape.steps,))
    shifts = moved[len(groups) :]
    finished = np.isfinite(shifts).all(1)
    noisier = sum(p.noisier for p, whole in zip(placebos, finished, strict=True) if whole)
    per_unit = shifts[finished].sum(0) / noisier if noisier > 0 else np.zeros(moved.shape[1])
    result: np.ndarray = moved[: len(groups)] - np.array([[r.noisier] for r in removed]) * per_unit
    return result


def _moved(
    tape: Tape,
    queries: list[AnyQuery],
    lanes: Sequence[Lane],
    together: int,
    progress: Progress,
    late: tuple[int, ...],
) -> np.ndarray:
    """Return by how much every lane's queries [L, Q] differ from those of the run itself, repeated beside them."""
    runner = Lanes(tape)
    asked = StackedQueries(tape, tape.model(), queries, together=together > 1)

    def averaged(lanes: Sequence[Lane]) -> np.ndarray:
        return np.mean([asked(theta) for theta in runner.at(lanes, late)], axis=0)

    values, whole = [], []
    size = max(1, together - 1)
    for first in range(0, len(lanes), size):
        chunk = lanes[first : first + size]
        progress("groups", first, len(lanes))
        if together > 1:  # in every stack, so that both round alike
            found = averaged([Whole(), *chunk])
            whole.append(found[:1])
            values.append(found[1:])
        else:
            whole = whole or [averaged([Whole()])]
            values.append(averaged(chunk))
    progress("groups", len(lanes), len(lanes))
    differences = zip(values, whole if together > 1 else whole * len(values), strict=True)
    return np.concatenate([found - base for found, base in differences])


def _linear_finding(tape: Tape, subsets: Subsets, chosen: np.ndarray) -> list[str]:
    """Name the groups left to linear response that hold a large share of the rows, or of the rows of one class."""
    labels = class_labels(tape)
    classes = (
        np.zeros(len(tape.rows), dtype=np.int64)
        if labels is None
        else np.unique(labels, return_inverse=True)[1]
    )
    total = np.bincount(classes)
    large = [
        name
        for name, rows, paired in zip(subsets.names, subsets.positions, chosen, strict=True)
        if not paired and len(rows) > 1
        and (np.bincount(classes[rows], minlength=len(total)) / total).max() >= LARGE_SHARE
    ]  # fmt: skip
    if not large:
        return []
    what = "rows" if labels is None else "a class"
    return [
        f"the effects of {len(large)} subsets that hold {LARGE_SHARE:.0%} or more of {what} are linear, and those of "
        f"groups of alike rows come out too small: {_named(large)}; groups='paired' corrects them for a training each"
    ]


def _named(names: Sequence[Any] | np.ndarray) -> str:
    return ", ".join(f"'{name}'" for name in names[:3]) + (" …" if len(names) > 3 else "")
