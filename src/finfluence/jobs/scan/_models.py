"""Models a scan can train: small ones of our own, or a factory that the user names."""

import difflib
import importlib
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from finfluence.errors import ConfigError, explain

Shape = tuple[int, ...]
Factory = Callable[[Shape, int, int], nn.Module]


@dataclass(frozen=True, eq=False)
class SeededModel:
    """A factory bound to its data: `callable(seed) -> nn.Module`, as a recipe wants it."""

    name: str
    factory: Factory
    input_shape: Shape
    n_outputs: int

    def __call__(self, seed: int) -> nn.Module:
        """Return a fresh model with initial weights of `seed`."""
        return self.factory(self.input_shape, self.n_outputs, seed)


def linear(input_shape: Shape, n_outputs: int, seed: int) -> nn.Module:
    """Return a linear model on all inputs."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), n_outputs))


def mlp(input_shape: Shape, n_outputs: int, seed: int) -> nn.Module:
    """Return one hidden layer of 64 GELU units (128 above 128 inputs)."""
    width = 64 if math.prod(input_shape) <= 128 else 128
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(input_shape), width), nn.GELU(), nn.Linear(width, n_outputs)
    )


def mlp_small(input_shape: Shape, n_outputs: int, seed: int) -> nn.Module:
    """Return one hidden layer of 16 GELU units."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(input_shape), 16), nn.GELU(), nn.Linear(16, n_outputs)
    )


def cnn(input_shape: Shape, n_outputs: int, seed: int) -> nn.Module:
    """Return two 3×3 convolutions (16 and 32 channels, GELU, 2×2 mean pooling) and a linear read-out.

    Images larger than 32 pixels are first averaged down to at most 32.

    Returns
    -------
    nn.Module
    """
    channels, height, width = input_shape
    shrink = -(-max(height, width) // 32)
    size = [side // shrink for side in (height, width)]
    layers: list[nn.Module] = [nn.AvgPool2d(shrink)] if shrink > 1 else []
    for inner, outer in ((channels, 16), (16, 32)):
        layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.GELU()]
        if min(size) >= 2:
            layers.append(nn.AvgPool2d(2))
            size = [side // 2 for side in size]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * math.prod(size), n_outputs))


BUILT_IN: dict[str, Factory] = {"linear": linear, "mlp-small": mlp_small, "mlp": mlp, "cnn": cnn}
SMALL = ("linear", "mlp-small", "mlp")
"""Models of which many train side by side nearly as fast as one."""


def choose_model(name: str, input_shape: Shape, n_outputs: int) -> SeededModel:
    """Return the model that `name` stands for: "auto" is a CNN for images and an MLP for everything else.

    Returns
    -------
    SeededModel

    Raises
    ------
    ConfigError
        A CNN for data that are no images, or a factory that cannot be found or called.
    """
    images = len(input_shape) == 3
    if name == "auto":
        name = "cnn" if images else "mlp"
    if name == "cnn" and not images:
        raise ConfigError(
            explain(
                "images for --model cnn",
                f"rows of {math.prod(input_shape)} features",
                "the data is a table",
                "use --model mlp or --model linear, or leave --model out",
            )
        )
    factory = BUILT_IN[name] if name in BUILT_IN else _imported(name)
    model = SeededModel(name, factory, input_shape, n_outputs)
    if name not in BUILT_IN:
        _try(model)
    return model


def _imported(name: str) -> Factory:
    """Import `package.module:factory`; the working directory is searched first."""
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            explain(
                f"a module {module_name!r} for --model {name}",
                str(error),
                "a mistyped name, or a file outside the working directory and the installed packages",
                "run the command from the folder that holds the module, or install it",
            )
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    factory = getattr(module, attribute, None)
    if not callable(factory):
        names = [n for n in vars(module) if callable(getattr(module, n)) and not n.startswith("_")]
        near = difflib.get_close_matches(attribute, names, n=1)
        raise ConfigError(
            explain(
                f"a function {attribute!r} in {module_name}",
                "nothing that can be called" if factory is not None else "no such name",
                "a mistyped name",
                f"did you mean {module_name}:{near[0]}?"
                if near
                else "name a function factory(input_shape, n_outputs, seed) that returns an nn.Module",
            )
        )
    result: Factory = factory
    return result


def _try(model: SeededModel) -> None:
    try:
        made = model(0)
    except Exception as error:
        raise ConfigError(
            explain(
                f"--model {model.name} to accept (input_shape={model.input_shape}, "
                f"n_outputs={model.n_outputs}, seed=0)",
                f"{type(error).__name__}: {error}",
                "a factory with other arguments, or an error inside it",
                "write it as factory(input_shape, n_outputs, seed) -> nn.Module",
            )
        ) from error
    if not isinstance(made, nn.Module):
        raise ConfigError(
            explain(
                f"--model {model.name} to return an nn.Module",
                type(made).__name__,
                "the factory forgets its return statement",
                "return the module from the factory",
            )
        )
