"""What `decide` prints: each action that was tried, what could not be tried, and the recommendation."""

from finfluence.cli._screen import Screen
from finfluence.jobs.scan import Advice


def show_advice(screen: Screen, advice: Advice) -> None:
    """Print what each action did beside keeping every row, and what is recommended."""
    for tried in advice.tried:
        mark = (
            "better"
            if tried["better"] and not tried["harms"]
            else "worse"
            if tried["harms"]
            else "no clear gain"
        )
        screen.say(f"{tried['action']} ({tried['rows']:,} rows): {mark}. It {tried['did']}.")
    for action, why in advice.left_out.items():
        screen.say(f"{action}: not tried, {why}.")
    screen.always(advice.sentence, "bold")
