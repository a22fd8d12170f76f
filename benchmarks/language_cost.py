"""What a replay of a language model costs, in multiples of the same plain tuning, in one process, one thread.

    python -m benchmarks.language_cost [--model FOLDER --data ROWS.jsonl] [--rows 192] [--epochs 3] [--layers last:4]
                                       [--length 128] [--short] [--repeats 1]

Without a model: the architecture of SmolLM2-135M with random weights, and rows of random tokens. The layers below the
adapters are computed once, for all cases alike. Processor time, medians; the first replay of a tape also makes all
checks and traces, further ones do not. What a case stands on (a tape, a first replay) is made before and not timed.
Peak memory: of a process of its own for each case, over what is resident before it, model, rows and tape included.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import finfluence as fi
from benchmarks.poison import SHORT, read_clean
from benchmarks.scale import Peak
from finfluence.runs import Recipe, initial_model, seeded

SMOLLM2 = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "tie_word_embeddings": True,
    "attn_implementation": "sdpa",
}  # fmt: skip
RATE, RANK, BATCH, CHECKPOINTS = 1e-3, 8, 8, 5
ASKED = 3
FIRST = "one behaviour, first replay of the tape"


def random_tokens(count: int, length: int) -> list[Any]:
    """Return rows of random tokens, half of each prompt and half response, of 16 to `length` tokens."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        size = int(rng.integers(16, length + 1))
        tokens = rng.integers(2, SMOLLM2["vocab_size"], size)
        made.append(fi.lm.Encoded(tokens, np.arange(size) >= size // 2))
    return made


def prepared(given: argparse.Namespace) -> tuple[Recipe, list[fi.Query]]:
    """Return the training above the frozen layers, and two behaviours."""
    if given.model:
        loaded = fi.lm.load_model(given.model)
        model, window = loaded.model, fi.lm.Window(given.length, "truncate")
        pairs = read_clean(Path(given.data), *(SHORT if given.short else ()))[: given.rows + 2 * ASKED]
        encoded = fi.lm.encode(pairs, loaded.tokenizer, None, window).rows
    else:
        import transformers

        with seeded(0):
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMOLLM2)).eval()
        encoded = random_tokens(given.rows + 2 * ASKED, given.length)
    whole: Any = fi.lm.add_lora(model, fi.lm.LoraOptions(rank=RANK, layers=given.layers, seed=0))
    asked, rest = encoded[: 2 * ASKED], encoded[2 * ASKED :]
    rows = fi.lm.TextRows(rest, batch_size=BATCH)
    held = [fi.lm.TextRows(asked[k::2], batch_size=BATCH) for k in range(2)]
    if given.layers != fi.lm.ALL:
        prefix = fi.lm.Prefix(whole)
        whole, rows, held = prefix.upper, rows.through(prefix), [h.through(prefix) for h in held]
    recipe = Recipe(
        data=rows, model=whole, loss=fi.lm.mean_token_loss, optimizer=fi.AdamW(lr=RATE, weight_decay=0.0),
        batch_size=BATCH, epochs=given.epochs, schedule="cosine",
    )  # fmt: skip
    return recipe, [
        fi.Query(_mean_loss_on(h), name=f"behaviour {k}", unit="nats") for k, h in enumerate(held)
    ]


def _mean_loss_on(rows: fi.lm.TextRows) -> Callable[[Any], torch.Tensor]:
    return lambda model: fi.lm.mean_token_loss(model, rows.batch(torch.arange(len(rows)))).mean()


def plain(recipe: Recipe, tape: Any = None) -> None:
    """The loop a user would write; with a tape around it, if one is given."""
    model = initial_model(recipe, 0).train()
    optimizer = recipe.optimizer.torch([p for p in model.parameters() if p.requires_grad])
    recorder = tape and fi.Tape.record(model, optimizer, loss=recipe.loss, data=recipe.data)
    with seeded(0):
        for t, rows in enumerate(recipe.order(0)):
            for group in optimizer.param_groups:
                group["lr"] = recipe.optimizer.lr * recipe.rate(t)
            recipe.loss(model, recipe.rows.batch(rows)).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if recorder:
                recorder.step(ids=recipe.rows.ids[rows.numpy()])
    if recorder and tape == "finish":
        recorder.finish()


class Cases:
    """What is timed, by name; the first case is what the others are compared with."""

    def __init__(self, recipe: Recipe, queries: list[fi.Query]) -> None:
        self._recipe, self._queries = recipe, queries
        self._tape: fi.Tape | None = None
        self._replayed = False
        self.all: dict[str, Callable[[], object]] = {
            "plain loop": lambda: plain(recipe),
            "record around the loop": lambda: plain(recipe, "record"),
            "record and finish": lambda: plain(recipe, "finish"),
            "train with tape": self._train,
            FIRST: lambda: self._replay(1),
            "one behaviour, again": lambda: self._replay(1),
            "one behaviour, effects alone": lambda: self._replay(1, spread=False),
            "two behaviours": lambda: self._replay(2),
            f"ranking score, {CHECKPOINTS} checkpoints": lambda: fi.lm.ranking_scores(
                self._tape, queries[:1], CHECKPOINTS
            ),
        }

    def prepare(self, name: str) -> None:
        """Do what a case stands on and is not part of it: a tape, new to the first replay, replayed to the others."""
        at = list(self.all).index(name) - list(self.all).index(FIRST)
        if at >= 0 and (self._tape is None or (at == 0 and self._replayed)):
            self._train()
        if at > 0 and not self._replayed:
            self._replay(1)

    def _train(self) -> None:
        self._tape, self._replayed = fi.train(self._recipe), False

    def _replay(self, count: int, spread: bool = True) -> None:
        assert self._tape is not None, "prepared"
        fi.replay(self._tape, self._queries[:count], late=0.0, spread=spread)
        self._replayed = True


def memory(given: argparse.Namespace, case: str) -> int:
    """Return the peak bytes of one case over what is resident before it, in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.language_cost", "--peak", case]
    for name in ("rows", "epochs", "layers", "length", *(["model", "data"] if given.model else [])):
        words += [f"--{name}", str(getattr(given, name))]
    words += ["--short"] if given.short else []
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    for name in ("--model", "--data", "--peak"):
        parser.add_argument(name)
    for name, number in (("--rows", 192), ("--epochs", 3), ("--length", 128), ("--repeats", 1)):
        parser.add_argument(name, type=int, default=number)
    parser.add_argument("--layers", default="last:4")
    parser.add_argument("--only", nargs="+", help="time these cases beside the plain loop, and no memory")
    parser.add_argument("--short", action="store_true", help="rows as short as those of benchmarks.poison")
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe, queries = prepared(given)
    cases = Cases(recipe, queries)
    timed = cases.all
    if given.peak:
        cases.prepare(given.peak)
        with Peak() as peak:
            timed[given.peak]()
        print(peak.most - peak.before)
        return
    if given.only:
        timed = {name: timed[name] for name in ("plain loop", *given.only)}
    found: dict[str, list[float]] = {name: [] for name in timed}
    timed["plain loop"]()
    for _ in range(given.repeats):
        for name, case in timed.items():
            cases.prepare(name)
            began = time.process_time()
            case()
            found[name].append(time.process_time() - began)
            print(f"{name}: {found[name][-1]:.1f} s", flush=True)
    unit = statistics.median(found["plain loop"])
    steps = sum(1 for _ in recipe.order(0))
    print(
        f"{len(recipe.rows)} rows, {steps} steps, {given.layers}; plain tuning {unit:.1f} s of processor time"
    )
    for name, seconds in found.items():
        print(f"| {name} | {statistics.median(seconds) / unit:.2f} |", flush=True)
    if given.only:
        return
    peaks = {name: memory(given, name) for name in ("plain loop", FIRST)}
    print(f"peak memory: plain {peaks['plain loop'] / 2**30:.2f} GiB, replay {peaks[FIRST] / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
