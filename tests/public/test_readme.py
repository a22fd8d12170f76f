"""The code of the README runs, as printed."""

import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

import finfluence as fi

README = Path(__file__).parents[2] / "README.md"


def row_loss(model, batch):
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def make_model(seed):
    return nn.Linear(3, 2)


def names() -> dict[str, object]:
    """What the README takes as given: the user's data, model and loop."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(160, 3)).astype(np.float32)
    y = (x[:, 0] + 0.5 * rng.normal(size=160) > 0).astype(np.int64)
    rows = fi.Rows(x=x[:100], y=y[:100])
    model = make_model(0)
    return {
        "X": x[:100], "y": y[:100], "Xv": x[100:], "yv": y[100:], "ids": [f"row {i}" for i in range(100)],
        "make_model": make_model, "row_loss": row_loss, "dataset": rows, "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": [rows.batch(b) for b in torch.randperm(100, generator=torch.Generator().manual_seed(0)).split(20)],
        "subsets": {"some": ["row 1", "row 2", "row 3"]},
    }  # fmt: skip


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 3
    space = names()
    exec(blocks[0], space)
    assert isinstance(space["influence"], fi.Influence) and (tmp_path / "report.html").exists()
    first = space["influence"]
    monkeypatch.chdir(tmp_path_for(tmp_path, "loop"))
    exec("import finfluence as fi\n" + blocks[1], space)
    assert isinstance(space["influence"], fi.Influence)
    space |= {"influence": first, "queries": [fi.mean_loss(space["Xv"], space["yv"], name="held-out")]}
    exec(blocks[2], space)
    assert isinstance(space["truth"], fi.Influence) and space["f"].mu == 0.5
    said = capsys.readouterr().out
    assert "held-out" in said and "slope" in said


def tmp_path_for(folder: Path, name: str) -> Path:
    """Return a new folder, so that the loop's tape does not meet that of the recipe."""
    (folder / name).mkdir()
    return folder / name
