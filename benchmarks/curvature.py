"""The cost of an EK-FAC fit beside a plain epoch, and how near each solver is to the curvature written out.

    python -m benchmarks.curvature [--repeats 3]

Cost: an MLP 784-256-128-10 on 5,000 rows of random numbers, processor time in one process. Nearness: a small network on
digits; correlation of each method's scores with those of `if-explicit` at the same damping.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import finfluence as fi
from benchmarks.problems import digits
from finfluence.curvature import Kronecker, Objective, RowsAtHand
from finfluence.grads import Layout
from finfluence.runs import seeded

METHODS = (
    "if-cg",
    "if-lissa",
    "if-arnoldi",
    "if-nystrom",
    "if-kfac",
    "if-ekfac",
    "if-ekfac-cg",
    "datainf",
    "trak",
)


def class_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def cost(repeats: int) -> float:
    """Return processor time of an EK-FAC fit over that of a plain epoch, the least of each."""
    with seeded(0):
        model = nn.Sequential(
            nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
        )
        x, y = torch.rand(5000, 784), torch.randint(0, 10, (5000,))

    def epoch() -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for rows in torch.arange(5000).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()

    def fit() -> None:
        rows = RowsAtHand(5000, lambda p: {"x": x[p], "y": y[p]})
        Kronecker([Objective(model, class_loss, Layout(model), rows)])

    epoch()
    times = [(seconds(fit), seconds(epoch)) for _ in range(repeats)]
    return min(t for t, _ in times) / min(t for _, t in times)


def nearness() -> dict[str, float]:
    """Return the correlation of each method's scores with those of the matrix written out."""
    problem = digits("sgd")
    with seeded(0):
        model = nn.Sequential(nn.Linear(64, 12), nn.Tanh(), nn.Linear(12, 10))
    fields = problem.recipe.rows.fields
    recipe = fi.Recipe(
        data=fi.Rows(x=fields["x"][:500], y=fields["y"][:500]), model=model, loss=class_loss,
        optimizer=fi.SGD(lr=0.2, weight_decay=1e-3), batch_size=50, epochs=40,
    )  # fmt: skip
    tape = fi.train(recipe)
    query = fi.each_loss(problem.x_test[:20], problem.y_test[:20])
    exact = fi.estimate(tape, query, "if-explicit")
    damping = exact.provenance.details["damping"]
    found = {}
    for method in METHODS:
        options = {} if method in ("datainf", "trak") else {"damping": damping}
        score = fi.estimate(tape, query, method, **options).data.score.values
        found[method] = float(np.corrcoef(score.ravel(), exact.data.score.values.ravel())[0, 1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    print(f"EK-FAC fit, MLP 784-256-128-10, 5,000 rows: {cost(repeats):.1f} plain epochs\n")
    print("| method | correlation with if-explicit |\n|---|---|")
    for method, value in nearness().items():
        print(f"| `{method}` | {value:.4f} |", flush=True)


if __name__ == "__main__":
    main()
