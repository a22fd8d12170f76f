"""The effects of a tuning held against tuning again: `finfluence verify`'s own comparison, on a tiny model.

    python -m benchmarks.language_truth [--subsets 20] [--runs 30]

The model and rows of `benchmarks.group_weight`: two layers with random weights, adapters on the upper one, 96 rows of
random tokens, of which 24 teach one response. Groups of rows from the top, the bottom and the middle of one run's
estimates, and random ones, are taken out, and the model is tuned again without each under many batch orders.
"""

import argparse

import torch

import finfluence as fi
from benchmarks.group_weight import BATCH, model, texts
from finfluence.runs import Recipe

EPOCHS, RATE = 3, 0.005


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--subsets", type=int, default=20)
    parser.add_argument("--runs", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows, asked = texts()
    held = fi.lm.TextRows(asked)
    query = fi.Query(
        lambda m: -fi.lm.mean_token_loss(m, held.batch(torch.arange(len(held)))).mean(),
        name="taught",
        sign=-1,
    )
    recipe = Recipe(
        data=fi.lm.TextRows(rows, batch_size=BATCH), model=model(), loss=fi.lm.mean_token_loss, batch_size=BATCH,
        optimizer=fi.AdamW(lr=RATE, weight_decay=0.0), epochs=EPOCHS, schedule="cosine",
    )  # fmt: skip
    found = fi.replay(fi.train(recipe), query, late=0.0)
    done = fi.verify(
        found, recipe, query, subsets=given.subsets, runs=given.runs, executor="serial",
        announce=lambda plan: print(plan.sentence, flush=True),
    )  # fmt: skip
    print(done)
    print(done.to_frame().to_string())


if __name__ == "__main__":
    main()
