"""What is counted in a cell, and how it is averaged and shown."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np
from cleanlab.filter import find_label_issues

from benchmarks.levels.cells import Cell, Predicted
from finfluence.evaluate import average_precision
from finfluence.labels import judge_labels

LEVELS = (0.05, 0.1, 0.2)
LEAST = 1e-4


def counted(cell: Cell, made: Predicted) -> dict[str, float]:
    """Return named rows, false and found ones at every level, and what each ranking is worth."""
    verdict, y, wrong, rows = judge_labels(made.found, made.y), made.y, made.wrong, np.arange(len(made.y))
    found: dict[str, float] = {"wrong": float(wrong.sum()), "seconds": made.seconds}
    for level in LEVELS:
        found |= _hits(f"{level:g}", verdict.named(level), wrong)
    if not wrong.any():
        return found
    found |= _hits("cleanlab", find_label_issues(y, made.found.predicted), wrong)
    own = made.found.predicted[rows, y]
    other = made.found.predicted.copy()
    other[rows, y] = -1
    place = np.empty(len(y))
    place[verdict.order] = -rows
    scores = {
        "ours": place,
        "p_wrong": verdict.p_wrong,
        "oof_loss": verdict.oof_loss,
        "cleanlab": other.max(1) - own,
        "in-sample": made.in_sample,
        "random": np.random.default_rng([cell.seed, 9]).random(len(y)),
    }
    for name, p in made.found.each.items():
        scores[name] = -np.log(np.clip(p[rows, y], LEAST, 1))
    for name, score in scores.items():
        found[f"AP {name}"] = average_precision(score, wrong)
        found[f"cut {name}"] = perfect_cut(score, wrong)
    return found


def perfect_cut(score: np.ndarray, wrong: np.ndarray, false: float = 0.1) -> float:
    """Return the largest share of wrong labels above any threshold with at most `false` right ones among them."""
    hit = wrong[np.argsort(-score, kind="stable")].cumsum()
    within = hit >= (1 - false) * np.arange(1, len(hit) + 1)
    return float(hit[within].max() / wrong.sum()) if within.any() else 0.0


def grouped(
    cells: Iterable[tuple[Cell, Mapping[str, float]]],
) -> dict[tuple[str, str], list[Mapping[str, float]]]:
    """Return the cells by data set and kind of error, over rates, rarity and seeds."""
    groups: dict[tuple[str, str], list[Mapping[str, float]]] = defaultdict(list)
    for cell, found in cells:
        groups[cell.data, "none" if cell.rate == 0 else cell.kind].append(found)
    return groups


def level_table(groups: Mapping[tuple[str, str], list[Mapping[str, float]]]) -> str:
    """Return realised false names: share of all named rows, rows named, share of wrong ones found; a level each."""
    head = "| data | errors | cells | " + " | ".join(
        f"named, false, found at {100 * v:.0f} %" for v in LEVELS
    )
    lines = [head + " | cleanlab's own decision |", "|---" * (len(LEVELS) + 4) + "|"]
    for (data, kind), found in groups.items():
        cells = [_pooled(found, f"{level:g}") for level in LEVELS]
        cells.append(_pooled(found, "cleanlab") if kind != "none" else "")
        lines.append(f"| {data} | {kind} | {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def power_table(groups: Mapping[tuple[str, str], list[Mapping[str, float]]]) -> str:
    """Return mean average precision, and recall of a perfect cut at 10 % false, of every ranking."""
    names = [
        "ours", "p_wrong", "oof_loss", "cleanlab", "extra trees", "extra trees, telling features",
        "logistic regression", "logistic regression, strongly regularised", "logistic regression, telling features",
        "kernels, telling features", "normal laws, telling features", "boosted trees", "in-sample", "random",
    ]  # fmt: skip
    lines = ["| data | errors | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for (data, kind), found in groups.items():
        if kind == "none":
            continue
        cells = []
        for name in names:
            known = [f for f in found if f"AP {name}" in f]
            cells.append(f"{_mean(known, f'AP {name}')} / {_mean(known, f'cut {name}')}" if known else "")
        lines.append(f"| {data} | {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _hits(name: str, named: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    return {f"named {name}": float(named.sum()), f"false {name}": float((named & ~wrong).sum())}


def _pooled(found: list[Mapping[str, float]], name: str) -> str:
    named, false = (sum(f[f"{what} {name}"] for f in found) for what in ("named", "false"))
    wrong = sum(f["wrong"] for f in found)
    if not named:
        return "0"
    share = _short((named - false) / wrong) if wrong else "–"
    return f"{named:,.0f}, {_short(false / named)}, {share}"


def _mean(found: list[Mapping[str, float]], name: str) -> str:
    return _short(float(np.mean([f[name] for f in found])))


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else "1.0"
