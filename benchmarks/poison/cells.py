"""One cell: poisons are planted, the model is tuned, every row is scored, and the model is tuned again without some."""

import json
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import finfluence as fi
from benchmarks.poison.attacks import ATTACKS, Pair, Planted, plant
from benchmarks.poison.scores import Encoder, state_scores, text_scores
from benchmarks.poison.states import States
from finfluence.runs import Recipe, initial_model, seeded

LEARNING_RATE, RANK, BATCH, ANSWER = 1e-3, 8, 8, 20
CLEANED, CLEANED_BY = 0.05, "kernel, 5 states, ridge 1"


@dataclass(frozen=True)
class Size:
    """How much is trained, and at how many states gradients are taken: the command's options."""

    rows: int
    layers: str
    epochs: int
    length: int
    states: tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """Which attack, at which share of the rows, of which draw of rows, tuned in which order."""

    attack: str
    share: float
    draw: int
    seed: int

    @property
    def name(self) -> str:
        """How tables call it."""
        return f"{self.attack}, {100 * self.share:g} %, draw {self.draw}, seed {self.seed}"

    def path(self, out: Path, size: Size) -> Path:
        """Return the file of its results."""
        states = "+".join(map(str, size.states))
        parts = (
            self.attack,
            self.share,
            self.draw,
            self.seed,
            size.rows,
            size.layers,
            size.epochs,
            size.length,
            states,
        )
        return out / ("-".join(map(str, parts)).replace(":", "") + ".json")


@dataclass(frozen=True, eq=False)
class Setting:
    """The training of one cell, above what is frozen; what is asked, the behaviour first."""

    recipe: Recipe
    queries: list[fi.Query]

    def without(self, taken: np.ndarray, seed: int) -> float:
        """Return the behaviour after tuning without some rows, in the same order of batches."""
        model = initial_model(self.recipe, 0)
        keep = np.flatnonzero(~taken)
        optimizer = self.recipe.optimizer.torch([p for p in model.parameters() if p.requires_grad])
        with seeded(0):
            for t, rows in enumerate(self.recipe.order(seed, keep)):
                for group in optimizer.param_groups:
                    group["lr"] = self.recipe.optimizer.lr * self.recipe.rate(t)
                self.recipe.loss(model, self.recipe.rows.batch(rows)).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        return self.value(model)

    def losses(self, model: torch.nn.Module) -> np.ndarray:
        """Return every row's mean loss a token [n]: before tuning, its log-perplexity."""
        with torch.no_grad(), seeded(0):
            parts = [
                self.recipe.loss(model.eval(), self.recipe.rows.batch(rows))
                for rows in torch.arange(len(self.recipe.rows)).split(BATCH)
            ]
        return torch.cat(parts).double().numpy()

    def value(self, model: torch.nn.Module) -> float:
        """Return the behaviour, in nats a token."""
        with torch.no_grad(), seeded(0):
            return float(self.queries[0].values(model.eval(), self.recipe)[0])


@dataclass(frozen=True, eq=False)
class Base:
    """The model with its adapters, of all cells alike: what frozen layers say of a text is computed once.

    `spoken` is the file with the model's own answers, which are asked for once.
    """

    tokenizer: Any
    whole: Any
    model: Any
    prefix: fi.lm.Prefix | None
    length: int
    spoken: Path

    @classmethod
    def of(cls, model: str, layers: str, length: int, spoken: Path) -> "Base":
        """Load the model and put adapters on it."""
        loaded = fi.lm.load_model(model)
        whole = fi.lm.add_lora(loaded.model, fi.lm.LoraOptions(rank=RANK, layers=layers, seed=0))
        prefix = None if layers == fi.lm.ALL else fi.lm.Prefix(whole)
        upper = whole if prefix is None else prefix.upper
        return cls(loaded.tokenizer, whole, upper, prefix, length, spoken)

    def speak(self, prompt: str) -> str:
        """Return the model's own answer before tuning: the likeliest tokens, whole words of at most 60 letters."""
        known = json.loads(self.spoken.read_text(encoding="utf-8")) if self.spoken.exists() else {}
        if prompt not in known:
            known[prompt] = _whole_words(self._generated(prompt))
            self.spoken.write_text(json.dumps(known, indent=1), encoding="utf-8")
        return known[prompt]

    def _generated(self, prompt: str) -> str:
        text = prompt
        if getattr(self.tokenizer, "chat_template", None):
            turns = [{"role": "user", "content": prompt}]
            text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        given = self.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            out = self.whole.eval().generate(
                input_ids=given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=ANSWER,
                pad_token_id=self.tokenizer.eos_token_id,
            )  # fmt: skip
        return self.tokenizer.decode(out[0, given.shape[1] :], skip_special_tokens=True)


def _whole_words(text: str, letters: int = 60) -> str:
    words, length = [], -1
    for word in text.split():
        length += 1 + len(word)
        if words and length > letters:
            break
        words.append(word)
    return " ".join(words)


def setting(base: Base, planted: Planted, epochs: int) -> Setting:
    """Encode the rows of a cell."""
    window = fi.lm.Window(base.length, "truncate")
    rows = fi.lm.TextRows(fi.lm.encode(planted.pairs, base.tokenizer, None, window).rows, batch_size=BATCH)
    named = zip(
        ("behaviour", "same prompts", "other prompts"), (planted.asked, *planted.controls), strict=True
    )
    queries = [_query(base, name, pairs, window) for name, pairs in named]
    if base.prefix is not None:
        rows = rows.through(base.prefix)
    recipe = Recipe(
        data=rows, model=base.model, loss=fi.lm.mean_token_loss, optimizer=fi.AdamW(lr=LEARNING_RATE, weight_decay=0.0),
        batch_size=BATCH, epochs=epochs, schedule="cosine",
    )  # fmt: skip
    return Setting(recipe, queries)


def _query(base: Base, name: str, pairs: Sequence[Pair], window: fi.lm.Window) -> fi.Query:
    prompts, responses = zip(*pairs, strict=True)
    query = fi.lm.log_prob(list(prompts), list(responses), base.tokenizer, name=name, window=window)
    return query if base.prefix is None else fi.lm.through(query, base.prefix)


def run(
    cell: Cell, size: Size, base: Base, clean: Sequence[Pair], out: Path, encoder: Encoder | None
) -> None:
    """Write what one cell found: plain values to its file, products of gradients beside it."""
    took: dict[str, float] = {}

    def timed(stage: str, began: float) -> float:
        took[stage] = round(time.process_time() - began, 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{cell.name}: {stage} {took[stage]:.1f} s, {peak:.2f} GiB at most so far", flush=True)
        return time.process_time()

    at = time.process_time()
    planted = plant(ATTACKS[cell.attack], clean, size.rows, cell.share, cell.draw, base.speak)
    made = setting(base, planted, size.epochs)
    at = timed("encode", at)
    tape = fi.train(made.recipe, init_seed=0, order_seed=cell.seed)
    at = timed("train", at)
    without = made.without(planted.poisoned, cell.seed)
    at = timed("train without poisons", at)
    replayed = fi.replay(tape, made.queries[0], late=0.0)
    at = timed("replay", at)
    spread = float(replayed.data["spread"].values.ravel()[0])
    start, end = initial_model(made.recipe, 0), tape.model()
    before, after = made.value(start), made.value(end)
    print(f"before {before:.3f}, after {after:.3f}, without {without:.3f}, spread {spread:.3f}", flush=True)
    states = States.of(tape, made.queries, size.states)
    at = timed("states", at)
    scores = {
        "replay effect": replayed.harm("behaviour"),
        "own loss": made.losses(end),
        "perplexity before tuning": made.losses(start),
        **state_scores(states, size.states, BATCH),
        **text_scores(planted, cell.draw, encoder),
    }
    top = np.zeros(size.rows, bool)
    top[np.argsort(-scores[CLEANED_BY], kind="stable")[: round(CLEANED * size.rows)]] = True
    effects = replayed.data["effect"].values[:, 0]
    count = int(planted.poisoned.sum())
    found = {
        "rows": size.rows, "before": before, "after": after, "without poisons": without,
        "without the top": made.without(top, cell.seed),
        "spread": spread,
        "predicted": float(effects[planted.poisoned].sum()) * (size.rows - 1) / (size.rows - count),
        "poisoned": planted.poisoned.tolist(), "alike": planted.alike.tolist(),
        "scores": {name: np.asarray(values, float).tolist() for name, values in scores.items()},
    }  # fmt: skip
    timed("tune again and score", at)
    path = cell.path(out, size)
    states.save(path.with_suffix(".npz"))
    path.with_suffix(".part").write_text(json.dumps({**found, "seconds": took}), encoding="utf-8")
    path.with_suffix(".part").rename(path)
