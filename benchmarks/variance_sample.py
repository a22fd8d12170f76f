"""How far the spread from a sample of rows is from that of all rows at every step, on one tape.

    python -m benchmarks.variance_sample [--rows 1000 --batch 50] [--seeds 6]

Digits, MLP, SGD 0.1, 12 epochs; the spread of the final state (`late=0`) for the mean held-out loss, that of each class
and nine single rows. Prints mean and standard deviation over seeds and queries of the logarithm of sampled over exact
spread, and the rows evaluated, as a share of those that training saw.
"""

import argparse
from dataclasses import replace

import numpy as np
import torch

import finfluence as fi
from benchmarks.problems import digits
from finfluence.estimators.replay import RowSchedule, RunShape

EPOCHS = 12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    problem = digits("sgd")
    fields = problem.recipe.rows.fields
    rows = fi.Rows(**{name: field[: options.rows] for name, field in fields.items()})
    tape = fi.train(replace(problem.recipe, data=rows, batch_size=options.batch, epochs=EPOCHS))
    x, y = problem.x_test, problem.y_test
    queries = [fi.mean_loss(x, y, name="held-out"), fi.each_loss(x[:9], y[:9])]
    queries += [fi.mean_loss(x[y == c], y[y == c], name=f"class {c}") for c in range(10)]

    def spread(seed: int, probe_budget: float) -> np.ndarray:
        found = fi.replay(tape, queries, horizon=EPOCHS, late=0.0, seed=seed, probe_budget=probe_budget)
        return found.data["spread"].values[0]

    exact = spread(0, 1e9)
    apart = np.log(np.stack([spread(seed, 0.25) for seed in range(options.seeds)]) / exact)
    shape = RunShape.of(len(rows), tape.epochs)
    evaluated = RowSchedule(False, 0.25, 0).evaluations(shape, EPOCHS)
    share = sum(count * times for count, times in evaluated) / (len(rows) * EPOCHS)
    print(
        f"{len(rows)} rows: log of sampled over exact spread {apart.mean():+.3f}, "
        f"standard deviation {apart.std():.3f}; {share:.0%} of the rows evaluated"
    )


if __name__ == "__main__":
    main()
