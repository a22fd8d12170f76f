"""What a replay evaluates where rows are dear, beside its training: counted, not timed.

    python -m benchmarks.evaluations [--rows 160] [--epochs 3]

A small trained layer below a frozen head of 16,000 outputs, so that a row saves as much as one of a language model;
AdamW, batches of 8, a cosine schedule, eight held-out rows a query. A row's loss counts 1/2 without a gradient
and 1 with one, twice as much in double precision; the unit is a training, whose rows count 1 each.
"""

import argparse
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import finfluence as fi
from finfluence.runs import seeded

OUTPUTS, LENGTH, WIDTH, BATCH, ASKED = 16_000, 32, 4, 8, 8


class Headed(nn.Module):
    """A trained layer below a frozen head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(WIDTH, WIDTH)
        self.register_buffer("head", torch.randn(WIDTH, OUTPUTS))

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.body(x)) @ self.head


class Counted:
    """The loss of each row, which counts what it is asked."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[bool, bool]] = Counter()

    def __call__(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(batch["x"])
        self.seen[torch.is_grad_enabled(), logits.dtype == torch.float64] += len(logits)
        return F.cross_entropy(logits.transpose(1, 2), batch["y"], reduction="none").mean(1)

    def taken(self) -> float:
        """Return the evaluations since the last call, in rows of a training."""
        total = sum(rows * (1.0 if g else 0.5) * (2.0 if d else 1.0) for (g, d), rows in self.seen.items())
        self.seen.clear()
        return total


def fields(rows: int, seed: int) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, LENGTH, WIDTH)).astype(np.float32)
    return {"x": torch.from_numpy(x), "y": torch.from_numpy(rng.integers(0, OUTPUTS, (rows, LENGTH)))}


def counts(rows: int, epochs: int) -> dict[str, float]:
    """Return the evaluations of each replay, in trainings."""
    loss = Counted()
    with seeded(0):
        model = Headed()
    recipe = fi.Recipe(
        fi.Rows(**fields(rows, 0)),
        model,
        loss,
        fi.AdamW(lr=1e-2),
        batch_size=BATCH,
        epochs=epochs,
        schedule="cosine",
    )
    tape = fi.train(recipe)

    def query(k: int) -> fi.Query:
        held = fields(ASKED, 1 + k)
        return fi.Query(lambda model: loss(model, held).mean(), name=f"held-out {k}")

    first, second = query(0), query(1)
    cases: dict[str, Callable[[], object]] = {
        "one query, first replay of the tape": lambda: fi.replay(tape, first, late=0.0),
        "one query, again": lambda: fi.replay(tape, first, late=0.0),
        "one query, effects alone": lambda: fi.replay(tape, first, late=0.0, spread=False),
        "another query": lambda: fi.replay(tape, second, late=0.0),
        "both, again": lambda: fi.replay(tape, [first, second], late=0.0),
    }
    loss.taken()
    found = {}
    for name, case in cases.items():
        case()
        found[name] = loss.taken() / (rows * epochs)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name, trainings in counts(given.rows, given.epochs).items():
        print(f"| {name} | {trainings:.2f} |", flush=True)


if __name__ == "__main__":
    main()
