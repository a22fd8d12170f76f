"""Replay of small language models as transformers builds them, in multiples of their own plain training.

    python -m benchmarks.language_speed [--shape gpt2|llama] [--repeats 3]

Two layers, 232,000 parameters, 128 rows of 32 tokens drawn from a Markov chain, AdamW, 10 epochs of 8 steps, one
thread, processor time. Nothing is downloaded: the shapes are made of their configurations.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import finfluence as fi
from benchmarks.speed import plain
from finfluence.runs import seeded

ROWS, LENGTH, WIDTH = 128, 32, 64


def gpt2() -> nn.Module:
    config = GPT2Config(
        vocab_size=2000, n_positions=64, n_embd=WIDTH, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, use_cache=False,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def llama() -> nn.Module:
    config = LlamaConfig(
        vocab_size=1024, hidden_size=WIDTH, intermediate_size=176, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, use_cache=False,
    )  # fmt: skip
    return LlamaForCausalLM(config)


SHAPES: dict[str, Callable[[], nn.Module]] = {"gpt2": gpt2, "llama": llama}


def row_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    tokens = batch["tokens"]
    logits = model(input_ids=tokens).logits[:, :-1]
    return F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none").mean(1)


def texts(rows: int, seed: int) -> Tensor:
    """Return rows of tokens [rows, LENGTH] below 1,000, each drawn from one of 20 that follow the one before."""
    rng = np.random.default_rng(seed)
    following = np.random.default_rng(0).integers(0, 1000, (1000, 20))
    tokens = rng.integers(0, 1000, (rows, LENGTH))
    for k in range(1, LENGTH):
        tokens[:, k] = following[tokens[:, k - 1], rng.integers(0, 20, rows)]
    return torch.from_numpy(tokens)


def recipe(shape: str) -> fi.Recipe:
    with seeded(0):
        model = SHAPES[shape]()
    return fi.Recipe(
        fi.Rows(tokens=texts(ROWS, 1)), model, row_loss, fi.AdamW(lr=1e-3), batch_size=16, epochs=10
    )


def queries(count: int) -> list[fi.Query]:
    """Return the losses of as many held-out texts."""
    held_out = texts(count, 2)

    def one(k: int) -> fi.Query:
        def loss(model: nn.Module) -> Tensor:
            return row_loss(model, {"tokens": held_out[k : k + 1]}).mean()

        return fi.Query(loss, name=f"text {k}", unit="nats", sign=-1)

    return [one(k) for k in range(count)]


def seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def ratios(shape: str, repeats: int) -> list[str]:
    """Return lines: what replays of a shape cost in plain trainings, and how their effects agree."""
    described = recipe(shape)
    tape = fi.train(described)

    def replayed(count: int, differentiation: str = "auto") -> fi.Influence:
        return fi.replay(tape, queries(count), horizon=described.epochs, differentiation=differentiation)  # type: ignore[arg-type]

    cases: dict[str, Callable[[], object]] = {
        "plain": lambda: plain(described),
        "one query": lambda: replayed(1),
        "one query, exact": lambda: replayed(1, "exact"),
        "five queries": lambda: replayed(5),
    }
    first = {name: seconds(call) for name, call in cases.items()}
    taken = [{name: seconds(call) for name, call in cases.items()} for _ in range(repeats)]
    base = float(np.median([t["plain"] for t in taken]))
    lines = [f"{shape}: {tape.layout.size:,} parameters, {tape.steps} steps; ratio to a plain training"]
    for name in list(cases)[1:]:
        ratio = float(np.median([t[name] / t["plain"] for t in taken]))
        lines.append(f"  {name:20s} {ratio:6.2f}   the first: {first[name] / base:.2f}")
    further = float(np.median([(t["five queries"] - t["one query"]) / t["plain"] / 4 for t in taken]))
    one, exact = replayed(1), replayed(1, "exact")
    agreement = np.corrcoef(one.data["effect"].values[:, 0], exact.data["effect"].values[:, 0])[0, 1]
    return [
        *lines,
        f"  {'each further query':20s} {further:6.2f}",
        f"  effects of one query ({one.provenance.differentiation}) against exact: Pearson {agreement:.6f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=list(SHAPES), action="append")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for shape in options.shape or list(SHAPES):
        print("\n".join(ratios(shape, options.repeats)), flush=True)


if __name__ == "__main__":
    main()
