"""decide: keep, drop, relabel or weigh down what a scan named, whichever does best on rows that took no part."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from finfluence._files import write_json
from finfluence._progress import Progress, silent
from finfluence._seeds import stream
from finfluence.ensemble import one_thread
from finfluence.errors import DataError, explain
from finfluence.jobs._log import logged, recorded
from finfluence.jobs.scan._check_words import harms, measured
from finfluence.jobs.scan._decisions import from_table, read_lines
from finfluence.jobs.scan._estimate import Context
from finfluence.jobs.scan._folder import DECISION, LOG, ScanFolder
from finfluence.jobs.scan._options import DecideOptions
from finfluence.jobs.scan._reopened import reopen
from finfluence.jobs.scan._retraining_check import automatic_runs
from finfluence.jobs.scan._versions import (
    FEWEST_ROWS,
    LEVEL,
    ORIGINAL,
    Version,
    compared,
    original,
    relabelled,
    run_seeds,
    trained,
    without,
)

KEEP, DROP, RELABEL, REWEIGHT = "keep", "drop", "relabel", "reweight"


@dataclass(frozen=True, eq=False)
class Advice:
    """What to do with a scan's rows, and what was measured for it.

    Attributes
    ----------
    action : str
        "keep", "drop", "relabel" or "reweight".
    sentence : str
        The recommendation and its reason.
    tried : list of dict
        Of each other action: `action`, `rows` that it touches, `did` (in words), `better` (whether it surely is),
        `harms` (in words), and `differences` to keeping, with intervals that hold for all actions together.
    left_out : dict
        Actions that could not be tried, and why.
    """

    action: str
    sentence: str
    tried: list[dict[str, Any]]
    left_out: dict[str, str]


def decide_scan(
    out: str | os.PathLike[str], options: DecideOptions | None = None, progress: Progress = silent
) -> Advice:
    """Train again with the doubtful rows kept, dropped, relabelled and weighed down, and recommend what does best.

    All versions share their seeds and are judged on the held-out rows that took no part in the decision and whose
    labels nothing speaks against. An action is recommended only if, at 5 % over all actions together, it surely lowers
    the loss without surely lowering the accuracy, or surely raises the accuracy without surely raising the loss, and
    surely harms nothing else; of several, the one of the smallest loss.

    "drop" and "relabel" take the named rows; "reweight" takes every row: each training leaves it out with the chance
    that it is wrong (`p_wrong`), an average over the files that the doubt allows.

    Parameters
    ----------
    out
        Folder of a finished scan.
    options
        How often to train: by default as often as the scan's own check, or as it would have.
    progress
        Called as `progress("decide", done, total)` in trainings.

    Returns
    -------
    Advice
        Also in `decision.json`. Finished trainings stay in the folder; the same call goes on with them.

    Raises
    ------
    StorageError
        No finished scan there, or damaged files of it.
    DataError
        The data has changed since, or fewer than two held-out rows to judge by.
    """
    options = options or DecideOptions()
    folder = ScanFolder(out)
    with one_thread():
        scan = reopen(folder)
        with logged(folder / LOG) as log:
            context = Context(scan.training, scan.data, folder, recorded(log, progress))
            frame = from_table(read_lines(folder), dict(scan.summary), scan.options.fdr).frame
            by_default = automatic_runs(len(frame), scan.training.model.name, len(scan.training.seeds))
            runs = options.runs or scan.run["proof_runs"] or by_default
            advice = _decided(context, frame, runs, scan.options.seed)
            write_json(folder / DECISION, vars(advice))
            log.info("decision: %s", advice.sentence)
    return advice


def _decided(context: Context, frame: pd.DataFrame, runs: int, seed: int) -> Advice:
    held = context.data.evaluation
    if len(held) < FEWEST_ROWS:
        raise DataError(
            explain(
                f"at least {FEWEST_ROWS} held-out rows whose labels nothing speaks against",
                f"{len(held)}",
                "a small file, or held-out labels that are doubtful themselves",
                "give checked rows by finfluence scan --holdout FILE",
            )
        )
    kept = original(context, run_seeds(seed, runs))
    versions, rows, left_out = _alternatives(context, frame, runs, seed)
    outputs = trained(context, [kept, *versions], "decide") if versions else {}
    level = 1 - (1 - LEVEL) / max(1, len(versions))
    tried = []
    for version in versions:
        pair = f"{version.name} − {ORIGINAL}"
        check = compared({name: outputs[name] for name in (ORIGINAL, version.name)}, held, level)
        tried.append(
            {
                "action": version.name,
                "rows": rows[version.name],
                "did": measured(check, pair) if check["arms"] else "diverged in training",
                "better": _better(check, pair),
                "harms": harms(check, pair),
                "loss": _loss(check, version.name),
                "differences": check["differences"],
            }
        )
    action = _best(tried)
    return Advice(action, _sentence(action, tried, context.data.halved), tried, left_out)


def _alternatives(
    context: Context, frame: pd.DataFrame, runs: int, seed: int
) -> tuple[list[Version], dict[str, int], dict[str, str]]:
    """Return the versions to train, how many rows each touches, and why others cannot be tried."""
    training, data, seeds = context.training, context.data, run_seeds(seed, runs)
    named = frame["flagged"].to_numpy(dtype=bool)
    to_relabel = named & frame["suggested_label"].notna().to_numpy()
    chance = np.nan_to_num(frame["p_wrong"].to_numpy(dtype=float))
    versions, rows, left_out = [], {}, {}
    if not named.any():
        left_out[DROP] = left_out[RELABEL] = "no row is named"
    elif _enough(context, int((~named).sum())):
        versions.append(Version(DROP, training.recipe, data.train.y, without(seeds, [named] * runs)))
        rows[DROP] = int(named.sum())
    else:
        left_out[DROP] = "too few rows would be left to train on"
    if to_relabel.any():
        labels = frame["suggested_label"].to_numpy(dtype=object)
        versions.append(relabelled(context, RELABEL, to_relabel, labels, original(context, seeds).specs))
        rows[RELABEL] = int(to_relabel.sum())
    elif named.any():
        left_out[RELABEL] = "no named row has another label that the models are sure of"
    gone = [stream(seed, "reweight", run).random(len(chance)) < chance for run in range(runs)]
    if not chance.any():
        left_out[REWEIGHT] = "no row has a chance of being wrong"
    elif all(_enough(context, int((~mask).sum())) for mask in gone):
        versions.append(Version(REWEIGHT, training.recipe, data.train.y, without(seeds, gone)))
        rows[REWEIGHT] = int((chance > 0).sum())
    else:
        left_out[REWEIGHT] = "too few rows would be left to train on"
    left_out["mitigate"] = "a scan trains its own network: there is no frozen encoder to mend (fi.mitigate)"
    return versions, rows, left_out


def _enough(context: Context, rows: int) -> bool:
    return rows >= max(2, context.training.recipe.batch_size)


def _better(check: dict[str, Any], pair: str) -> bool:
    found = {d["metric"]: d for d in check["differences"] if d["name"] == pair}
    if not found:
        return False
    loss = found[check["metrics"][0]["name"]]
    accuracy = found.get("held-out accuracy", {"lower": 0.0, "upper": 0.0})
    falls = loss["upper"] < 0 and accuracy["upper"] >= 0
    rises = accuracy["lower"] > 0 and loss["lower"] <= 0
    return bool(falls or rises)


def _loss(check: dict[str, Any], arm: str) -> float:
    values = {a["name"]: a["values"] for a in check["arms"]}
    return float(values[arm][check["metrics"][0]["name"]]["value"]) if values else float("inf")


def _best(tried: Sequence[dict[str, Any]]) -> str:
    good = [t for t in tried if t["better"] and not t["harms"]]
    return str(min(good, key=lambda t: t["loss"])["action"]) if good else KEEP


def _sentence(action: str, tried: Sequence[dict[str, Any]], apart: bool) -> str:
    on = (
        "held-out rows that took no part"
        if apart
        else "the held-out rows that were asked, too, which flatters it"
    )
    if not tried:
        return "Recommended: keep the file as it is. There is nothing to try."
    if action == KEEP:
        return f"Recommended: keep the file as it is. Nothing that was tried surely does better on {on}."
    did = next(t for t in tried if t["action"] == action)
    what = {
        DROP: f"drop the {did['rows']:,} named rows",
        RELABEL: f"relabel {did['rows']:,} named rows",
        REWEIGHT: f"train with each of {did['rows']:,} doubtful rows at the chance that it is right",
    }[action]
    return f"Recommended: {what}. On {on}, this {did['did']}."
