"""What the README and the how-to pages take as given: the user's data, model, recipe and loop."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import finfluence as fi

ROOT = Path(__file__).parents[2]


def blocks(page: Path, language: str = "python") -> list[str]:
    """Return the fenced blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def row_loss(model: nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def make_model(seed: int) -> nn.Module:
    return nn.Linear(3, 2)


def names() -> dict[str, Any]:
    """Return the names that a reader has when the page begins."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 3)).astype(np.float32)
    y = (x[:, 0] + 0.5 * rng.normal(size=160) > 0).astype(np.int64)
    ids = [f"row {i}" for i in range(100)]
    rows, model = fi.Rows(x=x[:100], y=y[:100]), make_model(0)
    recipe = fi.Recipe(
        data=fi.Rows(x=x[:100], y=y[:100], ids=ids), model=make_model, loss=row_loss, optimizer=fi.SGD(lr=0.1),
        batch_size=20, epochs=3,
    )  # fmt: skip
    return {
        "fi": fi, "X": x[:100], "y": y[:100], "Xv": x[100:], "yv": y[100:], "x_test": x[100:], "y_test": y[100:],
        "ids": ids, "make_model": make_model, "row_loss": row_loss, "dataset": rows, "model": model, "recipe": recipe,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": [rows.batch(b) for b in torch.randperm(100, generator=torch.Generator().manual_seed(0)).split(20)],
        "subsets": {"some": ["row 1", "row 2", "row 3"]},
        "queries": [fi.mean_loss(x[100:], y[100:], name="held-out")],
    }  # fmt: skip
