"""Groups, to all orders: the run repeated without a group, under its own batch order.

Replay is linear in the removal. Taking away many alike rows also takes away what they contribute to the curvature,
and gradients change on the way; on small models this makes the effect 1.0 to 1.5 times the linear one. A second run
from the same first state, over the same batches without the group's rows, sees all of it, and shares most of its
noise with the first:

    s_{t+1} = U_t(s_t, mean_{i∈B_t∖S} ∇ℓ_i(θ_t)),     effect(S) = q̄(θ^S) − q̄(θ) − a_S · p

with q̄ the mean of q over the states of the tail that the backward pass averages over, too: two runs at a high learning
rate part, and hop to the last step. B_t∖S is a smaller batch than B_t, hence a noisier one, and under Adam that alone
moves q. p is this shift: the mean over K negative controls, runs each of which leaves out another K-th of every batch,
so that together they miss every row alike; per unit of a, by how much the noise of a batch's mean exceeds that of a
batch of the usual size from the same rows: mean_t(1/|B_t∖S| − 1/(n−|S|)) − (1/|B_t| − 1/n), without the terms in n
where batches are drawn independently.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from finfluence._progress import Progress, silent
from finfluence.ensemble import StackedQueries
from finfluence.estimators.replay.leave_out._replicas import (
    NEGATIVE_CONTROLS,
    Baseline,
    LeaveOut,
    NegativeControl,
    Replica,
    Replicas,
)
from finfluence.result import LINEAR, one_of
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import Subsets, class_labels
from finfluence.runs.tape import Key

Groups = Literal["auto", "linear", "paired"]
LARGE_SHARE = 0.1
FEW_REPLICAS = 16


@dataclass(frozen=True, eq=False)
class CoupledEffects:
    """What runs without subsets, under common random numbers, say of them.

    Parameters
    ----------
    chosen : array of bool [S]
        Which subsets were left out of such a run.
    effects : array [S, Q] or None
        NaN for the others.
    findings : list of str
    """

    chosen: np.ndarray
    effects: np.ndarray | None
    findings: list[str]

    def correct(
        self, linear: np.ndarray, error: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return effects and errors [S, Q] with those of coupled runs in place of linear ones, and the latter.

        The pair's own sampling error is not known from one run: to the linear one, half of the difference is added.

        Returns
        -------
        tuple of array, array, dict
        """
        if self.effects is None:
            return linear, error, {}
        known = np.isfinite(self.effects)
        effect = np.where(known, self.effects, linear)
        error = np.where(known, np.hypot(error, (effect - linear) / 2), error)
        return effect, error, {LINEAR: np.where(known, linear, np.nan)}


@dataclass(frozen=True)
class Coupling:
    """How replicas are run.

    Parameters
    ----------
    together : int
        How many to advance side by side, as memory allows.
    seed : int
        Of what is left out of the negative controls, and of the rows that stand in where a batch holds none but the
        group's.
    tail : tuple of int
        Numbers of steps before the states over which queries are averaged; empty: the final one.
    """

    together: int
    seed: int
    tail: tuple[int, ...] = ()


def coupled_effects(
    tape: Tape,
    queries: list[AnyQuery],
    subsets: Subsets,
    chosen: np.ndarray,
    coupling: Coupling,
    progress: Progress,
) -> CoupledEffects:
    """Run the tape's training again without each chosen subset [S] (bool); say what was done, and what was not."""
    findings = _linear_finding(subsets, chosen, class_labels(tape), len(tape.rows))
    if not chosen.any():
        return CoupledEffects(chosen, None, findings)
    positions = [p for p, paired in zip(subsets.positions, chosen, strict=True) if paired]
    found = leave_out_effects(tape, queries, positions, coupling, progress)
    effects = np.full((len(chosen), found.shape[1]), np.nan)
    effects[chosen] = found
    known = np.isfinite(effects).all(1)
    findings.append(
        f"the effects of {int(known.sum())} subsets are from runs without them under the same batch order (paired); "
        f"{LINEAR!r} holds their linear effects"
    )
    if (lost := chosen & ~known).any():
        findings.append(
            f"the run without {_named(subsets.names[lost])} diverged: the effect given is the linear one, and doubtful"
        )
    return CoupledEffects(known, effects, findings)


def choose_coupled(groups: str, sizes: np.ndarray, queries: int) -> np.ndarray:
    """Return which subsets [S] (bool) get a run of their own.

    "paired": all that hold a row. "auto": those of two or more rows, if they are few: with the negative controls no
    more than `FEW_REPLICAS`, or than there are queries, so that they cost about as much as the backward pass itself.

    Returns
    -------
    array of bool [S]

    Raises
    ------
    ConfigError
        Another word.

    Examples
    --------
    >>> choose_coupled("auto", np.array([1, 20, 30]), queries=1).tolist()
    [False, True, True]
    >>> choose_coupled("auto", np.full(40, 2), queries=1).any()
    np.False_
    """
    one_of(groups, get_args(Groups), "groups")
    if groups == "paired":
        return np.asarray(sizes > 0)
    several = sizes > 1
    few = several.sum() + 1 + NEGATIVE_CONTROLS <= max(FEW_REPLICAS, queries)
    return several & (groups == "auto" and bool(few))


@dataclass(frozen=True)
class _StepSeconds(Key[float]):
    """Time of one step of all replicas: how many there are, and how many are advanced side by side."""

    replicas: int
    together: int


def coupled_seconds(tape: Tape, chosen: int, together: int, steps: int) -> float:
    """Return about how long `steps` steps take without each of `chosen` subsets; timed once for a tape."""
    if not chosen:
        return 0.0
    replicas = chosen + NEGATIVE_CONTROLS

    def timed() -> float:
        alone, size = 0 if together > 1 else 1, max(1, together - 1)
        stacks, last = divmod(replicas, size)
        runner = Replicas(tape)
        step = stacks * runner.step_seconds(size + 1 - alone) if stacks else 0.0
        step += runner.step_seconds(last + 1) if last else 0.0
        return step + alone * runner.step_seconds(1)

    return steps * tape.cache.get(_StepSeconds(replicas, together), timed)


def leave_out_effects(
    tape: Tape,
    queries: list[AnyQuery],
    groups: list[np.ndarray],
    coupling: Coupling,
    progress: Progress = silent,
) -> np.ndarray:
    """Return the effects [G, Q] of removing groups of row positions, by runs that share the tape's random numbers.

    Parameters
    ----------
    tape : Tape
    queries : list of Query
    groups : list of int arrays
    coupling : Coupling
    progress : callable
        Called as `progress("groups", done, total)`.

    Returns
    -------
    array
        NaN for groups whose run diverged.

    Notes
    -----
    Cost: len(groups) + K + 1 trainings, stacked; memory of `together` states and their activations.
    """
    seed = coupling.seed
    without = [LeaveOut(group, len(tape.rows), seed, tape.reshuffled) for group in groups]
    controls = [NegativeControl(k, seed) for k in range(NEGATIVE_CONTROLS)]
    moved = _shifts(tape, queries, [*without, *controls], coupling, progress)
    shifts = moved[len(groups) :]
    finished = np.isfinite(shifts).all(1)
    inflation = sum(c.noise_inflation for c, done in zip(controls, finished, strict=True) if done)
    per_unit = shifts[finished].sum(0) / inflation if inflation > 0 else np.zeros(moved.shape[1])
    result: np.ndarray = moved[: len(groups)] - np.array([[r.noise_inflation] for r in without]) * per_unit
    return result


def _shifts(
    tape: Tape,
    queries: list[AnyQuery],
    replicas: Sequence[Replica],
    coupling: Coupling,
    progress: Progress,
) -> np.ndarray:
    """Return by how much every replica's queries [L, Q] differ from those of the run itself, repeated beside them."""
    runner, together = Replicas(tape), coupling.together
    asked = StackedQueries(tape, tape.model(), queries, together=together > 1)
    tail = coupling.tail or (tape.steps,)

    def averaged(replicas: Sequence[Replica]) -> np.ndarray:
        return np.mean([asked(theta) for theta in runner.at(replicas, tail)], axis=0)

    values, baseline = [], []
    size = max(1, together - 1)
    for first in range(0, len(replicas), size):
        chunk = replicas[first : first + size]
        progress("groups", first, len(replicas))
        if together > 1:  # in every stack, so that both round alike
            found = averaged([Baseline(), *chunk])
            baseline.append(found[:1])
            values.append(found[1:])
        else:
            baseline = baseline or [averaged([Baseline()])]
            values.append(averaged(chunk))
    progress("groups", len(replicas), len(replicas))
    differences = zip(values, baseline if together > 1 else baseline * len(values), strict=True)
    return np.concatenate([found - base for found, base in differences])


def _linear_finding(subsets: Subsets, chosen: np.ndarray, labels: np.ndarray | None, rows: int) -> list[str]:
    """Name the groups left to linear response that hold a large share of the rows, or of the rows of one class."""
    classes = np.zeros(rows, dtype=np.int64) if labels is None else np.unique(labels, return_inverse=True)[1]
    total = np.bincount(classes)
    large = [
        name
        for name, group, coupled in zip(subsets.names, subsets.positions, chosen, strict=True)
        if not coupled and len(group) > 1
        and (np.bincount(classes[group], minlength=len(total)) / total).max() >= LARGE_SHARE
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
