"""Recording models whose parameters are spread over processes."""

from finfluence.runs.record.sharded._sharding_checks import check_parts, check_sharding, refuse_sharded
from finfluence.runs.record.sharded._shards import Shards, held, is_sharded, made_whole, rows_held
from finfluence.runs.record.sharded._unsharded import unsharded

__all__ = [
    "Shards",
    "check_parts",
    "check_sharding",
    "held",
    "is_sharded",
    "made_whole",
    "refuse_sharded",
    "rows_held",
    "unsharded",
]
