"""Train again with the candidates that each method names: what the model gains, beside candidates at random."""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from finfluence._seeds import stream
from finfluence.ensemble import ModelBank
from finfluence.jobs.bench._answers import Answer, Ask
from finfluence.jobs.bench._arms import RANDOM, Arm, change_row, mean_change, train_arms
from finfluence.jobs.bench._bench import Bench, Outcome, grouped, not_measured, whole, with_numbers
from finfluence.jobs.bench._problem import Problem
from finfluence.jobs.bench._retrained import MASTER
from finfluence.report import Line, Section, lines
from finfluence.runs import Recipe, Rows, mean_loss

SHARES = (0.05, 0.1, 0.2, 0.5)
CANDIDATES = 0.5
"""As many candidates as this share of the training rows."""
LARGEST, SMALLEST = "(largest loss)", "(smallest loss)"
RUNS_AN_ADDITION = 3
"""An addition is trained once for so many of `runs`."""


class Addition:
    """Addition of the candidates that lower the held-out loss most, by the word of each method.

    A share of the labels of training rows and of candidates is wrong. Candidates are ranked by what adding each
    would do to the loss of one half of the rows held out, and models trained with the top ones are judged by that of
    the other half.
    """

    name = "addition"
    summary = (
        "train again with the candidates that each method names: held-out loss, beside additions at random"
    )

    def run(self, bench: Bench) -> Outcome:
        """Return the change of the held-out loss by each method's additions, with intervals."""
        problem, candidates = _with_candidates(bench)
        half, count = len(problem.x_test) // 2, len(candidates["y"])
        asked = mean_loss(problem.x_test[:half], problem.y_test[:half], name="asked")
        judged = mean_loss(problem.x_test[half:], problem.y_test[half:], name="judged")
        asks = [Ask(problem, m, s, [asked], None, candidates) for m in bench.methods for s in bench.seeds]
        listed = grouped(bench.ask(asks))
        n, runs = len(problem.ids), max(2, bench.options.runs // RUNS_AN_ADDITION)
        arms = _arms(listed, problem, candidates, bench)
        bank = ModelBank(
            _united(problem, candidates), bench.bank_folder, f"{problem.data}-{problem.seed}-united"
        )
        found = train_arms(bank, [judged], np.arange(n), arms, runs, bench.progress)
        mean = found[found["share"] == SHARES[2]].groupby("method")["change"].mean()
        plain = [RANDOM, LARGEST, SMALLEST]
        order = [*plain, *sorted(listed, key=lambda m: mean.get(m, np.inf))]
        steps = bank.recipe.epochs * -(-len(bank.recipe.rows) // bank.recipe.batch_size)
        section = Section(
            "Held-out loss with the candidates named",
            ["method", *(f"{round(s * count)} of {count} added" for s in SHARES), "remark"],
            [change_row(m, found, SHARES, "" if m in plain else not_measured(listed[m])) for m in order],
            [
                f"{bench.data.summary}; {n:,} rows and {count:,} candidates; of the rows "
                f"{bench.data.noise(bench.options.share)}, of the candidates {bench.options.share:.0%}. Change of the "
                "held-out loss [nats] when training is done with the candidates that lower it most by each method: "
                "below zero, the model got better. Ranked by one half of the rows held out, judged by the other. "
                f"{bench.options.seeds} rankings, each from one training, {runs} trainings with each, all of {steps} "
                "steps.",
                "In brackets 95 % intervals of the mean over rankings and trainings; each training is compared with "
                "one without candidates from the same seeds. Largest and smallest loss: of the candidates, at the end "
                "of the training that methods look at.",
            ],
            lines(
                [Line(m, [round(s * count) for s in SHARES], [mean_change(found, m, s) for s in SHARES])
                 for m in order if m in mean.index],
                "candidates added", "change of the held-out loss [nats]", "Held-out loss by candidates added",
            ),
        )  # fmt: skip
        return Outcome(
            _verdict(mean, whole(listed, bench.options.seeds), round(SHARES[2] * count)),
            [section],
            {"changes": found},
        )


def _with_candidates(bench: Bench) -> tuple[Problem, dict[str, np.ndarray]]:
    """Return the problem without the rows held out that become candidates, and these, some labels wrong."""
    problem = bench.problem(0)
    count = min(round(CANDIDATES * len(problem.ids)), len(problem.x_test) // 2)
    rng, y = stream(problem.seed, "bench candidates"), problem.y_test[:count].copy()
    wrong = rng.choice(count, max(1, round(bench.options.share * count)), replace=False)
    classes = int(problem.y_test.max()) + 1
    y[wrong] = (y[wrong] + rng.integers(1, classes, len(wrong))) % classes
    rest = replace(problem, x_test=problem.x_test[count:], y_test=problem.y_test[count:])
    return rest, {"x": problem.x_test[:count], "y": y}


def _united(problem: Problem, candidates: dict[str, np.ndarray]) -> Recipe:
    """Return the recipe on all rows and candidates, of as many steps as before."""
    recipe, n = problem.recipe, len(problem.ids)
    fields = recipe.rows.batch(torch.arange(n))
    united = {name: torch.cat([fields[name], torch.from_numpy(cells)]) for name, cells in candidates.items()}
    rows = Rows(x=united["x"], y=united["y"])
    epochs = max(1, round(recipe.epochs * n / len(rows)))
    return replace(recipe, data=rows, epochs=epochs)


def _arms(
    listed: dict[str, list[Answer]], problem: Problem, candidates: dict[str, np.ndarray], bench: Bench
) -> list[Arm]:
    """Return the rows that are trained on with each addition."""
    n, count = len(problem.ids), len(candidates["y"])
    ranked = [(m, a.seed, _predicted(a)) for m, found in with_numbers(listed).items() for a in found]
    for seed in bench.seeds:
        tape, _ = bench.answers.tape(problem, seed)
        batch = {name: torch.from_numpy(cells) for name, cells in candidates.items()}
        with torch.no_grad():
            losses = problem.recipe.loss(tape.model().eval(), batch).numpy()
        drawn = stream(MASTER, "bench random addition", seed).permutation(count).astype(float)
        ranked += [(LARGEST, seed, -losses), (SMALLEST, seed, losses), (RANDOM, seed, drawn)]
    return [
        Arm(method, share, seed, np.r_[np.arange(n), n + np.sort(np.argsort(lowers, kind="stable")[:k])])
        for share in SHARES
        for k in [max(1, round(share * count))]
        for method, seed, lowers in ranked
    ]


def _predicted(answer: Answer) -> np.ndarray:
    """Return what adding each candidate is said to do to the loss [candidates], the lowest first to be added."""
    effect = answer.values("effect")[:, 0]
    return effect if np.isfinite(effect).all() else answer.values("harm")[:, 0]


def _verdict(mean: pd.Series, compared: list[str], count: int) -> str:
    named = mean[compared]
    if named.empty:
        return "No method could be asked"
    return (
        f"With the {count} candidates named by {named.idxmin()} the held-out loss changes by {named.min():+.3f} nats; "
        f"with {count} at random by {mean[RANDOM]:+.3f}"
    )
