"""The networks that were tried, as a table of the terminal and of the page."""

from collections.abc import Mapping
from typing import Any

from finfluence.report import Table


def network_columns(task: str) -> tuple[str, ...]:
    """Return the headings of `network_rows`."""
    loss = "log loss" if task == "classification" else "half squared error"
    hit = ("accuracy",) if task == "classification" else ()
    return (
        "network",
        "epochs",
        loss,
        "standard error",
        "folds from",
        "to",
        *hit,
        "below constant",
        "trained",
    )


def network_rows(choice: Mapping[str, Any]) -> list[list[str]]:
    """Return a line for each network tried and for the constant, the best first.

    Parameters
    ----------
    choice
        What `Choice.described` returned.

    Returns
    -------
    list of list of str
    """
    rows = []
    for one in choice["tried"]:
        constant = one["model"] == "constant"
        hit = [f"{100 * one['accuracy']:.1f} %"] if choice["task"] == "classification" else []
        rows.append(
            [
                one["model"],
                "" if constant else str(one["epochs"]),
                f"{one['loss']:.3f}",
                f"{one['se']:.3f}",
                f"{min(one['folds']):.3f}",
                f"{max(one['folds']):.3f}",
                *hit,
                "" if constant else f"{one['gain']:.3f} ± {one['gain_se']:.3f}",
                "yes" if one["model"] == choice["model"] else "",
            ]
        )
    return rows


def networks_tried(choice: Mapping[str, Any] | None) -> list[Table]:
    """Return the table of the page; none for a scan that made no choice."""
    if choice is None or not choice["tried"]:
        return []
    return [
        Table(
            title="Networks tried by cross-validation",
            columns=network_columns(choice["task"]),
            rows=tuple(map(tuple, network_rows(choice))),
            note=f"Each was trained {len(choice['tried'][0]['folds'])} times without one fold of the training rows and "
            f"scored on it ({choice['rows']:,} rows in all), after every epoch; epochs: where the loss is least. "
            "Trained: the simplest within a standard error of the best, or the one asked for; below constant: "
            "how much smaller the loss is than that of the constant, row by row, with its standard error; below two of "
            "them influence names nothing.",
        )
    ]
