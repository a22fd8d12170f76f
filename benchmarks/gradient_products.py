"""What first-order products and the EK-FAC fit cost, in multiples of one plain training epoch in the same process.

    python -m benchmarks.gradient_products [--repeats 5] [--case NAME …]

An MLP 784-256-128-10 on 5,000 rows of random numbers (batches of 50, SGD) with 100 queries, the losses of single rows;
a language model of 4 layers, width 128, with LoRA of rank 8 on all of its linear layers, 512 rows of 64 tokens (batches
of 16, AdamW) with 16 queries. One thread, processor time, medians of ratios of pairs taken one after the other. Not in
the ratios: what is done once, whatever the number of epochs (factors tried on three rows, queries held against
differences of their values, own losses at the end), which is printed beside them.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import finfluence as fi
from benchmarks.curvature import class_loss
from finfluence.curvature import Kronecker, Objective, RowsAtHand
from finfluence.estimators.gradient_products import RowProducts, SourceOfRows
from finfluence.grads import Layout
from finfluence.runs import seeded

GOALS = {
    "mlp, one checkpoint": 1.6, "mlp, inside training": 1.8, "mlp, EK-FAC fit": 12.0,
    "lora, one checkpoint": 1.15, "lora, inside training": 1.35,
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """A training, and what is asked of it."""

    model: nn.Module
    loss: Callable[[nn.Module, dict[str, Tensor]], Tensor]
    rows: fi.Rows
    queries: object
    batch: int
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    every: int
    at_once: int

    def epoch(self, optimizer: torch.optim.Optimizer, named: Callable[[Tensor], None] | None = None) -> None:
        """Train one epoch as a user would."""
        for ids in torch.arange(len(self.rows)).split(self.batch):
            optimizer.zero_grad()
            self.loss(self.model, self.rows.batch(ids)).mean().backward()
            optimizer.step()
            if named is not None:
                named(ids)


def mlp() -> Problem:
    with seeded(0):
        model = nn.Sequential(
            nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
        )
        x, y = torch.rand(5100, 784), torch.randint(0, 10, (5100,))
    rows = fi.Rows(x=x[:5000], y=y[:5000])
    asked = fi.each_loss(x[5000:], y[5000:])
    return Problem(
        model, class_loss, rows, asked, 50, lambda m: torch.optim.SGD(m.parameters(), lr=0.01), 10, 512
    )


def lora() -> Problem:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=1024, hidden_size=128, intermediate_size=344, num_hidden_layers=4, num_attention_heads=4,
        max_position_embeddings=64, use_cache=False,
    )  # fmt: skip
    with seeded(0):
        model: nn.Module = fi.lm.add_lora(LlamaForCausalLM(config), fi.lm.LoraOptions(rank=8))
        tokens = torch.randint(0, 1000, (528, 64))

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        logits = model(input_ids=batch["tokens"]).logits[:, :-1]
        each = nn.functional.cross_entropy(logits.transpose(1, 2), batch["tokens"][:, 1:], reduction="none")
        return each.mean(1)

    trained = [p for p in model.parameters() if p.requires_grad]
    return Problem(
        model, loss, fi.Rows(tokens=tokens[:512]), fi.each_loss(tokens=tokens[512:]), 16,
        lambda m: torch.optim.AdamW(trained, lr=1e-3), 8, 32,
    )  # fmt: skip


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def checkpoint(problem: Problem) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return products of all rows with all queries, and what goes before them once."""
    source = SourceOfRows(problem.rows, problem.loss, Layout(problem.model))
    tried: list[RowProducts] = []

    def once() -> None:
        made = RowProducts(problem.model, source)
        made.directions([problem.queries])
        tried[:] = [made]

    def products() -> None:
        directions = tried[0].directions([problem.queries])
        for ids in torch.arange(len(problem.rows)).split(problem.at_once):
            tried[0].products(problem.rows.batch(ids), directions)

    return products, once


def inside(problem: Problem, **options: object) -> tuple[float, float, float]:
    """Return processor seconds of an epoch that is followed, of a plain one, and of begin and end."""
    plain = seconds(lambda: problem.epoch(problem.optimizer(problem.model)))
    optimizer = problem.optimizer(problem.model)
    start = time.process_time()
    run = fi.InRun(
        problem.model, optimizer, problem.loss, problem.rows, problem.queries, every=problem.every, **options
    )
    begun = time.process_time()
    problem.epoch(optimizer, lambda ids: run.step(ids=ids))
    trained = time.process_time()
    run.finish()
    return trained - begun, plain, begun - start + time.process_time() - trained


def measured(name: str, repeats: int) -> tuple[float, float]:
    """Return the median ratio of a case to a plain epoch, and that of what is done once."""
    problem = mlp() if name.startswith("mlp") else lora()
    problem.epoch(problem.optimizer(problem.model))
    pairs = []
    for _ in range(repeats):
        if "inside" in name:
            work, plain, once = inside(problem, **({"preconditioned": False} if "plain" in name else {}))
        elif "EK-FAC" in name:
            rows = RowsAtHand(len(problem.rows), problem.rows.batch)
            work = seconds(
                lambda rows=rows: Kronecker(
                    [Objective(problem.model, problem.loss, Layout(problem.model), rows)]
                )
            )
            plain, once = seconds(lambda: problem.epoch(problem.optimizer(problem.model))), 0.0
        else:
            products, before = checkpoint(problem)
            once = seconds(before)
            work = seconds(products)
            problem.model.train()
            plain = seconds(lambda: problem.epoch(problem.optimizer(problem.model)))
        pairs.append((work / plain, once / plain))
    ratio, once = np.median(np.array(pairs), axis=0)
    return float(ratio), float(once)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    cases = [*GOALS, "lora, inside training, plain products"]
    parser.add_argument("--case", choices=cases, action="append")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| case | plain epochs | goal | once |\n|---|---|---|---|")
    for name in options.case or cases:
        ratio, once = measured(name, options.repeats)
        print(f"| {name} | {ratio:.2f} | {GOALS.get(name, '')} | {once:.2f} |", flush=True)


if __name__ == "__main__":
    main()
