"""A plain copy of a model that fully_shard has changed.

`fully_shard` gives a module another class, in front of its own, hooks around its forward pass, and a state. A copy
without these is the model as it was made; the model itself is only read.
"""

import copy
from typing import Any

from torch import nn

_TORCH = "torch.distributed."
_STATE = "__composable_api_state_key"
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def own_class(module: nn.Module) -> type | None:
    """Return the class that a module had before fully_shard, or None if it was not passed through it.

    Returns
    -------
    type | None

    Examples
    --------
    >>> own_class(nn.Linear(1, 1)) is None
    True
    """
    classes = type(module).__mro__
    for place, one in enumerate(classes):
        if one.__name__ == "FSDPModule" and one.__module__.startswith(_TORCH):
            return classes[place + 1]
    return None


def unsharded(model: nn.Module, parameters: dict[int, nn.Parameter]) -> nn.Module:
    """Return a copy of the model without what fully_shard did to it.

    Parameters
    ----------
    parameters : dict
        The plain parameter that stands for each sharded one, by its id.

    Returns
    -------
    nn.Module
    """
    memo: dict[int, Any] = dict(parameters)
    changed = [m for m in model.modules() if own_class(m) is not None]
    for module in changed:
        own: Any = own_class(module)
        memo[id(module)] = own.__new__(own)
    for module in changed:
        memo[id(module)].__setstate__(copy.deepcopy(_own_state(module), memo))
    plain: nn.Module = copy.deepcopy(model, memo)
    return plain


def _own_state(module: nn.Module) -> dict[str, Any]:
    """Return a module's attributes but for those of fully_shard: its state, hooks, and methods that it registered."""
    state = {
        k: v for k, v in module.__getstate__().items() if not (k.startswith(_STATE) or _made_by_torch(v))
    }
    for kind in _HOOKS:
        state[kind] = type(state[kind])(
            (k, hook) for k, hook in state[kind].items() if not _made_by_torch(hook)
        )
    return state


def _made_by_torch(value: Any) -> bool:
    """Whether a function, or the function of a method, was written in torch.distributed."""
    function = getattr(value, "__func__", value)
    where = getattr(function, "__globals__", {}).get("__name__", "")
    return isinstance(where, str) and where.startswith(_TORCH)
