"""The training step itself: a plain torch.optim loop, able to start from any recorded state."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from finfluence._seeds import torch_seed
from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.grads import (
    Layout,
    check_row_losses,
    check_row_separable,
    generator_states,
    seed_generators,
    without_graph,
)
from finfluence.runs.describe import Recipe, check_parameters, check_unhooked, copy_model, try_loss


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's default generator inside the block and give its state back afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)  # noqa: TID251 - forked, restored on exit
        yield


def initial_model(recipe: Recipe, seed: int) -> nn.Module:
    """Return the model a run of `recipe` starts from: the factory's, or a copy of the given one.

    Returns
    -------
    nn.Module

    Raises
    ------
    ConfigError
        The factory returned something other than an nn.Module.
    """
    if isinstance(recipe.model, nn.Module):
        model: nn.Module = copy_model(recipe.model)
    else:
        with seeded(torch_seed(seed, "init")):
            made = recipe.model(seed)
            check_unhooked(made)
            model = (
                copy_model(made) if isinstance(made, nn.Module) else made
            )  # it may hand out one module twice
    if not isinstance(model, nn.Module):
        raise ConfigError(
            explain(
                "model to be an nn.Module, or callable(seed) -> nn.Module",
                f"a callable that returned {type(model).__name__}",
                "the factory forgets its return statement",
                "return the module from the factory",
            )
        )
    check_row_separable(model)
    return model


class Stepper:
    """Runs single training steps of a recipe; `state` is the flat vector [θ | slot₁ | …] of (1+S)·P numbers.

    `row_losses` are those of the last step [B], before it.
    """

    def __init__(self, recipe: Recipe, model: nn.Module, seed: int) -> None:
        check_parameters(dict(model.named_parameters()), dict(model.named_modules()))
        self.recipe = recipe
        self.model = model
        self.seed = seed
        self.layout = Layout(model)
        self.parameters = self.layout.parameters(model)
        self.optimizer = recipe.optimizer.torch(self.parameters)
        self.width = (1 + len(recipe.optimizer.slots)) * self.layout.size
        self.stochastic = self._draws_randomness()
        self.row_losses: Tensor | None = None
        self._views: list[Tensor] | None = None
        self._has_grad: list[bool] | None = None

    def step(self, t: int, rows: Tensor) -> Tensor:
        """Take step t on the rows at these positions; return the mean loss before the step."""
        batch = self.batch(rows)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.optimizer.lr * self.recipe.rate(t)
        if self.stochastic:
            seed_generators(step_seed(self.seed, t), self.layout.device)
        losses = self.recipe.loss(self.model, batch)
        self.row_losses = losses.detach()
        mean = losses.mean()
        mean.backward()
        self._check_same_parameters()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return mean.detach()

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the batch at these positions, on the parameters' device."""
        batch = self.recipe.rows.batch(rows)
        if self.layout.device.type == "cpu":
            return batch
        return {k: v.to(self.layout.device) for k, v in batch.items()}

    def get_state(self, out: Tensor) -> None:
        """Copy the current state into `out` [(1+S)·P]."""
        if self._views is None:
            parts = self._state_parts()
            if all(p.is_contiguous() for p in parts) and len(parts) * self.layout.size == self.width * len(
                self.parameters
            ):
                self._views = [p.view(-1) for p in parts]
            else:
                out.zero_()
                joined = self.layout.flatten(parts)
                out[: len(joined)] = joined
                return
        if out.device == self.layout.device:
            torch.cat(self._views, out=out)
        else:
            out.copy_(torch.cat(self._views))

    def set_state(self, t: int, state: Tensor) -> None:
        """Set parameters and optimiser to `state`, as they were before step t."""
        size = self.layout.size
        self.layout.assign(self.model, state[:size])
        self._views = None
        self.optimizer.state.clear()
        if t == 0 or not self.recipe.optimizer.slots:
            return
        for index, name in enumerate(self.recipe.optimizer.slots, start=1):
            parts = self.layout.split(state[index * size : (index + 1) * size])
            for parameter, part in zip(self.parameters, parts.values(), strict=True):
                self.optimizer.state[parameter][name] = part.clone()
        if "exp_avg" in self.recipe.optimizer.slots:
            for parameter in self.parameters:
                self.optimizer.state[parameter]["step"] = torch.tensor(float(t))

    def check_first_batch(self, rows: Tensor) -> None:
        """Raise unless the loss gives one number per row on a first batch."""
        with seeded(0):
            losses = without_graph(lambda: self.recipe.loss(self.model, self.batch(rows)))
        check_row_losses(losses, len(rows))

    def _state_parts(self) -> list[Tensor]:
        """Return parameters and optimiser buffers in the order of the state; before the first step, parameters only."""
        parts = [p.detach() for p in self.parameters]
        if not self.optimizer.state:
            return parts
        for name in self.recipe.optimizer.slots:
            for p in self.parameters:
                held = self.optimizer.state.get(p, {})
                parts.append(held[name] if name in held else torch.zeros_like(p))
        return parts

    def _check_same_parameters(self) -> None:
        """Raise if the loss reaches other parameters than it did at the first step: torch.optim skips the others."""
        has_grad = [p.grad is not None for p in self.parameters]
        if self._has_grad is None:
            self._has_grad = has_grad
        if has_grad == self._has_grad:
            return
        changed = [n for n, a, b in zip(self.layout.names, has_grad, self._has_grad, strict=True) if a != b]
        raise NotSupportedError(
            explain(
                "a loss that reaches the same parameters at every step",
                f"'{changed[0]}' with a gradient at some steps and none at others",
                "the model skips layers depending on the batch, and the optimiser then skips their update",
                "let every layer take part, for instance multiplied by zero",
            )
        )

    def _draws_randomness(self) -> bool:
        rows = torch.arange(min(len(self.recipe.rows), self.recipe.batch_size))
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        with seeded(0), warnings.catch_warnings():
            before = generator_states(self.layout.device)
            try_loss(self.recipe.loss, self.model, self.batch(rows))
            after = generator_states(self.layout.device)
        drawn = not all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        written = [n for n, b in self.model.named_buffers() if n in buffers and not _same(b, buffers[n])]
        if written:
            raise NotSupportedError(
                explain(
                    "a model that training changes in its parameters only",
                    f"a forward pass that writes on buffer '{written[0]}'",
                    "running statistics or power iterations are kept between steps",
                    "use a layer without them (track_running_stats=False), "
                    "or freeze it with .eval() in the model factory",
                )
            )
        return drawn


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a.nan_to_num(), b.nan_to_num()))


def step_seed(seed: int, t: int) -> int:
    """Return the seed of torch's generator for dropout and the like at step t."""
    return torch_seed(seed, "dropout", t)
