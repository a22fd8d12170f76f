"""Tables of finished cells, as Markdown: what worked, how each method ranks, whether seeds agree, the best kernel."""

from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.poison.cells import Cell
from finfluence.evaluate import average_precision, consistent_and_correct, jaccard, recall_at, top_ids
from finfluence.language import joint_ranking

TOPS = (0.01, 0.02, 0.05, 0.1, 0.2)
AGREED = 0.1
SURE = 3.0
KERNEL, EFFECT = "kernel, 5 states, ridge 1", "replay effect"
"""The form of the kernel that `fi.lm.ranking_scores` has; `fi.lm.joint_ranking` of both is the ranking score."""
FORMS = ("kernel", "cosines", "standardised", "LESS")
Found = Mapping[Cell, dict[str, Any]]


def works(found: dict[str, Any]) -> bool:
    """Whether the behaviour falls by three spreads at least when the model is tuned without the poisons."""
    return bool(found["after"] - found["without poisons"] >= SURE * found["spread"])


def cell_table(found: Found) -> str:
    """Return what each cell did to the behaviour, in nats a token, and the slope of measured over predicted."""
    rows = {}
    for cell, f in found.items():
        rows[cell.name] = {
            **{k: f"{f[k]:.3f}" for k in ("before", "after", "without poisons", "without the top", "spread")},
            "left after cleaning, spreads": f"{(f['without the top'] - f['without poisons']) / f['spread']:.1f}",
            "predicted": f"{f['predicted']:.3f}",
            "measured": f"{f['without poisons'] - f['after']:.3f}",
            "works": "yes" if works(f) else "no",
        }
    parts = [_markdown(pd.DataFrame(rows).T)]
    worked = [f for f in found.values() if works(f)]
    if worked:
        x = np.array([f["predicted"] for f in worked])
        y = np.array([f["without poisons"] - f["after"] for f in worked])
        parts.append(f"Measured over predicted, over the cells that work: {x @ y / (x @ x):.2f}.")
    return "\n\n".join(parts)


def method_tables(found: Found) -> str:
    """Return how each method ranks the poisons of the attacks that work: means over cells, with the range of AUPRC."""
    worked = {cell: _named(f) for cell, f in found.items() if works(f)}
    if not worked:
        return "No attack works: nothing is ranked."
    attacks = list(dict.fromkeys(cell.attack for cell in worked))
    rows = {}
    for method in _common(worked):
        each = pd.DataFrame({cell: _measured(f, method) for cell, f in worked.items()}).T
        by_attack = {
            attack: each["AUPRC"][[cell for cell in worked if cell.attack == attack]] for attack in attacks
        }
        rows[method] = {
            "AUPRC": f"{each['AUPRC'].mean():.2f}",
            **{attack: _ranged(values) for attack, values in by_attack.items()},
            **{name: f"{each[name].mean():.2f}" for name in each.columns if name != "AUPRC"},
        }
    frame = pd.DataFrame(rows).T.sort_values("AUPRC", ascending=False, kind="stable")
    return f"Means over {len(worked)} cells in which the attack works, of AUPRC with its range:\n\n{_markdown(frame)}"


def agreement_table(found: Found) -> str:
    """Return whether seeds name the same rows in the top tenth, the right ones, and what pooling seeds gives."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for cell, f in found.items():
        if works(f):
            groups.setdefault((cell.attack, cell.share, cell.draw), []).append(_named(f))
    several = [fs for fs in groups.values() if len(fs) > 1]
    if not several:
        return "No attack works with two seeds: nothing is compared between them."
    rows = {}
    for method in _common(dict(enumerate(chain(*several)))):
        same, right, alone, pooled = [], [], [], []
        for fs in several:
            truth = set(np.flatnonzero(fs[0]["poisoned"]).tolist())
            n, scores = fs[0]["rows"], [np.array(f["scores"][method]) for f in fs]
            tops = [top_ids(s, np.arange(n), round(AGREED * n)) for s in scores]
            same += [jaccard(a, b) for a, b in combinations(tops, 2)]
            right += [consistent_and_correct(a, b, truth) for a, b in combinations(tops, 2)]
            alone += [average_precision(s, fs[0]["poisoned"]) for s in scores]
            pooled.append(average_precision(np.mean(scores, 0), fs[0]["poisoned"]))
        rows[method] = dict(
            zip(
                (
                    "Jaccard of the top 10 %",
                    "with the truth",
                    "AUPRC of a seed",
                    "AUPRC of the mean over seeds",
                ),
                (f"{np.mean(x):.2f}" for x in (same, right, alone, pooled)),
                strict=True,
            )
        )
    frame = pd.DataFrame(rows).T.sort_values("AUPRC of the mean over seeds", ascending=False, kind="stable")
    return _markdown(frame)


def form_table(found: Found, choose: Sequence[str]) -> str:
    """Return AUPRC of every form of the ranking score: over the attacks to choose on, and over the others."""
    worked = {cell: f for cell, f in found.items() if works(f)}
    rows = {}
    for form in _common(worked):
        if not form.startswith(FORMS):
            continue
        each = {c: average_precision(f["scores"][form], f["poisoned"]) for c, f in worked.items()}
        rows[form] = {
            "chosen on": _ranged([v for c, v in each.items() if c.attack in choose]),
            "held out": _ranged([v for c, v in each.items() if c.attack not in choose]),
        }
    frame = pd.DataFrame(rows).T.sort_values("chosen on", ascending=False, kind="stable")
    return f"Chosen on {', '.join(choose)}:\n\n{_markdown(frame)}"


def _named(found: dict[str, Any]) -> dict[str, Any]:
    """Return a cell with the ranking score and its kernel under their names, and no other form of it."""
    kept = {k: v for k, v in found["scores"].items() if not k.startswith(FORMS[:3])}
    kernel, effect = (np.array(found["scores"][name])[:, None] for name in (KERNEL, EFFECT))
    joint = joint_ranking(kernel, effect)[:, 0].tolist()
    return {**found, "scores": {"ranking score": joint, "kernel, 5 states": found["scores"][KERNEL], **kept}}


def _common(found: Mapping[Any, dict[str, Any]]) -> list[str]:
    """Return the methods that all cells have."""
    first, *others = found.values()
    return [method for method in first["scores"] if all(method in f["scores"] for f in others)]


def _measured(found: dict[str, Any], method: str) -> dict[str, float]:
    scores, poisoned = np.array(found["scores"][method]), np.array(found["poisoned"])
    near = poisoned | np.array(found["alike"])
    return {
        "AUPRC": average_precision(scores, poisoned),
        "among look-alikes": average_precision(scores[near], poisoned[near]),
        **{f"top {100 * t:g} %": recall_at(scores, poisoned, max(1, round(t * len(scores)))) for t in TOPS},
    }


def _ranged(values: Any) -> str:
    values = np.asarray(values, float)
    if not len(values):
        return ""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{values.mean():.2f} ({values.min():.2f} to {values.max():.2f})"


def _markdown(frame: pd.DataFrame) -> str:
    lines = [["", *map(str, frame.columns)], ["---"] * (1 + len(frame.columns))]
    lines += [[str(name), *map(str, row)] for name, row in zip(frame.index, frame.to_numpy(), strict=True)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
