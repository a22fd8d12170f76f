"""Speed in multiples of a plain torch training of the same recipe, within one process run, one thread.

python -m benchmarks.speed [--problem digits-mlp|fashion-cnn] [--repeats 5]
"""

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch

import finfluence as fi
from benchmarks.fashion import fashion
from benchmarks.problems import digits
from finfluence.runs import initial_model


def plain(recipe: fi.Recipe) -> None:
    """The loop a user would write, over the same batches."""
    model = initial_model(recipe, 0)
    model.train()
    optimizer = recipe.optimizer.torch(model.parameters())
    fields = recipe.rows.fields
    for rows in recipe.order(0):
        batch = {name: field[rows] for name, field in fields.items()}
        recipe.loss(model, batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def ratios(recipe: fi.Recipe, x: np.ndarray, y: np.ndarray, repeats: int) -> dict[str, float]:
    """Return median ratios to a plain training; each repeat times all cases in turn."""
    tape = fi.train(recipe)
    held_out = fi.mean_loss(x, y, name="held-out")
    sixteen = fi.each_loss(x[:16], y[:16])
    fifth = max(1, recipe.epochs // 5)
    cases: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(recipe),
        "train with tape": lambda: fi.train(recipe),
        "one query, all epochs": lambda: fi.replay(tape, held_out, horizon=recipe.epochs),
        "one query, last fifth": lambda: fi.replay(tape, held_out, horizon=fifth),
        "16 queries, all epochs": lambda: fi.replay(tape, sixteen, horizon=recipe.epochs),
        "16 queries, last fifth": lambda: fi.replay(tape, sixteen, horizon=fifth),
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    plain(recipe)
    start = time.perf_counter()
    plain(recipe)
    one_training = time.perf_counter() - start
    setup = {}
    for name in ("one query, all epochs", "16 queries, all epochs"):
        start = time.perf_counter()
        cases[name]()
        first = time.perf_counter() - start
        start = time.perf_counter()
        cases[name]()
        setup[name] = (first - (time.perf_counter() - start)) / one_training
    for _ in range(repeats):
        for name, case in cases.items():
            start = time.perf_counter()
            case()
            seconds[name].append(time.perf_counter() - start)
    base = np.array(seconds["plain"])
    out = {name: float(np.median(np.array(s) / base)) for name, s in seconds.items() if name != "plain"}
    out["each further query of 16"] = (out["16 queries, all epochs"] - out["one query, all epochs"]) / 15
    out["tracing, once a tape: one query"] = setup["one query, all epochs"]
    out["tracing, once a tape: 16 queries"] = setup["16 queries, all epochs"]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problem", choices=["digits-mlp", "fashion-cnn"], action="append")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.problem or ["digits-mlp", "fashion-cnn"]:
        problem = digits("sgd") if name == "digits-mlp" else fashion()
        print(
            f"\n{name}: {len(problem.recipe.rows):,} rows, {problem.recipe.steps} steps; ratio to a plain training"
        )
        for case, ratio in ratios(problem.recipe, problem.x_test, problem.y_test, options.repeats).items():
            print(f"  {case:34s} {ratio:6.2f}")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"  {'peak memory of the process':34s} {peak:6.0f} MiB")


if __name__ == "__main__":
    main()
