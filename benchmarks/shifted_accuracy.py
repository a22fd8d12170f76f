"""How far estimated accuracies are off where the rows have shifted: python -m benchmarks.shifted_accuracy [--seeds N].

A model is trained, a labelled part that it has not seen sets the threshold, and the accuracy on a shifted part is
estimated without its labels and held against them. Corruptions of digits and of Fashion-MNIST (noise, blur, rotation,
shift), people of another group in Adult (who also earn differently), and what no such estimate can stand: shares of
classes that change, and a class that the model has never seen. For Adult see `benchmarks.levels.data`; Fashion-MNIST is
`apt-get install dataset-fashion-mnist`. Data that is not there is skipped, and said.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from benchmarks.fashion import cnn
from benchmarks.levels import data
from finfluence import assess
from finfluence.errors import DataError
from finfluence.ingest import TableEncoder, read
from finfluence.runs import seeded

BATCH = 50
KINDS = ("digits", "Fashion-MNIST", "Adult", "class shift", "new class")
SCORES = {"max_confidence": "ATC, confidence", "negative_entropy": "ATC, negative entropy"}
CORRUPTIONS = (
    *(("noise", s) for s in (0.1, 0.2, 0.4)),
    *(("blur", s) for s in (0.03, 0.06, 0.1)),
    *(("rotation", s) for s in (10.0, 20.0, 40.0)),
    *(("shift", s) for s in (0.05, 0.1, 0.2)),
)
GROUPS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "men to women": lambda f: f["sex"] == "Male",
    "women to men": lambda f: f["sex"] == "Female",
    "under 40 to over": lambda f: f["age"].astype(int) < 40,
    "over 40 to under": lambda f: f["age"].astype(int) >= 40,
    "less to more schooling": lambda f: f["years"].astype(int) <= 10,
    "more to less schooling": lambda f: f["years"].astype(int) > 10,
    "private work to other": lambda f: f["work"] == "Private",
    "born in the United States to elsewhere": lambda f: f["country"] == "United-States",
}
FEWER = 0.2
"""Share of the first half of the classes that stays where the shares of classes change."""


@dataclass(frozen=True, eq=False)
class Part:
    """x : what the model sees. y : positions of classes."""

    x: np.ndarray
    y: np.ndarray

    def take(self, rows: np.ndarray) -> "Part":
        """Return some of the rows."""
        return Part(self.x[rows], self.y[rows])


@dataclass(frozen=True, eq=False)
class Case:
    """One shift: probabilities and labels of the labelled part and the true accuracy on the shifted one."""

    kind: str
    source: np.ndarray
    labels: np.ndarray
    target: np.ndarray
    truth: float


def probabilities(train: Part, seed: int, epochs: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return what a small network (convolutions for pictures of 28 x 28) says of rows after training."""
    x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
    pictures = x.shape[-1] == 28
    with seeded(seed):
        model = cnn(seed) if pictures else nn.Sequential(
            nn.Flatten(), nn.Linear(x[0].numel(), 64), nn.GELU(), nn.Linear(64, int(y.max()) + 1)
        )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for epoch in range(epochs):
        order = np.random.default_rng([seed, 1, epoch]).permutation(len(x))
        for batch in torch.from_numpy(order).split(BATCH):
            functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
            optimizer.zero_grad()

    def predict(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return np.asarray(torch.softmax(model(torch.from_numpy(rows)).double(), 1).numpy())

    return predict


def corrupted(x: np.ndarray, how: str, strength: float, seed: int) -> np.ndarray:
    """Return pictures [n, 1, side, side] changed; blur and shift are parts of the side, rotation degrees."""
    rng, side = np.random.default_rng([seed, 2]), x.shape[-1]
    if how == "noise":
        changed = x + strength * rng.standard_normal(x.shape)
    elif how == "blur":
        changed = ndimage.gaussian_filter(x, (0, 0, strength * side, strength * side))
    elif how == "rotation":
        signs = rng.choice([-1, 1], len(x))
        changed = np.stack(
            [
                ndimage.rotate(p[0], s * strength, reshape=False, order=1)[None]
                for p, s in zip(x, signs, strict=True)
            ]
        )
    else:
        angles = rng.uniform(0, 2 * np.pi, len(x))
        moves = strength * side * np.column_stack([np.sin(angles), np.cos(angles)])
        changed = np.stack([ndimage.shift(p[0], m, order=1)[None] for p, m in zip(x, moves, strict=True)])
    return np.clip(changed, 0, 1).astype(np.float32)


def digits() -> Part:
    """Return 1,797 digits of 8 x 8."""
    x, y = load_digits(return_X_y=True)
    return Part((x / 16).astype(np.float32).reshape(-1, 1, 8, 8), y.astype(np.int64))


def fashion() -> Part:
    """Return 70,000 pictures of clothes."""
    raw = read("fashion-mnist")
    x = np.asarray(raw.pixels, np.float32).reshape(-1, 1, 28, 28) / 255
    return Part(x, np.unique(raw.labels.astype(str), return_inverse=True)[1].astype(np.int64))


def pictures(name: str, whole: Part, sizes: tuple[int, int, int], epochs: int, seed: int) -> Iterator[Case]:
    """Yield a model's cases: nothing changed, corruptions, shares of classes, and a class left out of its training."""
    train, source, target = split(whole, sizes, seed)
    predict = probabilities(train, seed, epochs)
    said, labels = predict(source.x), source.y

    def case(kind: str, part: Part) -> Case:
        q = predict(part.x)
        return Case(kind, said, labels, q, float((q.argmax(1) == part.y).mean()))

    yield case("unchanged", target)
    for how, strength in CORRUPTIONS:
        yield case(name, Part(corrupted(target.x, how, strength, seed), target.y))
    yield case("class shift", fewer(target, seed))
    known = whole.y.max()
    kept = train.take(np.flatnonzero(train.y != known)), source.take(np.flatnonzero(source.y != known))
    blind = probabilities(kept[0], seed, epochs)
    p, q = blind(kept[1].x)[:, :known], blind(target.x)[:, :known]
    right = float((q.argmax(1) == target.y).mean())
    yield Case("new class", p / p.sum(1, keepdims=True), kept[1].y, q / q.sum(1, keepdims=True), right)


def people(frame: pd.DataFrame, seed: int) -> Iterator[Case]:
    """Yield the cases of Adult: trained and labelled in one group, asked of the other; and other shares of incomes."""
    x = TableEncoder(0).fit_transform(frame.drop(columns="income")).astype(np.float32)
    whole = Part(x, np.unique(frame["income"], return_inverse=True)[1].astype(np.int64))
    for of in GROUPS.values():
        here = of(frame).to_numpy()
        train, source, _ = split(whole.take(np.flatnonzero(here)), (3000, 1000, 0), seed)
        _, _, target = split(whole.take(np.flatnonzero(~here)), (0, 0, 1500), seed)
        predict = probabilities(train, seed, 8)
        q = predict(target.x)
        yield Case("Adult", predict(source.x), source.y, q, float((q.argmax(1) == target.y).mean()))
    train, source, target = split(whole, (3000, 1000, 3000), seed)
    predict = probabilities(train, seed, 8)
    said = predict(source.x)
    for kind, part in (("unchanged", target), ("class shift", fewer(target, seed))):
        q = predict(part.x)
        yield Case(kind, said, source.y, q, float((q.argmax(1) == part.y).mean()))


def split(whole: Part, sizes: tuple[int, int, int], seed: int) -> tuple[Part, Part, Part]:
    """Return three random parts without a common row."""
    order = np.random.default_rng([seed, 3]).permutation(len(whole.y))
    ends = np.cumsum(sizes)
    first, second, third = (order[a:b] for a, b in zip((0, *ends), ends, strict=False))
    return whole.take(first), whole.take(second), whole.take(third)


def fewer(part: Part, seed: int) -> Part:
    """Return the part with most rows of the first half of the classes gone."""
    gone = np.random.default_rng([seed, 4]).random(len(part.y)) > FEWER
    return part.take(np.flatnonzero(~(gone & (part.y < (part.y.max() + 1) // 2))))


@dataclass(eq=False)
class Errors:
    """Errors of each way to estimate, true changes of accuracy, and what was said, by kind of shift."""

    off: dict[tuple[str, str], list[float]]
    fell: dict[str, list[float]]
    covered: dict[str, list[bool]]
    warned: dict[str, list[bool]]

    def add(self, case: Case, seed: int) -> None:
        """Estimate a case in every way."""
        fallen = float((case.source.argmax(1) == case.labels).mean()) - case.truth
        self.fell[case.kind].append(fallen)
        for score, name in SCORES.items():
            for calibrated in (True, False):
                found = assess.accuracy(
                    case.source, case.labels, case.target, score=score, calibrated=calibrated, seed=seed
                )
                told = "" if calibrated else ", raw"
                self.off[f"{name}{told}", case.kind].append(abs(found.estimate - case.truth))
                if score != "max_confidence":
                    continue
                for base, value in found.baselines.items():
                    if base == "source accuracy" and not calibrated:
                        continue
                    title = (
                        "nothing (accuracy of the labelled rows)"
                        if base == "source accuracy"
                        else base + told
                    )
                    self.off[title, case.kind].append(abs(value - case.truth))
                if calibrated:
                    self.covered[case.kind].append(found.lower <= case.truth <= found.upper)
                    self.warned[case.kind].append(
                        any("predicted classes differ" in f for f in found.findings)
                    )


def table(errors: Errors) -> str:
    """Return the errors in points: median (quartiles) worst, the smallest median of each kind bold."""
    kinds = [k for k in ("unchanged", *KINDS) if k in errors.fell]
    names = list(dict.fromkeys(name for name, _ in errors.off))
    medians = {key: float(np.median(values)) for key, values in errors.off.items()}
    lines = ["| error in points | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for name in names:
        cells = [name]
        for kind in kinds:
            values = 100 * np.array(errors.off[name, kind])
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            best = medians[name, kind] == min(medians[n, kind] for n in names)
            shown = f"**{middle:.1f}**" if best else f"{middle:.1f}"
            cells.append(f"{shown} ({low:.1f}-{high:.1f}) {values.max():.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    fell = [f"{100 * np.median(errors.fell[k]):.1f} ({100 * np.max(errors.fell[k]):.0f})" for k in kinds]
    lines.append("| *true fall of accuracy, median (largest)* | " + " | ".join(fell) + " |")
    for title, seen in (
        ("ATC's 95 % interval holds", errors.covered),
        ("it warns of the classes", errors.warned),
    ):
        lines.append(f"| *{title}* | " + " | ".join(f"{np.mean(seen[k]):.2f}" for k in kinds) + " |")
    lines.append("| *cases* | " + " | ".join(str(len(errors.fell[k])) for k in kinds) + " |")
    return "\n".join(lines)


def measured(seeds: int) -> Errors:
    """Return the errors over all cases of all data that is there."""
    errors = Errors(*(defaultdict(list) for _ in range(4)))
    sources: list[Callable[[int], Iterator[Case]]] = []
    whole = digits()
    sources.append(lambda seed: pictures("digits", whole, (700, 400, 697), 30, seed))
    try:
        clothes = fashion()
        sources.append(lambda seed: pictures("Fashion-MNIST", clothes, (5000, 1000, 2000), 6, seed))
    except DataError as error:
        print(f"Fashion-MNIST is left out: {error}")
    try:
        frame = data.adult_frame()
        sources.append(lambda seed: people(frame, seed))
    except FileNotFoundError as error:
        print(f"Adult is left out: {error}")
    for seed in range(seeds):
        for cases in sources:
            for case in cases(seed):
                errors.add(case, seed)
        print(f"seed {seed} done", flush=True)
    return errors


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    print(table(measured(parser.parse_args().seeds)))
