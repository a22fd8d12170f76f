"""Which way every method points: against leaving out each row of a regression, in closed form."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.estimators import METHODS, method_class
from finfluence.estimators.resampling import TurnOver

ROWS, AT = 24, np.array([1.0, 0.5, -0.5])
# Scores of rows by themselves point nowhere; TRAK takes log-likelihoods of classes only.
BY_THEMSELVES = {"data-oob", "relatif", "trak"}
OPTIONS = {"retrain": {"runs": 8, "design": "paired"}, "d-tda": {"runs": 3}, "turn-over": {"controls": 20}}
ASKING = [name for name in METHODS if method_class(name).family != "baselines" and name not in BY_THEMSELVES]


class Masked(nn.Module):
    """A linear model over copies of its inputs, some of which a row never trains."""

    def __init__(self) -> None:
        super().__init__()
        self.masked, self.last = TurnOver(), nn.Linear(3 * 64, 1, bias=False)

    def forward(self, x: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        return self.last(self.masked(x.repeat(1, 64) / 8, rows))


def problem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(ROWS, 3))
    return x, x @ [1.0, -1.0, 0.5] + rng.normal(size=ROWS)


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    """What leaving out each row does to the prediction and to the loss at a point [ROWS, 2]."""
    x, y = problem()

    def asked(kept: np.ndarray) -> np.ndarray:
        at = AT @ np.linalg.lstsq(x[kept], y[kept], rcond=None)[0]
        return np.array([at, 0.5 * (at + 1) ** 2])

    every = np.arange(ROWS)
    return np.stack([asked(every[every != i]) for i in every]) - asked(every)


@pytest.mark.parametrize("method", ASKING)
@pytest.mark.quick(9)
def test_removal_raises_what_the_method_says_it_raises(method: str, truth: np.ndarray) -> None:
    x, y = problem()

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        output = model(batch["x"], batch["id"]) if isinstance(model, Masked) else model(batch["x"])
        return 0.5 * (output[:, 0] - batch["y"]) ** 2

    model = pt.made(Masked if method == "turn-over" else lambda: nn.Linear(3, 1, bias=False))
    recipe = fi.Recipe(
        data=fi.Rows(x=torch.from_numpy(x), y=torch.from_numpy(y)), model=model, loss=loss,
        optimizer=fi.SGD(lr=0.1), batch_size=8, epochs=20,
    )  # fmt: skip
    at = torch.from_numpy(AT)[None]
    queries = [
        fi.Query(lambda m: m(at)[0, 0], name="prediction", sign=1),
        fi.Query(lambda m: 0.5 * (m(at)[0, 0] + 1) ** 2, name="loss"),
    ]
    made = method_class(method)
    source = recipe if made.needs is fi.Recipe else fi.train(recipe)
    found = fi.estimate(source, queries, method, **OPTIONS.get(method, {}))
    removed = found.data.mu.values if found.has_mu else found.data.score.values * [1, -1]
    for k in range(2):
        assert np.corrcoef(removed[:, k], truth[:, k])[0, 1] > 0.4, k
