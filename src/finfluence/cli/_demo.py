"""The demo on the terminal."""

import shlex
from pathlib import Path

from finfluence.cli._screen import Screen
from finfluence.cli._shown import show_result
from finfluence.jobs import demo
from finfluence.jobs.scan import scan_stages


def run_demo(screen: Screen, out: Path, short: bool) -> None:
    """Plant, scan, clean, count; print each step as the command that does it."""
    prepared = demo.prepare(out, short)
    screen.say(
        f"Handwritten digits: {prepared.n_rows:,} rows in {prepared.train}, {len(prepared.planted):,} of them with a "
        "wrong label planted; clean held-out rows beside them."
    )
    screen.command(shlex.join(prepared.command))
    with screen.progress(scan_stages(prepared.options)) as progress:
        found = demo.run(prepared, progress)
    show_result(screen, found.result, top=8)
    screen.say("")
    screen.command(shlex.join(["finfluence", "clean", str(prepared.out), "--to", str(prepared.cleaned)]))
    done = found.written
    screen.say(
        f"{done.path}: {done.kept:,} rows; {done.dropped:,} dropped, {done.relabelled:,} relabelled, "
        f"{done.review:,} left for review."
    )
    screen.say("")
    screen.always(found.sentence, "bold")
    screen.table(
        [
            ("detector", False),
            ("average precision", True),
            ("found at the level", True),
            ("of them wrongly named", True),
        ],
        found.table,
    )
    screen.say("Average precision: 1 is a perfect ranking of the planted errors, 0.1 a random one.")
    screen.say("")
    screen.say("Next, hold the estimates against a few thousand retrainings:")
    screen.command(shlex.join(["finfluence", "verify", str(prepared.out)]))
