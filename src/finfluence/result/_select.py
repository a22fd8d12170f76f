"""The decision over a result: its queries as tests of the rows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from finfluence.errors import ConfigError, explain
from finfluence.result._extremes import removed
from finfluence.result._provenance import Provenance
from finfluence.result._removal import LEVEL, Removal, removal_interval
from finfluence.result._schema import kind_of
from finfluence.result._views import frame, need_mu, order_by, ranking, shrunken_mu
from finfluence.stats import Direction, Named, RowTest, name_rows


def decide_rows(
    data: xr.Dataset, names: Sequence[str], fdr: float, direction: Direction = "harmful"
) -> Named:
    """Return which rows are named by any of the queries, at one rate of false names for all of them."""
    need_mu(data, "a decision")
    tests = [
        RowTest(
            name,
            ranking(data, name),
            data["p_value"].sel(query=name).values if kind_of(data) == "effect" else None,
            direction=direction,
        )
        for name in names
    ]
    return name_rows(tests, fdr)


def select(data: xr.Dataset, names: Sequence[str], fdr: float, direction: Direction) -> pd.DataFrame:
    """Return the named rows, each by the query that tells it best, the strongest first."""
    named = decide_rows(data, names, fdr, direction)
    rows = np.flatnonzero(named.flagged)
    best = named.q_each[:, rows].argmin(axis=0)
    harm = np.stack([ranking(data, name) for name in names])[best, rows]
    order = order_by(harm, _shrunken(data, names)[best, rows], direction)
    lines = frame(data, names).assign(q_value=np.tile(named.q_values, len(names)))
    chosen = lines.iloc[(best * data.sizes["subset"] + rows)[order]].reset_index(drop=True)
    chosen.attrs["findings"] = list(named.findings)
    return chosen


def removals(
    data: xr.Dataset,
    chosen: Sequence[Any],
    names: Sequence[str],
    direction: Direction,
    pairs: pd.DataFrame | None = None,
) -> dict[str, Removal]:
    """Return, for each query, what removing rows that were chosen for their estimate does, with its interval."""
    if direction == "both":
        raise ConfigError(
            explain(
                "one direction for an interval",
                '"both"',
                "what harmful and helpful rows do together cancels, and is nobody's decision",
                'select "harmful" and "helpful" one after the other',
            )
        )
    made = Provenance.from_dict(data.attrs)
    table = pairs_of(made.verification) if pairs is None else pairs
    if table is None or made.contrast != "remove":
        raise ConfigError(
            explain(
                'a result of removing rows that was verified, for interval="feedback"',
                f"a result of {made.contrast} that was {'not verified' if table is None else 'verified'}",
                "what becomes of rows that are chosen for their estimate shows only by retraining",
                "run finfluence verify on the scan and load its influence.zarr, take done.attach(influence) of "
                "fi.verification.verify, or pass pairs=done.points",
            )
        )
    missing = sorted({"kind", "query", "size", "effect", "true_effect"} - set(table))
    if missing:
        raise ConfigError(
            explain(
                "pairs with the columns kind, query, size, effect, true_effect",
                f"no {', '.join(missing)}",
                "another table than that of a verification",
                "pass the points of a Verification",
            )
        )
    at = pd.Index(data["subset"].values.tolist()).get_indexer(list(chosen))
    found: dict[str, Removal] = {}
    for name in names if len(at) else ():
        said = removed(data, name, at)
        found[name] = removal_interval(table, name, said.effect, said.count, level=LEVEL)
    return found


def pairs_of(verification: Mapping[str, Any] | None) -> pd.DataFrame | None:
    """Return the retrained groups that a verified result carries, as `removal_interval` takes them; None without."""
    pairs = (verification or {}).get("pairs")
    return None if pairs is None else pd.DataFrame({name: pairs[name] for name in pairs})


def _shrunken(data: xr.Dataset, names: Sequence[str]) -> np.ndarray:
    """Return the shrunken effects over their spread, harmful above zero [Q, S]; zeros where there are none."""
    if "shrunken" not in data:
        return np.zeros((len(names), data.sizes["subset"]))
    side, found = Provenance.from_dict(data.attrs).harmful_side, []
    for name in names:
        part = data.sel(query=name)
        mu = part["mu"].values
        found.append(
            shrunken_mu(part["shrunken"].values, part["spread"].values, mu) * side * int(part["sign"])
        )
    return np.stack(found)
