"""Finite pairs of laws as arrays: atoms in order of their likelihood ratio, cells, and the convex curve."""

import numpy as np

_SAME = (
    1e-13  # log ratios closer than this (relative above 1) are one atom: below what float64 masses resolve
)


def log_ratio(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return log(q/p): inf where only q has mass, -inf where only p has."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(q) - np.log(p)


def ordered(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the atoms by falling q/p, empty atoms dropped and atoms of equal ratio merged."""
    some = (p > 0.0) | (q > 0.0)
    p, q = p[some], q[some]
    loss = log_ratio(p, q)
    order = np.argsort(-loss, kind="stable")
    p, q, loss = p[order], q[order], loss[order]
    with np.errstate(invalid="ignore"):
        gap = loss[:-1] - loss[1:]
        close = np.isfinite(gap) & (gap <= _SAME * np.maximum(1.0, np.abs(loss[1:])))
    same = close | (loss[:-1] == loss[1:])
    starts = np.flatnonzero(np.concatenate(([True], ~same)))
    return np.add.reduceat(p, starts), np.add.reduceat(q, starts)


def vertices(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners (alpha, beta) of the curve of ordered atoms, from alpha = 0 to (1, 0)."""
    alpha = np.concatenate(([0.0], np.cumsum(p)))
    beta = np.concatenate((np.cumsum(q[::-1])[::-1], [0.0]))
    first = int(np.flatnonzero(alpha == 0.0)[-1])
    alpha, beta = np.minimum(alpha[first:], 1.0), np.minimum(beta[first:], 1.0)
    alpha[-1] = 1.0
    return alpha, np.minimum(beta, 1.0 - alpha)


def product(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the atoms of the two independent pairs seen together."""
    return ordered(np.outer(first[0], second[0]).ravel(), np.outer(first[1], second[1]).ravel())


def spread(
    p: np.ndarray, q: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Move the mass of each cell to the cell's two ends, keeping its P and its Q mass: a lower curve.

    A mean-preserving spread of the likelihood ratio only makes the laws easier to tell apart. Leading axes are a batch.

    Returns
    -------
    tuple
        P and Q mass at the edges, P mass left at log ratio -inf, Q mass left at +inf.
    """
    ratio = np.exp(np.clip(edges, -700.0, 700.0))
    width = np.diff(ratio)
    at = np.zeros((*p.shape[:-1], edges.size))
    inner_p, inner_q = p[..., 1:-1], q[..., 1:-1]
    up = np.clip((inner_q - ratio[:-1] * inner_p) / np.where(width > 0.0, width, np.inf), 0.0, inner_p)
    at[..., 1:] += up
    at[..., :-1] += inner_p - up
    head = np.minimum(q[..., 0] / ratio[0], p[..., 0])
    tail = np.minimum(q[..., -1] / ratio[-1], p[..., -1])
    at[..., 0] += head
    at[..., -1] += tail
    alone_q = np.maximum(q[..., -1] - tail * ratio[-1], 0.0)
    return at, at * ratio, p[..., 0] - head + (p[..., -1] - tail), alone_q


def lower_hull(alpha: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the largest convex function below the points."""
    hull: list[tuple[float, float]] = []
    for index in np.lexsort((beta, alpha)):
        x, y = float(alpha[index]), float(beta[index])
        if hull and x == hull[-1][0]:
            continue
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2], hull[-1]
            if (y1 - y0) * (x - x1) < (y - y1) * (x1 - x0):
                break
            hull.pop()
        hull.append((x, y))
    corners = np.array(hull)
    return corners[:, 0], corners[:, 1]


def divergence(p: np.ndarray, q: np.ndarray, order: float) -> float:
    """Return the Renyi divergence of the given order of atoms p from atoms q, in nats."""
    loss = log_ratio(p, q)
    if order == 1.0:
        return float(np.sum(np.where(p > 0.0, -p * np.where(p > 0.0, loss, 0.0), 0.0)))
    both = (p > 0.0) & (q > 0.0)
    if order > 1.0 and np.any((p > 0.0) & (q == 0.0)):
        return float("inf")
    if not np.any(both):
        return float("inf")
    terms = np.log(q[both]) - order * loss[both]
    top = terms.max()
    return float((top + np.log(np.sum(np.exp(terms - top)))) / (order - 1.0))


def moments(p: np.ndarray, q: np.ndarray) -> tuple[float, float, float, float]:
    """Return kl, kappa_2, kappa_3 and the centred third absolute moment of log(q/p) under P."""
    here = p > 0.0
    p, loss = p[here], log_ratio(p[here], q[here])
    if np.any(np.isinf(loss)):
        return (float("inf"),) * 4
    kl = -float(p @ loss)
    size = np.abs(loss)
    return kl, float(p @ size**2), float(p @ size**3), float(p @ np.abs(loss + kl) ** 3)


def fault(alpha: np.ndarray, beta: np.ndarray, tolerance: float = 1e-9) -> str | None:
    """Return what keeps the corners from being a trade-off curve, or None."""
    if alpha.shape != beta.shape or alpha.size < 2:
        return f"{alpha.size} values of alpha and {beta.size} of beta"
    if not (np.all(np.isfinite(alpha)) and np.all(np.isfinite(beta))):
        return "NaN or infinite corners"
    run, fall = np.diff(alpha), np.diff(beta)
    if alpha[0] != 0.0 or alpha[-1] != 1.0 or np.any(run < 0.0):
        return f"alpha from {alpha[0]:g} to {alpha[-1]:g}, not rising from 0 to 1"
    if np.any(fall > tolerance) or abs(beta[-1]) > tolerance or np.any(beta < -tolerance):
        return f"beta that rises, is negative, or ends at {beta[-1]:g} instead of 0"
    if np.any(beta > 1.0 - alpha + tolerance):
        return "beta above 1 - alpha"
    if np.any(fall[:-1] * run[1:] - fall[1:] * run[:-1] > tolerance * (run[:-1] + run[1:])):
        return "a curve that is not convex"
    return None
