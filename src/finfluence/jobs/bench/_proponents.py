"""Query loss difference: what training without the rows that a query leans on most does to it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from finfluence._progress import Progress
from finfluence._seeds import stream
from finfluence.ensemble import ModelBank, without
from finfluence.evaluate import resampled_interval
from finfluence.jobs.bench._answers import Answer
from finfluence.jobs.bench._arms import RANDOM, Arm, train_arms
from finfluence.jobs.bench._retrained import MASTER
from finfluence.report import Level, Section, levels
from finfluence.runs import AnyQuery

SHARES = (0.01, 0.05)


def predicted_removal(answer: Answer) -> np.ndarray:
    """Return what an answer predicts of removing each row, up to scale: positive, the query rises.

    Returns
    -------
    array [n, Q]
        Zero where an answer is no number.
    """
    effect, mu = answer.values("effect"), answer.values("mu")
    if np.isfinite(effect).all() and answer.kind == "mu":
        return effect
    return mu if np.isfinite(mu).all() else np.nan_to_num(-answer.values("harm"))


def without_proponents(
    bank: ModelBank,
    query: AnyQuery,
    columns: Sequence[int],
    answers: Mapping[str, Sequence[Answer]],
    runs: int,
    progress: Progress,
) -> pd.DataFrame:
    """Return the change of each query's loss after training without its proponents, by every method and at random.

    Parameters
    ----------
    query : AnyQuery
        Losses of single rows.
    columns : sequence of int
        Where they stand among the queries that the methods were asked about.

    Returns
    -------
    DataFrame
        As of `train_arms`.
    """
    n = len(bank.recipe.rows)
    arms = []
    for share in SHARES:
        k = max(1, round(share * n))
        for method, found in answers.items():
            for answer in found:
                rises = predicted_removal(answer)[:, columns]
                tops = np.argsort(-rises, axis=0, kind="stable")[:k]
                arms += [
                    Arm(method, share, answer.seed, without(n, tops[:, q]), q) for q in range(len(columns))
                ]
        seeds = sorted({answer.seed for found in answers.values() for answer in found}) or [0]
        for seed in seeds:
            drawn = stream(MASTER, "bench random proponents", seed).permutation(n)[:k]
            arms += [Arm(RANDOM, share, seed, without(n, drawn), q) for q in range(len(columns))]
    return train_arms(bank, [query], None, arms, runs, progress)


def proponents_section(found: pd.DataFrame, remarks: Mapping[str, str], n: int) -> Section:
    """Return the table of query loss differences, the largest at 1 % first."""
    cells = {
        (str(method), share): _difference(found[(found["method"] == method) & (found["share"] == share)])
        for method in found["method"].unique()
        for share in SHARES
    }
    measured = sorted({m for m, _ in cells if m != RANDOM}, key=lambda m: -cells[m, SHARES[0]][0])
    order = [RANDOM, *measured, *(m for m in remarks if m not in measured)]
    queries, seeds, runs = (found[name].nunique() for name in ("query", "seed", "run"))
    return Section(
        "Query loss without its proponents",
        ["method", *(f"QLD, {share:.0%} removed" for share in SHARES), "remark"],
        [[m, *(_shown(cells.get((m, share))) for share in SHARES), remarks.get(m, "")] for m in order],
        [
            "Query loss difference (QLD, the leaderboard of bergson): how much the loss [nats] of a test row rises "
            "when training goes without the rows that raise it most by their absence, by each method: "
            f"{', '.join(f'{max(1, round(s * n))} rows ({s:.0%})' for s in SHARES)}. Mean over {queries} test rows, "
            f"{seeds} runs that methods look at and {runs} trainings, each compared with one on all rows from the "
            "same seeds; in brackets 95 % intervals, by drawing test rows again. Scores of rows by themselves name "
            "the same rows for all queries, the least suspect ones. What could be reached at best is not known.",
        ],
        levels(
            [Level(m, *cells[m, SHARES[-1]]) for m in (RANDOM, *measured)],
            f"QLD, {SHARES[-1]:.0%} removed [nats]", "Query loss difference of each method", 0.0,
        ),
    )  # fmt: skip


def _difference(mine: pd.DataFrame) -> tuple[float, float, float]:
    """Return the mean over queries with its interval."""
    each = mine.groupby("query")["change"].mean().to_numpy()
    return float(each.mean()), *resampled_interval(lambda at: float(each[at].mean()), len(each))


def _shown(cell: tuple[float, float, float] | None) -> str:
    return "" if cell is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*cell)
