"""The stage "judge labels": what models that have not seen a row say of its label, for every row of the scan."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file

from finfluence._files import atomic, write_json
from finfluence._progress import Progress
from finfluence._seeds import torch_seed
from finfluence.ingest import Table
from finfluence.jobs._folder import write_frame
from finfluence.jobs.scan._data import ScanData
from finfluence.jobs.scan._folder import HOLDOUT_LABELS, LABELS, OUT_OF_FOLD, ScanFolder
from finfluence.jobs.scan._group_labels import judge_groups
from finfluence.labels import (
    LabelVerdict,
    OutOfFold,
    Score,
    TargetVerdict,
    by_doubt,
    judge_labels,
    judge_targets,
    out_of_fold,
    plant_and_find,
)
from finfluence.runs import read_tensors

FEWEST_ROWS, MOST_PLANTED = 30, 20_000
LISTED = 100
MOST_LEFT_OUT = 0.5
EACH = "each "


@dataclass(frozen=True, eq=False)
class RowLabels:
    """What is known of the labels of some rows, in their order.

    Attributes
    ----------
    q_wrong
        q-values: the share of right labels among the rows at least as likely wrong; 1 where nothing is named.
    p_wrong
        Chance that the label is wrong; NaN where nothing can be told.
    oof_loss
        Log loss of the label, nats; of a number the size of its residual in usual residuals of rows like it.
    predicted
        Class index, or standardised number.
    confidence
        Probability of `predicted`; NaN for numbers.
    """

    q_wrong: np.ndarray
    p_wrong: np.ndarray
    oof_loss: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray

    @property
    def sure(self) -> np.ndarray:
        """How sure it is that `predicted` is the right label [n]: the given label is evidence, too.

        The larger of the models' probability p_j and, where they contradict the label y, p_wrong p_j / (1 − p_y): the
        chance that the label is wrong, times the share of j among the others. In a file with wrong labels p_j itself
        stays below the share of right ones, however clear the row. NaN for numbers.

        Examples
        --------
        >>> agrees, contradicts = -np.log(0.7), -np.log(0.1)
        >>> p_wrong, loss = np.array([0, 0.99]), np.array([agrees, contradicts])
        >>> rows = RowLabels(np.ones(2), p_wrong, loss, predicted=np.ones(2), confidence=np.full(2, 0.7))
        >>> rows.sure.round(2).tolist()
        [0.7, 0.77]
        """
        others = np.maximum(-np.expm1(-self.oof_loss), self.confidence)
        found: np.ndarray = np.fmax(self.confidence, self.p_wrong * self.confidence / others)
        return found

    def take(self, rows: np.ndarray) -> "RowLabels":
        """Return what is known of some of the rows."""
        return RowLabels(
            self.q_wrong[rows],
            self.p_wrong[rows],
            self.oof_loss[rows],
            self.predicted[rows],
            self.confidence[rows],
        )


@dataclass(frozen=True, eq=False)
class Judged:
    """The outcome of the stage.

    Attributes
    ----------
    rows
        Training rows first, then the held-out ones: query rows, evaluation rows.
    n_train
        How many of them are training rows.
    left_out
        Whether each held-out row takes no part in the query and in the evaluation.
    summary
        Plain values for `scan.json`, the page and the terminal; also written to `labels.json`.
    """

    rows: RowLabels
    n_train: int
    left_out: np.ndarray
    summary: Mapping[str, Any]

    @property
    def train(self) -> RowLabels:
        """What is known of the training rows."""
        return self.rows.take(np.arange(self.n_train))

    @property
    def evaluation(self) -> RowLabels:
        """What is known of the evaluation rows that are left, where these are apart from the query rows."""
        asked = int(self.summary["query_rows"])
        kept = np.flatnonzero(~self.left_out[asked:])
        return self.rows.take(self.n_train + asked + kept)


def judge_all_labels(
    data: ScanData, folder: ScanFolder, *, fdr: float, seed: int, plant: bool, progress: Progress
) -> Judged | None:
    """Predict every row by models that have not seen it, and judge its label; None with fewer than 30 rows.

    Training, query and evaluation rows are predicted together, and judged together unless the held-out ones come from a
    file of their own, whose labels may be wrong more or less often; rows of one group share a fold. The predictions are
    kept in the folder, and read from there when the scan goes on.

    Parameters
    ----------
    fdr
        Level at which held-out labels are named and left out.
    seed
        Of the folds, the models and the planted errors.
    plant
        Whether to measure, by planted errors, what could be found.

    Returns
    -------
    Judged | None
    """
    parts = _parts(data)
    y = np.concatenate([part.y for part in parts])
    if len(y) < FEWEST_ROWS or len(np.unique(y)) < 2:
        return None
    x = np.concatenate([part.x.reshape(len(part), -1) for part in parts])
    groups = _groups(parts)
    draw = torch_seed(seed, "judge labels") % 2**31

    def tell(stage: str, done: int, total: int) -> None:
        progress(stage.replace("out of fold", "judge labels"), done, total)

    if (folder / OUT_OF_FOLD).exists():
        found = _read(folder)
    else:
        found = out_of_fold(x, y, task=data.train.task, groups=groups, seed=draw, progress=tell)
        _save(folder, found)
    n = len(data.train)
    parted = [np.arange(n), np.arange(n, len(y))]
    if found.task == "regression":
        verdict: LabelVerdict | TargetVerdict = judge_targets(found, x, y, draw)
        q = [replace(verdict, p_wrong=verdict.p_wrong[part]).q_values for part in parted]
    else:
        together = data.query.source.digest == data.train.source.digest
        verdict, q = _of_labels(found, y, parted, together=together)
    rows = _rows(verdict, np.concatenate(q))
    held = rows.take(parted[1])
    left_out = _left_out(held, fdr)
    if (folder / LABELS).exists():
        summary = folder.read_json(LABELS)
    else:
        summary = _summary(data, found, verdict, rows, left_out, groups)
        if plant and found.informative and found.task == "classification" and len(y) <= MOST_PLANTED:
            planted = plant_and_find(x, y, first=LISTED, groups=groups, seed=draw, progress=tell)
            summary["planted"] = planted.sentence()
        write_frame(folder / HOLDOUT_LABELS, _holdout_frame(data, held, left_out))
        write_json(folder / LABELS, summary)
    return Judged(rows, n, left_out, summary)


def without_doubtful(data: ScanData, left_out: np.ndarray) -> ScanData:
    """Return the data whose query and evaluation rows are those with unsuspicious labels."""
    asked = len(data.query)
    query = data.query.take(np.flatnonzero(~left_out[:asked]))
    if not data.halved:
        return replace(data, query=query, evaluation=query)
    return replace(data, query=query, evaluation=data.evaluation.take(np.flatnonzero(~left_out[asked:])))


def read_left_out(folder: ScanFolder) -> np.ndarray | None:
    """Return which held-out rows a scan left out, from its folder; None if it judged no labels."""
    if not (folder / LABELS).exists():
        return None
    found: np.ndarray = folder.read_frame(HOLDOUT_LABELS)["left_out"].to_numpy()
    return found


def _parts(data: ScanData) -> list[Table]:
    return [data.train, data.query, *([data.evaluation] if data.halved else [])]


def _of_labels(
    found: OutOfFold, y: np.ndarray, parted: list[np.ndarray], *, together: bool
) -> tuple[LabelVerdict, list[np.ndarray]]:
    """Judge all labels together, or each part apart: its labels may be wrong at another rate; and return q-values."""
    if together:
        whole = judge_labels(found, y)
        each = [replace(whole, p_wrong=whole.p_wrong[part], labels=whole.labels[part]) for part in parted]
        return whole, [verdict.q_values for verdict in each]
    first, other = (judge_labels(found.take(part), y[part]) for part in parted)
    joined = replace(
        first,
        p_wrong=np.concatenate([first.p_wrong, other.p_wrong]),
        oof_loss=np.concatenate([first.oof_loss, other.oof_loss]),
        predicted=np.concatenate([first.predicted, other.predicted]),
        confidence=np.concatenate([first.confidence, other.confidence]),
        ambiguous=np.concatenate([first.ambiguous, other.ambiguous]),
        labels=np.concatenate([first.labels, other.labels]),
    )
    return joined, [first.q_values, other.q_values]


def _groups(parts: list[Table]) -> np.ndarray | None:
    """Return the group of every row; a row without one is a group of its own; None where there are none."""
    if parts[0].groups is None:
        return None
    named = []
    for place, part in enumerate(parts):
        alone = [f"\0{place}.{i}" for i in range(len(part))]
        named.append(np.array(alone if part.groups is None else [str(g) for g in part.groups], dtype=object))
    return np.concatenate(named)


def _rows(verdict: LabelVerdict | TargetVerdict, q_wrong: np.ndarray) -> RowLabels:
    p_wrong = verdict.p_wrong if verdict.told else np.full(len(q_wrong), np.nan)
    if isinstance(verdict, LabelVerdict):
        return RowLabels(q_wrong, p_wrong, verdict.oof_loss, verdict.predicted, verdict.confidence)
    return RowLabels(q_wrong, p_wrong, verdict.size, verdict.predicted, np.full(len(q_wrong), np.nan))


def _left_out(held: RowLabels, fdr: float) -> np.ndarray:
    """Return which held-out rows are left out; none where that would be more than half of them."""
    doubtful: np.ndarray = (held.q_wrong <= fdr) | (np.nan_to_num(held.p_wrong) >= 0.5)
    return doubtful if doubtful.mean() <= MOST_LEFT_OUT else np.zeros(len(doubtful), dtype=bool)


def _summary(
    data: ScanData,
    found: OutOfFold,
    verdict: LabelVerdict | TargetVerdict,
    rows: RowLabels,
    left_out: np.ndarray,
    groups: np.ndarray | None,
) -> dict[str, Any]:
    n = len(data.train)
    train = rows.take(np.arange(n))
    first = by_doubt(train.p_wrong, train.oof_loss)[:LISTED]
    classes = found.task == "classification"
    y = np.concatenate([part.y for part in _parts(data)])
    contradicted = rows.predicted != y if classes else rows.oof_loss > 2
    chance = 1 - rows.confidence if classes else np.full(len(y), contradicted.mean())
    expected = float(np.nansum(train.p_wrong[first])), float(contradicted[:n][first].sum())
    return {
        "task": found.task,
        "scores": [vars(s) | {"accuracy": s.accuracy if classes else None} for s in found.scores],
        "used": list(found.used),
        "gain": found.gain,
        "told": bool(verdict.told),
        "tried": found.sentence(),
        "held_out_accuracy": _accuracy(found, y),
        "findings": list(verdict.findings),
        "listed": len(first),
        "expected_wrong": list(expected),
        "planted": "",
        "query_rows": len(data.query),
        "holdout_rows": len(left_out),
        "left_out": int(left_out.sum()),
        "groups": judge_groups(groups, contradicted, chance, rows.oof_loss, told=verdict.told)
        if groups is not None
        else [],
    }


def _accuracy(found: OutOfFold, y: np.ndarray) -> list[float] | None:
    """Return the accuracy of the models used together and of the constant one."""
    if found.task != "classification":
        return None
    constant = next(s.accuracy for s in found.scores if s.name == "constant")
    return [float((found.predicted.argmax(1) == y).mean()), float(constant)]


def _holdout_frame(data: ScanData, held: RowLabels, left_out: np.ndarray) -> pd.DataFrame:
    parts, target = _parts(data)[1:], data.train.target
    roles = ("query", "evaluation") if data.halved else ("query and evaluation",)
    return pd.DataFrame(
        {
            "row_id": [str(i) for part in parts for i in part.ids],
            "role": [role for role, part in zip(roles, parts, strict=True) for _ in range(len(part))],
            "label": [_plain(v) for part in parts for v in part.labels],
            "predicted": [_plain(v) for v in target.decode(held.predicted)],
            "p_wrong": held.p_wrong,
            "oof_loss": held.oof_loss,
            "left_out": left_out,
        }
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, float) else str(value)


def _save(folder: ScanFolder, found: OutOfFold) -> None:
    told = {
        "task": found.task,
        "scores": [vars(score) for score in found.scores],
        "used": list(found.used),
        "gain": found.gain,
    }
    kept = {"predicted": found.predicted} | {
        f"{EACH}{name}": p for name, p in found.each.items() if name in found.used
    }
    with atomic(folder / OUT_OF_FOLD) as part:
        save_file(
            {name: torch.from_numpy(np.array(p, dtype=np.float64, order="C")) for name, p in kept.items()},
            part,
            {"found": json.dumps(told)},
        )


def _read(folder: ScanFolder) -> OutOfFold:
    from safetensors import safe_open

    with folder.reading(OUT_OF_FOLD, LABELS):
        kept = {name: tensor.numpy() for name, tensor in read_tensors(folder / OUT_OF_FOLD).items()}
        with safe_open(folder / OUT_OF_FOLD, framework="pt") as file:
            told = json.loads(file.metadata()["found"])
        scores = tuple(Score(**score) for score in told["scores"])
        each = {name.removeprefix(EACH): p for name, p in kept.items() if name.startswith(EACH)}
        return OutOfFold(told["task"], kept["predicted"], scores, tuple(told["used"]), told["gain"], each)
