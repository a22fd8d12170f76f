"""What a loss gives on some rows at the start of a training: by it a loss is known again."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from finfluence.errors import ConfigError, explain
from finfluence.grads import Batch, Layout, RowLoss, check_row_losses, no_checkpointing, without_graph
from finfluence.runs.describe import (
    Checksums,
    Recipe,
    RowSource,
    changed_model,
    check_parameters,
    checksums,
    first_change,
    try_loss,
    values_read,
    varies,
)
from finfluence.runs.steps._precision import CoarsestDtype, tolerance_of
from finfluence.runs.steps._randomness import untouched
from finfluence.runs.steps._stepper import initial_model, seeded
from finfluence.runs.steps._steps import to_device
from finfluence.runs.steps._trained_part import module_modes, set_module_modes

_BATCHES = 2
_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
_COARSE = 0.1


@dataclass(frozen=True, eq=False)
class Behaviour:
    """Row losses, a sum over the gradient of each batch, and what the loss reads.

    numbers : Tensor [k] in float64. tolerance : relative to the largest of them. read : `values_read` of the loss.
    """

    numbers: Tensor
    tolerance: float
    read: dict[str, str]

    @classmethod
    def of(
        cls, model: nn.Module, loss: RowLoss, rows: RowSource, layout: Layout, batch_size: int
    ) -> "Behaviour":
        """Evaluate a model of ours on up to two batches of rows from all over the data; random numbers are drawn.

        Returns
        -------
        Behaviour

        Raises
        ------
        ConfigError
            The loss fails, gives no number per row, or does not depend on the trained parameters.
        """
        parameters, numbers = layout.parameters(model), []
        for positions in _some(len(rows), batch_size):
            batch = to_device(dict(rows.batch(positions)), layout.device)
            with torch.enable_grad(), no_checkpointing():
                losses = try_loss(loss, model, batch, graph=True)
                check_row_losses(losses, len(positions))
                _check_graph(losses, parameters)
                weighed = losses @ torch.linspace(0.5, 1.0, len(losses)).to(losses)
                found = torch.autograd.grad(weighed, parameters, allow_unused=True)
            numbers += [losses.detach().double().cpu(), _sums([g for g in found if g is not None])]
        return cls(torch.cat(numbers), _TOLERANCE.get(layout.dtype, _COARSE), values_read(loss))

    def check(self, now: "Behaviour") -> None:
        """Check that the loss is still the same.

        Raises
        ------
        ConfigError
            It gives other numbers; what it reads and has changed is named.
        """
        if self.same(now):
            return
        changed = [n for n in {**self.read, **now.read} if self.read.get(n) != now.read.get(n)]
        got = (
            f"other values of '{changed[0]}', which the loss reads" if changed else "another loss or gradient"
        )
        raise ConfigError(
            explain(
                "the loss that the run was made with",
                f"{got}, for the same weights and rows",
                "class weights, a teacher, a coefficient or another variable that the loss reads was changed since",
                "give it its value again, or make loss and run anew; let the loss keep copies of what it reads",
            )
        )

    def same(self, other: "Behaviour") -> bool:
        """Return whether the numbers are the same, but for rounding; NaN is as good as any."""
        if self.numbers.shape != other.numbers.shape:
            return False
        apart, largest = (self.numbers - other.numbers).nan_to_num().abs(), self.numbers.nan_to_num().abs()
        return bool((apart <= self.tolerance * (largest + largest.mean())).all())


def check_steady(model: nn.Module, loss: RowLoss, batch: Batch, seed: int = 1) -> None:
    """Check that the loss gives the same when it is called again, with a gradient that it leaves to the loop.

    Raises
    ------
    ConfigError
        It does not depend on the parameters, runs a backward pass itself, or gives other numbers.
    """  # noqa: DOC501 - made by a function
    found = []
    for _ in range(2):
        with torch.enable_grad(), no_checkpointing(), seeded(seed):
            losses = loss(model, batch)
        _check_graph(losses, list(model.parameters()))
        found.append(losses.detach())
    tolerance = _TOLERANCE.get(found[0].dtype, _COARSE)
    apart = (found[0] - found[1]).nan_to_num().abs()
    if bool((apart > tolerance * (found[0].nan_to_num().abs() + 1e-30)).any()):
        raise _unsteady()


def check_memoryless(make: Callable[[], nn.Module], loss: RowLoss, batch: Batch) -> None:
    """Check that losses are those of weights and rows alone, whatever passes a model made before with other weights.

    Parameters
    ----------
    make : callable
        Returns a copy of the model, the same at every call. It is made twice, one after the other.
    batch : a few rows.

    Raises
    ------
    ConfigError
        A model that keeps something of an earlier pass.
    """
    with CoarsestDtype() as seen:
        one, other = (_losses_after(make(), loss, batch, elsewhere) for elsewhere in (False, True))
    if one is None or other is None:
        return
    tolerance = tolerance_of(_TOLERANCE.get(one.dtype, _COARSE), seen.dtype)
    apart = (one - other).nan_to_num().abs()
    if bool((apart > tolerance * (one.nan_to_num().abs() + 1e-30)).any()):
        raise ConfigError(
            explain(
                "a model whose outputs are those of its weights and inputs alone",
                "others for the same weights and rows, depending on what it was asked before",
                "it keeps weights, outputs or statistics of an earlier forward pass as an attribute, and reads them "
                "in a later one (a cache, a moving average)",
                "compute them anew in every forward pass, or make the cache before the training and leave it",
            )
        )


def _losses_after(model: nn.Module, loss: RowLoss, batch: Batch, elsewhere: bool) -> Tensor | None:
    """Return losses in both modes at weights off those of the model, after passes there or elsewhere.

    Returns
    -------
    Tensor or None
        None if a forward pass writes on weights: the steps of the training will show it.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    sizes = [0.1 * max(float(p.detach().norm()) / max(1, p.numel()) ** 0.5, 0.01) for p in trained]
    batch = to_device(dict(batch), next(model.parameters()).device)
    buffers = [b.clone() for b in model.buffers()]
    versions = [p._version for p in trained]
    found: list[Tensor] = []
    for side in (2.0, -1.0) if elsewhere else (0.0, 1.0):
        _move(trained, [side * size for size in sizes])
        versions = [v + 1 for v in versions]
        for ours, theirs in zip(model.buffers(), buffers, strict=True):
            ours.copy_(theirs)
        found = []
        for mode in (False, True):
            # Not by train(), in which adapters may be merged into weights that are shared.
            set_module_modes(model, [mode] * len(module_modes(model)))
            with no_checkpointing(), seeded(1):
                found.append(without_graph(partial(loss, model, batch)))
    return torch.cat(found) if versions == [p._version for p in trained] else None


def _move(trained: list[nn.Parameter], sizes: list[float]) -> None:
    """Add a pattern of these sizes to weights, without a copy of them."""
    with torch.no_grad():
        for p, size in zip(trained, sizes, strict=True):
            flat = p if p.ndim > 1 else p.reshape(1, -1)
            down, across = (torch.arange(n).cos().to(p) for n in (flat.shape[0], flat.shape[-1]))
            flat.addcmul_(down.view(-1, *[1] * (flat.ndim - 1)), across, value=size)


def _check_graph(losses: Tensor, parameters: Sequence[nn.Parameter]) -> None:
    if not losses.requires_grad:
        raise _unreached()
    if any(p.grad is not None for p in parameters):
        for parameter in parameters:
            parameter.grad = None
        raise ConfigError(
            explain(
                "a loss that leaves gradients of parameters to the training loop",
                "one that fills them itself",
                "it calls backward(), for adversarial inputs or an inner step, which adds to the parameters' gradients",
                "use torch.autograd.grad(value, inputs) there, which adds to nothing",
            )
        )


def check_unchanged(recipe: Recipe) -> None:
    """Check that the recipe's weights, rows and loss are those it was first used with, without drawing random numbers.

    Raises
    ------
    ConfigError
        A frozen parameter was written on since, what a factory makes or what the loss reads; it is named. Or the loss
        gives other numbers when it is called again.
    DataError
        A field of the rows was written on.
    """  # noqa: DOC501 - made by a function
    with untouched(0):
        recipe.check_unchanged()
        if varies(recipe.rows):
            return
    now = _start_of(recipe)
    if recipe.start is None:
        again = _start_of(recipe)
        if not now.behaviour.same(again.behaviour):
            raise _unsteady()
        with untouched(0):
            few = recipe.rows.batch(_some(len(recipe.rows), 2)[0])
            check_memoryless(partial(initial_model, recipe, 0), recipe.loss, few)
        object.__setattr__(recipe, "start", now)
        return
    name = first_change(recipe.start.weights, now.weights)
    if name is not None:
        raise changed_model(name)
    recipe.start.behaviour.check(now.behaviour)


@dataclass(frozen=True, eq=False)
class Start:
    """How trainings of a recipe start: weights and buffers under the first seed, and what the loss does there."""

    weights: Checksums
    behaviour: Behaviour


def _start_of(recipe: Recipe) -> Start:
    with untouched(0):
        model = initial_model(recipe, 0)
        check_parameters(dict(model.named_parameters()), dict(model.named_modules()))
        weights = checksums([*model.named_parameters(), *model.named_buffers()])
        layout = Layout(model)
        return Start(weights, Behaviour.of(model, recipe.loss, recipe.rows, layout, recipe.batch_size))


def _unreached() -> ConfigError:
    return ConfigError(
        explain(
            "a loss that depends on the trained parameters",
            "one without a gradient",
            "it is computed from detached values, under no_grad, by NumPy, or with another model than the one passed",
            "compute it from model(…) with PyTorch operations alone",
        )
    )


def _unsteady() -> ConfigError:
    return ConfigError(
        explain(
            "a loss that gives the same numbers for the same weights, rows and random seeds",
            "others when it is called again",
            "it counts its calls, follows a schedule or a moving average of its own, or draws from a generator of its "
            "own",
            "let it depend on model and batch alone, and draw from torch's default generator; schedules belong into "
            "fields of the rows or the optimiser",
        )
    )


def _some(count: int, batch_size: int) -> Sequence[Tensor]:
    size = min(count, batch_size)
    batches = min(_BATCHES, count // size)
    return torch.linspace(0, count - 1, batches * size, dtype=torch.float64).round().long().chunk(batches)


def _sums(gradients: list[Tensor]) -> Tensor:
    """Return sums over gradients, weighed by place, of each parameter."""
    if not gradients:
        return torch.zeros(0, dtype=torch.float64)
    found = [
        g.detach().double().reshape(-1)
        @ torch.linspace(0.5, 1.0, g.numel(), dtype=torch.float64, device=g.device)
        for g in gradients
    ]
    return torch.stack(found).cpu()
