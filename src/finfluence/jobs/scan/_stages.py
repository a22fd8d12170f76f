"""The stages of a scan in their order, and how long each takes beside the others: for one line of progress."""

from finfluence.jobs._time_left import Stage
from finfluence.jobs.scan._options import ScanOptions

# Seconds on a table of 5,000 rows (benchmarks.scan_time): only their ratios count, until stages were seen.
_READ, _CHOOSE, _JUDGE, _TRAIN, _REPLAY, _CHECK, _REPORT = 0.7, 3.3, 11.0, 0.4, 1.3, 3.0, 0.6
_MODELS_TRIED = 10


def scan_stages(options: ScanOptions) -> list[Stage]:
    """Return the stages that a scan with these options goes through.

    Returns
    -------
    list of Stage

    Examples
    --------
    >>> [stage.name for stage in scan_stages(ScanOptions(source="d.csv", out="out", runs=1))]
    ['read', 'choose a network', 'judge labels', 'train run 1 of 1', 'replay run 1 of 1', 'retraining check', 'report']
    """
    runs = _runs(options.n_runs, "")
    checks = [Stage("retraining check", _CHECK)] if options.proof else []
    if options.proof and options.group_column is not None:
        checks.append(Stage("retrain without groups", _CHECK / 2))
    return [
        Stage("read", _READ),
        Stage("choose a network", _CHOOSE),
        Stage("judge labels", _JUDGE, parts=_MODELS_TRIED),
        *runs,
        *checks,
        *(_runs(options.n_runs, "self-test: ") if options.self_test else []),
        Stage("report", _REPORT),
    ]


def _runs(count: int, prefix: str) -> list[Stage]:
    return [
        stage
        for run in range(1, count + 1)
        for stage in (
            Stage(f"{prefix}train run {run} of {count}", _TRAIN, "train"),
            Stage(f"{prefix}replay run {run} of {count}", _REPLAY, "replay"),
        )
    ]
