"""Made-up but lifelike report content: for the tests, and for looking at the page in a browser."""

import numpy as np

from finfluence.report import thumbnail

KINDS = ("image", "cells", "text", "none")
_STREETS = ("Ash Lane", "Mill Road", "Harbour Street", "Old Town Square")


def demo_content(n_rows: int = 200, kind: str = "image", n_queries: int = 2, seed: int = 0) -> dict:
    """Return a full dictionary, every section filled; `kind` says how rows look."""
    rng = np.random.default_rng(seed)
    queries = [
        {"name": "held-out loss", "unit": "nats", "sign": -1},
        {"name": "held-out accuracy", "unit": "", "sign": 1},
    ][:n_queries]
    rows = [row for q in queries for row in _rows(rng, n_rows // n_queries, q, kind)]
    return {
        "title": "digits.csv, label column “digit”",
        "verdict": "14 of 1,000 rows make the held-out loss worse; "
        "at a false-discovery rate of 10 % about 1 of them is named wrongly.",
        "queries": queries,
        "rows": rows,
        "findings": [
            {"code": "FI012", "severity": "info", "text": "The horizon was set to the last 24 of 30 epochs."},
            {
                "code": "FI003",
                "severity": "warning",
                "text": "One training run only: the spread covers batch order, not initialisation. Another "
                "initialisation may rank rows differently.",
            },
            {
                "code": "FI007",
                "severity": "error",
                "text": "The self-test named 3 of 20 planted neutral rows, more than the 10 % asked for.",
            },
        ],
        "meaning": [
            "μ is the effect of removing a row divided by the spread between training runs. Positive: "
            "removing the row raises the query. For held-out loss, rows with negative μ are harmful.",
            "Loss is in nats per row. One training run was replayed; the spread covers the batch order.",
        ],
        "distributions": [_distribution(rng, q) for q in queries],
        "cleaning": _cleaning(),
        "verification": _verification(rng),
        "tables": [_baselines()],
        "origin": {
            "facts": {
                "method": "replay, online, 100 probe rows",
                "training": "MLP 64-32-10, SGD 0.1, 30 epochs, batches of 50",
                "horizon": "last 24 of 30 epochs",
                "seeds": "order 0, initialisation 0",
                "runs": 1,
                "cost": "3.1 training runs, 12 s on 2 CPU cores",
                "data": "1,000 rows, hash 3f9a0c77d1e2b845",
                "versions": "finfluence 0.1.0, torch 2.6.0, numpy 2.1.0",
            },
            "command": "finfluence scan digits.csv --target digit --out out/ --epochs 30 --batch-size 50 "
            "--seed 0 --fdr 0.1",
        },
    }


def _rows(rng: np.random.Generator, n: int, query: dict, kind: str) -> list[dict]:
    harm = np.sort(
        np.concatenate([rng.normal(4, 1, max(1, n // 14)), rng.normal(0, 1, n - max(1, n // 14))])
    )[::-1]
    spread = 0.0043
    rows = []
    for i, value in enumerate(harm * query["sign"]):
        flagged = bool(i < max(1, n // 14))
        label = int(rng.integers(10))
        rows.append(
            {
                "row_id": f"{int(rng.integers(10_000)):04d}-{i}",
                "query": query["name"],
                "rank": i + 1,
                "mu": value,
                "se": 0.42,
                "lower": value - 0.82,
                "upper": value + 0.82,
                "effect": value * spread,
                "spread": spread,
                "p_value": float(np.exp(-(value**2) / 2)),
                "q_value": min(1.0, float(np.exp(-(value**2) / 2)) * n / (i + 1)),
                "own_loss": float(rng.exponential(0.4) + 3 * flagged),
                "flagged": flagged,
                "action": ("relabel" if i % 3 else "drop")
                if flagged
                else ("review" if i < n // 8 else "keep"),
                "reason": ("both" if i % 2 else "influence") if flagged else ("loss" if i < n // 8 else ""),
                "label": label,
                "suggested_label": str((label + 5) % 10) if flagged and i % 3 else "",
                "group": "",
                "preview": _preview(rng, kind),
            }
        )
    return rows


def _preview(rng: np.random.Generator, kind: str) -> dict | None:
    if kind == "image":
        y, x = np.mgrid[0:28, 0:28]
        cx, cy, r = (*rng.uniform(9, 19, 2).tolist(), float(rng.uniform(4, 9)))
        ring = np.exp(-((np.hypot(x - cx, y - cy) - r) ** 2) / 4)
        return {"image_png": thumbnail((ring * 255).astype(np.uint8))}
    if kind == "cells":
        return {
            "cells": {
                "age": int(rng.integers(18, 90)),
                "income": float(rng.lognormal(10, 1)),
                "street": str(rng.choice(_STREETS)),
                "postcode": int(rng.integers(10_000, 99_999)),
                "married": bool(rng.integers(2)),
                "remarks": "Called twice; asked for a quotation in writing, to be sent by the end of May.",
                "last order": None,
            }
        }
    if kind == "text":
        words = [
            "the film",
            "was",
            "slow",
            "but",
            "moving",
            "and",
            "its",
            "music",
            "stays",
            "with you",
            "for days",
        ]
        return {"text": " ".join(rng.choice(words, int(rng.integers(8, 90)))) + "."}
    return None


def _distribution(rng: np.random.Generator, query: dict) -> dict:
    mu = np.concatenate([rng.normal(0, 1, 986), rng.normal(4.2, 0.9, 14) * query["sign"]])
    counts, edges = np.histogram(mu, bins=56, range=(-7, 7))
    x = np.linspace(-4, 4, 121)
    null = 986 * (edges[1] - edges[0]) * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    return {
        "query": query["name"],
        "edges": edges,
        "counts": counts,
        "thresholds": [2.9 * query["sign"]],
        "null_x": x,
        "null_y": null,
    }


def _cleaning() -> dict:
    def arm(name: str, loss: tuple, accuracy: tuple) -> dict:
        keys = ("value", "lower", "upper")
        values = {
            "held-out loss": dict(zip(keys, loss, strict=True)),
            "held-out accuracy": dict(zip(keys, accuracy, strict=True)),
        }
        return {"name": name, "runs": 8, "values": values}

    return {
        "sentence": "After cleaning, the held-out loss falls by 0.031 nats (0.022 to 0.040); "
        "removing as many random rows does not change it.",
        "metrics": [
            {"name": "held-out loss", "unit": "nats", "better": "lower"},
            {"name": "held-out accuracy", "better": "higher"},
        ],
        "arms": [
            arm("original", (0.412, 0.405, 0.419), (0.913, 0.908, 0.918)),
            arm("cleaned", (0.381, 0.375, 0.387), (0.924, 0.920, 0.928)),
            arm("random removals", (0.414, 0.406, 0.422), (0.912, 0.907, 0.917)),
        ],
        "differences": [
            {
                "metric": "held-out loss",
                "name": "cleaned − original",
                "value": -0.031,
                "lower": -0.040,
                "upper": -0.022,
            },
            {
                "metric": "held-out loss",
                "name": "random − original",
                "value": 0.002,
                "lower": -0.004,
                "upper": 0.008,
            },
            {
                "metric": "held-out accuracy",
                "name": "cleaned − original",
                "value": 0.011,
                "lower": 0.006,
                "upper": 0.016,
            },
        ],
    }


def _verification(rng: np.random.Generator) -> dict:
    truth = rng.normal(0, 2, 40)
    estimate = 0.95 * truth + rng.normal(0, 0.35, 40)
    points = [
        {
            "label": f"set {i}",
            "estimated": e,
            "retrained": t,
            "estimated_lower": e - 0.7,
            "estimated_upper": e + 0.7,
            "retrained_lower": t - 0.4,
            "retrained_upper": t + 0.4,
            "kind": ("top", "bottom", "middle", "random")[i % 4],
        }
        for i, (e, t) in enumerate(zip(estimate, truth, strict=True))
    ]
    figures = [
        {
            "name": "Pearson of μ",
            "value": 0.966,
            "lower": 0.94,
            "upper": 0.98,
            "best": 0.99,
            "meaning": "Order and size.",
        },
        {
            "name": "Slope",
            "value": 1.04,
            "lower": 0.95,
            "upper": 1.17,
            "meaning": "Truth over estimate: 1 is unbiased.",
        },
        {
            "name": "Spearman of μ",
            "value": 0.91,
            "lower": 0.85,
            "upper": 0.95,
            "meaning": "Agreement of the order.",
        },
        {
            "name": "Spread ratio",
            "value": 1.02,
            "lower": 0.96,
            "upper": 1.08,
            "meaning": "Truth over estimate.",
        },
        {
            "name": "Coverage",
            "value": 0.93,
            "lower": 0.88,
            "upper": 0.97,
            "meaning": "Share of 95 % intervals that hold the truth.",
        },
    ]
    return {
        "sentence": "The estimates can be trusted here: 40 sets were retrained.",
        "points": points,
        "figures": figures,
        "verdict": "passed",
        "slope": 1.04,
        "note": "2,890 trainings: 490 on all rows and 100 without each of 24 subsets of 5 rows.",
    }


def _baselines() -> dict:
    return {
        "title": "Against simpler scores",
        "columns": ["Score", "Average precision", "Recall at FDR 10 %", "Cost, training runs"],
        "rows": [
            ["plain loss", 0.985, 0.94, 0],
            ["replay, held-out loss", 0.951, 0.90, 3.1],
            ["gradient norm", 0.871, None, 1],
            ["random", 0.1, 0.0, 0],
        ],
        "note": "For plain label flips the final loss is the stronger detector; it cannot say what removal"
        " does.",
    }
