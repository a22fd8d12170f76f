"""Influence functions: the end of a run taken as a minimum, and the curvature of the loss there."""

from finfluence.estimators.influence_functions._conjugate_gradients import (
    ByConjugateGradients,
    ConjugateGradientOptions,
)
from finfluence.estimators.influence_functions._datainf import ByDataInf
from finfluence.estimators.influence_functions._explicit import Explicit
from finfluence.estimators.influence_functions._influence_function import (
    CurvatureOptions,
    InfluenceFunction,
    InfluenceOptions,
    SeededOptions,
)
from finfluence.estimators.influence_functions._kernel_trak import KernelTrak, KernelTrakOptions
from finfluence.estimators.influence_functions._kronecker import (
    ByEkfac,
    ByEkfacCg,
    ByKfac,
    EkfacCgOptions,
    KroneckerOptions,
    Relatif,
    RelatifOptions,
)
from finfluence.estimators.influence_functions._lissa import ByLissa, LissaOptions
from finfluence.estimators.influence_functions._low_rank import (
    ArnoldiOptions,
    ByArnoldi,
    ByNystrom,
    NystromOptions,
)
from finfluence.estimators.influence_functions._trak import Trak, TrakOptions, kernel_products

__all__ = [
    "ArnoldiOptions",
    "ByArnoldi",
    "ByConjugateGradients",
    "ByDataInf",
    "ByEkfac",
    "ByEkfacCg",
    "ByKfac",
    "ByLissa",
    "ByNystrom",
    "ConjugateGradientOptions",
    "CurvatureOptions",
    "EkfacCgOptions",
    "Explicit",
    "InfluenceFunction",
    "InfluenceOptions",
    "KernelTrak",
    "KernelTrakOptions",
    "KroneckerOptions",
    "LissaOptions",
    "NystromOptions",
    "Relatif",
    "RelatifOptions",
    "SeededOptions",
    "Trak",
    "TrakOptions",
    "kernel_products",
]
