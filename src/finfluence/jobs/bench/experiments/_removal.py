"""Train again without the rows that each method names: what the model gains or loses, beside removals at random."""

import numpy as np
import pandas as pd

from finfluence._seeds import stream
from finfluence.ensemble import without
from finfluence.jobs.bench._answers import Answer, Ask
from finfluence.jobs.bench._arms import RANDOM, Arm, change_row, mean_change, train_arms
from finfluence.jobs.bench._bench import Bench, Outcome, grouped, not_measured, whole, with_numbers
from finfluence.jobs.bench._retrained import MASTER
from finfluence.report import Line, Section, lines
from finfluence.runs import mean_loss

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
RUNS_A_REMOVAL = 3
"""A removal is trained once for so many of `runs`: there are many removals."""


class Removal:
    """Removal of the rows that do most damage.

    Rows are ranked by the loss of one half of the rows held out, and the models trained without the top rows are judged
    by that of the other half.
    """

    name = "removal"
    summary = "train again without the rows that each method names: held-out loss, beside removals at random"

    def run(self, bench: Bench) -> Outcome:
        """Return the change of the held-out loss by each method's removals, with intervals."""
        problem = bench.problem(0)
        half = len(problem.x_test) // 2
        asked = mean_loss(problem.x_test[:half], problem.y_test[:half], name="asked")
        judged = mean_loss(problem.x_test[half:], problem.y_test[half:], name="judged")
        listed = grouped(bench.ask([Ask(problem, m, s, [asked]) for m in bench.methods for s in bench.seeds]))
        trained = with_numbers(listed)
        arms = _arms(trained, len(problem.ids), bench.options.seeds)
        runs = max(2, bench.options.runs // RUNS_A_REMOVAL)
        found = train_arms(bench.bank(problem), [judged], None, arms, runs, bench.progress)
        last = found[found["share"] == SHARES[-1]]
        mean = last.groupby("method")["change"].mean()
        order = [RANDOM, *sorted(listed, key=lambda m: mean.get(m, np.inf))]
        section = Section(
            "Held-out loss without the rows named",
            ["method", *(f"{s:.0%} removed" for s in SHARES), "remark"],
            [change_row(m, found, SHARES, "" if m == RANDOM else not_measured(listed[m])) for m in order],
            [
                f"{bench.data.summary}; {len(problem.ids):,} rows, {bench.data.noise(bench.options.share)}. "
                "Change of the held-out loss [nats] when training goes without the rows that do most damage by each "
                "method: below zero, the model got better. Ranked by one half of the rows held out, judged by the "
                f"other. {bench.options.seeds} rankings, each from one training, {runs} trainings without each.",
                "In brackets 95 % intervals of the mean over rankings and trainings; each training is compared with "
                "one on all rows with the same seeds. Scores of rows by themselves name the most suspect ones.",
            ],
            lines(
                [Line(m, [100 * s for s in SHARES], [mean_change(found, m, s) for s in SHARES])
                 for m in order if m in mean.index],
                "rows removed [%]", "change of the held-out loss [nats]", "Held-out loss by share of rows removed",
            ),
        )  # fmt: skip
        return Outcome(_verdict(mean, whole(listed, bench.options.seeds)), [section], {"changes": found})


def _verdict(mean: pd.Series, compared: list[str]) -> str:
    if not compared:
        return "No method could be asked"
    best = str(mean[compared].idxmin())
    by_best, by_chance = float(mean.loc[best]), float(mean.loc[RANDOM])
    return (
        f"Without the fifth of the rows named by {best} the held-out loss changes by {by_best:+.3f} nats; without a "
        f"random fifth by {by_chance:+.3f}"
    )


def _arms(answers: dict[str, list[Answer]], n: int, seeds: int) -> list[Arm]:
    """Return what is left after each removal."""
    arms = []
    for share in SHARES:
        k = max(1, round(share * n))
        for method, found in answers.items():
            for answer in found:
                harm = answer.values()[:, 0]  # argsort puts what is no number last
                arms.append(Arm(method, share, answer.seed, without(n, np.argsort(-harm, kind="stable")[:k])))
        for seed in range(seeds):
            drawn = stream(MASTER, "bench random removal", seed).permutation(n)[:k]
            arms.append(Arm(RANDOM, share, seed, without(n, drawn)))
    return arms
