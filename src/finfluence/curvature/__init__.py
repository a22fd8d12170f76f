"""Curvatures of the training loss at one point, and solvers of (C + λ) x = v for them."""

from finfluence.curvature._block import KroneckerBlock
from finfluence.curvature._conjugate_gradients import ConjugateGradients
from finfluence.curvature._datainf import DataInf
from finfluence.curvature._dense import Dense, check_size, written_out
from finfluence.curvature._kronecker import FISHERS, DampedKronecker, FisherKind, Kronecker
from finfluence.curvature._krylov import BASES, FunctionValues, functions_of
from finfluence.curvature._lissa import Lissa
from finfluence.curvature._low_rank import LowRank, arnoldi, nystrom
from finfluence.curvature._objective import Objective, RowsAtHand, forward_derivatives
from finfluence.curvature._operators import (
    CURVATURES,
    EVALUATIONS,
    Curvature,
    LossCurvature,
    Matrix,
    Operator,
    largest_eigenvalue,
    mean_eigenvalue,
)
from finfluence.curvature._outputs import check_split, loss_of_outputs, outputs_of
from finfluence.curvature._solution import Solution, Solver, residuals

__all__ = [
    "BASES",
    "CURVATURES",
    "EVALUATIONS",
    "FISHERS",
    "ConjugateGradients",
    "Curvature",
    "DampedKronecker",
    "DataInf",
    "Dense",
    "FisherKind",
    "FunctionValues",
    "Kronecker",
    "KroneckerBlock",
    "Lissa",
    "LossCurvature",
    "LowRank",
    "Matrix",
    "Objective",
    "Operator",
    "RowsAtHand",
    "Solution",
    "Solver",
    "arnoldi",
    "check_size",
    "check_split",
    "forward_derivatives",
    "functions_of",
    "largest_eigenvalue",
    "loss_of_outputs",
    "mean_eigenvalue",
    "nystrom",
    "outputs_of",
    "residuals",
    "written_out",
]
