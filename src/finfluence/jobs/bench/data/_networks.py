"""Networks of the data sets."""

from itertools import pairwise

from torch import nn

from finfluence.runs import seeded


def mlp(*widths: int, seed: int) -> nn.Module:
    """Return a multilayer perceptron with ReLU between layers of these widths, on flattened rows."""
    layers: list[nn.Module] = [nn.Flatten()]
    with seeded(seed):
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
