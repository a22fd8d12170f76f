"""What tuning and replaying a model of eight billion parameters takes: counted and computed, nothing of it is measured.

    python -m benchmarks.eight_billion [--flops 4e14] [--rows 50000] [--epochs 3] [--batch 8] [--length 512] [--rank 16]

The architecture of Llama-3.1-8B stands on torch's device without memory ("meta"). There the row loss of this library
and its backward pass are run once: torch counts their multiplications, and what autograd saves is added up. Seconds
are these operations over `--flops`, the operations a second that a card is thought to sustain (default: four tenths of
the 989 · 10¹² that an H100 is sold with in bfloat16). What a replay runs is counted as in docs/explanation/language.md.
"""

import argparse
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

import finfluence as fi

LLAMA_8B = {
    "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072,
    "tie_word_embeddings": False, "attn_implementation": "sdpa",
}  # fmt: skip
SOLD_WITH, SUSTAINED = 989e12, 0.4
LEARNED = 0.5
"""Share of a row's tokens that are learned."""
SLOTS, WIDTH = 2, 4
"""Adam's moments beside the adapters, and bytes of a number of theirs."""
DIRECTION_STATES = 6
"""States that a step back of one direction takes: λ, and what becomes of it. Recomputed ones may lie on the host."""
VARIANCE, RECOMPUTED = 0.25, 1.0
"""Trainings for the rows by which the spread is measured, at most, and for states that the tape does not keep."""


@dataclass(frozen=True)
class Counted:
    """One step.

    Attributes
    ----------
    parameters, adapters : int
    forward, step : float
        Operations of the row losses of a batch, and of these with their gradient: two for each multiplication.
    saved : float
        Bytes that autograd holds for the backward pass, but for parameters.
    """

    parameters: int
    adapters: int
    forward: float
    step: float
    saved: float


def batch_of(rows: int, length: int, vocabulary: int) -> dict[str, torch.Tensor]:
    """Return a batch as `TextRows` makes it, on the device without memory."""
    learned = int(length * LEARNED)
    whole = {"dtype": torch.int64, "device": "meta"}
    return {
        "tokens": torch.empty(rows, length, **whole),  # type: ignore[call-overload]
        "places": torch.empty(rows, learned, **whole),  # type: ignore[call-overload]
        "targets": torch.empty(rows, learned, **whole),  # type: ignore[call-overload]
        "weights": torch.empty(rows, learned, device="meta"),
        "counts": torch.empty(rows, device="meta"),
    }


def counted(config: dict[str, Any], rows: int, length: int, rank: int) -> Counted:
    """Run one step on the device without memory, and count."""
    import transformers

    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).to(torch.bfloat16).eval()
        model.requires_grad_(False)
        tuned: Any = fi.lm.add_lora(model, fi.lm.LoraOptions(rank=rank))
    adapters = [p for p in tuned.parameters() if p.requires_grad]
    batch = batch_of(rows, length, config["vocab_size"])

    def loss() -> torch.Tensor:
        return fi.lm.mean_token_loss(tuned, batch)

    with FlopCounterMode(display=False) as forward, torch.no_grad():
        loss()
    with FlopCounterMode(display=False) as step:
        loss().mean().backward()
    parameters = sum(p.numel() for p in tuned.parameters())
    return Counted(
        parameters,
        sum(p.numel() for p in adapters),
        float(forward.get_total_flops()),
        float(step.get_total_flops()),
        saved_bytes(loss, tuned),
    )


def saved_bytes(loss: Any, model: torch.nn.Module) -> float:
    """Return what autograd saves; where nothing has an address, each tensor counts."""
    weights = {tuple(p.shape) for p in model.parameters()} | {
        tuple(p.shape[::-1]) for p in model.parameters()
    }
    total = 0.0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal total
        if tuple(tensor.shape) not in weights:
            total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        loss()
    return total


def table(found: Counted, given: argparse.Namespace) -> str:
    """Return what follows, as Markdown."""
    steps = given.epochs * -(-given.rows // given.batch)
    each = found.step / given.flops
    tokens, state = given.batch * given.length, (1 + SLOTS) * WIDTH * found.adapters
    kept = math.isqrt(steps) + 1
    training, gib = each * steps / 3600, 2**30
    plain = 2 * (found.parameters - found.adapters) + state + found.saved + WIDTH * found.adapters
    replay = 1 + VARIANCE + RECOMPUTED
    lines = [
        ("parameters / of adapters", f"{found.parameters / 1e9:.2f} · 10⁹ / {found.adapters / 1e6:.1f} · 10⁶"),
        (
            "operations of a plain step",
            f"{found.step / 1e12:.0f} · 10¹² ({found.step / found.forward:.2f} forward passes)",
        ),
        ("tokens a second, plain", f"{tokens / each:,.0f}"),
        ("plain training", f"{steps:,} steps, {training:.1f} hours"),
        (
            "a behaviour, seconds a replayed step",
            f"{each * (1 + VARIANCE):.2f}, and {each * RECOMPUTED:.2f} once for the state",
        ),
        ("one behaviour / each further one", f"{replay * training:.1f} hours / {(1 + VARIANCE) * training:.1f} hours"),
        ("bytes of a state", f"{state / 1e9:.2f} · 10⁹; {kept} kept of {steps:,}: {kept * state / 1e9:.0f} · 10⁹"),
        ("memory, plain", f"{plain / gib:.1f} GiB, of which activations {found.saved / gib:.1f}"),
        ("memory, replay of one behaviour", f"{(plain + DIRECTION_STATES * state) / gib:.1f} GiB"),
    ]  # fmt: skip
    return "\n".join(["| computed, not measured | |", "|---|---|", *(f"| {a} | {b} |" for a, b in lines)])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    for name, number in (
        ("--rows", 50_000),
        ("--epochs", 3),
        ("--batch", 8),
        ("--length", 512),
        ("--rank", 16),
    ):
        parser.add_argument(name, type=int, default=number)
    parser.add_argument("--flops", type=float, default=SOLD_WITH * SUSTAINED)
    given = parser.parse_args()
    print(table(counted(LLAMA_8B, given.batch, given.length, given.rank), given))


if __name__ == "__main__":
    main()
