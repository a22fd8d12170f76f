"""Hold every method against retraining: the order of random halves, and the size of the effects of groups."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from finfluence.evaluate import (
    agreement,
    agreement_ceiling,
    correlation,
    datamodel_ceiling,
    datamodel_score,
    resampled_interval,
)
from finfluence.jobs.bench._answers import Answer, Ask
from finfluence.jobs.bench._bench import Bench, Outcome, grouped, not_measured, timings, whole, with_numbers
from finfluence.jobs.bench._proponents import predicted_removal, proponents_section, without_proponents
from finfluence.jobs.bench._retrained import Halves, Removed, make_groups, remove_groups, train_halves
from finfluence.report import Level, Section, Svg, levels

TEST_ROWS, QLD_ROWS = 24, 12
PERFECT = "(at best)"
RUNS_OF_A_QUERY = 6
"""Without the proponents of each query is trained once for so many of `runs`: there are many queries."""
FIGURES = {
    "lds_same_seed": "LDS, same seed",
    "lds": "LDS over seeds",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "slope_mu": "slope of μ",
    "slope_effect": "slope of effects",
}


@dataclass(frozen=True, eq=False)
class Truth:
    """Both truths, and their ceilings by figure."""

    halves: Halves
    removed: Removed
    best: dict[str, float]


class AgainstRetraining:
    """Estimates against models trained again.

    All methods look at the same runs, one for each seed, and are held against the same bank of retrained models.
    """

    name = "truth"
    summary = "agreement with retraining: LDS with one seed and over seeds, QLD, correlation and slope of group effects"

    def run(self, bench: Bench) -> Outcome:
        """Return the agreement of every method with retraining, with intervals and ceilings."""
        problem, options = bench.problem(0), bench.options
        queries = [problem.held_out, problem.test_rows(TEST_ROWS)]
        groups = make_groups(problem, max(2, len(problem.ids) // 25))
        bank = bench.bank(problem)
        halves = train_halves(bank, queries, options.subsets, list(bench.seeds), bench.progress)
        removed = remove_groups(bank, queries, groups, options.runs, bench.progress)
        truth = Truth(halves, removed, _ceilings(halves, removed))
        asked = [(m, s) for m in bench.methods for s in bench.seeds]
        rows = bench.ask([Ask(problem, m, s, queries) for m, s in asked], "rows")
        sets = bench.ask([Ask(problem, m, s, queries, groups) for m, s in asked], "groups")
        found = {
            method: _agreement(alone, together, truth)
            for (method, alone), together in zip(grouped(rows).items(), grouped(sets).values(), strict=True)
        }
        left_out = without_proponents(
            bank, problem.test_rows(QLD_ROWS), range(1, QLD_ROWS + 1), with_numbers(grouped(rows)),
            max(2, options.runs // RUNS_OF_A_QUERY), bench.progress,
        )  # fmt: skip
        order = sorted(found, key=lambda m: -np.nan_to_num(found[m]["lds"][0], nan=-2.0))
        remarks = {m: _remark(a, b) for (m, a), b in
                   zip(grouped(rows).items(), grouped(sets).values(), strict=True)}  # fmt: skip
        names = [name for query in queries for name in query.names]
        counts = f"{options.subsets} random halves of the rows, {len(groups)} groups of {len(groups['random 0'])} rows"
        section = Section(
            "Agreement with retraining",
            ["method", *FIGURES.values(), "remark"],
            [_shown(PERFECT, {n: (v, np.nan, np.nan) for n, v in truth.best.items()}, ""),
             *(_shown(m, found[m], remarks[m]) for m in order)],
            [
                f"{bench.data.summary}; {len(problem.ids):,} rows, {bench.data.noise(options.share)}. "
                f"{counts}; "
                f"{len(bank):,} trainings, all from the bank {bank.folder.name}. Methods look at one run each; means "
                f"over {options.seeds} such runs; queries: the held-out loss and that of {TEST_ROWS} test rows.",
                "LDS: rank correlation over halves of the predicted sum with the query after training on the half, "
                "mean over queries; with the very seed that the method looks at, and as a mean over 3 other seeds, of "
                "data order and initialisation. Pearson and Spearman: over groups, with the true μ of removing them, "
                "mean over queries. Slopes: truth over estimate. In brackets 95 % intervals, by drawing halves or "
                "groups again; for slopes the least and the largest of the runs.",
                f"{PERFECT}: what an estimate without error would reach, the truth being noisy itself.",
            ],
            _chart(found, order, truth.best["lds"]),
        )  # fmt: skip
        compared = whole(grouped(rows), options.seeds)
        return Outcome(
            _verdict(found, [m for m in order if m in compared], bench, truth.best["lds"]),
            [section, proponents_section(left_out, remarks, len(problem.ids))],
            {
                "proponents": left_out,
                "agreement": _figures(found),
                "removed": removed.frame(names),
                "timings": timings([*rows, *sets]),
            },
        )


def _remark(alone: list[Answer], together: list[Answer]) -> str:
    by_itself = "scores rows by themselves, whatever is asked" if alone[0].kind == "rows" else ""
    return not_measured(alone) or not_measured(together) or by_itself


def _agreement(
    alone: list[Answer], together: list[Answer], truth: Truth
) -> dict[str, tuple[float, float, float]]:
    found = dict.fromkeys(FIGURES, (np.nan, np.nan, np.nan))
    alone, together = ([a for a in answers if a.measured] for answers in (alone, together))
    if alone:
        predicted = np.stack([truth.halves.left_out @ predicted_removal(a) for a in alone])
        over = truth.halves.other_seeds.mean(0)
        found["lds_same_seed"] = _over_halves(predicted, truth.halves.same_seed[[a.seed for a in alone]])
        found["lds"] = _over_halves(predicted, np.stack([over] * len(predicted)))
    if together:
        found |= _over_groups(together, truth.removed)
    return found


def _over_halves(predicted: np.ndarray, outcome: np.ndarray) -> tuple[float, float, float]:
    """Return the mean score over runs and queries, with its interval over halves."""

    def score(at: np.ndarray) -> float:
        pairs = zip(predicted, outcome, strict=True)
        return float(np.nan_to_num([datamodel_score(p[at], o[at]) for p, o in pairs]).mean())

    count = predicted.shape[1]
    return score(np.arange(count)), *resampled_interval(score, count)


def _over_groups(answers: list[Answer], removed: Removed) -> dict[str, tuple[float, float, float]]:
    estimates = [
        a.values("mu") if np.isfinite(a.values("mu")).all() else np.nan_to_num(-a.values("harm"))
        for a in answers
    ]
    found = {}
    for name, ranks in (("pearson", False), ("spearman", True)):

        def score(at: np.ndarray, ranks: bool = ranks) -> float:
            each = [correlation(e[at], removed.mu[at], ranks) for e in estimates]
            return float(np.nan_to_num(each).mean())

        count = len(removed.mu)
        found[name] = (score(np.arange(count)), *resampled_interval(score, count))
    for name, column, true, unit in (
        ("slope_mu", "mu", removed.mu, np.ones_like(removed.mu)),
        ("slope_effect", "effect", removed.effect, removed.spread),
    ):
        given = [a.values(column) for a in answers]
        if all(np.isfinite(g).all() for g in given):
            slopes = [agreement(g / unit, true / unit).slope for g in given]
            found[name] = (float(np.mean(slopes)), min(slopes), max(slopes))
    return found


def _ceilings(halves: Halves, removed: Removed) -> dict[str, float]:
    return {
        "lds_same_seed": 1.0,
        "lds": float(datamodel_ceiling(halves.other_seeds).mean()),
        "pearson": float(agreement_ceiling(removed.mu, removed.mu_se).mean()),
        "spearman": float(agreement_ceiling(removed.mu, removed.mu_se, ranks=True).mean()),
        "slope_mu": 1.0,
        "slope_effect": 1.0,
    }


def _shown(method: str, figures: dict[str, tuple[float, float, float]], remark: str) -> list[str]:
    cells = []
    for name in FIGURES:
        value, low, high = figures[name]
        known = "" if np.isnan(value) else f"{value:.3f}" if name.startswith("lds") else f"{value:.2f}"
        ends = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
        cells.append(known + ends if known else "")
    return [method, *cells, remark]


def _figures(found: dict[str, dict[str, tuple[float, float, float]]]) -> pd.DataFrame:
    lines = [
        {"method": method, "figure": name, "value": value, "lower": low, "upper": high}
        for method, figures in found.items()
        for name, (value, low, high) in figures.items()
    ]
    return pd.DataFrame(lines)


def _chart(found: dict[str, dict[str, tuple[float, float, float]]], order: list[str], best: float) -> Svg:
    drawn = [Level(m, *found[m]["lds"]) for m in order if np.isfinite(found[m]["lds"][0])]
    return levels(drawn, "LDS over seeds; dashed: at best", "Linear datamodelling score of each method", best)


def _verdict(
    found: dict[str, dict[str, tuple[float, float, float]]], order: list[str], bench: Bench, best: float
) -> str:
    if not order:
        return "No method could be asked"
    found_best = f"{order[0]}: LDS over seeds {found[order[0]]['lds'][0]:.3f} of at best {best:.3f}"
    return f"Retraining on {bench.data.name} is predicted best by {found_best}"
