"""Models small enough for their curvature to be written out, one for each kind of layer."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from finfluence.curvature import Objective, RowsAtHand
from finfluence.grads import Layout
from finfluence.runs import seeded

ROWS = 7


class OverTime(nn.Module):
    """One layer used at every position, an embedding before it and a norm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.shared = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(torch.tanh(self.shared(self.embedding(x)))).mean(1))


class Tied(nn.Module):
    """A weight that two layers share."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Sideways(nn.Module):
    """A layer that is called with time first, so that its leading axis holds no rows."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(2, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(x.view(len(x), 2, 2).transpose(0, 1))).sum(0))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))


def convolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 2, stride=1, padding=1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(18, 3)
    )


def class_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def square_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return 0.5 * (model(batch["x"])[:, 0] - batch["y"]) ** 2


def objective(
    factory: Callable[[], nn.Module],
    loss: Callable[[nn.Module, dict[str, Tensor]], Tensor] = class_loss,
    at_once: int = 3,
    rows: int = ROWS,
) -> Objective:
    with seeded(1):
        model = factory().double()
        x = torch.randn(rows, 4, dtype=torch.float64)
        tokens = torch.randint(0, 5, (rows, 6))
    if isinstance(model, OverTime):
        x = tokens
    if isinstance(model[0] if isinstance(model, nn.Sequential) else model, nn.Conv2d):
        x = x.view(rows, 1, 2, 2)
    y = torch.arange(rows) % 3
    at_hand = RowsAtHand(rows, lambda p: {"x": x[p], "y": y[p]}, at_once)
    return Objective(model, loss, Layout(model), at_hand)


def flat_losses(found: Objective) -> Callable[[Tensor], Tensor]:
    """Return θ to the losses of all rows."""
    batch = found.rows.batch(torch.arange(ROWS))
    return lambda theta: found.losses(theta, batch)


def flat_outputs(found: Objective) -> Callable[[Tensor], Tensor]:
    """Return θ to the outputs of all rows."""
    batch = found.rows.batch(torch.arange(ROWS))
    return lambda theta: found.outputs(theta, batch)
