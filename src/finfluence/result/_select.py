"""The decision over a result: its queries as tests of the rows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from finfluence.result._provenance import Provenance
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
