"""A ranking of rows for one behaviour: kernel regression on the directions in which rows push an Adam-tuned model."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._progress import Progress, silent
from finfluence._seeds import torch_seed
from finfluence.curvature import Objective, RowsAtHand
from finfluence.errors import NotSupportedError, explain
from finfluence.runs import AnyQuery, Tape, gradients, seeded
from finfluence.runs.describe import like_sizes
from finfluence.runs.tape import affordable_rows

RIDGE = 1.0
MEMORY_BYTES = 2**30
_LEAST_WIDTH = 256
_MOST_ROWS = 64


def ranking_scores(
    tape: Tape,
    queries: Sequence[AnyQuery],
    checkpoints: int = 5,
    *,
    ridge: float = RIDGE,
    memory_bytes: int = MEMORY_BYTES,
    seed: int = 0,
    progress: Progress = silent,
) -> np.ndarray:
    r"""Return how strongly each row is a cause of each behaviour, without unit: an order, not a size.

    At C states along the run every row's gradient is scaled as Adam scales it and normalised,
    a_i = (g_i / (√v + ε)) / ‖·‖, and so is the query's, b. With the features of all states side by side, divided by √C,

    .. math:: s = \sigma\,(A A^\top + \lambda I)^{-1} A b

    σ the query's sign: **larger is worse for the user**. Plain cosines would be A b: LESS over C checkpoints. The
    inverse takes from each row what its neighbours explain already, so that rows of one kind do not outvote the rows
    that cause the behaviour.

    Parameters
    ----------
    tape : Tape
        Of a training by Adam or AdamW.
    queries : sequence of Query
    checkpoints : int
        C: at the ends of C equal parts of the run.
    ridge : float
        λ, on the scale of a row's own kernel entry, 1.
    memory_bytes : int
        For the features; where the gradients are longer, they are folded: each entry is added with a random sign to one
        of as many sums as there is room for.
    seed : int
        Of the folding.
    progress : callable
        Called as `progress("rank", done, total)` in checkpoints.

    Returns
    -------
    array [n, Q]

    Raises
    ------
    NotSupportedError
        Another optimiser, which keeps no second moments.

    Notes
    -----
    Cost: C forward and backward passes of every row, some rows at a time. Memory beside the features: n × n numbers, or
    the square of their columns where those are fewer. A score carries no error rate.

    References
    ----------
    LESS, arXiv 2402.04333 (Adam-scaled, normalised features); TRAK, arXiv 2303.14186, equation 15 (the kernel).
    """
    signs = np.array([q.sign for q in queries for _ in q.names])
    a, b = ranking_features(
        tape, queries, checkpoints, memory_bytes=memory_bytes, seed=seed, progress=progress
    )
    return signs * kernel_regression(a, b, ridge).numpy()


def joint_ranking(scores: np.ndarray, effects: np.ndarray) -> np.ndarray:
    r"""Return the mean of two orders of rows, each standardised over the rows: larger is worse, without unit.

    .. math:: r = \tfrac12 \left( \frac{s - \bar s}{\mathrm{sd}(s)} + \frac{h - \bar h}{\mathrm{sd}(h)} \right)

    On planted poisons the kernel's score s and replay's effects h err on different rows: each was behind the other on
    some attack, their mean at most .02 behind the better one on all (`docs/explanation/language.md`).

    Parameters
    ----------
    scores : array [n, Q]
        As of `ranking_scores`.
    effects : array [n, Q]
        Of replay, times the query's sign, so that larger is worse. What is not finite says nothing of its row.

    Returns
    -------
    array [n, Q]

    Examples
    --------
    >>> joint_ranking(np.array([[0.0], [1.0], [5.0]]), np.array([[0.02], [0.01], [0.03]])).round(2).tolist()
    [[-0.46], [-0.84], [1.31]]
    """
    return (_standardised(scores) + _standardised(effects)) / 2


def _standardised(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    count = np.maximum(1, known.sum(0))
    centred = np.where(known, values - np.where(known, values, 0.0).sum(0) / count, 0.0)
    spread = np.sqrt((centred**2).sum(0) / count)
    standardised: np.ndarray = centred / np.where(spread > 0, spread, 1.0)
    return standardised


def ranking_features(
    tape: Tape,
    queries: Sequence[AnyQuery],
    checkpoints: int = 5,
    *,
    memory_bytes: int = MEMORY_BYTES,
    seed: int = 0,
    progress: Progress = silent,
) -> tuple[Tensor, Tensor]:
    """Return the features A of rows [n, C·P] and b of queries [Q, C·P] that `ranking_scores` is made of.

    A bᵀ is the mean over C states of the cosines of Adam-scaled gradients: LESS, but for the learning rates.

    Parameters
    ----------
    tape, queries, checkpoints, memory_bytes, seed, progress
        As of `ranking_scores`.

    Returns
    -------
    (Tensor, Tensor)
        Folded to fewer columns where memory does not hold them.

    Raises
    ------
    NotSupportedError
        Another optimiser, which keeps no second moments.
    """
    slots = list(tape.optimizer.slots)
    if "exp_avg_sq" not in slots:
        raise NotSupportedError(
            explain(
                "a training by Adam or AdamW, to rank rows",
                f"one by {type(tape.optimizer).__name__}, which keeps no second moments",
                "another optimiser",
                "rank by fi.estimate(tape, queries, 'grad-cosine'), or train with fi.AdamW",
            )
        )
    count = sum(len(q.names) for q in queries)
    size, rows = tape.layout.size, len(tape.rows)
    steps = sorted({-(-(k + 1) * tape.steps // checkpoints) for k in range(min(checkpoints, tape.steps))})
    room = max(_LEAST_WIDTH, memory_bytes // (4 * len(steps) * (rows + count)))
    fold = _Fold(size, room, seed) if room < size else None
    width = size if fold is None else fold.width
    found = torch.empty(rows + count, len(steps), width)
    for done, step in enumerate(steps, 1):
        _features(tape, queries, step, fold, found[:, done - 1])
        progress("rank", done, len(steps))
    found /= len(steps) ** 0.5
    return found[:rows].flatten(1), found[rows:].flatten(1)


def kernel_regression(a: Tensor, b: Tensor, ridge: float) -> Tensor:
    """Return (A Aᵀ + λI)⁻¹ A bᵀ [n, Q], from the smaller of the two systems.

    Returns
    -------
    Tensor

    Examples
    --------
    >>> kernel_regression(torch.eye(2), torch.tensor([[1.0, 0.0]]), ridge=1.0).tolist()
    [[0.5], [0.0]]
    """
    n, width = a.shape
    if n <= width:
        return torch.linalg.solve(_ridged(a @ a.T, ridge), (a @ b.T).double())
    return (a @ torch.linalg.solve(_ridged(a.T @ a, ridge), b.T.double()).to(a)).double()


def _ridged(matrix: Tensor, ridge: float) -> Tensor:
    matrix = matrix.double()
    matrix.diagonal().add_(ridge)
    return matrix


class _Fold:
    """Sums entries with random signs: dot products stay the same on average."""

    def __init__(self, size: int, width: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(torch_seed(seed, "fold") % 2**63)
        self.width = width
        self._place = torch.randint(width, (size,), generator=generator)
        self._sign = torch.randint(2, (size,), generator=generator).float() * 2 - 1

    def __call__(self, vectors: Tensor) -> Tensor:
        return torch.zeros(len(vectors), self.width).index_add_(1, self._place, vectors * self._sign)


def _features(tape: Tape, queries: Sequence[AnyQuery], step: int, fold: _Fold | None, found: Tensor) -> None:
    """Write the scaled and normalised gradients of rows and queries before `step` into `found` [n + Q, width]."""
    layout, state, model = tape.layout, tape.state(step), tape.model().eval()
    layout.assign(model, state[: layout.size])
    place = 1 + list(tape.optimizer.slots).index("exp_avg_sq")
    scale = 1 / (state[place * layout.size : (place + 1) * layout.size].sqrt() + 1e-8)
    count = len(tape.rows)
    order = torch.cat([*like_sizes(tape.rows, torch.arange(count), count), torch.arange(count, len(found))])
    start = 0
    for part in _gradients(tape, queries, model, order[:count]):
        scaled = (part * scale.to(part.device)).float().cpu()
        scaled = scaled if fold is None else fold(scaled)
        places = order[start : start + len(part)]
        found[places] = scaled / scaled.norm(dim=1, keepdim=True).clamp_min(1e-30)
        start += len(part)


def _gradients(tape: Tape, queries: Sequence[AnyQuery], model: nn.Module, order: Tensor) -> Iterator[Tensor]:
    """Yield the gradients [B, P] of all rows' losses in this order, some rows at a time, then of all queries."""
    rows = RowsAtHand(len(order), lambda p: tape.batch(order[p]), affordable_rows(tape, _MOST_ROWS))
    with seeded(0):
        yield from Objective(model, tape.loss, tape.layout, rows).row_gradients()
    with seeded(0):
        yield gradients(list(queries), model, tape, list[Tensor](tape.layout.parameters(model)))[1]
