r"""Sums of independent log-likelihood ratios by FFT, rounded so that the curve is a bound.

A pair (P, Q) becomes two measures on the grid :math:`kh - c` of :math:`L = \log(q/p)`, tied by
:math:`q_k = p_k e^{kh - c}`. Composition adds L under both laws: powers of transforms, one inverse FFT per law. Masses
with L < 0 are read from the P side and the others from the Q side, so neither side is ever amplified.

* lower: the mass of each cell moves to both ends of the cell. Error of second order in h.
* upper: mass from both sides of a node is joined into one atom close to it, and L rounded *down* to the
grid; the offset
  c makes the rounding small. Under Q alone, :math:`\delta(\varepsilon) = E_Q(1-e^{\varepsilon-L})_+` falls with
  L. Second order in h where the law is smooth, first order for isolated atoms.

What the window cuts off, what wraps around and what rounding in the FFT may move is bounded by a total
variation eta; a pair that is off by eta in both laws has its curve between :math:`f(\alpha+\eta)-\eta` and
:math:`f(\alpha-\eta)+\eta`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import fft

from finfluence.tradeoff._base import Bound, TradeOff
from finfluence.tradeoff._masses import spread

_TAIL = 1e-12  # mass that the window may cut off at each end of each law
_INPUT = 1e-15  # float error of the masses of one step
_ORDERS = np.concatenate([sign * 2.0 ** np.arange(-6, 10) for sign in (1.0, -1.0)])
_BLOCK = 2**22  # masses held at a time
_MOST_NODES = 2**21  # log ratios of one step beyond this many cells count as infinite


@dataclass(frozen=True, eq=False)
class Sums:
    """Composed pairs, a row each: masses at log ratios `step * (first + k) - shift`, Q mass without P, error."""

    step: float
    first: int
    shift: np.ndarray
    p: np.ndarray
    q: np.ndarray
    alone_q: np.ndarray
    eta: np.ndarray
    bound: Bound


class _Sum:
    """Running log transforms and Chernoff exponents of the sums, fed a block of curves at a time."""

    def __init__(self, counts: np.ndarray, cells: int) -> None:
        rows = counts.shape[0]
        self.counts, self.cells = counts, cells
        self.size = np.zeros((2, rows, cells // 2 + 1))
        self.phase = np.zeros((2, rows, cells // 2 + 1))
        self.tail = np.zeros((2, rows, _ORDERS.size))
        self.start, self.shift, self.kept_q = np.zeros(rows), np.zeros(rows), np.zeros(rows)

    def add(self, part: slice, p: np.ndarray, q: np.ndarray, start: int, step: float) -> None:
        """Add the steps `part`, whose masses lie at `step * (start + k)`."""
        counts = self.counts[:, part]
        self.start += counts.sum(axis=1) * start
        exponent = _ORDERS[:, None] * (step * (start + np.arange(p.shape[1])))
        top = exponent.max(axis=1)
        weight = np.exp(exponent - top[:, None]).T
        for law, mass in enumerate((p, q)):
            self.tail[law] += counts @ (top + np.log(mass @ weight + 1e-300))
            spectrum = fft.rfft(_folded(mass, self.cells), axis=1)
            self.size[law] += counts @ np.log(np.maximum(np.abs(spectrum), 1e-300))
            seen = self._seen(law)
            self.phase[law][:, seen] += counts @ np.angle(spectrum[:, seen])

    def _seen(self, law: int) -> np.ndarray:
        """Frequencies at which some sum is still above exp(-45); factors below one never bring one back."""
        return np.flatnonzero(self.size[law].max(axis=0) > -45.0)

    def sums(self, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return P and Q masses at `first`, `first + 1`, ... and what rounding may have moved between them."""
        lost = np.zeros(self.counts.shape[0])
        steps, masses = self.counts.sum(axis=1), []
        for law in range(2):
            seen = self._seen(law)
            spectrum = np.zeros(self.size[law].shape, dtype=np.complex128)
            spectrum[:, seen] = np.exp(self.size[law][:, seen]) * np.exp(1j * self.phase[law][:, seen])
            mass = fft.irfft(spectrum, n=self.cells, axis=1, overwrite_x=True)
            np.maximum(mass, 0.0, out=mass)
            norm = np.sqrt(np.einsum("bk,bk->b", mass, mass))
            lost += (
                4.0 * np.finfo(float).eps * np.log2(self.cells) * (steps + 1.0) * np.sqrt(self.cells) * norm
            )
            lost += self.cells * np.exp(-44.0)
            masses.append(_rolled(mass, (self.start - first) % self.cells))
        return masses[0], masses[1], lost

    def outside(self, step: float, first: int) -> np.ndarray:
        """Return Chernoff's bound on the mass outside the window, both ends and both laws together."""
        half = _ORDERS.size // 2
        ends = step * np.where(_ORDERS > 0.0, first + self.cells - 1, first)
        tail = np.minimum(self.tail - _ORDERS * ends, 0.0)
        return np.exp(tail[..., :half].min(axis=-1)).sum(axis=0) + np.exp(tail[..., half:].min(axis=-1)).sum(
            axis=0
        )


def convolve(curves: Sequence[TradeOff], counts: np.ndarray, bound: Bound, cells: int) -> Sums:
    """Compose `counts[b, k]` copies of curve k for each b, as a bound; an estimate is the lower bound without eta."""
    spans = [curve.edges(256) for curve in curves]
    low, high = _window(curves, spans, counts)
    step = (high - low) / (0.98 * cells)
    total = _Sum(counts, cells)
    begin = 0
    while begin < len(curves):
        start = int(np.floor(spans[begin][0] / step)) - 1
        stop = int(np.ceil(spans[begin][-1] / step)) + 1
        block = max(1, min(_BLOCK // (stop - start + 1), len(curves) - begin))
        part = slice(begin, begin + block)
        start = max(int(np.floor(min(edges[0] for edges in spans[part]) / step)) - 1, -_MOST_NODES)
        stop = min(int(np.ceil(max(edges[-1] for edges in spans[part]) / step)) + 1, _MOST_NODES)
        nodes = step * np.arange(start, stop + 1)
        p, q = np.empty((block, nodes.size)), np.empty((block, nodes.size))
        shift, alone_q = np.zeros(block), np.empty(block)
        for row, curve in enumerate(curves[part]):
            if bound != "upper":
                p[row], q[row], _, alone_q[row] = spread(*curve.masses(nodes), nodes)
            else:
                atoms = curve.atoms
                alone_q[row] = 0.0 if atoms is None else atoms[1][atoms[0] == 0.0].sum()
                p[row], q[row], shift[row] = _rounded_down(*curve.masses(nodes), alone_q[row], nodes)
        total.shift += counts[:, part] @ shift
        total.kept_q += counts[:, part] @ np.log1p(-np.minimum(alone_q, 1.0 - 1e-16))
        total.add(part, p, q, start, step)
        begin += block
    margin = max(cells - int((high - low) / step), 0) // 2
    first = int(np.floor(low / step)) - margin + int(np.round(total.shift.mean() / step))
    p, q, lost = total.sums(first)
    loss = step * (first + np.arange(cells)) - total.shift[:, None]
    ratio = np.exp(np.clip(loss, -700.0, 700.0))
    below = loss < 0.0
    p = np.where(below, p, q / ratio)
    q = np.where(below, p * ratio, q)
    eta = total.outside(step, first) + lost + _INPUT * counts.sum(axis=1)
    eta = np.zeros_like(eta) if bound == "estimate" else eta
    return Sums(step, first, total.shift, p, q, -np.expm1(total.kept_q), eta, bound)


def _folded(mass: np.ndarray, cells: int) -> np.ndarray:
    if mass.shape[1] <= cells:
        return np.pad(mass, ((0, 0), (0, cells - mass.shape[1])))
    folded = np.zeros((mass.shape[0], cells))
    for begin in range(0, mass.shape[1], cells):
        piece = mass[:, begin : begin + cells]
        folded[:, : piece.shape[1]] += piece
    return folded


def _rolled(mass: np.ndarray, offset: np.ndarray) -> np.ndarray:
    rolled = np.empty_like(mass)
    for row, cut in enumerate(mass.shape[1] - offset.astype(np.int64)):
        rolled[row, : mass.shape[1] - cut] = mass[row, cut:]
        rolled[row, mass.shape[1] - cut :] = mass[row, :cut]
    return rolled


def _window(curves: Sequence[TradeOff], spans: list[np.ndarray], counts: np.ndarray) -> tuple[float, float]:
    """Return an interval that should hold all but about `_TAIL` of every sum, under both laws, from coarse cells."""
    bounds = np.zeros((2, len(curves), _ORDERS.size))
    for k, (curve, edges) in enumerate(zip(curves, spans, strict=True)):
        at_p, at_q, _, _ = spread(*curve.masses(edges), edges)
        exponent = _ORDERS[:, None] * edges
        top = exponent.max(axis=1)
        weight = np.exp(exponent - top[:, None])
        for law, mass in enumerate((at_p, at_q)):
            bounds[law, k] = top + np.log(weight @ mass + 1e-300)
    # (sum_k n_k K_k(t) + log 1/tail) / |t|: where Chernoff's bound reaches the tail
    reach = (counts @ bounds - np.log(_TAIL)) / np.abs(_ORDERS)
    half = _ORDERS.size // 2
    high, low = reach[..., :half].min(axis=-1).max(), -reach[..., half:].min(axis=-1).max()
    widest = max(float(np.ptp(edges)) for edges in spans) / 1e3
    return float(low) - widest, float(high) + widest


def _rounded_down(
    p: np.ndarray, q: np.ndarray, alone_q: float, nodes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Join the mass of cells between nodes into atoms and round these down.

    A share of each cell goes to its lower node and the rest to the upper one, so chosen that what arrives at a
    node from both sides has nearly the node's log ratio. What still falls short by more than the shift moves
    one node down.

    Returns
    -------
    tuple
        P mass, Q mass, and the shift: masses are to be read at nodes - shift.
    """
    step, ratio = nodes[1] - nodes[0], np.exp(np.clip(nodes, -700.0, 700.0))
    inner_p, inner_q = p[1:-1], q[1:-1]
    over = np.maximum(inner_q - ratio[:-1] * inner_p, 0.0)  # by how much a cell exceeds its lower node
    under = np.maximum(ratio[1:] * inner_p - inner_q, 0.0)
    pull = over[1:] + under[:-1]
    share = np.full(over.size, 0.5)
    for _ in range(3):  # each pass takes one order in the step off what is left
        left = share[1:] * over[1:] - (1.0 - share[:-1]) * under[:-1]
        change = np.divide(-left, pull, out=np.zeros_like(left), where=pull > 1e-300)
        share[1:] += change / 2.0
        share[:-1] += change / 2.0
        np.clip(share, 0.0, 1.0, out=share)
    at_p, at_q = np.zeros(nodes.size), np.zeros(nodes.size)
    at_p[:-1], at_q[:-1] = share * inner_p, share * inner_q
    at_p[1:] += (1.0 - share) * inner_p
    at_q[1:] += (1.0 - share) * inner_q
    at_p[-1] += p[-1]
    at_q[-1] += max(q[-1] - alone_q, 0.0)
    some = (at_p > 0.0) & (at_q > 0.0)
    short = nodes - np.log(np.where(some, at_q, 1.0) / np.where(some, at_p, 1.0))
    short = np.where(some, np.clip(short, -step, step), step)
    order = np.argsort(-short)
    above = np.cumsum(at_q[order]) - at_q[order]  # Q mass of the nodes that fall short by more
    shift = np.maximum(short[order], 0.0)
    shift = float(shift[np.argmin(shift + step * above)])
    moved = np.where(short > shift, at_q, 0.0)
    at_q -= moved
    at_q[:-1] += moved[1:]
    return at_q * np.exp(-np.clip(nodes - shift, -700.0, 700.0)), at_q, shift


def corners(sums: Sums, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of row `row`, moved by its eta to the safe side of `bound`."""
    p, q, eta = sums.p[row][::-1], sums.q[row][::-1], float(sums.eta[row])
    keep = (p > 1e-20) | (q > 1e-20)  # what is dropped counts below
    eta += 1e-20 * p.size
    p, q = p[keep], q[keep]
    alpha = np.concatenate(([0.0], np.cumsum(p)))
    beta = np.concatenate((np.cumsum(q[::-1])[::-1], [0.0]))
    if sums.bound != "upper":
        return _moved_down(alpha, beta, eta)
    beta += max(1.0 - float(sums.alone_q[row]) - beta[0], 0.0)
    return _below_chance(alpha + eta, beta + eta)


def _moved_down(alpha: np.ndarray, beta: np.ndarray, eta: float) -> tuple[np.ndarray, np.ndarray]:
    head = float(np.interp(eta, alpha, beta))
    later = alpha > eta
    alpha = np.concatenate(([0.0], alpha[later] - eta))
    beta = np.concatenate(([head], beta[later])) - eta
    root = float(np.interp(0.0, beta[::-1], alpha[::-1]))
    some = beta > 0.0
    alpha, beta = np.append(alpha[some], root), np.append(beta[some], 0.0)
    if alpha[0] > 0.0 or alpha.size == 1:
        alpha, beta = np.insert(alpha, 0, 0.0), np.insert(beta, 0, 0.0)
    inside = alpha < 1.0
    alpha, beta = np.append(alpha[inside], 1.0), np.append(beta[inside], 0.0)
    return alpha, np.minimum(beta, 1.0 - alpha)


def _below_chance(alpha: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the largest convex curve below both the chain and 1 - alpha."""
    useful = (alpha + beta < 1.0) & (alpha < 1.0)
    if not np.any(useful):
        return np.array([0.0, 1.0]), np.array([1.0, 0.0])
    alpha, beta = alpha[useful], beta[useful]
    first = int(np.argmin((beta - 1.0) / np.maximum(alpha, 1e-300)))
    last = int(np.argmin(beta / (1.0 - alpha)))
    alpha, beta = alpha[first : last + 1], beta[first : last + 1]
    return np.concatenate(([0.0], alpha, [1.0])), np.concatenate(([1.0], beta, [0.0]))
