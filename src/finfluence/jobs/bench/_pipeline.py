"""run_bench: an experiment from its options to a folder of tables, pictures and a page."""

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from finfluence._files import write_text
from finfluence._progress import Progress, silent
from finfluence.ensemble import one_thread
from finfluence.jobs._folder import Job, JobFolder, versions, write_frame
from finfluence.jobs._log import logged, recorded
from finfluence.jobs._words import command_line
from finfluence.jobs.bench._answers import Answers, Limits
from finfluence.jobs.bench._bench import Bench, Outcome
from finfluence.jobs.bench._options import BenchOptions
from finfluence.jobs.bench._registry import data_named, experiment_named, methods_named
from finfluence.report import Section, markdown, render_sections

OPTIONS = "options"
JOB = Job("bench", chosen=(OPTIONS, "versions"))


@dataclass(frozen=True, eq=False)
class BenchResult:
    """A finished benchmark.

    Attributes
    ----------
    folder
        With `tables.md`, `page.html`, a Parquet file for each table and an SVG file for each chart.
    measured
        How many answers of methods were measured now; all others were there already.
    """

    folder: Path
    outcome: Outcome
    measured: int


def run_bench(options: BenchOptions, progress: Progress = silent) -> BenchResult:
    """Run an experiment on a data set with some methods and seeds; whatever was measured before is not again.

    Parameters
    ----------
    options : BenchOptions
        What is run, and where the results go.
    progress : callable
        Called as `progress(stage, done, total)`.

    Returns
    -------
    BenchResult

    Raises
    ------
    ConfigError
        An experiment, data set or method is unknown, or data are not installed.
    DataError
        Data are not installed, or damaged.
    StorageError
        The folder holds something else, cannot be written, or a file in it is damaged.

    Notes
    -----
    A method that cannot be asked, costs too much or fails is a line of the table with its reason, and does not stop the
    others. The same command goes on after an interruption: an answer of a method, and each batch of trainings, is kept
    as soon as it is there. The same seeds give the same tables, those of times excepted.
    """
    experiment = experiment_named(options.experiment)
    data, methods = data_named(options.data), methods_named(options.methods)
    out = Path(options.out)
    folder = JobFolder(out / f"{experiment.name}-{data.name}", JOB)
    folder.prepare(resume=True)
    run = {"format": JOB.format, "version": JOB.version, OPTIONS: _plain(options, methods)}
    folder.start({**run, "versions": versions()})
    folder.note(OPTIONS, run[OPTIONS])
    folder.note("versions", versions())
    with logged(folder / JOB.log) as log, one_thread():
        answers = Answers(out / "answers", Limits(options.most, options.memory * 2**30))
        bench = Bench(options, data, methods, answers, out / "bank", recorded(log, progress))
        outcome: Outcome = experiment.run(bench)
        _write(folder, outcome, options, methods)
        folder.finish({"format": JOB.format, "version": JOB.version, "verdict": outcome.verdict})
    return BenchResult(folder.path, outcome, answers.measured)


def listing() -> list[Section]:
    """Return what there is: experiments, data sets with the command that installs them, methods and tools."""
    from finfluence.estimators import methods
    from finfluence.jobs.bench._registry import DATA, EXPERIMENTS
    from finfluence.jobs.bench._tools import TOOLS

    experiments = [experiment_named(name) for name in EXPERIMENTS]
    data = [data_named(name) for name in DATA]
    tools = [
        [name, "rows", "score", (tool.__doc__ or "").splitlines()[0].rstrip(".")]
        for name, tool in TOOLS.items()
    ]
    return [
        Section("Experiments", ["name", "what it shows"], [[e.name, e.summary] for e in experiments]),
        Section("Data", ["name", "rows", "what it is"], [
            [d.name, f"{d.rows:,}", f"{d.summary}; installed by: {d.install}"] for d in data
        ]),
        Section("Methods", ["name", "needs", "gives", "what it does"], [
            *([m.name, m.needs, m.yields, m.summary] for m in methods()), *tools,
        ]),
    ]  # fmt: skip


def _plain(options: BenchOptions, methods: Sequence[str]) -> dict[str, Any]:
    return {**asdict(options), "methods": list(methods), "out": str(options.out)}


def _write(folder: JobFolder, outcome: Outcome, options: BenchOptions, methods: Sequence[str]) -> None:
    for name, frame in outcome.tables.items():
        write_frame(folder / f"{name}.parquet", frame)
    for place, section in enumerate(outcome.sections):
        if section.chart is not None:
            write_text(folder / f"chart-{place + 1}.svg", section.chart)
    values = asdict(options) | {
        "methods": options.methods if isinstance(options.methods, str) else ",".join(methods)
    }
    command = command_line("bench", fields(BenchOptions), values)
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    notes = [f"Made by: {command}", f"Versions: {made}"]
    title = f"{options.experiment}, {options.data}"
    head = f"# {title}\n\n{outcome.verdict}.\n"
    parts = [head, *(markdown(s) for s in outcome.sections), "\n\n".join(notes) + "\n"]
    write_text(folder / "tables.md", "\n".join(parts))
    if importlib.util.find_spec("jinja2") is not None:
        write_text(folder / "page.html", render_sections(title, outcome.verdict, outcome.sections, notes))
