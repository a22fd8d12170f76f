"""Trainings of a transformers Trainer, or of TRL's, that a tape does not hold."""

from typing import Any

from torch import nn

from finfluence.errors import NotSupportedError, explain

SFT, DPO = "SFTConfig", "DPOConfig"
_FLAGS = (
    (
        "neftune_noise_alpha",
        "the noise on embeddings depends on how a batch is padded, and replay pads in a way of its own",
    ),
    ("fp16", "the loss is scaled, and steps are left out where it overflows"),
    ("torch_compile", "the model is replaced by a compiled one"),
    ("deepspeed", "the optimiser's steps are taken elsewhere"),
    ("fsdp", "parameters are spread over processes"),
    ("use_liger_kernel", "the model's layers are replaced by kernels that have one derivative only"),
    ("activation_offloading", "the graph of a loss is kept in another place"),
)
_OF_TRL = {
    SFT: (
        ("packing", "several texts share a row, and a text may be cut between rows"),
        ("padding_free", "the texts of a batch become one row"),
    ),
    DPO: (
        ("sync_ref_model", "the reference model moves while the training goes on"),
        ("use_weighting", "the weight of a pair is a loss of its own, which moves with the model"),
        ("ld_alpha", "the tokens of the longer response are weighed otherwise"),
        ("label_smoothing", "preferences are smoothed"),
    ),
}
_LOSSES = {SFT: ("loss_type", "nll"), DPO: ("loss_type", "sigmoid")}
_DROPOUTS = ("attention_dropout", "attn_pdrop", "attn_dropout", "attention_probs_dropout_prob")


def kind_of(args: Any) -> str | None:
    """Return which trainer of TRL has these arguments, or None for transformers' own.

    Returns
    -------
    str or None

    Raises
    ------
    NotSupportedError
        A trainer of TRL that is not known.
    """
    of_trl = [kind.__name__ for kind in type(args).__mro__ if kind.__module__.split(".")[0] == "trl"]
    known = [name for name in of_trl if name in _OF_TRL]
    if known or not of_trl:
        return known[0] if known else None
    raise NotSupportedError(
        explain(
            "a Trainer of transformers, or TRL's SFTTrainer or DPOTrainer",
            f"one of TRL with {of_trl[0]}",
            "its losses and batches have not been shown to be recorded as they are",
            "train by one of these, or write the loop with fi.Tape.record",
        )
    )


def check_arguments(args: Any, kind: str | None) -> None:
    """Raise if the Trainer trains in a way that a tape does not hold.

    Raises
    ------
    NotSupportedError
    """  # noqa: DOC501 - made by a function
    if args.world_size > 1 or args.n_gpu > 1:
        raise NotSupportedError(
            explain(
                "a Trainer with one process on one device",
                f"{args.world_size} processes, {args.n_gpu} GPUs in this one",
                "the callback sees the rows of its own process only, and a model that was copied to each GPU",
                "set CUDA_VISIBLE_DEVICES to one device, or write the loop with fi.Tape.record",
            )
        )
    for name, cause in (*_FLAGS, *_OF_TRL.get(kind or "", ())):
        value = getattr(args, name, None)
        if value or (name == "ld_alpha" and value is not None):
            raise _option(args, name, cause)
    if kind is not None:
        _check_loss(args, *_LOSSES[kind])
    if kind == DPO and str(getattr(args, "f_divergence_type", "reverse_kl")) not in (
        "reverse_kl",
        "FDivergenceType.REVERSE_KL",
    ):
        raise _option(args, "f_divergence_type", "log-ratios are bent before the loss is taken")


def _check_loss(args: Any, name: str, known: str) -> None:
    given = getattr(args, name, known)
    named = [given] if isinstance(given, str) else list(given)
    if named != [known]:
        raise NotSupportedError(
            explain(
                f'{type(args).__name__} with {name}="{known}"',
                ", ".join(map(repr, named)),
                "the derivative of a row's loss is known for this one only",
                f'leave {name} out (its default is "{known}"), or write the loop with fi.Tape.record',
            )
        )


def _option(args: Any, name: str, cause: str) -> NotSupportedError:
    return NotSupportedError(
        explain(
            f"{type(args).__name__} without {name}",
            f"{name}={getattr(args, name)!r}",
            f"{cause}; such steps have not been shown to be taken again as they were",
            f"leave {name} out, or write the loop with fi.Tape.record",
        )
    )


def check_trained_model(model: nn.Module) -> None:
    """Raise if the model draws random numbers, or puts tokens of its own before a text.

    Raises
    ------
    NotSupportedError
    """
    found = [name for name, m in model.named_modules() if isinstance(m, nn.Dropout) and m.p > 0]
    config = getattr(model, "config", None)
    found += [f"config.{name}" for name in _DROPOUTS if getattr(config, name, 0)]
    if found:
        raise NotSupportedError(
            explain(
                "a model without dropout",
                f"dropout at {found[0]}" + (f" and {len(found) - 1} more places" if len(found) > 1 else ""),
                "its random numbers depend on how a batch is padded, and replay pads in a way of its own",
                "set each dropout of the model's config to 0 (and lora_dropout), or record a loop with fi.Tape.record",
            )
        )
    adapter = getattr(model, "active_peft_config", None)
    if getattr(adapter, "is_prompt_learning", False):
        raise NotSupportedError(
            explain(
                "adapters inside the model's layers, such as LoRA",
                f"{type(adapter).__name__}",
                "tokens that are learned stand before each text, outside the model whose loss is taken",
                "use LoraConfig, or write the loop with fi.Tape.record",
            )
        )
