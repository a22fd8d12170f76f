"""What can be benchmarked: experiments, data and tools by name, a file each, loaded when used."""

import difflib
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Any

from finfluence.errors import ConfigError, explain
from finfluence.estimators import METHODS
from finfluence.jobs.bench._tools import TOOLS

EXPERIMENTS: dict[str, str] = {
    "mislabels": "finfluence.jobs.bench.experiments:Mislabels",
    "truth": "finfluence.jobs.bench.experiments:AgainstRetraining",
    "loo": "finfluence.jobs.bench.experiments:LeaveOneOut",
    "look-alikes": "finfluence.jobs.bench.experiments:LookAlikes",
    "consistency": "finfluence.jobs.bench.experiments:Consistency",
    "removal": "finfluence.jobs.bench.experiments:Removal",
    "addition": "finfluence.jobs.bench.experiments:Addition",
    "cost": "finfluence.jobs.bench.experiments:Costs",
}
DATA: dict[str, str] = {
    "digits": "finfluence.jobs.bench.data:DIGITS",
    "digits-adamw": "finfluence.jobs.bench.data:DIGITS_ADAMW",
    "digits-linear": "finfluence.jobs.bench.data:DIGITS_LINEAR",
    "mnist-5k": "finfluence.jobs.bench.data:MNIST_5K",
    "mnist-5k-linear": "finfluence.jobs.bench.data:MNIST_5K_LINEAR",
    "fashion-mnist": "finfluence.jobs.bench.data:FASHION_MNIST",
    "film-reviews": "finfluence.jobs.bench.data:FILM_REVIEWS",
    "fashion-mnist-linear": "finfluence.jobs.bench.data:FASHION_MNIST_LINEAR",
}


def experiment_named(name: str | None) -> Any:
    """Return the experiment of this name.

    Returns
    -------
    Any
        With `name`, `summary` and `run(bench)`.

    Raises
    ------
    ConfigError
        There is none; the known ones are named.
    """
    return _loaded(EXPERIMENTS, name, "experiment")()


def data_named(name: str) -> Any:
    """Return the data set of this name, a `DataSet`.

    Returns
    -------
    Any

    Raises
    ------
    ConfigError
        There is none; the known ones are named.
    """
    return _loaded(DATA, name, "data set")


def methods_named(given: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names that are meant, each once: of methods and tools, or all of them.

    Returns
    -------
    tuple[str, ...]

    Raises
    ------
    ConfigError
        An unknown name; the known ones are named.

    Examples
    --------
    >>> methods_named("own-loss, random"), "replay" in methods_named("all")
    (('own-loss', 'random'), True)
    """
    words = given.split(",") if isinstance(given, str) else list(given)
    names = [word.strip() for word in words if word.strip()]
    known = [*METHODS, *TOOLS]
    for name in names or [""]:
        _check([*known, "all"], name, "method")
    if "all" in names:
        return tuple(known)
    return tuple(dict.fromkeys(names))


def _loaded(table: dict[str, str], name: str | None, what: str) -> Any:
    _check(table, name, what)
    module, _, attribute = table[str(name)].partition(":")
    return getattr(import_module(module), attribute)


def _check(known: Collection[str], name: str | None, what: str) -> None:
    if name is not None and name in known:
        return
    near = difflib.get_close_matches(str(name), list(known), n=1)
    raise ConfigError(
        explain(
            f"{'an' if what[0] in 'aeiou' else 'a'} {what} among {', '.join(map(repr, known))}",
            "none" if not name else repr(name),
            "nothing was named" if not name else "a mistyped name",
            f"did you mean {near[0]!r}?" if near else "finfluence bench --list says what each of them is",
        )
    )
