"""A result in words: sign, unit, runs and covered randomness stand in every printout."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr


def sign_sentence(name: str, unit: str, sign: int) -> str:
    """Say what a positive μ means for one query."""
    reading = "the rows help" if sign < 0 else "the rows harm"
    return f"mu > 0: removing the rows raises '{name}' [{unit}], so {reading}; mu < 0: the opposite"


def covers_sentence(attrs: dict[str, object]) -> str:
    """Say which randomness the spread contains and from how many runs."""
    covers = attrs.get("covers")
    listed = ", ".join(str(c) for c in covers) if isinstance(covers, (list, tuple)) else str(covers)
    runs = attrs.get("runs")
    return f"spread over {listed}, from {runs} training run{'' if runs == 1 else 's'} (method: {attrs.get('method')})"


def verification_sentence(attrs: Mapping[str, Any]) -> str:
    """Say how the result stood against retraining; "" where that was not tried.

    Examples
    --------
    >>> verification_sentence({"verification": {"verdict": "failed", "sentence": "The order is not to be trusted."}})
    'VERIFICATION FAILED: The order is not to be trusted.'
    """
    outcome = attrs.get("verification")
    if not outcome:
        return ""
    opening = {
        "passed": "Verified against retraining",
        "failed": "VERIFICATION FAILED",
        "undecided": "Verification undecided",
    }
    return f"{opening[outcome['verdict']]}: {outcome['sentence']}"


def describe(data: xr.Dataset) -> str:
    """Return the summary that `repr` prints."""
    n, q = data.sizes["subset"], data.sizes["query"]
    grouped = int(data["size"].max()) > 1 if n else False
    lines = [f"Influence of {n:,} {'groups' if grouped else 'rows'} on {q} quer{'y' if q == 1 else 'ies'}"]
    lines.append("  " + covers_sentence(data.attrs))
    if verified := verification_sentence(data.attrs):
        lines.append("  " + verified)
    for name in [str(v) for v in data["query"].values[:6]]:
        part = data.sel(query=name)
        lines.append("  " + sign_sentence(name, str(part["unit"].item()), int(part["sign"])))
        mu = part["mu"].values[np.isfinite(part["mu"].values)]
        spread = part["spread"].values[np.isfinite(part["spread"].values)]
        if len(mu):
            typical = f", spread {np.median(spread):.3g} {part['unit'].item()}" if len(spread) else ""
            lines.append(
                f"    mu from {mu.min():+.3g} to {mu.max():+.3g}, median |mu| {np.median(np.abs(mu)):.3g}{typical}"
            )
    if q > 6:
        lines.append(f"  … and {q - 6} more queries")
    for finding in data.attrs.get("findings", []):
        lines.append(f"  note: {finding}")
    lines.append("  next: .top(10), .select(fdr=0.1), .report('report.html'), .data")
    return "\n".join(lines)
