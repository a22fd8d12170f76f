"""Which parameters of a model a loop trains, and copies of the model that are ours."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from finfluence._files import digest
from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.runs.describe import Checksums, checksums, copy_model

Parameters = Sequence[str] | Callable[[str], bool] | None
_SAMPLED = 4096


def trained_names(model: nn.Module, optimizer: torch.optim.Optimizer, parameters: Parameters) -> list[str]:
    """Return the names of the parameters whose training is recorded, in the model's order.

    Parameters
    ----------
    parameters : None, names, or callable(name) -> bool
        None: all that the optimiser holds and that require a gradient.

    Returns
    -------
    list[str]

    Raises
    ------
    ConfigError
        A name that the model has not, or parameters that move without being recorded.
    NotSupportedError
        The optimiser holds parameters of something else.
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    foreign = held - {id(p) for p in named.values()}
    if foreign:
        raise NotSupportedError(
            explain(
                "an optimiser of the model's own parameters",
                f"{len(foreign)} of its {len(held)} parameters are not in the model",
                "it was made for another model, or before the model was copied, moved or wrapped",
                "make the optimiser from model.parameters(), and record that same model",
            )
        )
    moving = [name for name, p in named.items() if id(p) in held and p.requires_grad]
    if parameters is None:
        return moving
    if callable(parameters):
        chosen = [name for name in named if parameters(name)]
    else:
        chosen = list(parameters)
        unknown = [name for name in chosen if name not in named]
        if unknown:
            raise ConfigError(
                explain(
                    "parameters= to name parameters of the model",
                    f"'{unknown[0]}'",
                    "the model was wrapped, so that names have another prefix, or the name is mistyped",
                    f"use names of model.named_parameters(), such as '{next(iter(named))}'",
                )
            )
    left = [name for name in moving if name not in set(chosen)]
    idle = [name for name in chosen if name not in set(moving)]
    if left or idle or not chosen:
        what = f"'{left[0]}' is trained and not among them" if left else "none of them is trained"
        if idle and not left:
            what = f"'{idle[0]}' is not trained"
        raise ConfigError(
            explain(
                "parameters= to choose exactly what the optimiser trains",
                f"{len(chosen)} parameters; {what}",
                "a parameter that moves without being recorded cannot be replayed",
                "freeze the others (requires_grad_(False)) before training, or leave parameters= out",
            )
        )
    return [name for name in named if name in set(chosen)]


def copied(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """Return a copy of the model in which exactly `names` require a gradient; memory of frozen parameters is shared."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    twin = copy_model(model, [p for p in model.parameters() if not p.requires_grad])
    chosen = set(names)
    for name, parameter in twin.named_parameters():
        parameter.grad = None
        if name not in frozen:
            parameter.requires_grad_(name in chosen)
    return twin


def frozen_checksums(model: nn.Module) -> Checksums:
    """Return checksums of the parameters of our copy that do not require a gradient."""
    return checksums((name, p) for name, p in model.named_parameters() if not p.requires_grad)


def constant_checksums(model: nn.Module) -> Checksums:
    """Return checksums of all that a training leaves as it is: frozen parameters and buffers."""
    return {**frozen_checksums(model), **checksums(model.named_buffers())}


def module_modes(model: nn.Module) -> list[bool]:
    """Return each module's training flag, in the order of `model.modules()`."""
    return [module.training for module in model.modules()]


def set_module_modes(model: nn.Module, modes: Sequence[bool]) -> None:
    """Set each module's training flag."""
    for module, mode in zip(model.modules(), modes, strict=True):
        module.training = mode


def batch_norms(model: nn.Module) -> list[str]:
    """Name the batch-normalisation layers in training mode: they couple the rows of a batch."""
    kind = nn.modules.batchnorm._BatchNorm
    return [
        name
        for name, m in model.named_modules()
        if isinstance(m, kind) and (m.training or m.running_mean is None)
    ]


def without_running_statistics(model: nn.Module) -> None:
    """Let the batch-normalisation layers in training mode of our copy keep no statistics: its losses stay the same."""
    by_name = dict(model.named_modules())
    for name in batch_norms(model):
        layer = by_name[name]
        assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
        layer.track_running_stats = False
        layer.running_mean = layer.running_var = layer.num_batches_tracked = None


def fingerprint(model: nn.Module, names: Sequence[str]) -> dict[str, str]:
    """Return what tells a model from others: names and shapes of what is trained, content of what is frozen."""
    named = dict(model.named_parameters())
    shapes = repr([(n, tuple(named[n].shape), str(named[n].dtype)) for n in names])
    chosen = set(names)
    frozen = [(n, p) for n, p in named.items() if n not in chosen]
    return {
        "trained": digest(shapes.encode()),
        "frozen": digest(*(part for n, p in frozen for part in (n.encode(), _sampled(p)))),
    }


def _sampled(tensor: Tensor) -> bytes:
    flat = tensor.detach().reshape(-1)
    some = flat[:: max(1, len(flat) // _SAMPLED)]
    return repr(tuple(tensor.shape)).encode() + some.double().cpu().numpy().tobytes()
