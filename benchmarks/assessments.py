"""How good the assessments from logged runs are on fresh worlds: python -m benchmarks.assessments.

`--worlds` of effects by inclusion, `--logs` of events without an effect of the exposure; with `--keep FOLDER` what was
found of each log stays there, and the same command goes on with it. `--share 0/2` and `--share 1/2` beside it are two
processes that fill the folder together.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from finfluence.assess import EventLog, exposure, inclusion

ROWS = 128
LEVELS = (0.05, 0.1, 0.2)
STRATA = (0.02, 0.035, 0.05, 0.07, 0.1, 0.14, 0.2, 0.27, 0.4)


def world(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return inclusion, outcomes, true effects and predicted ones of a world drawn from a wide prior."""
    rng = np.random.default_rng(seed)
    share, scale = rng.random(), np.exp(rng.uniform(np.log(0.02), np.log(0.5)))
    base = rng.normal(size=ROWS) if rng.random() < 0.5 else rng.standard_t(3, size=ROWS)
    effects = np.where(rng.random(ROWS) < share, scale * base, 0.0)
    slope, noise = np.exp(rng.normal(0, 0.3)), scale * np.exp(rng.uniform(np.log(0.1), np.log(3)))
    predicted = (effects + noise * rng.normal(size=ROWS)) / slope
    included = rng.random((int(rng.integers(100, 2001)), ROWS)) < 0.5
    return included, -(included @ effects) + rng.normal(size=len(included)), effects, predicted


def event_log(seed: int, strength: float = 0.0, n: int = 300, times: int = 8) -> EventLog:
    """Return subjects whose history drives both exposure and events; each row seen adds `strength` to the chance."""
    return _event_log(seed, strength, n, times)[0]


def _event_log(seed: int, strength: float, n: int, times: int) -> tuple[EventLog, np.ndarray, np.ndarray]:
    """Return the log, what the history says of the exposure, and the chance of the event."""
    rng = np.random.default_rng(seed)
    history = rng.normal(size=(n, times)).cumsum(1) / 2
    rate = np.exp(0.5 * np.clip(history, -2, 2))
    seen = rng.poisson(rate).cumsum(1)
    chance = np.clip(0.08 * np.exp(0.5 * history) + strength * seen, 0, 0.9)
    happened = rng.random((n, times)) < chance
    at_risk = np.cumsum(happened, 1) - happened == 0
    return EventLog(happened & at_risk, at_risk, seen, history[..., None]), rate.cumsum(1), chance


def known_p(seed: int) -> float:
    """Return p of a log without an effect, by the same draws, where nothing has to be fitted."""
    log, expected, chance = _event_log(seed, 0.0, 300, 8)
    paths = ((log.exposure - expected) * (log.events - log.at_risk * chance)).cumsum(1)
    drawn = np.random.default_rng([seed, 1]).standard_normal((1000, len(paths))) @ paths
    return float((1 + (np.abs(drawn).max(1) >= np.abs(paths.sum(0)).max()).sum()) / 1001)


def runs_log(seed: int, runs: int = 60, queries: int = 8, times: int = 8) -> EventLog:
    """Return queries of runs: those of one run share exposure, history and how likely their events are."""
    rng = np.random.default_rng(seed)
    history = rng.normal(size=(runs, times)).cumsum(1) / 2
    seen = rng.poisson(np.exp(0.5 * np.clip(history, -2, 2))).cumsum(1)
    chance = np.clip(0.06 * np.exp(0.5 * history + rng.normal(size=(runs, 1))), 0, 0.9)
    seen, history, chance = (np.repeat(v, queries, 0) for v in (seen, history, chance))
    happened = rng.random(seen.shape) < chance
    at_risk = np.cumsum(happened, 1) - happened == 0
    run = np.repeat(np.arange(runs), queries)
    return EventLog(happened & at_risk, at_risk, seen, history[..., None], run)


def inclusion_table(worlds: int) -> str:
    errors, covered, covered_there = [], [], []
    for seed in range(worlds):
        included, outcome, effects, predicted = world(seed)
        alone, both = inclusion(included, outcome), inclusion(included, outcome, predicted=predicted)
        z = alone.difference / alone.se
        james_stein = max(0.0, 1 - (ROWS - 2) / (z @ z)) * alone.difference
        estimates = (alone.difference, james_stein, alone.effect, both.effect)
        errors.append([np.mean((e - effects) ** 2 / both.se**2) for e in estimates])
        inside = (both.lower <= effects) & (effects <= both.upper)
        covered.extend(inside)
        covered_there.extend(inside[effects != 0])
    names = (
        "difference of arms",
        "James-Stein",
        "posterior, no prediction",
        "posterior, with the prediction",
    )
    lines = [f"| {name} | {e:.2f} |" for name, e in zip(names, np.mean(errors, 0), strict=True)]
    coverage = f"90 % interval covers {np.mean(covered):.3f} of rows, {np.mean(covered_there):.3f} of those that matter"
    return "\n".join([f"Squared error in units of the difference's, {worlds} worlds", *lines, coverage])


def of_log(seed: int, keep: Path | None) -> tuple[float, float]:
    """Return p, and p by the limit law, of a log without an effect; kept in a folder."""
    place = None if keep is None else keep / f"{seed:05d}.json"
    if place is not None and place.exists():
        p, by_limit = json.loads(place.read_text(encoding="utf-8"))
        return p, by_limit
    found = exposure(event_log(seed))
    if place is not None:
        _write(place, [found.p, found.p_limit])
    return found.p, found.p_limit


def known(count: int, keep: Path | None) -> np.ndarray:
    """Return p of logs where nothing has to be fitted; kept in one file of the folder."""
    place = None if keep is None else keep / f"known-{count}.json"
    if place is not None and place.exists():
        return np.array(json.loads(place.read_text(encoding="utf-8")))
    found = [known_p(seed) for seed in range(count)]
    if place is not None:
        _write(place, found)
    return np.array(found)


def _write(place: Path, values: list[float]) -> None:
    part = place.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps(values), encoding="utf-8")
    part.replace(place)


def exposure_table(logs: int, keep: Path | None, few: int = 50, many: int = 12_000) -> Iterator[str]:
    """Yield how often the test rejects: without an effect, where it is not corrected, and with an effect."""
    yield "| rejected at | .05 | .10 | .20 |"
    yield "|---|---|---|---|"
    nothing = known(max(logs, many), keep)
    yield _rejected(f"no effect, nothing to fit ({len(nothing)} logs)", nothing)
    yield _rejected(f"the first {logs} of them", nothing[:logs])
    fitted, by_limit = np.array([of_log(seed, keep) for seed in range(logs)]).T
    yield _rejected(f"**the same {logs}, fitted**", fitted)
    yield _moved("fitted − nothing to fit, log by log (± standard error)", fitted, nothing[:logs])
    yield _level("**level of the fitted test, by both** (± standard error)", fitted, nothing)
    yield _rejected("the same by the limit law", by_limit)
    blind = [exposure(replace(v, history=np.zeros_like(v.history))).p for v in map(event_log, range(few))]
    yield _rejected(f"no effect, history left out ({few} logs)", blind)
    grouped = [runs_log(seed) for seed in range(2 * few)]
    yield _rejected(
        f"no effect, 60 runs of 8 queries ({len(grouped)} logs)", [exposure(v).p for v in grouped]
    )
    apart = [exposure(replace(v, runs=None)).p for v in grouped]
    yield _rejected("the same, queries taken as independent", apart)
    for s in (0.0025, 0.005, 0.01):
        found = [exposure(event_log(seed, s)).p for seed in range(few)]
        yield _rejected(f"each row seen adds {s} to the chance ({few} logs)", found)


def _moved(name: str, p: np.ndarray, known: np.ndarray) -> str:
    cells = []
    for a in LEVELS:
        apart = (p < a).astype(float) - (known < a)
        cells.append(f"{apart.mean():+.3f} ± {apart.std(ddof=1) / np.sqrt(len(apart)):.3f}")
    return f"| {name} | {' | '.join(cells)} |"


def _level(name: str, fitted: np.ndarray, nothing: np.ndarray) -> str:
    """Return the level by all logs, of which few were fitted, in strata of the p-value where nothing is fitted."""
    stratum = np.digitize(nothing, STRATA)
    share = np.bincount(stratum, minlength=len(STRATA) + 1) / len(nothing)
    cells = []
    for a in LEVELS:
        inside = [(fitted < a)[stratum[: len(fitted)] == h] for h in range(len(share))]
        level = sum(w * v.mean() for w, v in zip(share, inside, strict=True))
        variance = sum(w**2 * v.var(ddof=1) / len(v) for w, v in zip(share, inside, strict=True))
        cells.append(f"{level:.3f} ± {np.sqrt(variance):.3f}")
    return f"| {name} | {' | '.join(cells)} |"


def _rejected(name: str, p: Sequence[float] | np.ndarray) -> str:
    return f"| {name} | " + " | ".join(f"{np.mean(np.array(p) < a):.3f}" for a in LEVELS) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--worlds", type=int, default=150)
    parser.add_argument("--logs", type=int, default=600)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--share", help="i/k: fill --keep with every k-th log from i on, and stop")
    chosen = parser.parse_args()
    if chosen.keep is not None:
        chosen.keep.mkdir(parents=True, exist_ok=True)
    if chosen.share is not None:
        first, step = (int(v) for v in chosen.share.split("/"))
        for number in range(first, chosen.logs, step):
            of_log(number, chosen.keep)
        raise SystemExit
    if chosen.worlds:
        print(inclusion_table(chosen.worlds))
    if chosen.logs:
        for line in exposure_table(chosen.logs, chosen.keep):
            print(line, flush=True)
