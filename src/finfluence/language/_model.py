"""What is asked of a causal language model: log-probabilities of learned tokens, their logits alone."""

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._C._functorch import peek_interpreter_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode

from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.grads import Batch

LOGIT_BYTES = 2**27
"""Logits evaluated at once where no gradient is asked for."""


def causal_model(model: nn.Module) -> Any:
    """Return the model with a language-model head: itself, or what adapters of peft are in.

    Returns
    -------
    nn.Module

    Raises
    ------
    NotSupportedError
        It has no head that gives a logit for each token, or none that stands apart from its body.
    """
    given: Any = model
    inner = given.get_base_model() if hasattr(given, "get_base_model") else given
    head = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    if head is None or getattr(inner, "base_model", inner) is inner:
        raise NotSupportedError(
            explain(
                "a causal language model of transformers (AutoModelForCausalLM)",
                type(inner).__name__,
                "a model that classifies or embeds, a body without its head, or parts with unusual names",
                "load it by AutoModelForCausalLM.from_pretrained; if it was, use another model",
            )
        )
    return inner


def token_log_probs(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Tensor:
    """Return the log-probability of every learned token [B, R]; 0 where there is padding.

    With `smoothing` ε, (1−ε) log p(y) + ε (1/V) Σ_v log p(v) over the V tokens that the model has logits for.

    The logits of other tokens are never formed; nor are those of padding, but in a trace or a transform of torch.func,
    where no shape may depend on values. Without gradients, rows are taken a few at a time, so that the logits
    of as many rows as one likes fit in memory.

    Returns
    -------
    Tensor [B, R]
    """
    inner = causal_model(model)
    rows, width = batch["targets"].shape
    size = rows * width * inner.get_output_embeddings().weight.shape[0] * 4
    if size <= LOGIT_BYTES or torch.is_grad_enabled():
        return _log_probs(inner, batch, smoothing)
    at_once = max(1, rows * LOGIT_BYTES // size)
    parts = [
        _log_probs(inner, {k: v[start : start + at_once] for k, v in batch.items()}, smoothing)
        for start in range(0, rows, at_once)
    ]
    return torch.cat(parts)


def _log_probs(inner: Any, batch: Batch, smoothing: float) -> Tensor:
    hidden = _at(last_hidden(inner, batch), batch["places"])
    targets = batch["targets"]
    learned = torch.arange(targets.shape[1], device=targets.device) < batch["counts"].unsqueeze(-1)
    if hidden.is_meta or _traced_or_mapped():
        found = _of_targets(inner, hidden, targets, smoothing)
        return torch.where(learned, found, torch.zeros_like(found))
    places = learned.flatten().nonzero().squeeze(-1)
    found = _of_targets(inner, hidden.flatten(0, 1)[places], targets.flatten()[places], smoothing)
    return found.new_zeros(targets.numel()).index_put((places,), found).view(targets.shape)


def _of_targets(inner: Any, hidden: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the log-probabilities of targets [...], smoothed, from what the model's body says there [..., H]."""
    logits = scaled_logits(inner, hidden)
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    all_tokens = logits.log_softmax(-1)
    found = all_tokens.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return found if not smoothing else (1 - smoothing) * found + smoothing * all_tokens.mean(-1)


def _traced_or_mapped() -> bool:
    """Whether operations are recorded or transformed, so that no shape may depend on values."""
    return _get_current_dispatch_mode() is not None or peek_interpreter_stack() is not None


def last_hidden(inner: Any, batch: Batch) -> Tensor:
    """Return what the model's body says of every token [B, L, H], none looking at those behind it."""
    given = batch["hidden"] if "hidden" in batch else batch["tokens"]
    length, device = given.shape[1], given.device
    name = "inputs_embeds" if "hidden" in batch else "input_ids"
    dtype = inner.get_output_embeddings().weight.dtype
    states = inner.base_model(
        **{name: given},
        attention_mask=causal_mask(length, dtype, device),
        position_ids=torch.arange(length, device=device).unsqueeze(0),
        use_cache=False,
        return_dict=True,
    )
    found: Tensor = states.last_hidden_state
    return found


def causal_mask(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the mask [1, 1, L, L] that is added to attention: 0 up to the token itself, else the least number.

    Written out in four dimensions, it is taken as it stands: no code then asks tensors for their values, which a trace
    could not follow. Padding stands at the end, behind all that is read, and needs no mask of its own.

    Returns
    -------
    Tensor
    """
    least = torch.full((length, length), torch.finfo(dtype).min, dtype=dtype, device=device)
    return torch.triu(least, diagonal=1)[None, None]


def scaled_logits(inner: Any, hidden: Tensor) -> Tensor:
    """Return logits as the model's own forward pass scales or caps them."""
    logits: Tensor = inner.get_output_embeddings()(hidden)
    config = inner.config
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is not None:
        logits = cap * torch.tanh(logits / cap)
    if getattr(config, "logit_scale", None) is not None:
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:
        logits = logits / config.logits_scaling
    return logits


def check_logits(model: nn.Module, batch: Batch) -> None:
    """Raise unless logits formed at learned tokens alone are those of the model's own forward pass on each text alone.

    Parameters
    ----------
    batch
        With `tokens`.

    Raises
    ------
    NotSupportedError
        They differ, the model looks at tokens behind or at how long a batch is, its body cannot be asked alone, or it
        attends in a window shorter than the texts.
    """
    inner = causal_model(model)
    window = getattr(inner.config, "sliding_window", None)
    length = batch["tokens"].shape[1]
    if window is not None and getattr(inner.config, "use_sliding_window", True) and window < length:
        raise NotSupportedError(
            explain(
                f"texts within the model's attention window of {window} tokens",
                f"up to {length} tokens",
                "the model attends to the nearest tokens only",
                f"lower the length (--max-length {window})",
            )
        )
    device = next(model.parameters()).device
    tokens, places = batch["tokens"].to(device), batch["places"].to(device)
    with torch.no_grad():
        ours = scaled_logits(inner, _at(_tried_hidden(inner, tokens), places))
        apart, scale = ours.new_zeros(()), ours.new_ones(())  # of torch, whose largest of NaN is NaN
        for found, row, at, count in zip(ours, tokens, places, batch["counts"].int().tolist(), strict=True):
            alone = row[None, : int(at[count - 1]) + 2]
            logits = inner(input_ids=alone, attention_mask=torch.ones_like(alone), use_cache=False).logits[0]
            whole = logits[at[:count]]
            apart = torch.maximum(apart, (found[:count] - whole).abs().max())
            scale = torch.maximum(scale, whole.abs().max())
    if not scale.isfinite():
        raise NotSupportedError(
            explain(
                "logits that are finite numbers",
                f"NaN or infinity from {type(inner).__name__} on {len(tokens)} texts",
                "damaged weights, or weights that were made for another precision",
                "load the model by itself and look at its answers; use --dtype float32, or another model",
            )
        )
    if not apart <= (1e-3 if ours.dtype == torch.float32 else 5e-2) * scale:
        raise NotSupportedError(
            explain(
                "a causal model whose logits are its head's output, perhaps scaled or capped",
                f"logits of {type(inner).__name__} that differ by up to {float(apart):.2g} (of {float(scale):.2g})",
                "the model looks at later tokens, scales positions by the length of a batch (rope_type dynamic, "
                "longrope), or changes its logits in a way that is not known here",
                "use another model, or texts within its first context; or record your own loop with a loss of your own "
                "(Tape.record)",
            )
        )


def _tried_hidden(inner: Any, tokens: Tensor) -> Tensor:
    """Return what the model's body says of tokens, or raise that it cannot be asked."""
    try:
        return last_hidden(inner, {"tokens": tokens})
    except torch.OutOfMemoryError:
        raise
    except IndexError as error:
        raise _beyond(inner, tokens) from error
    except Exception as error:  # whatever a model's own code raises
        text = str(error).splitlines()[0] if str(error) else ""
        raise NotSupportedError(
            explain(
                "a model whose body takes a mask of attention in four dimensions and the places of tokens",
                f"{type(inner).__name__}: {type(error).__name__}: {text}",
                "positions are computed from a mask of two dimensions (alibi), or the model has no attention",
                "use another model, or record your own loop with a loss of your own (Tape.record)",
            )
        ) from error


def check_tokens(model: nn.Module, texts: Iterable[np.ndarray]) -> None:
    """Raise unless the model has an embedding for every token of the texts.

    Raises
    ------
    ConfigError
    """
    inner = causal_model(model)
    known = inner.get_input_embeddings().weight.shape[0]
    largest = max(int(tokens.max()) for tokens in texts)
    if largest >= known:
        raise ConfigError(
            explain(
                f"tokens below {known:,}, which the model has embeddings for",
                f"token {largest:,}",
                "the tokenizer is another model's, or tokens were added to it alone",
                "take the tokenizer that was saved with the model, or call model.resize_token_embeddings and save it",
            )
        )


def _beyond(inner: Any, tokens: Tensor) -> NotSupportedError:
    most = getattr(inner.config, "max_position_embeddings", None)
    return NotSupportedError(
        explain(
            f"texts within the {most or 'first'} places that {type(inner).__name__} has learned",
            f"up to {tokens.shape[1]} tokens, padded",
            "the model has an embedding for each place, and no more of them",
            f"lower the length (--max-length {(most or tokens.shape[1]) // 8 * 8})",
        )
    )


def shallow(module: nn.Module) -> Any:
    """Return another module object with the same parts: what is put in place of one stays there."""
    made = copy.copy(module)
    for name in ("_modules", "_parameters", "_buffers"):
        made.__dict__[name] = dict(module.__dict__[name])
    return made


def _at(hidden: Tensor, places: Tensor) -> Tensor:
    """Return the entries [B, R, …] of `hidden` [B, L, …] at these places of each row."""
    return hidden.gather(1, places.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
