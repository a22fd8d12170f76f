"""Which layers have factors, and how they are read off what goes in and what comes back.

A rule belongs to a layer's own forward function: a class that inherits it unchanged has the rule, one that overrides
it has none, and neither has a module whose forward was replaced.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from finfluence.grads.rules._terms import Flat, Gathered, Outer, Term

Rule = Callable[[Any, Tensor, Tensor], dict[str, Term] | None]


def _linear(module: nn.Linear, a: Tensor, b: Tensor) -> dict[str, Term] | None:
    if a.ndim < 2:
        return None
    if a.ndim == 2:
        return {"weight": Outer(a[:, None, None], b[:, None, None]), "bias": Flat(b)}
    rows = len(a)
    inputs, outputs = a.reshape(rows, -1, 1, a.shape[-1]), b.reshape(rows, -1, 1, b.shape[-1])
    return _with_bias(Outer(inputs, outputs), b.reshape(rows, -1, b.shape[-1]))


def _transposed_linear(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Term] | None:
    """Of a linear layer that keeps its weight as [in, out], as GPT-2 does: G = Σ_t a_t b_tᵀ."""
    if a.ndim < 2:
        return None
    rows = len(a)
    inputs, outputs = a.reshape(rows, -1, 1, a.shape[-1]), b.reshape(rows, -1, 1, b.shape[-1])
    return _with_bias(Outer(outputs, inputs), outputs[:, :, 0])


def _convolution(module: nn.Conv1d | nn.Conv2d, a: Tensor, b: Tensor) -> dict[str, Term] | None:
    axes = len(module.kernel_size)
    if a.ndim != axes + 2:
        return None
    around = module._reversed_padding_repeated_twice
    if any(around):
        a = F.pad(a, around, mode="constant" if module.padding_mode == "zeros" else module.padding_mode)
    kernel, dilation, stride = module.kernel_size, module.dilation, module.stride
    if axes == 1:
        a, kernel, dilation, stride = a.unsqueeze(2), (1, *kernel), (1, *dilation), (1, *stride)
    patches = F.unfold(a, kernel, dilation, 0, stride).transpose(1, 2)
    rows, positions = patches.shape[:2]
    back = b.flatten(2).transpose(1, 2)
    inputs = patches.reshape(rows, positions, module.groups, -1)
    return _with_bias(Outer(inputs, back.reshape(rows, positions, module.groups, -1)), back)


def _embedding(module: nn.Embedding, a: Tensor, b: Tensor) -> dict[str, Term] | None:
    if a.ndim < 1 or module.max_norm is not None or module.scale_grad_by_freq or module.sparse:
        return None
    rows = len(a)
    index, back = a.reshape(rows, -1), b.reshape(rows, -1, b.shape[-1])
    if module.padding_idx is not None:
        back = back * (index != module.padding_idx).unsqueeze(2)
    return {"weight": Gathered(index, back, module.num_embeddings)}


def _layer_norm(module: nn.LayerNorm, a: Tensor, b: Tensor) -> dict[str, Term] | None:
    return _scaled(F.layer_norm(a, module.normalized_shape, eps=module.eps), b, len(module.normalized_shape))


def _rms_norm(module: nn.RMSNorm, a: Tensor, b: Tensor) -> dict[str, Term] | None:
    return _scaled(
        F.rms_norm(a, list(module.normalized_shape), eps=module.eps), b, len(module.normalized_shape)
    )


def _group_norm(module: nn.GroupNorm, a: Tensor, b: Tensor) -> dict[str, Term] | None:
    return _of_channels(F.group_norm(a, module.num_groups, eps=module.eps), b)


def _batch_norm(module: nn.modules.batchnorm._BatchNorm, a: Tensor, b: Tensor) -> dict[str, Term] | None:
    if module.training or module.running_mean is None or module.running_var is None:
        return None
    return _of_channels(
        F.batch_norm(a, module.running_mean, module.running_var, training=False, eps=module.eps), b
    )


def _scaled(normal: Tensor, b: Tensor, axes: int) -> dict[str, Term] | None:
    if b.ndim <= axes:
        return None
    rows, size = len(b), b.shape[b.ndim - axes :].numel()
    back = b.reshape(rows, -1, size)
    return {"weight": Flat((normal.reshape(rows, -1, size) * back).sum(1)), "bias": Flat(back.sum(1))}


def _of_channels(normal: Tensor, b: Tensor) -> dict[str, Term]:
    weight, bias = (normal * b).reshape(*b.shape[:2], -1), b.reshape(*b.shape[:2], -1)
    return {"weight": Flat(weight.sum(2)), "bias": Flat(bias.sum(2))}


def _with_bias(weight: Term, back: Tensor) -> dict[str, Term]:
    return {"weight": weight, "bias": Flat(back[:, 0] if back.shape[1] == 1 else back.sum(1))}


RULES: dict[Any, Rule] = {
    nn.Linear.forward: _linear,
    nn.Conv1d.forward: _convolution,
    nn.Conv2d.forward: _convolution,
    nn.Embedding.forward: _embedding,
    nn.LayerNorm.forward: _layer_norm,
    nn.RMSNorm.forward: _rms_norm,
    nn.GroupNorm.forward: _group_norm,
    nn.modules.batchnorm._BatchNorm.forward: _batch_norm,
}


def rule_of(module: nn.Module) -> Rule | None:
    """Return how a layer's factors are read; None if it has none that are known.

    Returns
    -------
    callable or None
        `rule(module, what went in, gradient of what came out)` gives a `Term` for each parameter by its own name, or
        None for inputs without a leading axis.

    Examples
    --------
    >>> rule_of(nn.Linear(2, 1)) is rule_of(nn.LSTM(2, 1))
    False
    """
    if "forward" in vars(module):
        return None
    forward = type(module).forward
    return _transposed_linear if forward is _forward_of_transformers() else RULES.get(forward)


def is_linear_map(module: nn.Module) -> bool:
    """Whether a layer's weight has one matrix of factors, an `Outer` of one group: linear layers, most convolutions.

    Returns
    -------
    bool

    Examples
    --------
    >>> [is_linear_map(m) for m in (nn.Linear(2, 1), nn.Conv1d(2, 2, 1), nn.Conv1d(2, 2, 1, groups=2), nn.LayerNorm(2))]
    [True, True, False, False]
    """
    rule = rule_of(module)
    if rule is _convolution:
        return bool(module.groups == 1)
    return rule in (_linear, _transposed_linear)


def is_transposed(module: nn.Module) -> bool:
    """Whether a linear layer keeps its weight as [in, out], so that what goes in stands for the rows of the matrix.

    Returns
    -------
    bool
    """
    return rule_of(module) is _transposed_linear


def _forward_of_transformers() -> Any:
    """Return the forward function of transformers' Conv1D; None where no model can have one, the library not loaded."""
    loaded = sys.modules.get("transformers.pytorch_utils")
    return None if loaded is None else loaded.Conv1D.forward
