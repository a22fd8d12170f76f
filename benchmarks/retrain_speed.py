"""Seconds per training run: a plain torch loop over seeds against stacked copies, one thread, same process.

python -m benchmarks.retrain_speed [--problem mlp|adamw|cnn] [--runs 128] [--replicas 1 4 16 64 256] [--epochs E]
"""

import argparse
import dataclasses
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

import finfluence.runs as fr
from benchmarks.problems import digits, row_loss
from finfluence.ensemble import RunSpec, StackedRuns, Workers, train_many
from finfluence.runs import initial_model, seeded


def plain(recipe: fr.Recipe, seed: int) -> None:
    """Train as a user would: torch.optim, one run after the other."""
    model = initial_model(recipe, seed)
    optimizer = recipe.optimizer.torch(model.parameters())
    fields = recipe.rows.fields
    for epoch in range(recipe.epochs):
        for rows in recipe.epoch_order(seed, epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(fields["x"][rows]), fields["y"][rows]).backward()
            optimizer.step()


def cnn_recipe() -> fr.Recipe:
    base = digits("sgd").recipe.rows.fields
    with seeded(0):
        model = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip
    data = fr.Rows(x=base["x"], y=base["y"])
    return fr.Recipe(data=data, model=model, loss=row_loss, optimizer=fr.SGD(lr=0.1), batch_size=50, epochs=5)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problem", choices=["mlp", "adamw", "cnn"], default="mlp")
    parser.add_argument("--runs", type=int, default=128)
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 4, 16, 64, 256])
    parser.add_argument("--epochs", type=int, help="shorter runs: the ratio does not depend on it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    problem = digits("adamw" if args.problem == "adamw" else "sgd")
    recipe = cnn_recipe() if args.problem == "cnn" else problem.recipe
    if args.epochs:
        recipe = dataclasses.replace(recipe, epochs=args.epochs)
    plain(recipe, 0)
    specs = [RunSpec(0, k) for k in range(args.runs)]
    # plain runs before and after the stacked ones, so that both see the same machine
    loops = []
    stacked = []
    for _ in range(3):
        started = time.perf_counter()
        plain(recipe, 1)
        loops.append(time.perf_counter() - started)
        started = time.perf_counter()
        train_many(recipe, specs, problem.queries[:1], Workers("serial"))
        stacked.append((time.perf_counter() - started) / args.runs)
    loop, many = statistics.median(loops), statistics.median(stacked)
    print(f"{args.problem}: {recipe.steps} steps a run, {args.runs} runs, one thread")
    print(f"plain loop     {loop * 1e3:8.2f} ms a run  {loop / recipe.steps * 1e6:7.1f} us a step")
    step = many / recipe.steps
    print(f"train_many     {many * 1e3:8.2f} ms a run  {step * 1e6:7.1f} us a step  {loop / many:5.2f} x")
    for replicas in args.replicas:
        stack = StackedRuns(recipe, initial_model(recipe, 0))
        many_specs = [RunSpec(0, k) for k in range(replicas)]
        short = StackedRuns(dataclasses.replace(recipe, epochs=1), initial_model(recipe, 0))
        short.train(many_specs, padded=replicas > 1)
        stack._steps = short._steps  # traced already
        before = time.perf_counter()
        plain(recipe, 2)
        between = time.perf_counter()
        stack.train(many_specs, padded=replicas > 1)
        one = (time.perf_counter() - between) / replicas
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"stack of {replicas:4d}  {one * 1e3:8.2f} ms a run, traced already  {(between - before) / one:5.2f} x  "
            f"at most {replicas * stack.bytes_per_replica() / 2**20:7.1f} MiB by its graph, "
            f"peak of the process {memory:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
