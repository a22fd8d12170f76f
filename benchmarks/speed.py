"""Speed in multiples of a plain torch training of the same recipe, within one process run, one thread.

    python -m benchmarks.speed [--problem mlp|wide|cnn|transformer] [--device cpu|cuda] [--repeats 5] [--only CASE ...]

On a CPU the clock counts processor time, so that other work on the machine does not; on a GPU it waits for the device.
"Marginal" is what each further of 16 queries adds to a full replay. Memory is the peak of a process of its own, less
what is held before the case starts.
"""

import argparse
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

import finfluence as fi
from benchmarks import fashion
from benchmarks.problems import N_TRAIN, Problem, digits, row_loss
from finfluence.estimators.replay.cost import plan
from finfluence.runs import initial_model, seeded

ROWS, SIDE = 5000, 28


def large_digits() -> Problem:
    """Return 5,000 digits of 28 × 28 pixels, the CNN's input: digits enlarged, with noise, each a few times."""
    given = digits("sgd")
    rng = np.random.default_rng(0)
    of = rng.integers(N_TRAIN, size=ROWS)

    def enlarged(x: torch.Tensor | np.ndarray) -> torch.Tensor:
        small = torch.as_tensor(x).view(-1, 1, 8, 8)
        return torch.nn.functional.interpolate(small, size=SIDE, mode="bilinear")

    fields = given.recipe.rows.fields
    x = enlarged(fields["x"])[of]
    x += 0.1 * torch.from_numpy(rng.standard_normal(x.shape)).float()
    recipe = fi.Recipe(
        fi.Rows(x=x, y=fields["y"][of]), fashion.cnn, row_loss, fi.AdamW(lr=2e-3), batch_size=50, epochs=8
    )
    return replace(given, recipe=recipe, x_test=enlarged(given.x_test).numpy())


def wide() -> Problem:
    """Return the digits of the MLP with AdamW, 167,000 parameters: a plain step of about a millisecond."""
    given = digits("adamw")
    with seeded(0):
        model = nn.Sequential(
            nn.Linear(64, 512), nn.GELU(), nn.Linear(512, 256), nn.GELU(), nn.Linear(256, 10)
        )
    return replace(given, recipe=replace(given.recipe, model=model, epochs=10))


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "mlp": lambda: digits("sgd"),
    "wide": wide,
    "cnn": large_digits,
    "transformer": lambda: digits("transformer"),
}


def on(problem: Problem, device: str) -> Problem:
    """Return the problem with its model on `device`."""
    if device == "cpu":
        return problem
    model = problem.recipe.model

    def moved(seed: int) -> torch.nn.Module:
        given = model(seed) if not isinstance(model, torch.nn.Module) else initial_model(problem.recipe, seed)
        return given.to(device)

    return replace(problem, recipe=replace(problem.recipe, model=moved))


def clock(device: str) -> float:
    """Seconds: processor time on a CPU, the wall's after waiting for a GPU."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def plain(recipe: fi.Recipe) -> None:
    """The loop a user would write, over the same batches."""
    model = initial_model(recipe, 0)
    model.train()
    device = next(model.parameters()).device
    optimizer = recipe.optimizer.torch(model.parameters())
    fields = recipe.rows.fields
    with seeded(0):
        for rows in recipe.order(0):
            batch = {name: field[rows].to(device) for name, field in fields.items()}
            recipe.loss(model, batch).mean().backward()
            optimizer.step()
            optimizer.zero_grad()


def recorded(recipe: fi.Recipe) -> None:
    """The same loop with the lines that record it."""
    model = initial_model(recipe, 0)
    model.train()
    device = next(model.parameters()).device
    optimizer = recipe.optimizer.torch(model.parameters())
    fields = recipe.rows.fields
    tape = fi.Tape.record(model, optimizer, loss=recipe.loss, data=recipe.data)
    with seeded(0):
        for rows in recipe.order(0):
            batch = {name: field[rows].to(device) for name, field in fields.items()}
            recipe.loss(model, batch).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            tape.step(ids=rows)


def cases(problem: Problem) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    recipe, (x, y) = problem.recipe, (problem.x_test, problem.y_test)
    tape = fi.train(recipe)
    one, sixteen = fi.mean_loss(x, y, name="held-out"), fi.each_loss(x[:16], y[:16])
    every, fifth = recipe.epochs, max(1, recipe.epochs // 5)

    def case(query: object, horizon: int, **options: object) -> Callable[[], object]:
        return lambda: fi.replay(tape, query, horizon=horizon, **options)  # type: ignore[arg-type]

    found: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(recipe),
        "train with tape": lambda: fi.train(recipe),
        "record around the loop": lambda: recorded(recipe),
        "one query, all epochs": case(one, every),
        "one query, last fifth": case(one, fifth),
        "one query, all epochs, late=0": case(one, every, late=0.0),
        "one query, effects alone": case(one, every, spread=False),
        "one query, first steps as tangents": case(one, every, first_steps="tangent"),
        "16 queries, all epochs": case(sixteen, every),
        "16 queries, last fifth": case(sixteen, fifth),
    }
    for way in ("exact", "finite-difference"):
        found[f"one query, {way}"] = case(one, every, differentiation=way)
        found[f"16 queries, {way}"] = case(sixteen, every, differentiation=way)
    return found


def ratios(
    problem: Problem, device: str, repeats: int, only: Sequence[str] | None = None
) -> dict[str, float]:
    """Return median ratios to a plain training; each repeat times all cases in turn, or those named in `only`."""
    timed = cases(problem)
    if only:
        timed = {name: timed[name] for name in ("plain", *only)}
    first: dict[str, float] = {}
    for name, case in timed.items():
        start = clock(device)
        case()
        first[name] = clock(device) - start
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(repeats):
        for name, case in timed.items():
            start = clock(device)
            case()
            seconds[name].append(clock(device) - start)
    base = np.array(seconds["plain"])
    out = {name: float(np.median(np.array(s) / base)) for name, s in seconds.items() if name != "plain"}
    for way in ("all epochs", "exact", "finite-difference"):
        if {f"one query, {way}", f"16 queries, {way}"} <= timed.keys():
            out[f"marginal query of 16, {way}"] = (out[f"16 queries, {way}"] - out[f"one query, {way}"]) / 15
    for name in timed.keys() & {"one query, all epochs", "16 queries, all epochs"}:
        out[f"first replay beyond later ones: {name}"] = (
            first[name] - float(np.median(seconds[name]))
        ) / float(np.median(base))
    out["plain training, seconds"] = float(np.median(base))
    return out


def promises(problem: Problem, device: str, budgets: Sequence[float] = (0.5, 1.0, 2.0, 4.0)) -> list[str]:
    """Return lines that hold budgets and forecasts against what they cost."""
    recipe = problem.recipe
    query = fi.mean_loss(problem.x_test, problem.y_test, name="held-out")
    before = plan(recipe, query)
    plain(recipe)
    start = clock(device)
    plain(recipe)
    training = clock(device) - start
    start = time.perf_counter()
    tape = fi.train(recipe)
    walls = {"train": time.perf_counter() - start}
    fi.replay(tape, query, horizon=recipe.epochs)
    start = time.perf_counter()
    fi.replay(tape, query, horizon=recipe.epochs)
    walls["walk"] = time.perf_counter() - start
    lines = [
        f"  plan: {stage.name:8s} {stage.seconds:8.2f} s foretold, {walls[stage.name]:8.2f} s on the wall"
        for stage in before.stages
        if stage.name in walls
    ]
    for budget in budgets:
        found = fi.replay(tape, query, budget=budget)
        start = clock(device)
        found = fi.replay(tape, query, budget=budget)
        spent = (clock(device) - start) / training
        chosen = found.data.attrs["budget"]
        walked = found.data.attrs["horizon"][0]
        lines.append(
            f"  budget {budget:4.1f}: {chosen['method']}, {chosen['horizon']} epochs ({walked} walked), probes "
            f"{chosen['probe_share']:g}; expected {chosen['expected']:.2f}, spent {spent:.2f}"
        )
    return lines


def memory(name: str, device: str) -> dict[str, float]:
    """Return peak MiB of each case beside what was held before, each in a process of its own."""
    found = {}
    for case in ("plain", "train with tape", "one query, all epochs", "16 queries, all epochs"):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.speed", "--problem", name, "--device", device, "--peak", case],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found[case] = float(done.stdout.split()[-1])
    return found


def peak(problem: Problem, device: str, case: str) -> float:
    """Return the peak MiB of a case beside what is held before it starts (a first training is done already)."""
    call = cases(problem)[case]
    plain(problem.recipe)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    held, most, over = _resident(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.005):
            most = max(most, _resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    call()
    over.set()
    watcher.join()
    return most - held


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problem", choices=list(PROBLEMS), action="append")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--only", nargs="+", help="time these cases alone, and neither budgets nor memory")
    parser.add_argument("--peak", help="print the peak memory of this case only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.problem or list(PROBLEMS):
        problem = on(PROBLEMS[name](), options.device)
        if options.peak:
            print(peak(problem, options.device, options.peak))
            return
        recipe = problem.recipe
        print(
            f"\n{name}: {len(recipe.rows):,} rows, {recipe.steps} steps; ratio to a plain training",
            flush=True,
        )
        for case, ratio in ratios(problem, options.device, options.repeats, options.only).items():
            print(f"  {case:60s} {ratio:6.2f}", flush=True)
        if options.only:
            continue
        print("\n".join(promises(problem, options.device)), flush=True)
        for case, size in memory(name, options.device).items() if options.memory else ():
            print(f"  peak memory, {case:47s} {size:6.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
