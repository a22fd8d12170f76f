"""What removing rows together does beyond the sum of their effects, from a replay of them as one subset."""

import numpy as np
import xarray as xr

from finfluence.errors import DataError, NotSupportedError, explain
from finfluence.result._provenance import Provenance
from finfluence.result._schema import LINEAR


def interaction(data: xr.Dataset, together: xr.Dataset, query: str, rows: int) -> float:
    """Return what leaving rows out together does, over the sum of their effects at first order; NaN if it is unknown.

    Parameters
    ----------
    data : xarray.Dataset
        The result that the rows were chosen from.
    together : xarray.Dataset
        Of the same training: a result whose only subset are those rows, with `linear_effect` beside its effect.
    query : str
    rows : int
        How many they are.

    Returns
    -------
    float
        NaN where the two have not the same sign: rows whose effects cancel have no ratio.

    Raises
    ------
    DataError
        It is of other rows, another query or another training.
    NotSupportedError
        Its effect is of first order itself.
    """
    sizes = together["size"].values.tolist()
    if sizes != [rows]:
        raise DataError(
            explain(
                f"a result whose only subset holds the {rows:,} rows that are predicted",
                f"{len(sizes):,} subsets of {', '.join(f'{int(k):,}' for k in sizes[:3])} rows",
                "all rows were replayed one by one, or another list",
                "together = fi.replay(tape, queries, subsets={'list': rows}), and the same rows here",
            )
        )
    if query not in together["query"].values.tolist():
        raise DataError(
            explain(
                f"a result over the query {query!r}",
                f"queries {', '.join(map(repr, together['query'].values.tolist()[:5]))}",
                "the list was replayed for other queries",
                "replay it for the same queries",
            )
        )
    one, other = (Provenance.from_dict(found.attrs).recipe_digest for found in (data, together))
    if one is not None and other is not None and one != other:
        raise DataError(
            explain(
                "a list that was replayed in the same training",
                f"recipes {one} and {other}",
                "data, model or options differ",
                "replay the list over the tapes that this result comes from",
            )
        )
    linear = float(together[LINEAR].sel(query=query).values[0]) if LINEAR in together else np.nan
    if not np.isfinite(linear):
        raise NotSupportedError(
            explain(
                "the effect of leaving the list out, in a run without it",
                "an effect of first order",
                "the list is a single row, rows were replayed with groups='linear', or scores were asked for",
                "fi.replay(tape, queries, subsets={'list': rows}, groups='paired')",
            )
        )
    paired = float(together["effect"].sel(query=query).values[0])
    return paired / linear if paired * linear > 0 else np.nan
