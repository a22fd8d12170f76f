"""run_bench: an experiment from its options to a folder of tables, pictures and a page."""

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
        With `tables.md`, `page.html`, a Parquet file for each table and an SVG file for each chart; `index.html` beside
        it leads to all of them. Pages need jinja2; without it there are none, and `tables.md` says the same.
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
    as soon as it is there. The same seeds give the same tables, those of times excepted, and a method excepted whose
    time lies about the limit: it may be left out one day and not the next.
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
        _write_index(out)
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


def _typed(options: BenchOptions, methods: Sequence[str]) -> dict[str, Any]:
    """Return what has to be typed to get the same tables: what they are of, and what is not the default."""
    named = options.methods if isinstance(options.methods, str) else ",".join(methods)
    given = asdict(options) | {"methods": named}
    defaults = {one.name: one.default for one in fields(BenchOptions)} | {"out": given["out"]}
    shown = ("experiment", "data", "methods", "seeds")
    return {name: value for name, value in given.items() if name in shown or value != defaults[name]}


def _write(folder: JobFolder, outcome: Outcome, options: BenchOptions, methods: Sequence[str]) -> None:
    for name, frame in outcome.tables.items():
        write_frame(folder / f"{name}.parquet", frame)
    tables = []
    for place, section in enumerate(outcome.sections, 1):
        tables.append(markdown(section))
        if section.chart is not None:
            write_text(folder / f"chart-{place}.svg", section.chart)
            tables.append(f"![{section.title}](chart-{place}.svg)\n")
    command = command_line("bench", fields(BenchOptions), _typed(options, methods))
    made = ", ".join(f"{name} {version}" for name, version in versions().items())
    notes = [f"Made by: {command}", f"Versions: {made}"]
    title = f"{options.experiment}, {options.data}"
    head = f"# {title}\n\n{outcome.verdict}.\n"
    parts = [head, *tables, "\n\n".join(notes) + "\n"]
    write_text(folder / "tables.md", "\n".join(parts))
    if pages_can_be_made():
        write_text(folder / "page.html", render_sections(title, outcome.verdict, outcome.sections, notes))


def pages_can_be_made() -> bool:
    """Whether jinja2 is installed, of which pages are made."""
    return importlib.util.find_spec("jinja2") is not None


def _verdict_of(path: Path) -> str:
    """Return the verdict of a finished experiment, which another command made: damaged, it is no reason to stop."""
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["verdict"])
    except (OSError, ValueError, KeyError, TypeError):
        return f"{path.name} is damaged; run this experiment again"


def _write_index(out: Path) -> None:
    """Write a page that leads to every finished experiment in the folder."""
    if not pages_can_be_made():
        return
    found = [
        (path.parent.name, _verdict_of(path))
        for path in sorted(out.glob(f"*/{JOB.summary}"))
        if (path.parent / "page.html").exists()
    ]
    section = Section(
        "Experiments", ["experiment and data", "what it showed"], [list(pair) for pair in found],
        ["Each has a page with tables and charts, the same as `tables.md` in its folder, and a Parquet file of the "
         "numbers behind each table."],
        links=[f"{quote(name)}/page.html" for name, _ in found],
    )  # fmt: skip
    count = "one experiment" if len(found) == 1 else f"{len(found)} experiments"
    write_text(out / "index.html", render_sections("benchmark", f"Methods compared in {count}", [section]))
