"""Results: labelled, immutable in spirit, saved without pickle."""

from finfluence.result._compare import Comparison, QueryAgreement
from finfluence.result._extremes import Removed, chance_findings, extremes, extremes_sentence, removed
from finfluence.result._grid import Grid
from finfluence.result._influence import Influence
from finfluence.result._load import load
from finfluence.result._moderate import MOST_DF, moderate, trended
from finfluence.result._names import one_of
from finfluence.result._pool import pool
from finfluence.result._provenance import Provenance
from finfluence.result._ratio import SPREAD_ERROR, model_error, ratio_interval, two_sided, without_spread
from finfluence.result._removal import EXTREME, Removal, removal_interval
from finfluence.result._schema import ESTIMATES, LINEAR, TWIN
from finfluence.result._stream import Held, Stream
from finfluence.result._summary import (
    distribution,
    meaning,
    query_infos,
    report_content,
    row_entries,
    verification_findings,
)
from finfluence.result._text import covers_sentence, sign_sentence, verification_sentence
from finfluence.result._twin import with_twin
from finfluence.result._views import WITHOUT_SPREAD, need_effect, need_mu, strongest

__all__ = [
    "ESTIMATES",
    "EXTREME",
    "LINEAR",
    "MOST_DF",
    "SPREAD_ERROR",
    "TWIN",
    "WITHOUT_SPREAD",
    "Comparison",
    "Grid",
    "Held",
    "Influence",
    "Provenance",
    "QueryAgreement",
    "Removal",
    "Removed",
    "Stream",
    "chance_findings",
    "covers_sentence",
    "distribution",
    "extremes",
    "extremes_sentence",
    "load",
    "meaning",
    "model_error",
    "moderate",
    "need_effect",
    "need_mu",
    "one_of",
    "pool",
    "query_infos",
    "ratio_interval",
    "removal_interval",
    "removed",
    "report_content",
    "row_entries",
    "sign_sentence",
    "strongest",
    "trended",
    "two_sided",
    "verification_findings",
    "verification_sentence",
    "with_twin",
    "without_spread",
]
