"""mitigate: three heads on features that no training changes any more, and which of them to use."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finfluence._files import write_json
from finfluence._progress import Progress, silent
from finfluence.ensemble import one_thread
from finfluence.errors import ConfigError, DataError, StorageError, explain
from finfluence.ingest import RawTable, Table, read, split
from finfluence.jobs._folder import kind_of
from finfluence.jobs._log import logged, recorded
from finfluence.jobs._words import change
from finfluence.jobs.scan._chapters import Chapter, mitigation_chapter
from finfluence.jobs.scan._decisions import from_table, read_lines
from finfluence.jobs.scan._estimate import Context
from finfluence.jobs.scan._folder import HEAD, LOG, MITIGATION, ScanFolder
from finfluence.jobs.scan._frozen import features, frozen
from finfluence.jobs.scan._options import MitigateOptions
from finfluence.jobs.scan._reopened import reopen
from finfluence.jobs.scan._rewritten import rewrite_page
from finfluence.jobs.scan._versions import answers, held_out, original, run_seeds
from finfluence.mitigate import HEADS, HeadComparison, HeadOptions, compare_heads, nmtune, save_head, spectrum
from finfluence.stats import crossed_interval

NAMES = {"linear": "linear probe", "mlp": "MLP", "nmtune": "NMTune"}


@dataclass(frozen=True, eq=False)
class Mitigation:
    """Heads on frozen features, compared on rows that took no part.

    Attributes
    ----------
    sentence : str
        Which head to use, and what it gains.
    head : str
        "linear", "mlp" or "nmtune": the one that was written to `head.safetensors`.
    found : dict
        Accuracy of each head with its interval, differences, singular value spectra, numbers of rows.
    """

    sentence: str
    head: str
    found: dict[str, Any]

    @property
    def chapter(self) -> Chapter:
        """The same as a chapter of the report: sentence, tables, findings."""
        return mitigation_chapter(vars(self))


def mitigate_scan(options: MitigateOptions, progress: Progress = silent) -> Mitigation:
    """Train a linear probe, an MLP and NMTune on frozen features, and write down which does best on held-out rows.

    Of a scan's folder, the features are the last hidden layer of its network, trained on the rows as they are (of a
    scanned `.npz` file its own features); heads see the rows that are not named, and are judged on held-out rows that
    took no part in the decision. Of an `.npz` file of features `x` and labels `y`, a fifth is held out.

    Parameters
    ----------
    options
        What to train on, where to write, how many heads of each kind.
    progress
        Called as `progress("heads", done, total)`.

    Returns
    -------
    Mitigation
        Also in `mitigation.json`, beside `head.safetensors` (`finfluence.mitigate.load_head`).

    Raises
    ------
    StorageError
        A folder without a finished scan, or one that cannot be written.
    ConfigError
        The network keeps no features, or an option does not fit the source.
    DataError
        The data cannot be used, or has changed since the scan.
    """
    path = Path(options.source)
    with one_thread():
        if path.is_dir() or not path.suffix:
            return _of_scan(options, progress)
        return _of_file(options, progress)


def _of_scan(options: MitigateOptions, progress: Progress) -> Mitigation:
    given = [name for name in ("out", "target", "holdout") if getattr(options, name) is not None]
    if given and kind_of(options.source) == "scan":
        raise ConfigError(
            explain(
                "a scan's folder alone",
                f"--{given[0]} beside it",
                "the folder says which data, which target and where to write",
                f"leave --{given[0]} out, or name the .npz file of features in place of the folder",
            )
        )
    folder = ScanFolder(options.source)
    scan = reopen(folder)
    with logged(folder / LOG) as log:
        context = Context(scan.training, scan.data, folder, recorded(log, progress))
        of, train, held = frozen(context), scan.data.train, scan.data.evaluation
        if isinstance(of, str):
            raise ConfigError(
                explain(
                    "a scan whose network has features to keep",
                    of,
                    "heads are trained on what an encoder makes of a row",
                    "encode the rows yourself and name an .npz file of features x and labels y",
                )
            )
        frame = from_table(read_lines(folder), dict(scan.summary), scan.options.fdr).frame
        named = frame["flagged"].to_numpy(dtype=bool)
        seeds = run_seeds(scan.options.seed, 1)
        x, z = features(context, of, [train.x, held.x], seeds)[0]
        outputs = answers(context, [original(context, seeds)], [held_out(held)], "features")[0]
        as_trained = float(next(iter(outputs.values()))[0, len(held) :].mean()) if of.width else None
        y = train.target.decode(train.y), held.target.decode(held.y)
        found = _compared((x[~named], y[0][~named]), (z, y[1]), options, context.progress)
        about = {"features": of.what, "named_rows": int(named.sum()), "as_trained": as_trained}
        done = _written(found, (x[~named], y[0][~named]), about, options, folder.path)
        rewrite_page(scan)
        log.info("mitigation: %s", done.sentence)
    return done


def _of_file(options: MitigateOptions, progress: Progress) -> Mitigation:
    if options.out is None:
        raise ConfigError(
            explain(
                "a folder for the outcome",
                "none",
                "a file of features has no folder of its own, as a scan has",
                "name a new or empty folder by --out",
            )
        )
    raw = read(options.source, target=options.target, task="classification")
    if raw.kind != "arrays":
        raise DataError(
            explain(
                "an .npz file of features x (rows × features) and labels y",
                f"{raw.kind} in {raw.source.name}",
                "rows that no encoder has seen yet",
                "encode them and save by numpy.savez(path, x=features, y=labels), or scan the file first",
            )
        )
    train, held = split(raw, options.holdout, None, options.seed)
    out = Path(os.path.abspath(options.out))
    if out.exists() and (not out.is_dir() or {p.name for p in out.iterdir()} - {MITIGATION, HEAD}):
        raise StorageError(
            explain(
                f"a new or empty folder at {out}",
                "other files, which were not touched",
                "the folder was used for something else",
                "name another folder by --out",
            )
        )
    out.mkdir(parents=True, exist_ok=True)
    beside = raw if options.holdout is None else read(options.holdout, target=options.target, task=raw.task)
    rows, others = _as_given(raw, train), _as_given(beside, held)
    found = _compared(rows, others, options, progress)
    about = {"features": f"the features of {raw.source.name}", "named_rows": 0, "as_trained": None}
    return _written(found, rows, about, options, out)


def _as_given(raw: RawTable, part: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return the features of a part as they stand in its file (a head takes them so), and its labels."""
    assert raw.array is not None
    return raw.array[part.ids], part.target.decode(part.y)


def _compared(
    rows: tuple[np.ndarray, np.ndarray],
    held: tuple[np.ndarray, np.ndarray],
    options: MitigateOptions,
    progress: Progress,
) -> HeadComparison:
    seeds = [options.seed + k for k in range(options.heads)]
    plain = [(x, np.array([str(v) for v in y])) for x, y in (rows, held)]
    return compare_heads(
        plain[0], plain[1], seeds=seeds, options=HeadOptions(epochs=options.epochs), progress=progress
    )


def _written(
    found: HeadComparison,
    rows: tuple[np.ndarray, np.ndarray],
    about: dict[str, Any],
    options: MitigateOptions,
    out: Path,
) -> Mitigation:
    best = found.best
    head = nmtune(
        rows[0],
        np.array([str(v) for v in rows[1]]),
        kind=best,
        options=HeadOptions(epochs=options.epochs),
        seed=options.seed,
    )
    save_head(head, out / HEAD)
    heads = []
    linear = found.right[HEADS.index("linear")].astype(float)
    for i, kind in enumerate(found.kinds):
        right = found.right[i].astype(float)
        pair = {"value": found.difference, "lower": found.lower, "upper": found.upper}
        gain = (
            None if kind == "linear" else pair if kind == "nmtune" else _interval(right - linear, found.level)
        )
        heads.append(
            {"kind": kind, "name": NAMES[kind], "accuracy": _interval(right, found.level), "gain": gain}
        )
    known = spectrum(rows[0])
    plain = {
        **about,
        "training_rows": len(rows[0]),
        "held_out_rows": found.right.shape[2],
        "dimensions": rows[0].shape[1],
        "seeds": found.right.shape[1],
        "level": found.level,
        "mu": found.mu if np.isfinite(found.mu) else None,
        "heads": heads,
        "spectra": [
            {"of": name, "entropy": s.entropy, "dominance": s.dominance}
            for name, s in (
                ("training features, as given", known),
                ("held-out features, standardised", found.before),
                ("what NMTune makes of them", found.after),
            )
        ],
    }
    done = Mitigation(_sentence(found, plain), best, plain)
    write_json(out / MITIGATION, vars(done))
    return done


def _interval(values: np.ndarray, level: float) -> dict[str, float]:
    made = crossed_interval(values, level=level)
    return {"value": float(made.estimate), "lower": float(made.lower), "upper": float(made.upper)}


def _sentence(found: HeadComparison, plain: dict[str, Any]) -> str:
    against = {"value": found.difference, "lower": found.lower, "upper": found.upper}
    does = change("held-out accuracy", against, scale=100, unit="points")
    on = f"On {plain['held_out_rows']:,} held-out rows that took no part"
    beside = "beside the linear probe" if found.lower * found.upper > 0 else "against the linear probe"
    if found.best == "mlp":
        gain = next(h["gain"] for h in plain["heads"] if h["kind"] == "mlp")
        of_mlp = change("held-out accuracy", gain, scale=100, unit="points")
        return f"Use the MLP: {on.lower()}, it {of_mlp}, and NMTune {does}, {beside}."
    if found.best == "nmtune":
        return f"Use the NMTune head: {on.lower()}, it {does} {beside}."
    return f"Use the linear probe: {on.lower()}, NMTune {does} {beside}."
