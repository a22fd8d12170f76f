"""Per-row losses as a pure function of the flat parameter vector."""

import warnings
from collections.abc import Callable
from copy import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.grads._checkpointing import no_checkpointing
from finfluence.grads._elementary import Elementary
from finfluence.grads._flat import Layout
from finfluence.grads._seed import seed_generators

with (
    warnings.catch_warnings()
):  # loaded by the first forward derivative; scripts itself with a deprecated call
    warnings.simplefilter("ignore", DeprecationWarning)
    import torch._decomp.decompositions_for_jvp  # noqa: F401

Batch = dict[str, Tensor]
RowLoss = Callable[[nn.Module, Batch], Tensor]
_TABLES = (nn.Embedding, nn.EmbeddingBag)


class _Bound(nn.Module):
    """The model and its loss as one module, so that `functional_call` reaches both."""

    def __init__(self, model: nn.Module, loss: RowLoss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss
        self.training = model.training

    def forward(self, batch: Batch) -> Tensor:
        return self.loss(self.model, batch)


class RowLosses:
    """ℓ(θ, batch) ∈ ℝᴮ for a model and a per-row loss, pure in θ.

    Parameters
    ----------
    model : nn.Module
        A copy owned by the caller; it is read, its parameters are swapped only during a call.
    loss : callable
        `loss(model, batch) -> Tensor[B]`, one loss per row.
    layout : Layout
        Where the trainable parameters lie in θ.
    fused : bool
        Run the kernels that training runs. Otherwise attention and some losses are computed by elementary operations,
        which PyTorch can differentiate forward over reverse.

    Examples
    --------
    >>> model = nn.Linear(2, 1)
    >>> losses = RowLosses(model, lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2, Layout(model))
    >>> losses(torch.zeros(3), {"x": torch.ones(4, 2), "y": torch.ones(4)}).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, model: nn.Module, loss: RowLoss, layout: Layout, fused: bool = False) -> None:
        self._bound = _Bound(model, loss)
        self.model, self.loss = model, loss
        self.layout = layout
        self.fused = fused
        self._held: tuple[Tensor, Tensor] | None = None
        self._places = places(self._bound, [f"model.{name}" for name in layout.names])

    def holding(self, still: Tensor | None, theta: Tensor) -> "RowLosses":
        """Return the same losses where the entries `still` [P] of their argument are constants: those of θ."""
        if still is None:
            return self
        held = copy(self)
        held._held = (still, theta)
        return held

    def __call__(self, theta: Tensor, batch: Batch, seed: int | None = None) -> Tensor:
        """Return the losses [B] at θ; `seed` fixes dropout and the like for this call."""
        if self._held is not None:
            theta = torch.where(*self._held, theta)
        named = {
            place: view
            for alike, view in zip(self._places, self.layout.split(theta).values(), strict=True)
            for place in alike
        }
        if seed is not None:
            seed_generators(seed, theta.device)
        if self.fused:
            return functional_call(self._bound, named, (batch,), tie_weights=False)
        with Elementary(), sdpa_kernel(SDPBackend.MATH), no_checkpointing():
            return functional_call(self._bound, named, (batch,), tie_weights=False)


def places(module: nn.Module, names: list[str]) -> list[list[str]]:
    """Return all places of each named parameter, one for each module that holds it, however often that is held.

    `functional_call` finds them by itself, but restores a module with two names wrongly.

    Returns
    -------
    list of lists of names

    Examples
    --------
    >>> layer = nn.Linear(2, 2)
    >>> places(nn.Sequential(layer, layer), ["0.weight"])
    [['0.weight']]
    """
    found: dict[int, list[str]] = {}
    for prefix, part in module.named_modules():
        for key, parameter in part._parameters.items():
            found.setdefault(id(parameter), []).append(f"{prefix}.{key}".lstrip("."))
    by_name = dict(module.named_parameters(remove_duplicate=False))
    return [found[id(by_name[name])] for name in names]


def without_graph(compute: Callable[[], Tensor]) -> Tensor:
    """Return what `compute` returns, without its graph; one that differentiates inside itself gets a graph to do so.

    Returns
    -------
    Tensor

    Raises
    ------
    RuntimeError
        Whatever `compute` raises.

    Examples
    --------
    >>> def slope(x=torch.ones(1, requires_grad=True)):
    ...     return torch.autograd.grad((x**3).sum(), x)[0]
    >>> without_graph(slope)
    tensor([3.])
    """
    try:
        with torch.no_grad():
            found = compute()
        return (
            found.detach() if isinstance(found, Tensor) else found
        )  # a loss may turn gradients on by itself
    except (
        RuntimeError
    ) as error:  # torch.autograd.grad of a loss's own: a gradient penalty, an adversarial input
        if "does not require grad" not in str(error):
            raise
    with torch.enable_grad():
        return compute().detach()


def check_row_losses(losses: Tensor, rows: int) -> None:
    """Raise unless `losses` is one finite-typed number per row.

    Raises
    ------
    ConfigError
        The loss returned something other than a floating tensor of shape [rows].
    """
    if isinstance(losses, Tensor) and losses.shape == (rows,) and losses.is_floating_point():
        return
    got = f"a tensor of shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
    raise ConfigError(
        explain(
            f"the loss to return one number per row: a tensor of shape ({rows},)",
            got,
            "the loss averages over the batch (reduction='mean')",
            "use reduction='none', and average over tokens or outputs inside each row only",
        )
    )


def check_row_separable(model: nn.Module) -> None:
    """Raise if a layer lets one row's loss depend on the other rows of its batch.

    Raises
    ------
    NotSupportedError
        A batch-normalisation layer takes the statistics of the batch.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and _mixes(module):
            mode = "in training mode" if module.training else "without running statistics"
            raise NotSupportedError(
                explain(
                    "a model whose loss for one row does not depend on the other rows of the batch",
                    f"{type(module).__name__} {mode} at '{name or type(model).__name__}'",
                    "batch normalisation mixes the rows of a batch",
                    "use GroupNorm or LayerNorm, or freeze it with .eval() in the model factory",
                )
            )


def never_moved(model: nn.Module, layout: Layout) -> Tensor | None:
    """Return which entries of θ [P] no gradient ever moves: the padding entries of embeddings; None if there are none.

    Of a weight that another layer uses, too, they are moved by that.

    Returns
    -------
    Tensor of bool [P] or None

    Examples
    --------
    >>> model = nn.Embedding(3, 2, padding_idx=1)
    >>> never_moved(model, Layout(model)).tolist()
    [False, False, True, True, False, False]
    """
    found = torch.zeros(layout.size, dtype=torch.bool, device=layout.device)
    views = layout.split(found)
    held = places(model, layout.names)
    for name, alike in zip(layout.names, held, strict=True):
        module = model.get_submodule(alike[0].rpartition(".")[0])
        if len(alike) == 1 and isinstance(module, _TABLES) and module.padding_idx is not None:
            views[name][module.padding_idx] = True
    return found if bool(found.any()) else None


def check_rows_have_gradients(model: nn.Module) -> None:
    """Raise if an embedding's gradient is not the sum of what each row gives it.

    Raises
    ------
    NotSupportedError
        An embedding divides its gradient by how often the batch uses an entry.
    """
    for name, module in model.named_modules():
        if isinstance(module, _TABLES) and module.scale_grad_by_freq:
            raise NotSupportedError(
                explain(
                    "a model whose gradient of a batch is the sum of those of its rows",
                    f"{type(module).__name__} with scale_grad_by_freq=True at '{name or type(model).__name__}'",
                    "each entry's gradient is divided by how often the batch uses it",
                    "leave scale_grad_by_freq out, or use method='replay', which follows the steps that were taken",
                )
            )


def check_forward_writes_nothing(model: nn.Module) -> None:
    """Raise if an embedding rescales its weight in every forward pass.

    Raises
    ------
    NotSupportedError
        An embedding has `max_norm`.
    """
    for name, module in model.named_modules():
        if isinstance(module, _TABLES) and module.max_norm is not None:
            raise NotSupportedError(
                explain(
                    "a forward pass that leaves the parameters as they are",
                    f"{type(module).__name__} with max_norm={module.max_norm:g} at '{name or type(model).__name__}'",
                    "such an embedding rescales the entries that it looks up, so that there is no fixed point to "
                    "differentiate at",
                    "leave max_norm out, or bound the norms in the loss",
                )
            )


def _mixes(norm: nn.modules.batchnorm._BatchNorm) -> bool:
    return norm.training or norm.running_mean is None or norm.running_var is None
