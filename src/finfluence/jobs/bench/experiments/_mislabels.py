"""Find wrong labels by the own influence of each row: the paper's protocol, beside simple tools."""

import numpy as np
import pandas as pd

from finfluence.evaluate import average_precision, recall_at
from finfluence.jobs.bench._answers import Answer, Ask
from finfluence.jobs.bench._bench import (
    Bench,
    Outcome,
    grouped,
    mean_and_range,
    not_measured,
    timings,
    whole,
    with_effects,
)
from finfluence.jobs.bench._problem import Problem
from finfluence.report import Line, Section, Svg, lines

FRACTIONS = tuple(round(0.05 * k, 2) for k in range(1, 21))
SHOWN = (0.1, 0.2, 0.3)
PUBLISHED = (
    ("TracIn", "tracin", 0.05),
    ("influence functions", "if-explicit", 3.83),
    ("influence functions", "if-cg", 3.83),
    ("influence functions", "if-ekfac", 3.83),
    ("TRAK", "trak", 13.85),
)
"""By how many points the recall of f-INE is published to be above that of others, on average, and our names of them."""
RANKED_BY = {
    "mu": "own influence, μ",
    "effect": "own influence, effect",
    "score": "own influence, score",
    "rows": "row by itself",
}


class Mislabels:
    """Wrong labels found by own influence.

    A share of the labels is replaced; each method ranks the rows by own influence, how much a row's own loss would rise
    without it, or by its score where it scores rows by themselves. Recall against the inspected fraction.
    """

    name = "mislabels"
    summary = "find wrong labels by own influence: recall against the inspected fraction"

    def run(self, bench: Bench) -> Outcome:
        """Return recall and average precision of every method, over seeds of data, errors and training."""
        problems = [bench.problem(seed) for seed in bench.seeds]
        asks = [Ask(p, method, p.seed) for method in bench.methods for p in problems]
        asked = bench.ask(asks)
        answers = with_effects(asked)
        recall = pd.DataFrame(
            [line for answer in answers if answer.measured for line in _recall(answer, problems[answer.seed])]
        )
        scores = pd.DataFrame(
            [_scored(a, problems[a.seed]) for a in answers if a.measured],
            columns=["method", "seed", "average_precision", "area", "ranked_by"],
        )
        listed = grouped(answers)
        best = (
            scores.groupby("method", sort=False)["average_precision"].mean() if len(scores) else pd.Series()
        )
        order = [
            *best.sort_values(ascending=False, kind="stable").index,
            *(m for m in listed if m not in best),
        ]
        section = Section(
            "Wrong labels found",
            ["method", "ranked by", "average precision", "area under recall",
             *(f"recall at {f:.0%}" for f in SHOWN), "seeds", "remark"],
            [_row(method, listed[method], scores, recall) for method in order],
            [
                f"{bench.data.summary}; {len(problems[0].ids):,} rows, {bench.data.noise(bench.options.share)}. Mean "
                "over seeds of data, errors and training, with the least and the largest.",
                "Own influence: how much the loss of a row would rise if training went without it. Area under "
                "recall: recall averaged over inspected fractions from 5 to 100 %. A random order has an average "
                f"precision of about {np.mean([p.flipped.mean() for p in problems]):.2f}.",
            ],
            _chart(recall, order),
        )  # fmt: skip
        compared = whole(listed, bench.options.seeds)
        return Outcome(
            _verdict(best[[m for m in best.index if m in compared]], bench),
            [section, *_published(scores, bench), _cost(asked, order)],
            {"scores": scores, "recall": recall, "timings": timings(asked)},
        )


def _recall(answer: Answer, problem: Problem) -> list[dict[str, object]]:
    scores, n = answer.values()[:, 0], len(problem.ids)
    return [
        {"method": answer.method, "seed": answer.seed, "fraction": fraction,
         "recall": recall_at(scores, problem.flipped, round(fraction * n))}
        for fraction in FRACTIONS
    ]  # fmt: skip


def _scored(answer: Answer, problem: Problem) -> dict[str, object]:
    scores = answer.values()[:, 0]
    area = float(np.mean([line["recall"] for line in _recall(answer, problem)]))
    return {
        "method": answer.method, "seed": answer.seed, "area": area, "ranked_by": RANKED_BY[answer.kind],
        "average_precision": average_precision(scores, problem.flipped),
    }  # fmt: skip


def _row(method: str, answers: list[Answer], scores: pd.DataFrame, recall: pd.DataFrame) -> list[str]:
    mine = scores[scores["method"] == method]
    if mine.empty:
        return [method, "", "", "", *("" for _ in SHOWN), "0", not_measured(answers)]
    found = recall[recall["method"] == method]
    at = [mean_and_range(found[found["fraction"] == f]["recall"].tolist(), "{:.2f}".format) for f in SHOWN]
    return [
        method, mine["ranked_by"].iloc[0], mean_and_range(mine["average_precision"].tolist()),
        mean_and_range(mine["area"].tolist()), *at, str(len(mine)), not_measured(answers),
    ]  # fmt: skip


def _chart(recall: pd.DataFrame, order: list[str]) -> Svg | None:
    if recall.empty:
        return None
    mean = recall.groupby(["method", "fraction"])["recall"].mean()
    measured = [m for m in order if m in mean.index.get_level_values(0)]
    return lines(
        [Line(m, [0.0, *mean[m].index], [0.0, *mean[m].to_numpy()]) for m in measured],
        "inspected fraction", "recall of wrong labels", "Recall of wrong labels against the inspected fraction",
    )  # fmt: skip


def _published(scores: pd.DataFrame, bench: Bench) -> list[Section]:
    """Return by how much the recall of f-INE is above that of others, as published and here; nothing without f-INE."""
    area = scores.pivot(index="seed", columns="method", values="area")
    ours = [name for name in ("fine", "fine-mc") if name in area]
    others = [line for line in PUBLISHED if line[1] in area]
    if not (ours and others):
        return []
    rows = [
        [said, method, f"{margin:+.2f}",
         *(mean_and_range((100 * (area[name] - area[method])).dropna().tolist(), "{:+.2f}".format) for name in ours)]
        for said, method, margin in others
    ]  # fmt: skip
    return [
        Section(
            "The published comparison",
            ["recall of f-INE above", "method here", "published", *(f"{name}, here" for name in ours)],
            rows,
            [
                "Recall against the inspected fraction, averaged over it, in points of a hundred. Published: MLP on "
                "MNIST, 20 % of the labels replaced, ranked by own influence (arXiv 2510.10510, from notes on the "
                f"paper; its network, rows and seeds are not known). Here: {bench.data.summary}, "
                f"{bench.data.noise(bench.options.share)}; means over {bench.options.seeds} seeds with the least and "
                "the largest. `fine` computes in expectation what f-INE draws, `fine-mc` is our reading of the paper's "
                "own algorithm, whose code is not published.",
            ],
        )
    ]


def _cost(answers: list[Answer], order: list[str]) -> Section:
    took = timings(answers)
    rows = [
        [m, mean_and_range(mine["trainings"].tolist(), "{:.2f}".format),
         mean_and_range(mine["seconds"].tolist(), "{:.2f}".format)]
        for m in order if len(mine := took[took["method"] == m])
    ]  # fmt: skip
    return Section(
        "What it took",
        ["method", "trainings", "seconds"],
        rows,
        ["Time of an answer as a multiple of the training that it looks at, once each, on a machine that may do other "
         "work: an order of magnitude. The experiment `cost` measures it properly."],
    )  # fmt: skip


def _verdict(best: pd.Series, bench: Bench) -> str:
    if best.empty:
        return "No method could be asked"
    value = best.max()
    first = [m for m in best.index if best[m] == value]
    seeds = "one seed" if bench.options.seeds == 1 else f"{bench.options.seeds} seeds"
    found = f"{' and '.join(first)}: average precision {value:.3f}, {seeds}"
    return f"Wrong labels of {bench.data.name} are found best by {found}"
