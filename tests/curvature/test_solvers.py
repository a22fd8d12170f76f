"""Solvers on matrices whose inverse is known."""

import pytest
import torch

from finfluence.curvature import (
    ConjugateGradients,
    DataInf,
    Dense,
    Lissa,
    Matrix,
    arnoldi,
    check_size,
    nystrom,
    residuals,
)
from finfluence.errors import NotSupportedError

RIDGE = torch.tensor([[5.0, 6.0], [6.0, 15.0]], dtype=torch.float64)
V = torch.tensor([[-2 / 3, -8 / 3]], dtype=torch.float64)
EXACT = torch.tensor([[0.153846, -0.239316]], dtype=torch.float64)
ROWS = torch.tensor([[0.0, 0.0], [-1 / 3, -1 / 3], [-2 / 3, -4 / 3], [1.0, 3.0]], dtype=torch.float64)


def near(found: torch.Tensor, expected: object, atol: float = 1e-6) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), atol=atol, rtol=0)


def spectrum(values: list[float]) -> torch.Tensor:
    """Return a matrix with these eigenvalues in a basis of no meaning."""
    drawn = torch.randn(
        len(values), len(values), generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    basis, _ = torch.linalg.qr(drawn)
    return basis * torch.tensor(values, dtype=torch.float64) @ basis.T


def test_the_inverse_of_ridge():
    near(Dense(Matrix(RIDGE), 0.0).solve(V).vectors, EXACT)
    near(ConjugateGradients(Matrix(RIDGE), 0.0, 1).solve(V).vectors, [[-0.038680, -0.154721]])
    near(ConjugateGradients(Matrix(RIDGE), 0.0, 2).solve(V).vectors, EXACT)


@pytest.mark.parametrize(("depth", "expected"), [
    (10, [[0.021092, -0.175820]]), (50, [[0.131626, -0.228909]]), (200, [[0.153819, -0.239304]]),
])  # fmt: skip
def test_the_neumann_series_at_each_depth(depth, expected):
    near(Lissa(Matrix(RIDGE), 0.0, 50.0, depth, 1e-12).solve(V).vectors, expected, atol=2e-6)


def test_the_neumann_series_has_its_damping_inside():
    found = Lissa(Matrix(RIDGE), 0.5, 20.0, 2000, 1e-10).solve(V)
    near(found.vectors, V @ torch.linalg.inv(RIDGE + 0.5 * torch.eye(2)), atol=1e-8)
    assert not found.findings and found.facts["residual"] < 1e-9


def test_a_series_that_diverges_is_an_error_and_one_that_is_cut_short_a_finding():
    with pytest.raises(
        NotSupportedError, match=r"(?s)eigenvalues of C \+ λ between 0 and 10.*leave scale out"
    ):
        Lissa(Matrix(RIDGE), 0.0, 5.0, 1000).solve(V)
    with pytest.raises(NotSupportedError, match="Neumann series"):
        Lissa(Matrix(spectrum([1.0, -0.5, 2.0])), 0.0, 4.0, 60).solve(torch.ones(1, 3, dtype=torch.float64))
    short = Lissa(Matrix(RIDGE), 0.0, 50.0, 10).solve(V)
    assert len(short.findings) == 1 and "stopped at a residual of" in short.findings[0]


def test_conjugate_gradients_say_what_is_left():
    wide = Matrix(spectrum([0.01, 1.0, 3.0, 7.0, 20.0, 100.0]))
    v = torch.ones(2, 6, dtype=torch.float64) * torch.tensor([[1.0], [100.0]], dtype=torch.float64)
    found = ConjugateGradients(wide, 0.0, 3).solve(v)
    assert "conjugate gradients (3 products) stopped at a residual" in found.findings[0]
    assert found.facts["residual"] == pytest.approx(float(residuals(wide, 0.0, found.vectors, v).max()))
    done = ConjugateGradients(wide, 0.0, 30, 1e-8).solve(v)
    assert not done.findings
    near(done.vectors, v @ torch.linalg.inv(wide.matrix), atol=1e-3)
    zero = ConjugateGradients(wide, 0.0, 3).solve(torch.zeros(1, 6, dtype=torch.float64))
    assert float(zero.vectors.abs().max()) == 0.0 and not zero.findings


def test_a_preconditioner_saves_products():
    wide = Matrix(torch.diag(torch.logspace(-3, 3, 40, dtype=torch.float64)) + 0.001)
    v = torch.ones(1, 40, dtype=torch.float64)
    plain = ConjugateGradients(wide, 0.0, 12, 1e-8).solve(v)
    helped = ConjugateGradients(wide, 0.0, 12, 1e-8, lambda r: r / wide.matrix.diagonal()).solve(v)
    assert plain.findings and not helped.findings


def test_negative_curvature_is_an_error_or_a_finding():
    saddle = Matrix(spectrum([2.0, 1.0, -1.0]))
    with pytest.raises(NotSupportedError, match=r"(?s)positive in every direction.*gauss-newton"):
        ConjugateGradients(saddle, 0.0).solve(torch.ones(1, 3, dtype=torch.float64))
    assert "1 of 3 eigenvalues" in Dense(saddle, 0.0).solve(torch.ones(1, 3, dtype=torch.float64)).findings[0]
    with pytest.raises(NotSupportedError, match=r"(?s)without negative eigenvalues.*if-arnoldi"):
        nystrom(saddle, 0.1, 3, seed=0)


def test_a_singular_curvature_is_refused_without_damping():
    flat = Matrix(spectrum([2.0, 1.0, 0.0]))
    with pytest.raises(NotSupportedError, match=r"(?s)has an inverse.*pass damping="):
        Dense(flat, 0.0)
    with pytest.raises(NotSupportedError, match=r"(?s)damping above zero.*tenth of the mean eigenvalue"):
        nystrom(flat, 0.0, 2, seed=0)
    with pytest.raises(NotSupportedError, match=r"(?s)at most 10,000 trained parameters.*if-ekfac"):
        check_size(10_001)


def test_low_rank_comes_to_the_inverse_as_rank_grows():
    matrix = Matrix(spectrum([50.0, 20.0, 9.0, 4.0, 2.0, 1.0, 0.3, 0.1, 0.0, 0.0]))
    v = torch.randn(3, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = Dense(matrix, 0.05).solve(v).vectors

    def errors(solvers):
        return [float((s.solve(v).vectors - exact).norm() / exact.norm()) for s in solvers]

    sketched = errors(nystrom(matrix, 0.05, k, seed=0) for k in (2, 4, 6, 8, 10))
    krylov = errors(arnoldi(matrix, 0.05, k, 10, seed=0) for k in (2, 4, 6, 8, 10))
    for found in (sketched, krylov):
        assert found[0] > found[2] > found[-1] and found[-1] < 1e-6, found


def test_nystrom_is_woodburys_formula():
    matrix = Matrix(spectrum([5.0, 3.0, 2.0, 1.0, 0.5]))
    found = nystrom(matrix, 0.1, 3, seed=4)
    drawn = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # any Ω of the same span gives the same matrix: take the one that spans the basis found, through C⁻¹
    omega = torch.linalg.solve(matrix.matrix, found.basis)
    c, w = matrix.matrix @ omega, omega.T @ matrix.matrix @ omega
    v = drawn[:1]
    expected = (v.T - c @ torch.linalg.solve(0.1 * w + c.T @ c, c.T @ v.T)) / 0.1
    near(found.solve(v).vectors, expected.T, atol=1e-10)


def test_arnoldi_draws_from_its_seed():
    matrix = Matrix(spectrum([5.0, 3.0, 2.0, 1.0, 0.5]))
    v = torch.ones(1, 5, dtype=torch.float64)
    first, again, other = (arnoldi(matrix, 0.1, 2, 3, seed).solve(v).vectors for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_datainf_of_the_four_gradients_of_ridge():
    near(DataInf(lambda: [ROWS], [2]).damping, [0.15555556])
    near(DataInf(lambda: [ROWS], [2]).solve(V).vectors, [[0.463842, -7.847853]], atol=2e-6)
    near(DataInf(lambda: ROWS.split(1), [2]).solve(V).vectors, [[0.463842, -7.847853]], atol=2e-6)
    one = ROWS[3:]
    near(
        DataInf(lambda: [one], [2], 0.5).solve(V).vectors,
        V @ torch.linalg.inv(one.T @ one + 0.5 * torch.eye(2)),
    )
    apart = DataInf(lambda: [ROWS], [1, 1], 0.5).solve(V).vectors
    near(apart[:, :1], DataInf(lambda: [ROWS[:, :1]], [1], 0.5).solve(V[:, :1]).vectors)


def test_datainf_leaves_out_what_has_no_gradient():
    still = torch.cat([ROWS, torch.zeros(4, 1, dtype=torch.float64)], 1)
    found = DataInf(lambda: [still], [2, 1]).solve(torch.ones(1, 3, dtype=torch.float64)).vectors
    assert torch.isfinite(found).all() and found[0, 2] == 0
