"""The small networks of the calibration problems, for 8 × 8 images given as 64 numbers."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finfluence.runs import seeded

WIDTH, TOKENS, CLASSES = 32, 8, 10


def mlp(activation: type[nn.Module], seed: int) -> nn.Module:
    """Return the 64-32-10 network with the weights of `seed`."""
    with seeded(seed):
        return nn.Sequential(nn.Linear(64, WIDTH), activation(), nn.Linear(WIDTH, CLASSES))


def cnn(seed: int) -> nn.Module:
    """Return two convolutions and a linear layer, 1,898 parameters, with the weights of `seed`."""
    with seeded(seed):
        return nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, CLASSES),
        )  # fmt: skip


class Transformer(nn.Module):
    """One pre-norm block over the rows of the image as tokens, then the mean token; one head, elementary operations."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.1 * torch.randn(TOKENS, width))
        self.before_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.before_mlp = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.last = nn.LayerNorm(width)
        self.classes = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x.view(-1, TOKENS, 8)) + self.position
        h = h + self._attend(self.before_attention(h))
        h = h + self.down(F.gelu(self.up(self.before_mlp(h))))
        scores: Tensor = self.classes(self.last(h).mean(1))
        return scores

    def _attend(self, h: Tensor) -> Tensor:
        query, key, value = self.qkv(h).chunk(3, -1)
        weight = (query @ key.transpose(-1, -2) / h.shape[-1] ** 0.5).softmax(-1)
        mixed: Tensor = self.out(weight @ value)
        return mixed


def transformer(seed: int) -> nn.Module:
    """Return the transformer with the weights of `seed`."""
    with seeded(seed):
        return Transformer()
