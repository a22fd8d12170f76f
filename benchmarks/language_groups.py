"""Groups of rows of a real tuning held against tuning again without each: replay, LESS, the kernel, text search.

    python -m benchmarks.language_groups --model FOLDER --data ROWS.jsonl --out OUT [--attack refusal] [--rows 80]
                                         [--groups 20] [--orders 3] [--layers last:2] [--epochs 3] [--length 96]

A fifth of the rows are poisons of `benchmarks.poison`; group k holds eight rows, of which k mod 9 are poisons. One run
is replayed, in the first order of batches. Then the model is tuned again without each group: in that order (*the same
order*), and in others (*over orders*, the mean), each beside a tuning on all rows in the same order. What a method says
of a group is the sum over its rows; replay's sum is in nats a token of the behaviour and has a slope, scores have not.
Finished tunings are kept in OUT.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import finfluence as fi
from benchmarks.poison.attacks import ASKED, ATTACKS, SHORT, Planted, plant, read_clean
from benchmarks.poison.cells import BATCH, Base, Setting, setting
from benchmarks.poison.scores import state_scores, text_scores
from benchmarks.poison.states import States
from finfluence.evaluate import agreement, resampled_interval

SHARE, SIZE, STATES = 0.2, 8, 5
METHODS = {
    "kernel, 5 states": "kernel, 5 states, ridge 1",
    "LESS, 5 states": "LESS, 5 states",
    "TracIn, 5 states": "TracIn, 5 states",
    "gradient cosine": "grad-cosine",
    "TF-IDF": "TF-IDF",
    "random": "random",
}


def dealt(poisoned: np.ndarray, count: int) -> list[np.ndarray]:
    """Return `count` groups of `SIZE` rows as masks [n]; group k holds k mod (SIZE + 1) poisons."""
    rng, groups = np.random.default_rng(2), []
    for k in range(count):
        wrong = k % (SIZE + 1)
        rows = [
            rng.choice(np.flatnonzero(poisoned), wrong, replace=False),
            rng.choice(np.flatnonzero(~poisoned), SIZE - wrong, replace=False),
        ]
        groups.append(np.isin(np.arange(len(poisoned)), np.concatenate(rows)))
    return groups


class Tunings:
    """The behaviour after tunings without some rows, kept in a file as they are finished."""

    def __init__(self, made: Setting, path: Path) -> None:
        self._made, self._path = made, path
        self._known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def without(self, taken: np.ndarray, order: int) -> float:
        """Return the behaviour, in nats a token, after tuning in an order of batches without the rows `taken` [n]."""
        key = f"{order}: {' '.join(map(str, np.flatnonzero(taken)))}"
        if key not in self._known:
            self._known[key] = self._made.without(taken, order)
            part = self._path.with_suffix(".part")
            part.write_text(json.dumps(self._known, indent=1), encoding="utf-8")
            part.rename(self._path)
            print(f"{len(self._known)} tunings", flush=True)
        return float(self._known[key])


def scores(planted: Planted, made: Setting) -> tuple[fi.Influence, dict[str, np.ndarray]]:
    """Replay one run; return its influence, and what other methods say of each row: larger raises the behaviour."""
    tape = fi.train(made.recipe, init_seed=0, order_seed=0)
    replayed = fi.replay(tape, made.queries[0], late=0.0)
    found = {
        **state_scores(States.of(tape, made.queries, (STATES,)), (STATES,), BATCH),
        **text_scores(planted, 0),
    }
    return replayed, {name: np.asarray(found[key], float) for name, key in METHODS.items()}


def lines(predicted: dict[str, np.ndarray], truths: dict[str, np.ndarray]) -> pd.DataFrame:
    """Return every method's correlations with every truth, and replay's slope, with 95 % intervals over groups."""
    rows = {}
    for name, values in predicted.items():
        row = {}
        for kind, truth in truths.items():
            measures = ["pearson", "spearman", *(["slope"] if name == "replay" else [])]
            for measure in measures:
                row[f"{measure}, {kind}"] = _with_interval(values, truth, measure)
        rows[name] = row
    return pd.DataFrame(rows).T.fillna("")


def _with_interval(values: np.ndarray, truth: np.ndarray, measure: str) -> str:
    def of(at: np.ndarray) -> float:
        return float(getattr(agreement(values[at], truth[at]), measure))

    low, high = resampled_interval(of, len(values))
    return f"{of(np.arange(len(values))):.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    for name in ("--model", "--data", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--attack", default="refusal")
    for name, value in (("--rows", 80), ("--groups", 20), ("--orders", 3), ("--epochs", 3), ("--length", 96)):
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--layers", default="last:2")
    given = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    clean = read_clean(Path(given.data), *SHORT)
    clean = [clean[k] for k in np.random.default_rng(0).permutation(len(clean))[: given.rows + 2 * ASKED]]
    base = Base.of(given.model, given.layers, given.length, out / "answers.json")
    planted = plant(ATTACKS[given.attack], clean, given.rows, SHARE, 0, base.speak)
    made = setting(base, planted, given.epochs)
    groups = dealt(planted.poisoned, given.groups)
    name = f"{given.attack}-{given.rows}-{given.layers}-{given.epochs}-{given.length}".replace(":", "")
    tunings = Tunings(made, out / f"{name}.json")
    nobody = np.zeros(given.rows, bool)
    changes = np.array(
        [
            [tunings.without(group, order) - tunings.without(nobody, order) for group in groups]
            for order in range(given.orders)
        ]
    )
    replayed, others = scores(planted, made)
    effects = replayed.data["effect"].values[:, 0]
    scale = (given.rows - 1) / (given.rows - SIZE)
    predicted = {"replay": np.array([scale * effects[group].sum() for group in groups])}
    predicted |= {name: np.array([-row[group].sum() for group in groups]) for name, row in others.items()}
    truths = {"the same order": changes[0]} | (
        {"over orders": changes[1:].mean(0)} if given.orders > 1 else {}
    )
    spread = float(replayed.data["spread"].values.ravel()[0])
    between = "" if given.orders < 3 else f", {changes.std(0, ddof=1).mean():.4f} from order to order"
    print(f"changes from {changes.min():.3f} to {changes.max():.3f}{between}; spread of one run {spread:.4f}")
    print(lines(predicted, truths).to_string())


if __name__ == "__main__":
    main()
