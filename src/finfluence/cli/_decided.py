"""What `decide` prints: each action that was tried, what could not be tried, and the recommendation."""

from pathlib import Path

from finfluence.cli._screen import Screen
from finfluence.jobs.scan import Advice, estimated

CLEANED_BY = ("drop", "relabel")


def show_advice(screen: Screen, advice: Advice) -> None:
    """Print what each action did beside keeping every row, and what is recommended."""

    def also(action: str) -> str:
        if advice.unlabelled is None:
            return ""
        return f" It {estimated(advice.unlabelled, action)}."

    for tried in advice.tried:
        mark = (
            "better"
            if tried["better"] and not tried["harms"]
            else "worse"
            if tried["harms"]
            else "no clear gain"
        )
        screen.say(
            f"{tried['action']} ({tried['rows']:,} rows): {mark}. It {tried['did']}.{also(tried['action'])}"
        )
    for action, why in advice.left_out.items():
        screen.say(f"{action}: not tried, {why}.")
    for code, text in advice.chapter.findings:
        if code != "FI030":
            screen.say(f"note: {text} ({code})")
    screen.always(advice.sentence, "bold")


def show_command(screen: Screen, out: Path, advice: Advice) -> None:
    """Print the command for what is recommended to do with a scan's rows."""
    if advice.action in CLEANED_BY:
        screen.say(f"  finfluence clean {out} --to cleaned.csv --action {advice.action}")
    elif advice.action == "mitigate":
        screen.say(f"  finfluence mitigate {out}")
