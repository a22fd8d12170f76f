"""What a function reads beside its arguments: variables of its closure, globals, defaults, what its object holds."""

import functools
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.runs.describe._checksum import checksum

_DEPTH, _ENTRIES, _SAMPLED = 4, 64, 2**18
_LIBRARIES = ("torch", "numpy", "builtins", "typing", "collections", "functools", "math")
_PLAIN = (int, float, complex, str, bool, type(None))


def values_read(function: Any) -> dict[str, str]:
    """Return a short description of every tensor, array, number and text that a function reads, by its name.

    Large tensors are sampled. It tells which value changed, not that none did: attributes found while it runs and
    values further than four names away are left out.

    Returns
    -------
    dict

    Examples
    --------
    >>> rate = 2.0
    >>> def loss(x):
    ...     return rate * x
    >>> values_read(loss)
    {'rate': '2.0'}
    """
    found: dict[str, str] = {}
    for name, value in _within("", function, _DEPTH, set()):
        found.setdefault(name, value)  # attributes come before globals that have the names of attributes
    return found


def _within(name: str, value: Any, depth: int, seen: set[int]) -> Iterator[tuple[str, str]]:
    if isinstance(value, (Tensor, np.ndarray)):
        yield name, _content(value)
    elif isinstance(value, _PLAIN):
        yield name, repr(value)
    elif depth and id(value) not in seen and not isinstance(value, types.ModuleType):
        seen.add(id(value))
        for part, held in _parts(value):
            yield from _within(_joined(name, part), held, depth - 1, seen)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, nn.Module):
        yield from value.named_parameters()
        yield from value.named_buffers()
        yield from ((k, v) for k, v in vars(value).items() if isinstance(v, (*_PLAIN, Tensor)))
        yield from _parts(type(value).forward)
    elif isinstance(value, functools.partial):
        yield "", value.func
        yield from ((f"argument {k}", v) for k, v in [*enumerate(value.args), *value.keywords.items()])
    elif inspect.ismethod(value):
        yield "self", value.__self__
        yield from _parts(value.__func__)
    elif isinstance(value, types.FunctionType):
        if _is_the_users(value):
            yield from _closure(value)
            defaults, code = value.__defaults__ or (), value.__code__
            yield from zip(code.co_varnames[code.co_argcount - len(defaults) :], defaults, strict=False)
            yield from (value.__kwdefaults__ or {}).items()
    elif isinstance(value, Mapping):
        yield from ((repr(k), v) for k, v in list(value.items())[:_ENTRIES])
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{k}]", v) for k, v in enumerate(value[:_ENTRIES]))
    elif _is_the_users(type(value)) or isinstance(value, type):
        yield from ((k, v) for k, v in _attributes(value).items() if not k.startswith("__"))
        if not isinstance(value, type) and callable(value):
            yield from _parts(type(value).__call__)


def _is_the_users(value: Any) -> bool:
    return (value.__module__ or "").partition(".")[0] not in _LIBRARIES


def _closure(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    try:
        read = inspect.getclosurevars(function)
    except ValueError:  # a variable that is not bound yet
        return
    yield from {**read.globals, **read.nonlocals}.items()


def _attributes(value: Any) -> Mapping[str, Any]:
    if isinstance(value, type) and not _is_the_users(value):
        return {}
    try:
        return dict(vars(value))
    except TypeError:  # an object with slots
        return {}


def _content(value: Tensor | np.ndarray) -> str:
    if isinstance(value, np.ndarray):
        try:
            value = torch.from_numpy(np.ascontiguousarray(value))
        except TypeError:
            return f"{value.shape} {value.dtype}"
    flat = value.detach()
    if flat.layout is not torch.strided or flat.is_meta or flat.is_quantized:
        return f"{tuple(flat.shape)} {flat.dtype}"
    flat = flat.reshape(-1)
    some = flat[:: max(1, flat.numel() // _SAMPLED)]
    return f"{tuple(value.shape)} {value.dtype} {checksum(torch.view_as_real(some) if some.is_complex() else some)}"


def _joined(name: str, part: str) -> str:
    if not name or not part:
        return name or part
    return f"{name}{part}" if part.startswith("[") else f"{name}.{part}"
