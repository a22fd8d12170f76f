"""The shrunken twin of effects: what is left of each once chance is taken out."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from finfluence.result._schema import TWIN, kind_of
from finfluence.stats import shrink


def with_twin(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return estimates [S, Q] with their twin, each query's from all of its subsets (`finfluence.stats.shrink`).

    Where the error of an effect is not given apart, that of μ times the spread stands for it.

    Returns
    -------
    dict
        What has a twin already, or no effects, as it is.
    """
    if "effect" not in values or TWIN[0] in values:
        return dict(values)
    effect = np.asarray(values["effect"], dtype=np.float64)
    with np.errstate(invalid="ignore"):
        error = np.asarray(values["se"]) * values["spread"]
    given = np.asarray(values.get("effect_se", np.full(effect.shape, np.nan)))
    error = np.where(np.isnan(given), error, given)
    found = np.full((len(TWIN), *effect.shape), np.nan)
    for k in range(effect.shape[1]):
        one = shrink(effect[:, k], error[:, k])
        found[:, :, k] = one.mean, one.sd, one.sign_error
    return {**values, **dict(zip(TWIN, found, strict=True))}


def dataset_with_twin(data: xr.Dataset) -> xr.Dataset:
    """Return a result's dataset with its twin computed from the effects as they stand; others as they are."""
    if kind_of(data) != "effect":
        return data
    values = with_twin({name: data[name].values for name in ("effect", "effect_se", "spread", "se")})
    return data.assign({name: (("subset", "query"), values[name]) for name in TWIN})
