"""Commands and their options. Everything heavy is imported inside the commands, so that `--help` stays quick."""

from contextlib import AbstractContextManager
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from finfluence.cli._columns import show_columns, with_columns
from finfluence.cli._errors import reported
from finfluence.cli._from_options import Quiet, takes
from finfluence.cli._screen import Screen
from finfluence.jobs.bench import BenchOptions
from finfluence.jobs.scan import AssessOptions, DecideOptions, MitigateOptions, ScanOptions, VerifyOptions
from finfluence.jobs.tune import TuneOptions

app = typer.Typer(
    name="finfluence",
    help="Which training rows made a model worse, and how sure one can be of it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    app(prog_name="finfluence")


def _version(asked: bool) -> None:
    if asked:
        import finfluence

        typer.echo(f"finfluence {finfluence.__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Which training rows made a model worse, and how sure one can be of it."""


@app.command()
@with_columns
@takes(ScanOptions)
def scan(quiet: bool, columns: bool, **given: Any) -> None:
    """Find the rows that make a model worse, and check it by training without them."""
    screen, out = Screen(quiet), given["out"]
    if columns:
        with reported():
            show_columns(screen, given)
        return
    if out is None:
        raise typer.BadParameter("a folder for the results is needed", param_hint="--out")
    goes_on = f"The same command with --resume goes on; everything finished so far is in {out}."
    with reported(goes_on, out / "scan.log"):
        from finfluence.cli._numbers import number
        from finfluence.cli._shown import next_commands, show_result
        from finfluence.jobs.scan import read_run, run_scan, scan_stages

        options = ScanOptions(**_filled(ScanOptions, given, budget=number(given["budget"], "--budget")))
        with screen.progress(scan_stages(options)) as progress:
            result = run_scan(options, progress, screen.say)
        show_result(screen, result)
        next_commands(screen, result, read_run(out))


@app.command()
@takes(TuneOptions)
def tune(quiet: bool, **given: Any) -> None:
    """Tune a language model, and find the rows that made it behave as it does."""
    screen, out = Screen(quiet), given["out"]
    goes_on = f"The same command with --resume goes on; everything finished so far is in {out}."
    with reported(goes_on, out / "tune.log"):
        from finfluence.cli._numbers import number
        from finfluence.cli._tune import show_tune
        from finfluence.jobs.tune import run_tune

        options = TuneOptions(**_filled(TuneOptions, given, budget=number(given["budget"], "--budget")))
        with screen.progress() as progress:
            result = run_tune(options, progress)
        show_tune(screen, result)


@app.command()
def clean(
    out: Annotated[Path, typer.Argument(help="Folder of a finished scan or tuning.")],
    to: Annotated[Path, typer.Option(help="New file to write; its audit is written beside it.")],
    fdr: Annotated[
        float | None,
        typer.Option(help="Another false-discovery rate than the scan's.", show_default="the scan's"),
    ] = None,
    action: Annotated[
        str | None,
        typer.Option(
            help="drop all named rows, relabel those with a suggested label, or review (change nothing, write the "
            "audit).",
            show_default="each row's own suggestion",
        ),
    ] = None,
    escape_formulas: Annotated[
        bool,
        typer.Option(
            "--escape-formulas", help="Put an apostrophe before cells that a spreadsheet would run."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file and an audit that are there already.")
    ] = False,
    even_if_worse: Annotated[
        bool,
        typer.Option("--even-if-worse", help="Write although training again on the cleaned rows did worse."),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Write although a class loses more than a fifth of its rows.")
    ] = False,
    group: Annotated[
        str | None,
        typer.Option(help="Drop all rows of this group and change nothing else.", show_default="single rows"),
    ] = None,
    top: Annotated[
        float | None,
        typer.Option(
            help="Of a tuning: drop this share of the rows, from the top of its ranking.", show_default="none"
        ),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write the scanned file without the rows that do damage, and say what was done to which row."""
    screen = Screen(quiet)
    with reported():
        from finfluence.clean import CleanOptions
        from finfluence.cli._shown import show_verified
        from finfluence.jobs import kind_of
        from finfluence.jobs.scan import open_scan

        options = CleanOptions(
            action=cast(Any, action or "suggested"), fdr=fdr, escape_formulas=escape_formulas, force=force,
            even_if_worse=even_if_worse, yes=yes, group=group,
        )  # fmt: skip
        if kind_of(out) == "tune":
            from finfluence.cli._tune import clean_folder

            clean_folder(screen, out, to, options, top)
            return
        _only_of_tunings(top)
        result = open_scan(out)
        done = result.clean(to, **vars(options))
        screen.always(
            f"{done.path}: {done.kept:,} rows; {done.dropped:,} dropped, {done.relabelled:,} relabelled, "
            f"{done.review:,} left for review.",
            "bold",
        )
        screen.say(f"What was done to which row, and why: {done.audit_path}")
        if result.summary["holdout_in_source"]:
            judged = (result.folder / "holdout_labels.parquet").exists()
            screen.say(
                "Held-out rows are in the file as they were"
                + (": their labels stand in holdout_labels.parquet." if judged else ".")
            )
        for warning in done.warnings:
            screen.say(f"note: {warning}")
        show_verified(screen, result.summary)


@app.command()
def show(
    out: Annotated[Path, typer.Argument(help="Folder of a finished scan or tuning.")],
    query: Annotated[
        str | None,
        typer.Option(help="Query to rank by.", show_default="held-out; of a tuning: its first behaviour"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of rows.")] = 20,
    review: Annotated[
        bool, typer.Option("--review", help="Rank by how doubtful the label is, for a person to look at.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Print the verdict and the worst rows of a finished scan."""
    screen = Screen(quiet)
    with reported():
        from finfluence.cli._shown import next_commands, show_result, show_review
        from finfluence.jobs import kind_of
        from finfluence.jobs.scan import open_scan, read_run

        if kind_of(out) == "tune":
            from finfluence.cli._tune import show_folder

            show_folder(screen, out, top, query)
            return
        query = query or "held-out"
        result = open_scan(out)
        result.worst(1, query)
        if review:
            show_review(screen, result, top)
            return
        show_result(screen, result, top, query)
        next_commands(screen, result, read_run(out))


@app.command()
@takes(VerifyOptions, out=Annotated[Path, typer.Argument(help="Folder of a finished scan or tuning.")])
def verify(out: Path, quiet: bool, **given: Any) -> None:
    """Hold a scan's estimates against retraining: whether their order and their size can be trusted."""
    screen = Screen(quiet)
    with _training_again(out, "verify"):
        from finfluence.cli._shown import show_plan, show_verification
        from finfluence.jobs import kind_of
        from finfluence.jobs.scan import verify_scan

        options = VerifyOptions(**_filled(VerifyOptions, given))
        if kind_of(out) == "tune":
            from finfluence.cli._tune import verify_folder

            verify_folder(screen, out, options)
            return
        with screen.progress() as progress:
            done = verify_scan(out, options, announce=partial(show_plan, screen), progress=progress)
        show_verification(screen, done, out)


@app.command()
@takes(
    BenchOptions,
    listed=Annotated[bool, typer.Option("--list", help="Print experiments, data and methods, and stop.")],
)
def bench(listed: bool, quiet: bool, **given: Any) -> None:
    """Compare methods on the same problem: find wrong labels, agree with retraining, agree with themselves."""
    screen, out = Screen(quiet), given["out"]
    with reported(f"The same command goes on; everything finished so far is kept in {out}."):
        from finfluence.cli._bench import show_bench, show_listing
        from finfluence.jobs.bench import run_bench

        if listed:
            show_listing(screen)
            return
        options = BenchOptions(**_filled(BenchOptions, given))
        with screen.progress() as progress:
            result = run_bench(options, progress)
        show_bench(screen, result)


@app.command()
@takes(DecideOptions, out=Annotated[Path, typer.Argument(help="Folder of a finished scan or tuning.")])
def decide(out: Path, quiet: bool, **given: Any) -> None:
    """Recommend what to do: keep, drop, relabel, reweight or mitigate, whichever does best in training again."""
    screen = Screen(quiet)
    with _training_again(out, "proof"):
        from finfluence.cli._decided import show_advice, show_command
        from finfluence.jobs import kind_of
        from finfluence.jobs.scan import decide_scan

        options = DecideOptions(**_filled(DecideOptions, given))
        if kind_of(out) == "tune":
            from finfluence.cli._tune import decide_folder

            decide_folder(screen, out, options)
            return
        with screen.progress() as progress:
            advice = decide_scan(out, options, progress)
        show_advice(screen, advice)
        show_command(screen, out, advice)


@app.command()
@takes(AssessOptions, out=Annotated[Path, typer.Argument(help="Folder of a finished scan.")])
def assess(out: Path, quiet: bool, **given: Any) -> None:
    """Estimate how right the model is on rows without labels, before and after cleaning."""
    screen = Screen(quiet)
    with _training_again(out, "proof"):
        _only_of_scans(out, "accuracy without labels is of classes, and a language model predicts none")
        from finfluence.cli._shown import show_chapter
        from finfluence.jobs.scan import assess_scan

        with screen.progress() as progress:
            found = assess_scan(out, AssessOptions(**_filled(AssessOptions, given)), progress)
        show_chapter(screen, found.chapter, strong=True)


@app.command()
@takes(MitigateOptions)
def mitigate(quiet: bool, **given: Any) -> None:
    """Train a new head on frozen features, for rows that cannot be taken back: NMTune, if it surely helps."""
    screen = Screen(quiet)
    with reported("The same command starts again."):
        _only_of_scans(
            given["source"],
            "a language model's head is its vocabulary, and the heads of mitigate are for classes",
        )
        from finfluence.cli._shown import show_chapter
        from finfluence.jobs.scan import mitigate_scan

        options = MitigateOptions(**_filled(MitigateOptions, given))
        with screen.progress() as progress:
            done = mitigate_scan(options, progress)
        show_chapter(screen, done.chapter, strong=True)
        screen.say(
            f"Head: {Path(options.out or options.source) / 'head.safetensors'} (fi.mitigate.load_head)"
        )


@app.command()
def demo(
    short: Annotated[bool, typer.Option("--short", help="Fewer rows and runs: under a minute.")] = False,
    out: Annotated[Path, typer.Option(help="New or empty folder for everything.")] = Path("demo-out"),
    quiet: Quiet = False,
) -> None:
    """Plant label errors into handwritten digits, scan them, clean them, and count what was found."""
    screen = Screen(quiet)
    with reported():
        from finfluence.cli._demo import run_demo

        run_demo(screen, out, short)


def _only_of_tunings(top: float | None) -> None:
    """Raise if a scan is asked for the top of a ranking, which it does not have."""
    if top is not None:
        from finfluence.errors import ConfigError, explain

        raise ConfigError(
            explain(
                "--top for a tuning's folder only",
                "a scan's",
                "scans name rows at an error rate",
                "use --fdr",
            )
        )


def _only_of_scans(out: Path, why: str) -> None:
    """Raise if a tuning is asked what only a classification has an answer to."""
    from finfluence.jobs import kind_of

    if kind_of(out) == "tune":
        from finfluence.errors import ConfigError, explain

        raise ConfigError(
            explain(
                "the folder of a scan",
                f"that of a tuning, {out}",
                why,
                "ask finfluence decide what to do with a tuning's rows; --behaviour FILE has prompts that took no part",
            )
        )


def _training_again(out: Path, place: str) -> AbstractContextManager[None]:
    """Report what goes wrong in a command that goes on with the trainings it has finished."""
    from finfluence.jobs import kind_of

    tuned = kind_of(out) == "tune"
    place = "retuned" if tuned and place == "proof" else place
    kept = f"The same command goes on; finished trainings are kept in {out / place}."
    return reported(kept, out / ("tune.log" if tuned else "scan.log"))


def _filled(options: Any, given: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """Return what was typed as the options class takes it: several values as a tuple, none as its default."""
    defaults = {field.name: field.default for field in fields(options)}
    values = {**given, **changed}
    return {
        name: (tuple(values[name]) if values[name] else default)
        if isinstance(default, tuple)
        else values[name]
        for name, default in defaults.items()
    }
