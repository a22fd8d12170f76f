"""The published single-run algorithm of f-influence on a tape: closed form, and Monte Carlo in two stages.

At recorded step t, with q_t = ∇q(θ_t) and s_j = ⟨q_t, ∇ℓ_j(θ_t)⟩, a step on a batch lowers the query by about
η·mean s. The two arms are a batch of b rows from D∖S (without) and the same with S added (with). Reconstructed from
descriptions of arXiv 2510.10510 (Algorithm, stages 1 and 2); what the paper leaves open is stated at each function.

Our sign: the statistic is a *decrease* of the query, so μ here is minus theirs: positive, removing S raises the query.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from finfluence._progress import Progress
from finfluence._seeds import stream
from finfluence.errors import ConfigError, explain
from finfluence.estimators.derivatives import exact_choice, query_gradients
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import sum_over
from finfluence.stats import auc_probit, max_scan

BURN_IN = 0.1


def step_influence(slopes: np.ndarray, where: list[np.ndarray], batch: int) -> np.ndarray:
    """Return d′_t of one step in closed form, the batch noise integrated out.

    With s̄, σ² mean and population variance of s over D∖S:  mean_Q = s̄, sd_Q = σ/√b,
    mean_P = (b·s̄ + |S|·s_S)/(b+|S|), sd_P = b/(b+|S|)·σ/√b,  d′ = (mean_Q − mean_P)/√((sd_P² + sd_Q²)/2).

    Parameters
    ----------
    slopes : array [n, Q]
        s_j of all rows, with S.
    where : list of int arrays
        Positions of the rows of each S.
    batch : int
        b.

    Returns
    -------
    array [S, Q]
        Zero where S lowers the query exactly as a batch without it does.

    Examples
    --------
    >>> s = np.array([[1.0], [2.0], [3.0], [6.0]])
    >>> float(step_influence(s, [np.array([3])], 4)[0, 0].round(6))
    -2.164007
    """
    count = np.array([len(w) for w in where])[:, None]
    centred = slopes - slopes.mean(0)  # d′ does not depend on a common shift; squares lose no digits
    subset = sum_over(where, centred)
    outside = len(slopes) - count
    mean = (centred.sum(0) - subset) / outside
    square = ((centred**2).sum(0) - sum_over(where, centred**2)) / outside
    shift = mean - (batch * mean + subset) / (batch + count)
    ratio = batch / (batch + count)
    noise = np.maximum(square - mean**2, 0.0) / batch * (1 + ratio**2) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(shift == 0, 0.0, shift / np.sqrt(noise))


def fine_rao_blackwell(
    tape: Tape, queries: list[AnyQuery], where: list[np.ndarray], records: int, progress: Progress
) -> np.ndarray:
    """Return μ [S, Q] by the closed form: steps composed, |μ| = √Σ_t d′_t², with the sign of −Σ_t d′_t."""
    total = np.zeros((len(where), sum(len(q.names) for q in queries)))
    squared = np.zeros_like(total)
    for slopes in _recorded(tape, queries, records, progress):
        d = step_influence(slopes, where, tape.batch_size)
        total += d
        squared += d**2
    return -np.sign(total) * np.sqrt(squared)


def fine_monte_carlo(
    tape: Tape,
    auxiliary: Tape | None,
    queries: list[AnyQuery],
    where: list[np.ndarray],
    records: int,
    seed: int,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Return (μ by AUC-probit, μ by the published threshold scan), each [S, Q].

    Stage 1 records one sample of each arm per step: independent batches from D∖S, with S added in one of them.
    With an auxiliary run, its signal *without S in both arms* is subtracted (difference in differences; with S it
    would cancel the signal). Stage 2 compares the samples. The scan takes the threshold of largest |μ_τ| and is
    biased away from zero: mean |μ| 0.62 at 100 records under no influence.
    """
    if len(where) * records > 2e9:
        raise ConfigError(
            explain(
                "records × subsets small enough to hold",
                f"{records} × {len(where)}",
                "too many steps recorded",
                "lower records, or name fewer subsets",
            )
        )
    runs = [tape] if auxiliary is None else [tape, auxiliary]
    signals = [list(_recorded(run, queries, records, progress)) for run in runs]
    with_s, without_s = [], []
    for t, main in enumerate(signals[0]):
        p, q = arms(main, where, tape.batch_size, seed, t, include=True)
        if auxiliary is not None:
            p_aux, q_aux = arms(signals[1][t], where, tape.batch_size, seed, t, include=False)
            p, q = p - p_aux, q - q_aux
        with_s.append(p)
        without_s.append(q)
    x, y = np.stack(with_s, -1), np.stack(without_s, -1)
    return -auc_probit(x, y), -max_scan(x, y)


def arms(
    slopes: np.ndarray, where: list[np.ndarray], batch: int, seed: int, t: int, include: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one sample of each arm for every subset: (with [S, Q], without [S, Q])."""
    out = []
    for arm in (0, 1):
        rng = stream(seed, "fine", t, arm)
        drawn = np.empty((len(where), slopes.shape[1]))
        rows = rng.integers(len(slopes), size=(len(where), batch))
        for k, subset in enumerate(where):
            outside = rows[k][~np.isin(rows[k], subset)]
            while len(outside) < batch:
                more = rng.integers(len(slopes), size=batch)
                outside = np.concatenate([outside, more[~np.isin(more, subset)]])[:batch]
            total = slopes[outside].sum(0)
            if arm == 0 and include:
                drawn[k] = (total + slopes[subset].sum(0)) / (batch + len(subset))
            else:
                drawn[k] = total / batch
        out.append(drawn)
    return out[0], out[1]


def check_recording(tape: Tape, auxiliary: Tape | None, records: object) -> None:
    """Raise unless `records` steps can be recorded on the tape and the auxiliary run goes with it.

    Raises
    ------
    ConfigError
    """
    if not isinstance(records, (int, np.integer)) or isinstance(records, bool) or records < 1:
        raise ConfigError(
            explain(
                "records to be a whole number of at least 1",
                repr(records),
                "a share or a text was passed",
                "use the default, 100",
            )
        )
    if auxiliary is None:
        return
    ours, theirs = tape.digest(), auxiliary.digest()
    seeds = tuple(tape.identity().values())
    if ours != theirs or tape.identity() == auxiliary.identity():
        raise ConfigError(
            explain(
                "auxiliary to be another run of the same recipe",
                "a run of another recipe" if ours != theirs else f"a run of the same seeds {seeds}",
                "tapes were mixed up, or one tape was passed twice",
                "train the auxiliary run from the same recipe with another seed",
            )
        )


def _recorded(tape: Tape, queries: list[AnyQuery], records: int, progress: Progress) -> Iterator[np.ndarray]:
    """Yield s [n, Q] at evenly spaced steps after the burn-in."""
    adjoint, layout = exact_choice(tape).adjoint, tape.layout
    model = tape.model()
    parameters = layout.parameters(model)
    first = int(BURN_IN * tape.steps)
    steps = np.unique(np.linspace(first, tape.steps - 1, min(records, tape.steps - first)).astype(int))
    for done, t in enumerate(steps.tolist(), start=1):
        theta = tape.state(t)[: layout.size].to(layout.device)
        layout.assign(model, theta)
        _, gradient = query_gradients(queries, model, tape)
        parts = [
            adjoint.row_derivatives(theta, gradient, tape.batch(p, t), 0)
            for p in torch.arange(len(tape.rows)).split(1024)
        ]
        progress("record", done, len(steps))
        yield torch.cat(parts, 1).T.double().cpu().numpy()
