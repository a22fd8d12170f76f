"""The self-test: neutral rows planted into the user's own training must come out neutral at the stated level."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm

from finfluence._files import write_json
from finfluence._seeds import stream
from finfluence.errors import DataError, explain
from finfluence.ingest import Table
from finfluence.jobs.scan._data import ScanData
from finfluence.jobs.scan._decisions import Decided, decide_rows
from finfluence.jobs.scan._estimate import Asked, Context, make_estimate
from finfluence.jobs.scan._folder import SELF_TEST, ScanFolder
from finfluence.jobs.scan._labels import Judged, RowLabels
from finfluence.jobs.scan._options import HELD_OUT
from finfluence.runs import Rows, mean_loss

LEVEL = 0.05
SURE = 0.99
MOST_PLANTED, FEWEST_PLANTED = 200, 10


@dataclass(frozen=True)
class Named:
    """How many planted and training rows were named, and how many swaps and training rows there were.

    Attributes
    ----------
    copies, swaps
        Planted rows of each kind that were named.
    planted_swaps
        Held-out rows that were put into the training.
    training, rows
        Training rows that were named, and all of them.
    """

    copies: int
    swaps: int
    planted_swaps: int
    training: int
    rows: int


def self_test(
    context: Context,
    decided: Decided,
    judged: Judged | None,
    *,
    fdr: float,
    seed: int,
    budget: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    r"""Train and replay once more with planted rows, and count how often they do not come out neutral.

    Two kinds are planted: *copies* of rows that the scan did not name, and, where there are held-out rows that took no
    part in the query, *swaps*: held-out rows put among the training rows.

    - A row and its copy have the same law, so that the difference of their effects is zero. Held against its own error,

      .. math:: z = (e_i - e_{i'}) / \sqrt{se_i^2 + se_{i'}^2}, \quad \text{rejected if } |z| > \Phi^{-1}(0.975)

      it must be rejected in 5 % of the pairs: this tests the errors of the effects.
    - Copies of rows that were not named must not be named: this tests the decision. Swaps are counted beside them; they
      may carry wrong labels of their own unless the held-out rows were checked.

    Parameters
    ----------
    decided
        The decisions of the scan: copies are taken of rows that it does not name.
    judged
        What the scan knows of the labels: a planted row's label is judged as that of the row it was taken from.
    fdr
        Level of the decisions.
    seed
        Draws the planted rows.
    budget
        Settings of the scan's own replays, where it had a budget.

    Returns
    -------
    dict
        Counts, rates and intervals as plain values, `passed` and `sentence`; also written to `self-test.json`.

    Raises
    ------
    DataError
        Fewer than ten rows are left that can be copied.

    Notes
    -----
    Cost: as much as the scan's own trainings and replays. The scan's trainings are not touched.
    """
    data, training = context.data, context.training
    copied, swapped = _choose(data, decided, seed)
    planted = _planted(data, copied, swapped)
    recipe = replace(training.recipe, data=Rows(x=planted.x, y=planted.y, ids=planted.ids.tolist()))
    query = mean_loss(data.query.x, data.query.y, name=HELD_OUT, unit=training.unit)
    found = make_estimate(
        Context(
            replace(training, recipe=recipe),
            replace(data, train=planted),
            ScanFolder(context.folder / "self-test"),
            lambda stage, done, total: context.progress(f"self-test: {stage}", done, total),
        ),
        Asked([query], budget=budget),
    )
    n = len(data.train)
    one = found.influence.data.sel(query=HELD_OUT)
    effect, error = one["effect"].values, one["effect_se"].values
    copies = np.arange(n, n + len(copied))
    voice = None if judged is None else _followed(judged.train, copied, judged.evaluation, swapped)
    flagged = decide_rows(found, planted, fdr, voice).decisions.frame["flagged"].to_numpy()
    named = Named(
        int(flagged[copies].sum()),
        int(flagged[n + len(copied) :].sum()),
        len(swapped),
        int(flagged[:n].sum()),
        n,
    )
    result = judge(effect[copied] - effect[copies], np.hypot(error[copied], error[copies]), named, fdr)
    write_json(context.folder / SELF_TEST, result)
    return result


def judge(differences: np.ndarray, errors: np.ndarray, named: Named, fdr: float) -> dict[str, Any]:
    """Return rates, their exact 95 % intervals, and whether they agree with the stated levels.

    Parameters
    ----------
    differences, errors : array [pairs]
        Difference of effects between a row and its copy, in the query's unit, and its standard error.
    named : Named
        How many rows of each kind were named.
    fdr : float
        Level of the decisions.

    Returns
    -------
    dict
        Counts, rates and intervals as plain values, `passed` and `sentence`.

    Notes
    -----
    A rate fails where a one-sided exact binomial test tells it from its level at 1 %. Pairs without a known error (one
    training of one epoch) are left out; with none left nothing is judged.
    """
    known = np.isfinite(differences) & np.isfinite(errors) & (errors > 0)
    z = differences[known] / errors[known]
    pairs, copies = len(z), len(differences)
    rejected = int((np.abs(z) > norm.ppf(1 - LEVEL / 2)).sum())
    twins_hold = not pairs or _holds(rejected, pairs, LEVEL)
    copies_hold = _holds(named.copies, copies, fdr)
    result: dict[str, Any] = {
        "level": LEVEL,
        "pairs": pairs,
        "rejected": rejected,
        "rejected_rate": _rate(rejected, pairs),
        "error_scale": float(np.sqrt((z**2).mean())) if pairs else None,
        "fdr": fdr,
        "copies": copies,
        "named_copies": named.copies,
        "named_copies_rate": _rate(named.copies, copies),
        "swaps": named.planted_swaps,
        "named_swaps": named.swaps,
        "named_swaps_rate": _rate(named.swaps, named.planted_swaps),
        "rows": named.rows,
        "named_rows": named.training,
        "passed": bool(twins_hold and copies_hold),
    }
    return {**result, "sentence": sentence(result, twins_hold, copies_hold)}


def sentence(result: dict[str, Any], twins_hold: bool, copies_hold: bool) -> str:
    """Return the outcome in words."""
    parts = []
    if result["pairs"]:
        rate = result["rejected_rate"]
        parts.append(
            f"{result['rejected']} of {result['pairs']} rows differ from their own copy at {100 * LEVEL:.0f} % "
            f"({_percent(rate)}; expected {100 * LEVEL:.0f} %)"
        )
    else:
        parts.append(
            "the errors of single effects are unknown (one training of one epoch), so copies cannot be compared"
        )
    parts.append(
        f"{result['named_copies']} of {result['copies']} copies of rows that were not named are named "
        f"({_percent(result['named_copies_rate'])}; at most {100 * result['fdr']:.3g} %)"
    )
    if result["swaps"]:
        parts.append(
            f"{result['named_swaps']} of {result['swaps']} held-out rows put into the training are named "
            f"(training rows: {result['named_rows']} of {result['rows']:,})"
        )
    text = f"Self-test {'passed' if result['passed'] else 'FAILED'}: {'; '.join(parts)}."
    if not twins_hold:
        scale = f"{result['error_scale']:.2f}"
        text += f" The errors of effects are too small: multiply them by {scale}, or use more --runs."
    if not copies_hold:
        text += " The decisions name neutral rows: lower --fdr, or use more --runs."
    return text


def _choose(data: ScanData, decided: Decided, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of the training rows to copy and of the evaluation rows to swap in."""
    rng = stream(seed, "self-test")
    quiet = np.flatnonzero(~decided.decisions.frame["flagged"].to_numpy())
    count = min(MOST_PLANTED, max(FEWEST_PLANTED, len(data.train) // 20))
    if len(quiet) < FEWEST_PLANTED:
        raise DataError(
            explain(
                f"at least {FEWEST_PLANTED} training rows that are not named, to plant copies of",
                f"{len(quiet)}",
                "a very small data set, or one in which nearly every row is named",
                "scan more rows, or leave --self-test out",
            )
        )
    copied = np.sort(rng.permutation(quiet)[:count])
    spare = len(data.evaluation) if data.halved else 0
    return copied, np.sort(rng.permutation(spare)[:count])


def _followed(train: RowLabels, copied: np.ndarray, held: RowLabels, swapped: np.ndarray) -> RowLabels:
    """Return what is known of the training rows, of the copies and of the swaps."""
    parts = (train, train.take(copied), held.take(swapped))
    return RowLabels(*(np.concatenate([vars(part)[f.name] for part in parts]) for f in fields(RowLabels)))


def _planted(data: ScanData, copied: np.ndarray, swapped: np.ndarray) -> Table:
    train = data.train
    own = replace(train, ids=np.array([f"row {i}" for i in train.ids], dtype=object), groups=None)
    twins = replace(
        train.take(copied),
        ids=np.array([f"copy of row {i}" for i in train.ids[copied]], dtype=object),
        groups=None,
    )
    if not len(swapped):
        return own.followed_by(twins)
    foreign = data.evaluation.take(swapped)
    names = np.array([f"held-out row {i}" for i in foreign.ids], dtype=object)
    return own.followed_by(twins).followed_by(replace(foreign, ids=names, groups=None))


def _holds(count: int, of: int, level: float) -> bool:
    return float(binomtest(count, of, level, alternative="greater").pvalue) > 1 - SURE


def _rate(count: int, of: int) -> dict[str, float] | None:
    if not of:
        return None
    interval = binomtest(count, of).proportion_ci(0.95, method="exact")
    return {"value": count / of, "lower": float(interval.low), "upper": float(interval.high)}


def _percent(rate: dict[str, float] | None) -> str:
    return (
        ""
        if rate is None
        else f"{100 * rate['value']:.1f} % [{100 * rate['lower']:.1f}, {100 * rate['upper']:.1f}]"
    )
