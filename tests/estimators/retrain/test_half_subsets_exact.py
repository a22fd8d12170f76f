"""Half-subset effects (Data Banzhaf) of two rows whose value is known for every subset."""

import numpy as np

from finfluence.estimators.retrain import half_subsets


def test_two_rows():
    """U(∅) = 0, U(1) = 1, U(2) = 3, U(12) = 5: having the rows adds 1.5 and 3.5, so removal takes it away."""
    kept = np.array([[False, False], [True, False], [False, True], [True, True]])
    value, noise = np.array([[0.0], [1.0], [3.0], [5.0]]), 0.25
    found = half_subsets(value + noise, value - noise, kept, 0.95)
    np.testing.assert_allclose(found.effect[:, 0], [-1.5, -3.5], rtol=1e-12)
    np.testing.assert_allclose(found.spread[:, 0], noise * np.sqrt(2), rtol=1e-12)
    np.testing.assert_allclose(found.mu, found.effect / found.spread)
