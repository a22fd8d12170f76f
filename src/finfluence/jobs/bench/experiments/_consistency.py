"""Whether two trainings that differ in their seeds only name the same rows, and the right ones."""

from itertools import combinations

import numpy as np
import pandas as pd

from finfluence.errors import ConfigError, explain
from finfluence.evaluate import consistent_and_correct, jaccard, jaccard_by_chance, kendalls_w, top_ids
from finfluence.jobs.bench._answers import Answer, Ask
from finfluence.jobs.bench._bench import (
    Bench,
    Outcome,
    grouped,
    mean_and_range,
    not_measured,
    whole,
    with_effects,
    with_numbers,
)
from finfluence.jobs.bench._problem import Problem
from finfluence.report import Line, Section, lines

SHARES = (0.05, 0.1, 0.2)


class Consistency:
    """The same data and errors, trained with several seeds.

    Rows are ranked as in `mislabels`; the tops of each pair of seeds are compared with each other and with the truth.
    """

    name = "consistency"
    summary = (
        "agreement between seeds: Jaccard of the top rows beside chance, Kendall's W, and with the truth"
    )

    def run(self, bench: Bench) -> Outcome:
        """Return how far seeds agree, for every method.

        Returns
        -------
        Outcome

        Raises
        ------
        ConfigError
            One seed only.
        """
        if bench.options.seeds < 2:
            raise ConfigError(
                explain(
                    "two seeds or more",
                    f"--seeds {bench.options.seeds}",
                    "one training has nothing to agree with",
                    "leave --seeds out for three",
                )
            )
        problem = bench.problem(0)
        asked = bench.ask([Ask(problem, m, s) for m in bench.methods for s in bench.seeds])
        listed = grouped(with_effects(asked))
        found = pd.DataFrame(
            [line for answers in with_numbers(listed).values() if len(answers) > 1
             for line in _compared(answers, problem)],
            columns=["method", "share", "first", "second", "jaccard", "chance", "joint", "kendalls_w"],
        )  # fmt: skip
        score = found[found["share"] == SHARES[-1]].groupby("method")["joint"].mean()
        order = sorted(listed, key=lambda m: -score.get(m, -1.0))
        n = len(problem.ids)
        chance = ", ".join(f"{jaccard_by_chance(_count(s, n), n):.3f} at {s:.0%}" for s in SHARES)
        section = Section(
            "Agreement between seeds",
            ["method", *(f"Jaccard, top {s:.0%}" for s in SHARES), "Kendall's W",
             f"right and the same, top {SHARES[-1]:.0%}", "remark"],
            [_row(m, found[found["method"] == m], listed[m]) for m in order],
            [
                f"{bench.data.summary}; {n:,} rows, {bench.data.noise(bench.options.share)}; "
                f"{bench.options.seeds} trainings of the same rows, which differ in initialisation and batch order. "
                "Mean over pairs of seeds, with the least and the largest.",
                f"Jaccard: rows that both name over rows that either names; by chance {chance}. Kendall's W: 1 where "
                f"all seeds rank alike, about {1 / bench.options.seeds:.2f} by chance. Right and the same: wrong "
                "labels that both seeds name, over rows that either names. A method may agree with itself and be "
                "wrong. Published, for an MLP on MNIST without saying how many rows are named: f-INE .938, TRAK .736, "
                "influence functions .567, TracIn .564 (arXiv 2510.10510).",
            ],
            lines(
                [Line(m, SHARES, [_mean(found, m, s) for s in SHARES]) for m in order if m in score.index],
                "share of rows named", "Jaccard between seeds", "Agreement between seeds by share of rows named",
            ),
        )  # fmt: skip
        named = score[[m for m in whole(listed, bench.options.seeds) if m in score.index]]
        verdict = (
            f"The right rows are named most alike by {named.idxmax()}: {named.max():.3f}"
            if len(named)
            else "No method could be asked"
        )
        return Outcome(verdict, [section], {"pairs": found})


def _count(share: float, n: int) -> int:
    return max(1, round(share * n))


def _compared(answers: list[Answer], problem: Problem) -> list[dict[str, object]]:
    scores = np.stack([a.values()[:, 0] for a in answers])
    n, wrong = len(problem.ids), set(np.flatnonzero(problem.flipped).tolist())
    concordance = kendalls_w(np.nan_to_num(scores, nan=np.finfo(float).min))
    found: list[dict[str, object]] = []
    for share in SHARES:
        k = _count(share, n)
        tops = [top_ids(s, range(n), k) for s in scores]
        found += [
            {"method": answers[0].method, "share": share, "first": answers[a].seed, "second": answers[b].seed,
             "jaccard": jaccard(tops[a], tops[b]), "chance": jaccard_by_chance(k, n),
             "joint": consistent_and_correct(tops[a], tops[b], wrong), "kendalls_w": concordance}
            for a, b in combinations(range(len(answers)), 2)
        ]  # fmt: skip
    return found


def _mean(found: pd.DataFrame, method: str, share: float) -> float:
    return float(found[(found["method"] == method) & (found["share"] == share)]["jaccard"].mean())


def _row(method: str, mine: pd.DataFrame, answers: list[Answer]) -> list[str]:
    if mine.empty:
        return [method, *("" for _ in SHARES), "", "", not_measured(answers)]
    by_share = {s: mine[mine["share"] == s] for s in SHARES}
    return [
        method, *(mean_and_range(by_share[s]["jaccard"].tolist()) for s in SHARES),
        f"{mine['kendalls_w'].iloc[0]:.3f}", mean_and_range(by_share[SHARES[-1]]["joint"].tolist()),
        not_measured(answers),
    ]  # fmt: skip
