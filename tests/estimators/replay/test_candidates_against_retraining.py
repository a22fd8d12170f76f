"""The effect of adding groups of rows against training with them, many times (`make calibration`)."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import finfluence as fi
import finfluence.runs as fr
from finfluence.runs import seeded
from plain_training import class_loss

pytestmark = pytest.mark.calibration

ROWS, BATCH, EPOCHS, RATE, RUNS = 300, 30, 15, 0.1, 400


def digits() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_digits(return_X_y=True)
    turn = np.random.default_rng(0).permutation(len(y))
    return (x[turn] / 16).astype(np.float32), y[turn]


def groups(x: np.ndarray, y: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Eight groups of ten candidates: at random, with wrong labels, of one class, of one class taken for another."""
    rng = np.random.default_rng(1)
    made = {}
    for k in range(2):
        part = slice(10 * k, 10 * k + 10)
        made[f"random {k}"] = x[part], y[part]
        made[f"wrong {k}"] = x[part], (y[part] + rng.integers(1, 10, 10)) % 10
        of_class = np.flatnonzero(y == 3 + 5 * k)[:10]
        made[f"class {k}"] = x[of_class], y[of_class]
        made[f"taken for another {k}"] = x[of_class], np.full(10, 7 + k)
    return made


def trained(model: nn.Sequential, x: np.ndarray, y: np.ndarray, seed: int) -> list[Tensor]:
    """RUNS trainings side by side from one start, each over its own orders, at the steps of ROWS rows an epoch."""
    weights = [p.detach().expand(RUNS, *p.shape).clone().requires_grad_(True) for p in model.parameters()]
    rng, fields, labels = np.random.default_rng(seed), torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(EPOCHS):
        order = torch.from_numpy(np.argsort(rng.random((RUNS, len(y))), axis=1)[:, :ROWS])
        for rows in order.split(BATCH, 1):
            losses = F.cross_entropy(outputs(weights, fields[rows]).flatten(0, 1), labels[rows].flatten())
            gradients = torch.autograd.grad(losses * RUNS, weights)
            with torch.no_grad():
                for weight, gradient in zip(weights, gradients, strict=True):
                    weight -= RATE * gradient
    return [w.detach() for w in weights]


def outputs(weights: list[Tensor], x: Tensor) -> Tensor:
    first, bias, second, last = weights
    hidden = F.gelu(x @ first.mT + bias[:, None])
    return hidden @ second.mT + last[:, None]


def test_groups_added_do_what_training_with_them_does() -> None:
    """Eight groups of ten, eleven queries, 400 trainings of each arm; one start, as in fine-tuning.

    Measured, four runs pooled: correlation .996 (full) and .995 (online), truth over estimate .91 and .87: rows that are
    added together also add to the curvature. From one run: .996 and .993.
    """
    torch.set_num_threads(1)
    x, y = digits()
    train_x, train_y, test_x, test_y = x[:ROWS], y[:ROWS], x[ROWS : ROWS + 600], y[ROWS : ROWS + 600]
    candidates = groups(x[1000:], y[1000:])
    with seeded(0):
        model = nn.Sequential(nn.Linear(64, 16), nn.GELU(), nn.Linear(16, 10))

    def values(weights: list[Tensor]) -> np.ndarray:
        logits = outputs(weights, torch.from_numpy(test_x).expand(RUNS, -1, -1))
        targets = torch.from_numpy(test_y)
        losses = F.cross_entropy(logits.flatten(0, 1), targets.repeat(RUNS), reduction="none").view(RUNS, -1)
        each = [losses[:, targets == c].mean(1) for c in range(10)]
        return torch.stack([losses.mean(1), *each], 1).double().numpy()

    base = values(trained(model, train_x, train_y, 0))
    truth = []
    for k, (more_x, more_y) in enumerate(candidates.values()):
        both = np.concatenate([train_x, more_x]), np.concatenate([train_y, more_y])
        truth.append((values(trained(model, *both, k + 1)).mean(0) - base.mean(0)) / base.std(0, ddof=1))
    recipe = fr.Recipe(
        data=fr.Rows(x=train_x, y=train_y), model=model, loss=class_loss, optimizer=fr.SGD(lr=RATE),
        batch_size=BATCH, epochs=EPOCHS,
    )  # fmt: skip
    queries = [fi.mean_loss(test_x, test_y, name="all")]
    queries += [fi.mean_loss(test_x[test_y == c], test_y[test_y == c], name=f"class {c}") for c in range(10)]
    named = {name: [f"{name}, {i}" for i in range(10)] for name in candidates}
    added = fr.Rows(
        x=np.concatenate([a for a, _ in candidates.values()]),
        y=np.concatenate([b for _, b in candidates.values()]),
        ids=[i for ids in named.values() for i in ids],
    )
    want = np.array(truth).ravel()
    for method in ("full", "online"):
        runs = [
            fi.replay(fi.train(recipe, seed=s), queries, method, named, candidates=added) for s in range(4)
        ]
        data = fi.pool(runs).data
        got, one = data.mu.values.ravel(), runs[0].data.mu.values.ravel()
        r, slope = np.corrcoef(got, want)[0, 1], (got * want).sum() / (got**2).sum()
        spread = (base.std(0, ddof=1) / data.spread.values[0]).mean()
        print(
            f"{method}: r {r:.3f}, one run {np.corrcoef(one, want)[0, 1]:.3f}, slope {slope:.3f}, spread {spread:.2f}"
        )
        assert r > 0.98
        assert slope == pytest.approx(0.9, abs=0.12)
