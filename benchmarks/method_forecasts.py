"""Forecasts of how long own influence takes, tried with a sixteenth and a quarter of the rows, against what it took.

`python -m benchmarks.method_forecasts [METHOD …]`: digits, 300 rows, one thread; trainings are processor time over that
of the training that methods look at.
"""

import sys
from time import process_time

import torch

import finfluence as fi
from finfluence.estimators import method_class
from finfluence.jobs.bench import make_problem, own_forecast
from finfluence.jobs.bench.data import DIGITS

METHODS = (
    "replay", "if-lissa", "if-cg", "if-ekfac", "source", "kernel-trak", "grad-dot", "tracin", "fine", "in-run-shapley",
)  # fmt: skip
ROWS = 300


def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    problem = make_problem(DIGITS, ROWS, 0.2, 0)
    fi.train(problem.recipe)
    start = process_time()
    tape = fi.train(problem.recipe)
    training = process_time() - start
    print("| method | counted | forecast | took | forecast over took |\n|---|---|---|---|---|")
    for name in sys.argv[1:] or METHODS:
        estimator = method_class(name)()
        source = tape if estimator.needs is fi.Tape else problem.recipe
        counted = estimator.cost(source, fi.own_loss(problem.ids)).trainings
        found = own_forecast(estimator, source, problem.ids, training)
        start = process_time()
        estimator.estimate(source, fi.own_loss(problem.ids))
        took = (process_time() - start) / training
        print(
            f"| `{name}` | {counted:.1f} | {found.middle:.1f} | {took:.1f} | {found.middle / took:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
