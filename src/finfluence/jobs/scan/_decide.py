"""decide: keep, drop, relabel, weigh down or mend the head, whichever does best on rows that took no part."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from finfluence._files import write_json
from finfluence._progress import Progress, silent
from finfluence._seeds import stream
from finfluence.assess import THRESHOLDED
from finfluence.ensemble import one_thread
from finfluence.errors import ConfigError, DataError, explain
from finfluence.ingest import Table
from finfluence.jobs._log import logged, recorded
from finfluence.jobs._words import counted, size
from finfluence.jobs.scan._chapters import Chapter, decision_chapter
from finfluence.jobs.scan._check_words import harms, measured
from finfluence.jobs.scan._decisions import from_table, read_lines
from finfluence.jobs.scan._estimate import Context
from finfluence.jobs.scan._folder import DECISION, LOG, ScanFolder
from finfluence.jobs.scan._frozen import mended, why_not
from finfluence.jobs.scan._no_labels import Deployed, deployed_with, estimated, signs, without_labels
from finfluence.jobs.scan._options import SCORES, DecideOptions
from finfluence.jobs.scan._reopened import reopen
from finfluence.jobs.scan._retraining_check import automatic_runs
from finfluence.jobs.scan._rewritten import rewrite_page
from finfluence.jobs.scan._versions import (
    FEWEST_ROWS,
    LEVEL,
    ORIGINAL,
    Version,
    answers,
    compared,
    held_out,
    original,
    relabelled,
    run_seeds,
    without,
)
from finfluence.mitigate import HEADS
from finfluence.stats import pooled_d

KEEP, DROP, RELABEL, REWEIGHT, MITIGATE = "keep", "drop", "relabel", "reweight", "mitigate"
MOST_HEADS = 5
TOOK_NO_PART = "held-out rows that took no part"
TOOK_PART = "the held-out rows that were asked, too, which flatters it"
_HEAD = {"linear": "a linear head", "mlp": "an MLP head", "nmtune": "an NMTune head"}


@dataclass(frozen=True, eq=False)
class Advice:
    """What to do with the rows of a scan or a tuning, and what was measured for it.

    Attributes
    ----------
    action : str
        "keep", "drop", "relabel", "reweight" or "mitigate".
    sentence : str
        The recommendation and its reason.
    tried : list of dict
        Of each other action: `action`, `rows` that it touches, `did` (in words), `better` (whether it surely is),
        `harms` (in words), `differences` to keeping, with intervals that hold for all actions together (of a tuning
        for all behaviours, too), and `mu`, by which each measure moves in standard deviations over trainings. Of
        "mitigate" also the `head`, and `control`: what it does beside the same head trained on all rows.
    left_out : dict
        Actions that could not be tried, and why.
    unlabelled : dict, optional
        What is estimated of each version on rows without labels; it took no part in the recommendation.
    judged : str
        What the actions were measured on, in words.
    findings : tuple of (str, str)
        Code and text of what qualifies it.
    """

    action: str
    sentence: str
    tried: list[dict[str, Any]]
    left_out: dict[str, str]
    unlabelled: dict[str, Any] | None = None
    judged: str = TOOK_NO_PART
    findings: tuple[tuple[str, str], ...] = ()

    @property
    def chapter(self) -> Chapter:
        """The same as a chapter of the report: sentence, table, findings."""
        return decision_chapter(vars(self))


def decide_scan(
    out: str | os.PathLike[str], options: DecideOptions | None = None, progress: Progress = silent
) -> Advice:
    """Train again with the doubtful rows kept, dropped, relabelled and weighed down, and recommend what does best.

    All versions share their seeds and are judged on the held-out rows that took no part in the decision and whose
    labels nothing speaks against. An action is recommended only if, at 5 % over all actions together, it surely lowers
    the loss without surely lowering the accuracy, or surely raises the accuracy without surely raising the loss, and
    surely harms nothing else; of several, the one of the smallest loss.

    "drop" and "relabel" take the named rows; "reweight" takes every row: each training leaves it out with the chance
    that it is wrong (`p_wrong`), an average over the files that the doubt allows. "mitigate" keeps the networks as they
    were trained on all rows, and trains a head on their features by the rows that are not named (five trainings at
    most): what is left where rows cannot be taken back. The head is linear, unless an MLP or NMTune is surely better
    than that; and it must surely be better than the same head trained on all rows, too, or it is the head that helps
    and not the rows.

    With rows without labels, the accuracy of every version on them is estimated beside the measured differences. It
    does not take part in the recommendation.

    Parameters
    ----------
    out
        Folder of a finished scan.
    options
        How often to train: by default as often as the scan's own check, or as it would have. Rows without labels.
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
        The data has changed since, fewer than two held-out rows to judge by, or rows without labels that cannot be read
        as the hold-out was (fewer than ten held-out rows to place a threshold by).
    ConfigError
        Rows without labels for a regression, or behaviours, which only a tuning has.
    """
    options = options or DecideOptions()
    if options.behaviour is not None:
        raise ConfigError(
            explain(
                "of a scan no file of behaviours",
                f"--behaviour {options.behaviour}",
                "the folder of a scan where that of a tuning was meant",
                "leave --behaviour out: a scan is judged on its held-out rows",
            )
        )
    folder = ScanFolder(out)
    with one_thread():
        scan = reopen(folder, options.unlabelled)
        deployed = None if options.unlabelled is None else deployed_with(scan)
        with logged(folder / LOG) as log:
            context = Context(scan.training, scan.data, folder, recorded(log, progress))
            frame = from_table(read_lines(folder), dict(scan.summary), scan.options.fdr).frame
            by_default = automatic_runs(len(frame), scan.training.model.name, len(scan.training.seeds))
            runs = options.runs or scan.run["proof_runs"] or by_default
            advice = _decided(context, frame, runs, scan.options.seed, deployed)
            write_json(folder / DECISION, vars(advice))
            rewrite_page(scan)
            log.info("decision: %s", advice.sentence)
    return advice


def _decided(
    context: Context, frame: pd.DataFrame, runs: int, seed: int, deployed: Deployed | None
) -> Advice:
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
    asked = [held_out(held), *([] if deployed is None else [deployed.asked])]
    found = answers(context, [kept, *versions], asked, "decide") if versions or deployed else [{}]
    outputs, chances = found[0], found[1] if deployed else {}
    named = frame["flagged"].to_numpy(dtype=bool)
    why = why_not(context, named)
    level = 1 - (1 - LEVEL) / max(1, len(rows) + (0 if why else len(HEADS) + 1))
    tried = [_tried(outputs, name, count, held, level) for name, count in rows.items()]
    if why:
        left_out[MITIGATE] = why
    else:
        seeds, new = run_seeds(seed, min(runs, MOST_HEADS)), None if deployed is None else deployed.x
        heads = mended(context, ~named, new, seeds)
        kind = _head({name: head.outputs for name, head in heads.items()}, held, level)
        on_all = mended(context, np.ones_like(named), None, seeds, [kind])[kind]
        outputs[MITIGATE], chances[MITIGATE] = heads[kind].outputs, heads[kind].chances
        did = _tried(outputs, MITIGATE, int(named.sum()), held, level)
        tried.append(
            {**did, "head": kind, "control": _beside(heads[kind].outputs, on_all.outputs, held, level)}
        )
    action = _best(tried)
    unlabelled = None if deployed is None else _estimated(chances, deployed, level, seed)
    judged = TOOK_NO_PART if context.data.halved else TOOK_PART
    sentence = _sentence(action, tried, judged)
    if unlabelled is not None:
        sentence = f"{sentence} {_of_unlabelled(unlabelled, action)}"
    return Advice(action, sentence, tried, left_out, unlabelled, judged)


def _tried(
    outputs: Mapping[str, np.ndarray], name: str, rows: int, held: Table, level: float
) -> dict[str, Any]:
    """Return what an action did beside keeping, over the runs that both have."""
    pair, runs = f"{name} − {ORIGINAL}", len(outputs[name])
    check = compared({ORIGINAL: outputs[ORIGINAL][:runs], name: outputs[name]}, held, level)
    return {
        "action": name,
        "rows": rows,
        "runs": runs,
        "did": measured(check, pair) if check["arms"] else "diverged in training",
        "better": _better(check, pair),
        "harms": harms(check, pair),
        "loss": _loss(check, name),
        "differences": check["differences"],
        "mu": _mu(check, name),
    }


def _head(outputs: Mapping[str, np.ndarray], held: Table, level: float) -> str:
    """Return the kind of head to use: linear, unless another is surely better; of two such, that of the less loss."""
    linear, *others = HEADS
    surer = {}
    for kind in others:
        check = compared({linear: outputs[linear], kind: outputs[kind]}, held, level)
        if _better(check, f"{kind} − {linear}"):
            surer[kind] = _loss(check, kind)
    return min(surer, key=surer.__getitem__, default=linear)


def _beside(outputs: np.ndarray, on_all: np.ndarray, held: Table, level: float) -> dict[str, Any]:
    """Return what a head without the named rows does beside the same one on all rows."""
    check = compared({"all": on_all, MITIGATE: outputs}, held, level)
    pair = f"{MITIGATE} − all"
    return {
        "did": measured(check, pair) if check["arms"] else "diverged in training",
        "better": _better(check, pair),
        "differences": check["differences"],
    }


def _mu(check: dict[str, Any], name: str) -> dict[str, float | None]:
    """Return by how many standard deviations over trainings an action moves each measure."""
    if not check["arms"]:
        return {}
    before, after = (np.array(check["runs"][arm]).T for arm in (ORIGINAL, name))
    named = [m["name"] for m in check["metrics"] if m["name"] != "held-out balanced accuracy"]
    moved = pooled_d(before, after)
    return {m: float(v) if np.isfinite(v) else None for m, v in zip(named, moved, strict=True)}


def _estimated(
    chances: Mapping[str, np.ndarray], deployed: Deployed, level: float, seed: int
) -> dict[str, Any]:
    """Return the accuracy without labels of every version; new heads beside the trainings that they share."""
    alike = {name: values for name, values in chances.items() if name != MITIGATE}
    found = without_labels(alike, deployed, level=level, score=SCORES[0], seed=seed)
    if MITIGATE in chances:
        runs = len(chances[MITIGATE])
        few = {ORIGINAL: chances[ORIGINAL][:runs], MITIGATE: chances[MITIGATE]}
        more = without_labels(few, deployed, level=level, score=SCORES[0], seed=seed)
        found["versions"].append(more["versions"][-1])
    return found


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
    good = [t for t in tried if t["better"] and not t["harms"] and t.get("control", t)["better"]]
    return str(min(good, key=lambda t: t["loss"])["action"]) if good else KEEP


def _sentence(action: str, tried: Sequence[dict[str, Any]], on: str) -> str:
    if not tried:
        return "Recommended: keep the file as it is. There is nothing to try."
    if action == KEEP:
        return f"Recommended: keep the file as it is. Nothing that was tried surely does better on {on}."
    did = next(t for t in tried if t["action"] == action)
    what = {
        DROP: f"drop the {counted(did['rows'], 'named row')}",
        RELABEL: f"relabel {counted(did['rows'], 'named row')}",
        REWEIGHT: f"train with each of {counted(did['rows'], 'doubtful row')} at the chance that it is right",
        MITIGATE: f"keep the networks, and train {_HEAD[did.get('head', 'linear')]} on their features without the "
        f"{counted(did['rows'], 'named row')}",
    }[action]
    said = f"Recommended: {what}. On {on}, this {did['did']}."
    if action == MITIGATE:
        said += f" Beside the same head on all rows it {did['control']['did']}."
    return said


def _of_unlabelled(found: Mapping[str, Any], action: str) -> str:
    """Say what is estimated of the recommended version on the rows without labels."""
    on, against = f"On {counted(found['unlabelled_rows'], 'row')} without labels", len(signs(found))
    doubt = (
        f" ({against} {'sign speaks' if against == 1 else 'signs speak'} against this estimate)"
        if against
        else ""
    )
    if action == KEEP:
        accuracy = found["versions"][0]["accuracy"][THRESHOLDED]
        return f"{on} the model is right on an estimated {size(accuracy, scale=100)} %{doubt}."
    return f"{on} it {estimated(found, action, 'estimated accuracy')}{doubt}."
