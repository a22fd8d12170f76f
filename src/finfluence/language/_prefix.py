"""The frozen lower layers of a model: what they say of a text never changes, and is computed once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.language._model import causal_model, last_hidden, shallow

MEMORY_BYTES = 2**31


class _Reached(Exception):
    """The layers below have spoken."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class _Stop(nn.Module):
    """In the place of the first layer above: hands out what it is given."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        raise _Reached(hidden_states)


class Prefix:
    """The layers of a causal model below the lowest trained parameter, and what they say of texts.

    Every text is evaluated by itself, so that what is kept of it depends on nothing else. The model that is given is
    not written on: `upper` is another module object that shares its layers.

    Attributes
    ----------
    layers : int
        How many layers lie in it.
    upper : nn.Module
        The model above; its batches carry `hidden` in place of `tokens`.
    names : dict
        Names of the trained parameters of `upper`, with those that they have in the given model.

    Parameters
    ----------
    model : nn.Module
        A causal model of transformers, or peft's around one.
    folder : path, optional
        Where what is beyond `memory_bytes` is kept, as plain files.
    memory_bytes : int
        For what is kept in memory.

    Raises
    ------
    NotSupportedError
        No layer is frozen, or the model adds something to its inputs, so that it cannot be entered in the middle.
    ConfigError
        A frozen layer draws random numbers (dropout): what it says is not the same twice.
    """

    def __init__(
        self, model: nn.Module, folder: Path | None = None, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        inner = causal_model(model)
        body = inner.base_model
        name, layers = _layers(body)
        self.layers = _frozen(model, body, layers)
        if not self.layers:
            raise _cannot(
                "no layer below the lowest trained parameter", "train the last layers only (--layers last:4)"
            )
        _check_quiet(layers[: self.layers])
        self._lower = _with(inner, body, name, [*layers[: self.layers], _Stop()])
        self.upper: nn.Module = _with(inner, body, name, list(layers[self.layers :]))
        by_parameter = {id(p): n for n, p in model.named_parameters()}
        self.names = {n: by_parameter[id(p)] for n, p in self.upper.named_parameters() if p.requires_grad}
        self._device = next(model.parameters()).device
        self._folder, self._memory_bytes = folder, memory_bytes
        self._kept: dict[bytes, Tensor] = {}
        self._check(inner)

    def prepare(self, texts: Sequence[np.ndarray]) -> None:
        """Evaluate the texts (tokens each) that are not known yet, and keep what the layers say of them."""
        new = {t.tobytes(): t for t in texts if t.tobytes() not in self._kept}
        for key, tokens in new.items():
            self._kept[key] = self._stored(self._evaluate(tokens))

    def of(self, texts: Sequence[np.ndarray], length: int) -> Tensor:
        """Return what the layers say of texts, padded with zeros [B, length, H]."""
        first = self._kept[texts[0].tobytes()]
        found = first.new_zeros((len(texts), length, first.shape[-1]))
        for k, tokens in enumerate(texts):
            found[k, : len(tokens)] = self._kept[tokens.tobytes()]
        return found

    def _evaluate(self, tokens: np.ndarray) -> Tensor:
        with torch.no_grad():
            try:
                last_hidden(self._lower, {"tokens": torch.from_numpy(tokens[None]).to(self._device)})
            except _Reached as reached:
                return reached.hidden[0].cpu()
        raise AssertionError("the layers above were never reached")

    def _stored(self, hidden: Tensor) -> Tensor:
        """Return the tensor itself while there is memory, then one that lies in a file."""
        self._memory_bytes -= hidden.nbytes
        if self._memory_bytes >= 0:
            return hidden.clone()
        if self._folder is None:
            raise ConfigError(
                explain(
                    "what frozen layers say of all texts to fit in memory_bytes",
                    "more",
                    "many or long texts",
                    "name a folder for it, raise memory_bytes, or do without a Prefix",
                )
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{len(self._kept):08d}.bin"
        held = torch.from_file(str(path), shared=True, size=hidden.numel(), dtype=hidden.dtype).view(
            hidden.shape
        )
        return held.copy_(hidden)

    def _check(self, inner: Any) -> None:
        """Raise unless the upper layers, given what the lower ones say, say what the whole model says."""
        tokens = np.arange(min(8, inner.config.vocab_size), dtype=np.int64)
        with torch.no_grad():
            whole = last_hidden(inner, {"tokens": torch.from_numpy(tokens[None]).to(self._device)})
            above = last_hidden(self.upper, {"hidden": self._evaluate(tokens)[None].to(self._device)})
        if not torch.equal(whole, above):
            raise _cannot(
                f"a {type(inner).__name__}, which adds something to its inputs before its layers",
                "train without keeping what its lower layers say: the numbers are the same",
            )


def _layers(body: nn.Module) -> tuple[str, nn.ModuleList]:
    count = getattr(getattr(body, "config", None), "num_hidden_layers", None)
    for name, child in body.named_children():
        if isinstance(child, nn.ModuleList) and len(child) == count:
            return name, child
    raise _cannot(f"a {type(body).__name__} without a list of layers", "train without a Prefix")


def _frozen(model: nn.Module, body: nn.Module, layers: nn.ModuleList) -> int:
    """Return how many layers lie below every trained parameter."""
    above = {id(p) for layer in layers for p in layer.parameters()}
    outside = [p for p in body.parameters() if id(p) not in above and p.requires_grad]
    if outside or not any(p.requires_grad for p in model.parameters()):
        return 0
    trained = [k for k, layer in enumerate(layers) if any(p.requires_grad for p in layer.parameters())]
    return trained[0] if trained else len(layers)


def _check_quiet(layers: nn.ModuleList) -> None:
    for layer in layers:
        for name, module in layer.named_modules():
            if isinstance(module, nn.Dropout) and module.training and module.p > 0:
                raise ConfigError(
                    explain(
                        "frozen layers that say the same twice",
                        f"dropout in training mode at '{name}'",
                        "the model is in training mode",
                        "call model.eval(): adapters are trained without dropout then",
                    )
                )


def _with(inner: Any, body: Any, name: str, layers: list[nn.Module]) -> Any:
    """Return the model with other layers, sharing all else."""
    new_body = shallow(body)
    new_body._modules[name] = nn.ModuleList(layers)
    made = shallow(inner)
    made._modules[inner.base_model_prefix] = new_body
    return made


def _cannot(got: str, next_step: str) -> NotSupportedError:
    return NotSupportedError(
        explain(
            "a model that can be entered above its frozen layers",
            got,
            "adapters on all layers, or an architecture that is written otherwise",
            next_step,
        )
    )
