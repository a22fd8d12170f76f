"""The stages of a scan in their order, and how long each takes beside the others: for one line of progress."""

from pathlib import Path

from finfluence.jobs._folder import RUN
from finfluence.jobs._time_left import Stage
from finfluence.jobs.scan._folder import CHECK, GROUP_CHECK, INFLUENCE, LABELS, OUT_OF_FOLD
from finfluence.jobs.scan._options import ScanOptions

# Seconds on a table of 5,000 rows (benchmarks.scan_time): only their ratios count, until stages were seen.
_READ, _CHOOSE, _JUDGE, _TRAIN, _REPLAY, _CHECK, _REPORT = 0.7, 3.3, 11.0, 0.4, 1.3, 3.0, 0.6
_MODELS_TRIED = 10


def scan_stages(options: ScanOptions) -> list[Stage]:
    """Return the stages that a scan with these options goes through; of one that goes on, also which are done.

    Returns
    -------
    list of Stage

    Examples
    --------
    >>> [stage.name for stage in scan_stages(ScanOptions(source="d.csv", out="out", runs=1))]
    ['read', 'choose a network', 'judge labels', 'train run 1 of 1', 'replay run 1 of 1', 'retraining check', 'report']
    """

    def done(*names: str) -> bool:
        return options.resume and all((Path(options.out) / name).exists() for name in names)

    def runs(count: int, prefix: str = "", place: str = "") -> list[Stage]:
        return [
            Stage(f"{prefix}{what} run {run + 1} of {count}", length, what, done=whole)
            for run in range(count)
            for whole in [done(f"{place}runs/{run:03d}/{INFLUENCE}")]
            for what, length in (("train", _TRAIN), ("replay", _REPLAY))
        ]

    checks = [Stage("retraining check", _CHECK, done=done(CHECK))] if options.proof else []
    if options.proof and options.group_column is not None:
        checks.append(Stage("retrain without groups", _CHECK / 2, done=done(GROUP_CHECK)))
    return [
        Stage("read", _READ),
        Stage("choose a network", _CHOOSE, done=done(RUN)),
        Stage("judge labels", _JUDGE, parts=_MODELS_TRIED, done=done(OUT_OF_FOLD, LABELS)),
        *runs(options.n_runs),
        *checks,
        *(runs(options.n_runs, "self-test: ", "self-test/") if options.self_test else []),
        Stage("report", _REPORT),
    ]
