"""Commands and their options. Everything heavy is imported inside the commands, so that `--help` stays quick."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from finfluence.cli._errors import told
from finfluence.cli._screen import Screen

app = typer.Typer(
    name="finfluence",
    help="Which training rows made a model worse, and how sure one can be of it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    app()


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


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the verdict only.")]


@app.command()
def scan(
    source: Annotated[
        str,
        typer.Argument(
            help="CSV, TSV, Parquet, JSON lines or .npz file; a folder of images by class; "
            "or a built-in set: digits, fashion-mnist."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for all results (new or empty).")],
    target: Annotated[
        str | None, typer.Option(help="Column with the label or the number to predict.")
    ] = None,
    holdout: Annotated[
        Path | None, typer.Option(help="File or folder with held-out rows, checked if you can.")
    ] = None,
    holdout_fraction: Annotated[
        float | None, typer.Option(help="Share of rows to hold out.", show_default="0.2")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option("--id", help="Column with unique row ids; else row numbers from 0.")
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option("--group", help="Column with groups (source, annotator): measured as a whole, too."),
    ] = None,
    task: Annotated[str, typer.Option(help="auto, classification or regression.")] = "auto",
    query: Annotated[
        list[str] | None,
        typer.Option(
            help="What to ask beside the mean held-out loss (always asked): per-class asks the held-out loss of each "
            "class, own asks how much the 32 worst-fitted rows rely on having been seen. May be repeated.",
            show_default="held-out",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="auto (images: cnn, else mlp), linear, mlp, cnn or package.module:factory.")
    ] = "auto",
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the rows.", show_default="by the number of rows")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows per step.", show_default="by the number of rows")
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate.", show_default="adamw 0.001, linear 0.005, sgd 0.05")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="sgd or adamw.")] = "adamw",
    runs: Annotated[
        int | None,
        typer.Option(
            help="Trainings to record and replay; each costs about four trainings. With 1 the initialisation is fixed "
            "and the spread covers the batch order; with more each draws its own, and the spread covers both.",
            show_default="4, or by --budget",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="What the estimate may cost, in multiples of one training (such as 16): to train and replay all runs. "
            "Sets the number of runs (one for every 4, unless --runs is given) and how closely each is replayed. The "
            "proof and the self-test come on top.",
            show_default="none",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same numbers.")] = 0,
    fdr: Annotated[float, typer.Option(help="Accepted share of false names among the named rows.")] = 0.1,
    proof: Annotated[
        bool,
        typer.Option(
            "--proof/--no-proof", help="Train again on the original, cleaned and randomly thinned rows."
        ),
    ] = True,
    proof_runs: Annotated[
        int | None,
        typer.Option(help="Trainings for each of the three.", show_default="20, fewer above 5,000 rows"),
    ] = None,
    self_test: Annotated[
        bool,
        typer.Option(
            "--self-test",
            help="Train and replay once more with planted neutral rows, and print how many do not come out neutral.",
        ),
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted scan.")] = False,
    keep_tapes: Annotated[
        bool, typer.Option("--keep-tapes", help="Keep the recorded trainings (up to 1 GiB each).")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Find the rows that make a model worse, and prove it by training without them."""
    screen = Screen(quiet)
    goes_on = f"The same command with --resume goes on; everything finished so far is in {out}."
    with told(goes_on, out / "scan.log"):
        from finfluence.cli._numbers import number
        from finfluence.cli._shown import next_commands, show_result
        from finfluence.jobs.scan import ScanOptions, read_run
        from finfluence.jobs.scan import scan as run_scan

        options = ScanOptions(
            source=source, out=out, target=target, holdout=holdout, holdout_fraction=holdout_fraction,
            id_column=id_column, group_column=group_column, task=task, queries=tuple(query or ("held-out",)),
            model=model, epochs=epochs, batch_size=batch_size, lr=lr, optimizer=optimizer, runs=runs,
            budget=number(budget, "--budget"), seed=seed, fdr=fdr, proof=proof, proof_runs=proof_runs,
            self_test=self_test, resume=resume, keep_tapes=keep_tapes,
        )  # fmt: skip
        with screen.progress() as progress:
            result = run_scan(options, progress, screen.say)
        show_result(screen, result)
        next_commands(screen, result, read_run(out))


@app.command()
def clean(
    out: Annotated[Path, typer.Argument(help="Folder of a finished scan.")],
    to: Annotated[Path, typer.Option(help="File to write; its audit is written beside it.")],
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
    quiet: Quiet = False,
) -> None:
    """Write the scanned file without the rows that do damage, and say what was done to which row."""
    screen = Screen(quiet)
    with told():
        from finfluence.cli._shown import show_verified
        from finfluence.jobs.scan import clean_scan, open_scan

        done = clean_scan(
            out,
            to,
            fdr=fdr,
            action=cast(Any, action or "suggested"),
            escape_formulas=escape_formulas,
        )
        result = open_scan(out)
        screen.always(
            f"{done.path}: {done.kept:,} rows; {done.dropped:,} dropped, {done.relabelled:,} relabelled, "
            f"{done.review:,} left for review.",
            "bold",
        )
        screen.say(f"What was done to which row, and why: {done.audit_path}")
        if result.summary["holdout_in_source"]:
            screen.say("Held-out rows are in the file as they were: nothing was measured on them.")
        for warning in done.warnings:
            screen.say(f"note: {warning}")
        show_verified(screen, result.summary)


@app.command()
def show(
    out: Annotated[Path, typer.Argument(help="Folder of a finished scan.")],
    query: Annotated[str, typer.Option(help="Query to rank by.")] = "held-out",
    top: Annotated[int, typer.Option(min=1, help="Number of rows.")] = 20,
    quiet: Quiet = False,
) -> None:
    """Print the verdict and the worst rows of a finished scan."""
    screen = Screen(quiet)
    with told():
        from finfluence.cli._shown import next_commands, show_result
        from finfluence.jobs.scan import open_scan, read_run
        from finfluence.result import one_of

        result = open_scan(out)
        one_of(query, result.summary["queries"], "query")
        show_result(screen, result, top, query)
        next_commands(screen, result, read_run(out))


@app.command()
def verify(
    out: Annotated[Path, typer.Argument(help="Folder of a finished scan.")],
    subsets: Annotated[
        int,
        typer.Option(
            help="Groups of rows to train without: from the top, the bottom and the middle of the estimate, and random."
        ),
    ] = 24,
    runs: Annotated[
        int, typer.Option(help="Trainings without each; on all rows √subsets times as many.")
    ] = 100,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time to spend, such as 90s, 10m or 1h30m: runs, then subsets, are reduced to fit it.",
            show_default="none",
        ),
    ] = None,
    query: Annotated[
        list[str] | None,
        typer.Option(help="Query to verify. May be repeated.", show_default="all that decide"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the choice of groups, the trainings and the intervals.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Hold a scan's estimates against retraining: whether their order and their size can be trusted."""
    screen = Screen(quiet)
    goes_on = f"The same command goes on; finished trainings are kept in {out / 'verify'}."
    with told(goes_on, out / "scan.log"):
        from finfluence.cli._shown import show_plan, show_verification
        from finfluence.jobs.scan import verify_scan

        with screen.progress() as progress:
            done = verify_scan(
                out, subsets=subsets, runs=runs, budget=budget, seed=seed, queries=tuple(query or ()),
                announce=partial(show_plan, screen), progress=progress,
            )  # fmt: skip
        show_verification(screen, done, out)


@app.command()
def demo(
    short: Annotated[bool, typer.Option("--short", help="Fewer rows and runs: under a minute.")] = False,
    out: Annotated[Path, typer.Option(help="New or empty folder for everything.")] = Path("demo-out"),
    quiet: Quiet = False,
) -> None:
    """Plant label errors into handwritten digits, scan them, clean them, and count what was found."""
    screen = Screen(quiet)
    with told():
        from finfluence.cli._demo import run_demo

        run_demo(screen, out, short)
