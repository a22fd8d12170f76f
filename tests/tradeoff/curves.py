"""Strategies and slow truths that the tests of trade-off functions share."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from finfluence.tradeoff import (
    Blatant,
    EpsilonDelta,
    Gaussian,
    Laplace,
    Perfect,
    PiecewiseLinear,
    TradeOff,
    from_discrete,
    subsample,
)

few = settings(max_examples=10, deadline=None)  # numerical curves cost milliseconds each
LEVELS = np.array([0.0, 1e-6, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0])


@st.composite
def finite(draw: st.DrawFn, most: int = 5) -> PiecewiseLinear:
    """A pair of laws on a few points, some of them impossible under one law."""
    size = draw(st.integers(1, most))
    weight = st.lists(st.sampled_from([0, 1, 2, 3, 5, 9]), min_size=size, max_size=size).filter(any)
    p, q = np.array(draw(weight), float), np.array(draw(weight), float)
    return from_discrete(p / p.sum(), q / q.sum())


smooth = st.one_of(
    st.floats(0.05, 3).map(Gaussian),
    st.floats(0.05, 3).map(Laplace),
    st.builds(
        subsample,
        st.floats(0.1, 2).map(Gaussian),
        st.floats(0.05, 0.95),
        st.sampled_from(["first", "second"]),
    ),
)
families = st.one_of(
    smooth,
    st.builds(EpsilonDelta, st.floats(0, 3), st.floats(0, 0.5)),
    st.sampled_from([Perfect(), Blatant()]),
)
curves = st.one_of(finite(), families)


def dual(f: TradeOff, epsilon: float, points: int = 4001) -> float:
    """The profile from its definition, over the corners or a grid of levels that is finest at the ends."""
    alpha = f.alpha if isinstance(f, PiecewiseLinear) else (1 - np.cos(np.linspace(0, np.pi, points))) / 2
    return float(np.max(1 - np.asarray(f.type_two(alpha)) - np.exp(epsilon) * alpha))


def close(f: TradeOff, g: TradeOff, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(f(LEVELS), g(LEVELS), rtol=0, atol=atol)
