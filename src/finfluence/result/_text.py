"""A result in words: sign, unit, runs and covered randomness stand in every printout."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from finfluence.result._extremes import extremes, extremes_sentence, too_few_to_shrink
from finfluence.result._provenance import Contrast, Provenance
from finfluence.result._schema import Kind, kind_of
from finfluence.result._views import scores_sentence

DOING = {"remove": "removing", "add": "adding"}


def sign_sentence(name: str, unit: str, sign: int, contrast: Contrast = "remove", of: Kind = "effect") -> str:
    """Say what a positive μ (or score) means for one query.

    Parameters
    ----------
    name, unit : str
        Of the query.
    sign : {-1, 1}
        +1: a larger value of the query is better.
    contrast : {"remove", "add"}
        What is done to the rows.
    of : {"effect", "mu", "score"}
        What the result holds; a score is oriented already, and has no unit.

    Returns
    -------
    str

    Examples
    --------
    >>> sign_sentence("held-out", "nats", -1)
    "mu > 0: removing the rows raises 'held-out' [nats], so the rows help; mu < 0: the opposite"
    >>> sign_sentence("own-loss", "score", -1, of="score")
    "score of 'own-loss': larger is more harmful or more suspect"
    """
    if of == "score":
        return f"score of '{name}': larger is more harmful or more suspect"
    helps = (sign < 0) == (contrast == "remove")
    return (
        f"mu > 0: {DOING[contrast]} the rows raises '{name}' [{unit}], so the rows {'help' if helps else 'harm'}; "
        "mu < 0: the opposite"
    )


def covers_sentence(provenance: Provenance, of: Kind = "effect") -> str:
    """Say from how many runs a result is, and which randomness its spread contains.

    Parameters
    ----------
    provenance : Provenance
        How the result was made.
    of : {"effect", "mu", "score"}
        What the result holds; scores have no spread.

    Returns
    -------
    str

    Examples
    --------
    >>> covers_sentence(Provenance(method="online", runs=2, covers=("batch order",), n_rows=9))
    'spread over batch order, from 2 training runs (method: online)'
    """
    runs = provenance.runs
    made = f"from {runs} training run{'' if runs == 1 else 's'} (method: {provenance.method})"
    if of == "score":
        return made
    return (
        f"spread over {', '.join(provenance.covers)}, {made}" if provenance.covers else f"no spread, {made}"
    )


def verification_sentence(outcome: Mapping[str, Any] | None) -> str:
    """Say how a result stood against retraining; "" where that was not tried.

    Parameters
    ----------
    outcome : mapping or None
        `Provenance.verification`.

    Returns
    -------
    str

    Examples
    --------
    >>> verification_sentence({"verdict": "failed", "sentence": "The order is not to be trusted."})
    'VERIFICATION FAILED: The order is not to be trusted.'
    """
    if not outcome:
        return ""
    opening = {
        "passed": "Verified against retraining",
        "order-only": "Order verified against retraining, size not settled",
        "failed": "VERIFICATION FAILED",
        "undecided": "Verification undecided",
    }
    return f"{opening[outcome['verdict']]}: {outcome['sentence']}"


def describe(data: xr.Dataset) -> str:
    """Return the summary that `repr` prints."""
    n, q = data.sizes["subset"], data.sizes["query"]
    made, kind = Provenance.from_dict(data.attrs), kind_of(data)
    grouped = int(data["size"].max()) > 1 if n else False
    lines = [f"Influence of {n:,} {'groups' if grouped else 'rows'} on {q} quer{'y' if q == 1 else 'ies'}"]
    if kind == "score":
        lines.append(f"  {scores_sentence(data)}")
    lines.append("  " + covers_sentence(made, kind))
    if verified := verification_sentence(made.verification):
        lines.append("  " + verified)
    for name in [str(v) for v in data["query"].values[:6]]:
        part = data.sel(query=name)
        lines.append(
            "  " + sign_sentence(name, str(part["unit"].item()), int(part["sign"]), made.contrast, kind)
        )
        lines += _range(part, kind)
        if (found := extremes(data, name)) is not None:
            lines.append(f"    {extremes_sentence(found)}")
    if q > 6:
        lines.append(f"  … and {q - 6} more queries")
    lines += [f"  note: {text}" for text in (*too_few_to_shrink(data), *(t for _, t in made.coded()))]
    named = ".to_frame()" if kind == "score" else ".select(fdr=0.1)"
    lines.append(f"  next: .top(10), {named}, .report('report.html'), .data")
    return "\n".join(lines)


def _range(part: xr.Dataset, kind: Kind) -> list[str]:
    name = "score" if kind == "score" else "mu"
    value = part[name].values[np.isfinite(part[name].values)]
    if not len(value):
        return []
    spread = part["spread"].values[np.isfinite(part["spread"].values)] if kind == "effect" else value[:0]
    typical = f", spread {np.median(spread):.3g} {part['unit'].item()}" if len(spread) else ""
    return [
        f"    {name} from {value.min():+.3g} to {value.max():+.3g}, median |{name}| {np.median(np.abs(value)):.3g}"
        f"{typical}"
    ]
