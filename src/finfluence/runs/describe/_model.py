"""A user's model: what can be trained here, and copies of it that are ours."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from finfluence.errors import ConfigError, NotSupportedError, explain


def copy_model(model: nn.Module, shared: Iterable[Tensor] = ()) -> nn.Module:
    """Return a deep copy of the model.

    Parameters
    ----------
    shared : parameters and buffers whose memory the copy shares: only their names and their places are its own.

    Returns
    -------
    nn.Module

    Raises
    ------
    NotSupportedError
        The model holds something that cannot be copied; the part is named.
    """  # noqa: DOC501 - made by a function
    known: dict[int, Any] = {id(t): _alias(t) for t in shared}
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                raise _computed(f"{name}.{key}".lstrip("."), module)
    try:
        copied: nn.Module = copy.deepcopy(model, known)
    except (TypeError, RuntimeError) as error:
        raise NotSupportedError(
            explain(
                "a model that can be copied (copy.deepcopy)",
                f"{type(error).__name__}: {str(error).splitlines()[0]}",
                "a part of it holds an open file, a lock, a generator or a tensor in the middle of a computation",
                "make such parts outside the model, or drop them before the training starts",
            )
        ) from error
    _with_forward_of_its_own(model, copied)
    return copied


def _with_forward_of_its_own(model: nn.Module, copied: nn.Module) -> None:
    """Let no part of the copy compute by a replaced `forward` that still calls the model it was copied from.

    Raises
    ------
    NotSupportedError
        It is not what a library wrapped around the forward of the module's class.
    """
    originals = {id(module) for module in model.modules()}
    for name, module in copied.named_modules():
        forward = vars(module).get("forward")
        if forward is None or not _reaches(forward, originals, set()):
            continue
        if not _wraps(forward, type(module).forward):
            raise NotSupportedError(
                explain(
                    "a model whose forward passes can be taken by a copy of it",
                    f"a forward of '{name or type(module).__name__}' that calls the model it was made for",
                    "model.forward was replaced by a function that holds the model itself",
                    "write a subclass with that forward, or wrap it by functools.wraps(type(model).forward) if the "
                    "loss does not need it",
                )
            )
        del module.forward


def _reaches(value: Any, modules: set[int], seen: set[int]) -> bool:
    """Whether a function, or what it closes over, is bound to one of these modules."""
    if id(value) in modules:
        return True
    if id(value) in seen or not callable(value) or isinstance(value, (type, nn.Module)):
        return False
    seen.add(id(value))
    parts = [getattr(value, key, None) for key in ("__self__", "__func__", "__wrapped__", "func")]
    for cell in getattr(value, "__closure__", None) or ():
        try:
            parts.append(cell.cell_contents)
        except ValueError:  # an empty cell
            continue
    return any(_reaches(part, modules, seen) for part in (*parts, *getattr(value, "args", ())))


def _wraps(forward: Any, own: Any) -> bool:
    """Whether `forward` says, by functools.wraps, that it is wrapped around this function."""
    while forward is not None:
        if getattr(forward, "__func__", forward) is own:
            return True
        forward = getattr(forward, "__wrapped__", None)
    return False


def check_model(model: object) -> None:
    """Raise unless the model is a torch module or makes one.

    Raises
    ------
    ConfigError
        Something else, such as an estimator of scikit-learn.
    """
    learns = hasattr(model, "fit") and hasattr(model, "predict")
    module = isinstance(model, nn.Module) or (isinstance(model, type) and issubclass(model, nn.Module))
    if module or (callable(model) and not learns):
        return
    name = model.__name__ if isinstance(model, type) else type(model).__name__
    raise ConfigError(
        explain(
            "model to be an nn.Module, or callable(seed) -> nn.Module",
            f"{name}, an estimator with fit and predict" if learns else name,
            "what is replayed are the gradient steps of a torch module; another library's fit has none to take again"
            if learns
            else "another object was passed",
            "write the model in torch, such as nn.Linear(features, classes) for a logistic regression, or let "
            "finfluence scan choose a model for the table"
            if learns
            else "pass the module itself, or a function that makes it",
        )
    )


def hooked_parameter(named: Iterable[tuple[str, nn.Parameter]]) -> str | None:
    """Return the name of a parameter whose gradient passes through a hook, or None."""
    return next((n for n, p in named if p._backward_hooks or p._post_accumulate_grad_hooks), None)


def check_unhooked(model: object) -> None:
    """Raise if gradients of parameters pass through hooks: a copy of the model is trained, and has none.

    Raises
    ------
    NotSupportedError
        The parameter is named.
    """
    name = hooked_parameter(model.named_parameters()) if isinstance(model, nn.Module) else None
    if name is not None:
        raise NotSupportedError(
            explain(
                "parameters whose gradients pass through no hook",
                f"one on '{name}' (register_hook or register_post_accumulate_grad_hook)",
                "the recipe trains copies of the model, and torch does not copy hooks of parameters",
                "write what the hook does into the model or loss, remove a hook that only looks on, or record the "
                "training loop with fi.Tape.record",
            )
        )


def check_parameters(named: Mapping[str, nn.Parameter], modules: Mapping[str, nn.Module]) -> None:
    """Raise unless the parameters that are trained are real and their gradients dense.

    Raises
    ------
    NotSupportedError
        A parameter without values, a complex one, or an embedding with sparse gradients; it is named.
    """  # noqa: DOC501 - made by a function
    empty = next((n for n, p in named.items() if is_lazy(p) or p.is_meta), None)
    if empty is not None:
        raise NotSupportedError(
            explain(
                "parameters that have values",
                f"'{empty}' of a lazy layer, without a shape yet"
                if is_lazy(named[empty])
                else f"'{empty}' on device meta",
                "a lazy layer gets its parameters in its first forward pass; the meta device holds shapes alone",
                "call the model once on a batch, or load its weights, before the optimiser is made",
            )
        )
    complex_ = next((n for n, p in named.items() if p.requires_grad and p.is_complex()), None)
    if complex_ is not None:
        raise NotSupportedError(
            explain(
                "real trained parameters",
                f"'{complex_}' of {named[complex_].dtype}",
                "the derivative of a complex step is not written down here",
                "hold real and imaginary part as two real parameters and join them in forward (torch.complex)",
            )
        )
    trained = {id(p) for p in named.values() if p.requires_grad}
    sparse = next(
        (
            name
            for name, module in modules.items()
            if getattr(module, "sparse", None) is True
            and any(id(p) in trained for p in module.parameters(recurse=False))
        ),
        None,
    )
    if sparse is not None:
        raise sparse_gradient(f"of '{sparse}' ({type(modules[sparse]).__name__} with sparse=True)")


def sparse_gradient(where: str) -> NotSupportedError:
    """Return the error of a gradient that is a sparse tensor."""
    return NotSupportedError(
        explain(
            "dense gradients",
            f"sparse ones {where}",
            "an embedding with sparse=True gives a gradient of the rows it used only, which steps cannot be joined of",
            "pass sparse=False: the numbers of the training stay the same for SGD",
        )
    )


def _alias(tensor: Tensor) -> Tensor:
    """Return another tensor object on the same memory: `half()` or `to()` of the original does not reach it."""
    alias = tensor.detach()
    return nn.Parameter(alias, requires_grad=False) if isinstance(tensor, nn.Parameter) else alias


def _computed(name: str, module: nn.Module) -> NotSupportedError:
    kinds = [type(hook).__name__ for hook in module._forward_pre_hooks.values()]
    old = next((kind for kind in kinds if kind in ("WeightNorm", "SpectralNorm")), None)
    return NotSupportedError(
        explain(
            "a model whose tensors are parameters, buffers or constants",
            f"'{name}', computed from others with a graph" + (f", by torch's old {old}" if old else ""),
            f"torch.nn.utils.{'weight' if old == 'WeightNorm' else 'spectral'}_norm writes a computed tensor on the "
            "module, which cannot be copied"
            if old
            else "the module keeps an output of its last forward pass, or a weight that torch.nn.utils.prune computes, "
            "which cannot be copied",
            f"use torch.nn.utils.parametrizations.{'weight' if old == 'WeightNorm' else 'spectral'}_norm"
            if old
            else "keep it detached (value.detach()), drop it before the training starts, or call prune.remove",
        )
    )
