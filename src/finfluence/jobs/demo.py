"""A demonstration with a known answer: digits with planted label errors, scanned, cleaned and counted."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from finfluence._files import write_json, write_text
from finfluence._progress import Progress, silent
from finfluence._seeds import stream
from finfluence.clean import Written
from finfluence.errors import StorageError, explain
from finfluence.evaluate import average_precision, false_discovery_proportion, recall_flagged
from finfluence.ingest import digits_frame, plant_label_errors
from finfluence.jobs.scan import ScanOptions, ScanResult, clean_scan, line_tests, run_scan
from finfluence.labels import by_doubt
from finfluence.stats import name_rows

ERROR_SHARE = 0.1
HELD_OUT = 797


@dataclass(frozen=True, eq=False)
class Prepared:
    """Files of the demo, and which rows carry a planted error."""

    train: Path
    holdout: Path
    out: Path
    cleaned: Path
    planted: np.ndarray
    n_rows: int
    runs: int
    check_runs: int

    @property
    def options(self) -> ScanOptions:
        """Options of the scan."""
        return ScanOptions(
            source=self.train, target="label", holdout=self.holdout, out=self.out,
            runs=self.runs, proof_runs=self.check_runs,
        )  # fmt: skip

    @property
    def command(self) -> list[str]:
        """The command that does the same by hand."""
        return [
            "finfluence", "scan", str(self.train), "--target", "label", "--holdout", str(self.holdout),
            "--out", str(self.out), "--runs", str(self.runs), "--proof-runs", str(self.check_runs),
        ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class Found:
    """What the demo found: the scan, the cleaned file, and how many planted errors were named."""

    result: ScanResult
    written: Written
    sentence: str
    table: list[list[str]]


def prepare(out: str | os.PathLike[str], short: bool = False, seed: int = 0) -> Prepared:
    """Write `digits.csv` with planted errors and `digits-holdout.csv` without into a new or empty folder.

    Returns
    -------
    Prepared

    Raises
    ------
    StorageError
        The folder is not empty.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(
            explain(
                f"a new or empty folder at {folder}",
                "one with files in it" if folder.is_dir() else "a file",
                "an earlier demo",
                "choose another folder by --out, or remove that one",
            )
        )
    frame = digits_frame()
    order = stream(seed, "demo rows").permutation(len(frame))
    held, rows = order[:HELD_OUT], order[HELD_OUT:]
    train = frame.iloc[rows[:700] if short else rows].reset_index(drop=True)
    dirty, planted = plant_label_errors(train, ERROR_SHARE, seed=seed)
    prepared = Prepared(
        folder / "digits.csv", folder / "digits-holdout.csv", folder / "scan", folder / "digits-cleaned.csv",
        planted, len(train), 2 if short else 4, 6 if short else 20,
    )  # fmt: skip
    write_text(prepared.train, dirty.to_csv(index=False, lineterminator="\n"))
    write_text(prepared.holdout, frame.iloc[held].to_csv(index=False, lineterminator="\n"))
    answer = pd.DataFrame({"row_id": planted, "true_label": train["label"].to_numpy()[planted]})
    write_text(folder / "planted-errors.csv", answer.to_csv(index=False, lineterminator="\n"))
    return prepared


def flagged_by(lines: pd.DataFrame, fdr: float, tests: int) -> np.ndarray:
    """Return whether influence names each line, and whether what is said of its label does [2, n]."""
    return name_rows(line_tests(lines), fdr, paid=tests).flagged_by


def run(prepared: Prepared, progress: Progress = silent) -> Found:
    """Scan, clean, and count the planted errors that were named."""
    result = run_scan(
        prepared.options,
        progress,
    )
    written = clean_scan(prepared.out, prepared.cleaned)
    lines = result.lines[result.lines["query"] == "held-out"].sort_values("row_id")
    planted = np.isin(lines["row_id"], prepared.planted)
    named = lines["flagged"].to_numpy()
    fdr = float(result.summary["fdr"])
    by_influence, by_loss = flagged_by(lines, fdr, int(result.summary["voices"]))
    rows = [
        ("influence and labels together", None, named),
        ("influence alone", -lines["mu"].to_numpy(), by_influence),
        (
            "labels out of fold alone",
            -np.argsort(by_doubt(lines["p_wrong"].to_numpy(), lines["oof_loss"].to_numpy())),
            by_loss,
        ),
        ("own loss at the end of training", lines["own_loss"].to_numpy(), None),
        ("chance", stream(0, "demo chance").random(len(lines)), None),
    ]
    table = [
        [
            name,
            "" if score is None else f"{average_precision(score, planted):.3f}",
            "" if flags is None else f"{int((flags & planted).sum())} of {int(planted.sum())}",
            "" if flags is None else f"{int((flags & ~planted).sum())} of {int(flags.sum())}",
        ]
        for name, score, flags in rows
    ]
    found = int((named & planted).sum())
    share = false_discovery_proportion(named, planted)
    sentence = (
        f"{found} of {int(planted.sum())} planted errors were found ({100 * recall_flagged(named, planted):.0f} %); "
        f"of {int(named.sum())} named rows {int((named & ~planted).sum())} are no planted errors "
        f"({100 * share:.1f} %; asked for at most {100 * fdr:.0f} % false names)."
    )
    write_json(
        prepared.out.parent / "demo.json",
        {"sentence": sentence, "table": table, "proof": result.summary["proof"]},
    )
    return Found(result, written, sentence, table)
