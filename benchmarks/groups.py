"""Ways to estimate the effect of a group, against retraining: the table of docs/groups.md.

    python -m benchmarks.groups [--setting sgd adamw] [--seeds 4] [--large] [--out bench-out]

Linear replay; a factor from the group's own losses; tangents carried forward with and without the group's rows, at
first order in the query and at its end; and paired runs. For each kind of group: slope (truth over estimate, over all
queries), root mean square error of μ beyond what sampling explains, ± the sampling error of the runs' mean. Cost is
processor time in multiples of one training, tracing included.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

import finfluence as fi
import finfluence.runs as fr
from benchmarks.calibration import RUNS, RUNS_WITHOUT
from benchmarks.interval_coverage import ALL, FIRST_SEED, TABULAR, kinds, tabular
from benchmarks.problems import Problem, digits
from finfluence.ensemble import StackedQueries
from finfluence.estimators.replay.leave_out import Coupling, leave_out_effects
from finfluence.estimators.retrain import retrain
from finfluence.grads import RowLosses, Traced, trace
from finfluence.result import Influence
from finfluence.runs import gradients

Estimates = dict[str, tuple[np.ndarray, float]]


def grouped(setting: str, large: bool) -> Problem:
    """Return the problem with its groups only; `large`: 50 and 80 rows of one class instead."""
    problem = tabular(setting) if setting in TABULAR else digits(setting)
    if not large:
        return replace(problem, subsets={k: v for k, v in problem.subsets.items() if len(v) > 1})
    rng = np.random.default_rng(2)
    good = np.setdiff1d(np.arange(len(problem.clean_labels)), problem.flipped)
    chosen = {
        f"{size} of class {c}": rng.choice(
            good[problem.clean_labels[good] == c], size, replace=False
        ).tolist()
        for size in (50, 80)
        for c in (3, 8)
    }
    return replace(problem, subsets=chosen)


def truth(problem: Problem, out: Path) -> Influence:
    """Return the truth by retraining, reusing finished runs in `out`."""
    return retrain(
        problem.recipe, problem.queries, problem.subsets, runs=RUNS, runs_without=RUNS_WITHOUT, vary="order",
        seed=0, out=out / "truth-runs",
    )  # fmt: skip


class Tangents:
    """d_{t+1} = ∂U/∂s d_t + ∂U/∂g [H_w d_t + g_{B∖S} − g_B], for all groups together."""

    def __init__(self, tape: fr.Tape, groups: list[np.ndarray], without: bool) -> None:
        self.tape, self.groups, self.without = tape, groups, without
        self._losses = RowLosses(tape.working, tape.step_loss, tape.layout)
        self._traced: dict[tuple[int, ...], Traced] = {}

    def final(self) -> Tensor:
        """Return ∂θ_T [G, P]; `without`: curvature of the batch without the group."""
        tape, slots = self.tape, len(self.tape.optimizer.slots)
        d = torch.zeros(len(self.groups), 1 + slots, tape.layout.size)
        for t in range(tape.steps):
            step = tape.at(t)
            keep = torch.from_numpy(np.stack([~np.isin(step.rows.numpy(), g) for g in self.groups])).float()
            weights = keep / keep.sum(1, keepdim=True)
            keys = sorted(step.batch)

            def function(
                s: Tensor, d: Tensor, w: Tensor, hyper: Tensor, *fields: Tensor, keys: list[str] = keys
            ) -> Tensor:
                return self._step(s, d, w, hyper, dict(zip(keys, fields, strict=True)))

            args = (tape.state(t), d, weights, step.hyper, *(step.batch[k] for k in keys))
            key = tuple(len(a) for a in args)
            if key not in self._traced:
                self._traced[key] = trace(function, *args)
            d = self._traced[key](*args)
        return d[:, 0]

    def _step(
        self, state: Tensor, d: Tensor, weights: Tensor, hyper: Tensor, batch: dict[str, Tensor]
    ) -> Tensor:
        parts = state.view(d.shape[1], -1)
        even = torch.full_like(weights[0], 1 / weights.shape[1])

        def gradient(theta: Tensor, w: Tensor) -> Tensor:
            return grad(lambda p: (self._losses(p, batch) * w).sum())(theta)

        def update(s: Tensor, g: Tensor) -> Tensor:
            new, kept = self.tape.optimizer.update(s[0], tuple(s[1:].unbind()), g, hyper.unbind())
            return torch.stack([new, *kept])

        base = gradient(parts[0], even)

        def one(d: Tensor, w: Tensor) -> Tensor:
            curved = jvp(lambda p: gradient(p, w if self.without else even), (parts[0],), (d[0],))[1]
            return jvp(update, (parts, base), (d, curved + gradient(parts[0], w) - base))[1]

        return vmap(one)(d, weights)


def estimates(problem: Problem, seed: int) -> Estimates:
    """Return {way: (effects [G, Q], processor seconds)} of one training run; "train" is the run itself."""
    tape = fr.train(problem.recipe, seed=seed)
    groups = [np.sort(rows) for rows in problem.subsets.values()]
    named = {name: [int(i) for i in rows] for name, rows in problem.subsets.items()}
    found: Estimates = {}

    def timed(name: str, work: Callable[[], np.ndarray]) -> np.ndarray:
        start = time.process_time()
        values = work()
        found[name] = (values, time.process_time() - start)
        return values

    timed("train", lambda: fr.train(problem.recipe, seed=seed).losses)
    for method in ("online", "full"):
        timed(f"linear, {method}", lambda m=method: _linear(tape, problem, named, m))
    factor = 1 / (1 - _own_share(tape, problem, named, groups))
    found["linear, full, own-loss factor"] = (
        found["linear, full"][0] * factor[:, None],
        found["linear, full"][1],
    )
    model = tape.model()
    slopes = gradients(problem.queries, model, tape, tape.layout.parameters(model))[1]
    theta = tape.layout.theta(model)
    asked = StackedQueries(tape, model, problem.queries)
    for name, without in (("tangent", False), ("tangent without the group", True)):
        start = time.process_time()
        moved = Tangents(tape, groups, without).final()
        spent = time.process_time() - start
        at_end = asked(torch.cat([theta[None], theta + moved]))
        found[f"{name}, query linear"] = ((moved @ slopes.T).numpy(), spent)
        found[f"{name}, query itself"] = (at_end[1:] - at_end[0], spent)
    timed("paired", lambda: leave_out_effects(tape, problem.queries, groups, Coupling(64, seed)))
    return found


def _linear(tape: fr.Tape, problem: Problem, named: dict[str, list[int]], method: str) -> np.ndarray:
    values: np.ndarray = (
        fi.replay(tape, problem.queries, method, named, groups="linear").data["effect"].values
    )
    return values


def _own_share(
    tape: fr.Tape, problem: Problem, named: dict[str, list[int]], groups: list[np.ndarray]
) -> np.ndarray:
    """Return h = Δℓ_S/(2ℓ_S): for a quadratic loss and one row, its leverage."""
    rows = problem.recipe.rows.fields
    queries = [
        fi.mean_loss(rows["x"][g], rows["y"][g], name=name) for name, g in zip(named, groups, strict=True)
    ]
    result = fi.replay(tape, queries, "full", named, groups="linear")
    rise = np.diag(result.data["effect"].values)
    return np.clip(rise / (2 * result.data["own_loss"].values), -0.5, 0.5)


def lines(setting: str, seeds: int, large: bool, out: Path) -> list[str]:
    """Return a line for each way: slope and error for each kind of group, cost in trainings."""
    problem = grouped(setting, large)
    true = truth(problem, out).data
    each = [estimates(problem, FIRST_SEED + k) for k in range(seeds)]
    kind, spread = kinds(true["subset"].values), true["spread"].values
    mu, noise = true["effect"].values / spread, true["effect_se"].values / spread
    plain = np.median([e["train"][1] for e in each])
    made = []
    for name in [n for n in each[0] if n != "train"]:
        values = np.stack([e[name][0] for e in each]) / spread
        mean, sampling = values.mean(0), values.var(0, ddof=1) / seeds
        cost = np.median([e[name][1] for e in each]) / plain
        parts = []
        for k in dict.fromkeys(kind):
            i = kind == k
            slope = (mean[i] * mu[i]).sum() / (mean[i] ** 2).sum()
            beyond = np.mean((mean[i] - mu[i]) ** 2 - noise[i] ** 2 - sampling[i])
            parts.append(
                f"{k}: {slope:.2f} {np.sqrt(max(0.0, beyond)):.2f} ±{np.sqrt(sampling[i].mean()):.2f}"
            )
        made.append(f"{setting:12s} {name:42s} {'  '.join(parts)}  cost {cost:.1f}")
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setting", nargs="+", choices=ALL, default=["sgd", "adamw"])
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for setting in options.setting:
        print(*lines(setting, options.seeds, options.large, options.out), sep="\n", flush=True)


if __name__ == "__main__":
    main()
