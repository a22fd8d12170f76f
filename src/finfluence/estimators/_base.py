"""What every way to estimate influence has: a name, options, what it needs and costs, and one call to a result."""

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite
from typing import Any, ClassVar, Generic, Literal, TypeVar, final

import numpy as np

from finfluence._progress import Progress, silent
from finfluence.errors import ConfigError, FinfluenceError, NotSupportedError, explain
from finfluence.grads import gradients_on
from finfluence.result import Influence
from finfluence.runs import (
    AnyQuery,
    Recipe,
    RowSource,
    Tape,
    TapeRecorder,
    as_rows,
    check_queries,
    check_unchanged,
    finished,
)
from finfluence.runs.describe import Given, Subsets, check_left, find_subsets

Source = Tape | Recipe
SourceT = TypeVar("SourceT", Tape, Recipe)
OptionsT = TypeVar("OptionsT")


@dataclass(frozen=True)
class Support:
    """Whether a method can work on a source; true in a condition where it can.

    Attributes
    ----------
    reason : str
        Why it cannot: the message of the error that `estimate` raises; "" where it can.

    Examples
    --------
    >>> bool(Support()), bool(Support("expected a tape"))
    (True, False)
    """

    reason: str = ""

    def __bool__(self) -> bool:
        return not self.reason


@dataclass(frozen=True)
class Cost:
    """What an estimate will take.

    Attributes
    ----------
    trainings : float
        Evaluations of a row's loss, with the derivatives that the method needs, in multiples of those of one
        training run of the source. Directions followed side by side count once. Within a factor of two.
    memory_bytes : int
        Beside the model, the data, the source and torch itself.

    Examples
    --------
    >>> print(Cost(2.5, 3 * 2**20))
    about 2.5 training runs, 3 MiB of memory
    """

    trainings: float
    memory_bytes: int

    def __str__(self) -> str:
        runs = f"{self.trainings:.2g}" if self.trainings < 100 else f"{self.trainings:,.0f}"
        return f"about {runs} training runs, {self.memory_bytes / 2**20:.3g} MiB of memory"


class AbstractEstimator(ABC, Generic[SourceT, OptionsT]):
    """One way to estimate influence: a class in one file, named in the table of `finfluence.estimators`.

    A subclass sets the class attributes below and writes `_estimate` and `_cost`, and `_check` where it asks more of a
    source than its kind. `supports`, `cost` and `estimate` are the same for all: they check the source by the same
    code, look up queries and subsets, and then call the method's own part.

    Attributes
    ----------
    name : str
        What `fi.estimate(method=…)` calls it.
    family : str
        The package it lives in.
    paper : str
        Where it was published.
    yields : {"mu", "score"}
        *mu*: μ, in units of training randomness; positive: removing the rows raises the query. *score*: larger is more
        harmful or more suspect, of no further meaning.
    needs : type
        `Tape`: one run, of `fi.train` or recorded. `Recipe`: a training that can be repeated.
    Options : type
        A frozen dataclass: every field has a default and an entry in the docstring, and `__post_init__` refuses what
        cannot be used, in words.

    Notes
    -----
    The score of a subset is the sum over its rows. An empty subset is legal in every method: removing nothing changes
    nothing, so its effect, μ and score are exactly zero, with p = 1. Its own loss is NaN.
    """

    name: ClassVar[str]
    family: ClassVar[str]
    paper: ClassVar[str]
    yields: ClassVar[Literal["mu", "score"]]
    needs: ClassVar[type]
    Options: ClassVar[type]

    def __init__(self, options: OptionsT | None = None) -> None:
        self.options: OptionsT = self.Options() if options is None else options

    @final
    def supports(self, source: Source) -> Support:
        """Say whether `estimate` can work on `source`, by walking its own checks; the reason is its error's message.

        Returns
        -------
        Support
            True where it can, else false with `reason`.
        """
        try:
            self._checked(source)
        except FinfluenceError as error:
            return Support(str(error))
        return Support()

    @final
    def cost(self, source: Source, queries: Sequence[AnyQuery] | AnyQuery, subsets: Given = None) -> Cost:
        """Say what `estimate` with the same arguments will take, without a clock.

        Returns
        -------
        Cost

        Raises
        ------
        NotSupportedError
            The method cannot work on the source.
        ConfigError, DataError
            Queries or subsets that cannot be used.
        """
        checked = self._checked(source)
        return self._cost(checked, check_queries(queries), _found(checked, subsets))

    @final
    @gradients_on()
    def estimate(
        self,
        source: Source,
        queries: Sequence[AnyQuery] | AnyQuery,
        subsets: Given = None,
        *,
        candidates: Any = None,
        progress: Progress = silent,
    ) -> Influence:
        """Estimate what removing each subset does to each query; or adding each candidate.

        Parameters
        ----------
        source : Tape or Recipe
            As `needs` says.
        queries : Query or list
            `mean_loss`, `each_loss`, `own_loss`, or any `Query`.
        subsets : None, {name: row ids} or list
            None: every row alone. With candidates: of their ids.
        candidates : Rows, mapping of arrays or map-style Dataset, optional
            Rows that training never saw: the effect of adding each.
        progress : callable
            Called as `progress(stage, done, total)`.

        Returns
        -------
        Influence

        Raises
        ------
        NotSupportedError
            The method cannot work on the source, with the words of `supports`, or takes no candidates.
        ConfigError, DataError
            Queries, subsets or candidates that cannot be used.
        """
        checked = self._of_kind(source)
        self._check_first(checked)
        listed = check_queries(queries)
        if candidates is None:
            return self._estimate(checked, listed, _found(checked, subsets), progress)
        return self._estimate_added(checked, listed, as_rows(candidates), subsets, progress)

    @abstractmethod
    def _estimate(
        self, source: SourceT, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        """Return the result; the source is checked, queries and subsets are looked up."""

    @abstractmethod
    def _cost(self, source: SourceT, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        """Return what `_estimate` will take."""

    def _check(self, source: SourceT) -> None:
        """Raise NotSupportedError, in words, where the method cannot work on a source of the right kind."""

    def _check_first(self, source: SourceT) -> None:
        """Raise before an estimate as `_check` does; a method whose estimate checks the rest by itself overrides it."""
        self._check(source)

    def _estimate_added(
        self,
        source: SourceT,
        queries: list[AnyQuery],
        candidates: RowSource,
        subsets: Given,
        progress: Progress,
    ) -> Influence:
        """Return the effect of adding each candidate row; a method that can overrides this."""
        raise NotSupportedError(
            explain(
                "a method that estimates what adding rows does, for candidates=",
                f"method {self.name!r}, which estimates removal only",
                "only some methods follow the steps that an added row would have changed",
                "use a method that takes candidates",
            )
        )

    @classmethod
    def takes_candidates(cls) -> bool:
        """Whether the method can estimate the effect of adding rows."""
        return cls._estimate_added is not AbstractEstimator._estimate_added

    def _checked(self, source: Any) -> SourceT:
        """Return the source, checked."""
        checked = self._of_kind(source)
        self._check(checked)
        return checked

    def _of_kind(self, source: Any) -> SourceT:
        """Return the source, if it is of the kind that is needed."""
        given = Tape if isinstance(source, TapeRecorder) else type(source)
        if not issubclass(given, self.needs):
            raise NotSupportedError(_wrong_kind(self.name, self.needs, source))
        if isinstance(source, Recipe):
            check_unchanged(source)
        else:
            source = finished(source)
        checked: SourceT = source
        return checked


def _found(source: Source, subsets: Given) -> Subsets:
    """Return the subsets named, none of them the whole data set."""
    found = find_subsets(source, subsets)
    check_left(source, found)
    return found


def option_docs(options: type) -> dict[str, str]:
    """Return each option of an options dataclass with the first sentence of its entry in the docstring.

    Returns
    -------
    dict
        Name to sentence, in the order of the fields; "" for a field that is not documented.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Options:
    ...     '''Options of an example.
    ...
    ...     Parameters
    ...     ----------
    ...     seed : int
    ...         Of the draws. Any whole number.
    ...     '''
    ...     seed: int = 0
    >>> option_docs(Options)
    {'seed': 'Of the draws'}
    """
    section = re.split(r"\n(?=\w+\n-{3,})", inspect.getdoc(options) or "")
    listed = next((part for part in section if part.startswith("Parameters\n")), "")
    entries: dict[str, str] = {}
    for names, text in re.findall(
        r"^(\w[\w, ]*?) *(?::[^\n]*)?\n((?:[ ]{4}[^\n]*\n?|\n)+)", listed, re.MULTILINE
    ):
        first = re.split(r"[.;:](?:\s|$)", " ".join(text.split()), maxsplit=1)[0]
        entries.update(dict.fromkeys(names.split(", "), first))
    return {f.name: entries.get(f.name, "") for f in fields(options)}


def check_choice(name: str, value: object, known: Sequence[str]) -> None:
    """Raise unless an option is one of the words it can be.

    Raises
    ------
    ConfigError
    """
    if value not in known:
        raise ConfigError(
            explain(
                f"{name} to be {' or '.join(map(repr, known))}",
                repr(value),
                "a mistyped word",
                "use one of these, or leave it out",
            )
        )


def check_number(name: str, value: object, above: float | None = None, finite: bool = True) -> None:
    """Raise unless an option is a number, finite unless that is left to the caller, above a bound if one is given.

    Raises
    ------
    ConfigError
    """
    known = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if known and (not finite or isfinite(value)) and (above is None or value > above):  # type: ignore[arg-type, operator]
        return
    raise ConfigError(
        explain(
            f"{name} to be a finite number" + ("" if above is None else f" above {above:g}"),
            repr(value),
            "a text was passed, or a sign is wrong",
            f"leave {name} out for its default",
        )
    )


def check_whole(name: str, value: object, least: int = 1) -> None:
    """Raise unless an option is a whole number of at least `least`.

    Raises
    ------
    ConfigError
    """
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least:
        return
    raise ConfigError(
        explain(
            f"{name} to be a whole number of at least {least}",
            repr(value),
            "a share or a text was passed",
            f"pass for instance {name}={max(least, 100)}, or leave it out",
        )
    )


def _wrong_kind(name: str, needs: type, source: object) -> str:
    if needs is Tape:
        return explain(
            f"a tape for method {name!r}",
            f"an object of type {type(source).__name__}",
            "the method reads the steps of one run",
            "make a tape by fi.train(recipe), or record a loop of your own with fi.Tape.record",
        )
    return explain(
        f"a recipe for method {name!r}",
        f"an object of type {type(source).__name__}",
        "the method trains again, and a tape holds one run only",
        "describe the training as fi.Recipe(…)",
    )
