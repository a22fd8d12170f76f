"""What happened to subjects over training, from outcomes or from tapes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from finfluence.errors import ConfigError, DataError, explain
from finfluence.stats import numbers

_TIMES, _ROWS_OF_LOSS = 64, 256


class LoggedRows(Protocol):
    """The rows of a run."""

    @property
    def ids(self) -> np.ndarray:
        """Their ids, in order."""


class LoggedRun(Protocol):
    """What is read of a `Tape`."""

    @property
    def steps(self) -> int:
        """Number of steps."""

    @property
    def rates(self) -> Sequence[float]:
        """Learning rate of every step."""

    @property
    def order(self) -> Sequence[Any]:
        """Row positions of every step."""

    @property
    def rows(self) -> LoggedRows:
        """The training rows."""

    def models(self, steps: Sequence[int]) -> Iterator[Any]:
        """Yield the models before these steps."""

    def values(self, queries: Any, model: Any) -> np.ndarray:
        """Return the values of queries for a model."""

    def losses_of(self, model: Any, positions: np.ndarray) -> np.ndarray:
        """Return the losses of rows under a model."""


Answered = Callable[[Any], ArrayLike] | tuple[Any, float]
"""What tells of each query whether it is answered well: a function of a model, or queries and the loss below which."""


@dataclass(frozen=True, eq=False)
class Forgotten:
    """The event that a query is answered well no longer.

    Parameters
    ----------
    answered
        A function of a model that tells of each query whether it is answered well, or (queries, bound), as of
        `EventLog.from_tapes`.
    """

    answered: Answered


@dataclass(frozen=True, eq=False)
class EventLog:
    """What happened to subjects (query × run) over training, on a grid of times.

    Attributes
    ----------
    events : array of bool [n, T]
        Whether the subject's event happened between this time and the one before; at most once a subject.
    at_risk : array of bool [n, T]
        Whether it could: True up to and at the event, False after it (and after a subject is lost).
    exposure : array [n, T]
        Known before the step to this time is taken: how many of the rows asked about the run had in its batches.
    history : array [n, T, k]
        What else was known before: global loss, learning rate, counts of classes seen.
    runs : array [n], optional
        Run of each subject. Subjects of one run share its exposure and its chance: the test then takes runs, not
        subjects, as independent.
    """

    events: np.ndarray
    at_risk: np.ndarray
    exposure: np.ndarray
    history: np.ndarray
    runs: np.ndarray | None = None

    @classmethod
    def of_outcomes(
        cls, good: ArrayLike, exposure: ArrayLike, history: ArrayLike, *, event: str = "learned"
    ) -> "EventLog":
        """Return the log of when each subject was first answered well, or first not any more.

        Parameters
        ----------
        good : array of bool [n, T + 1]
            Whether the subject was answered well (right, or with a loss below a bound) at each state, the first one
            before the first step of the log.
        exposure, history : array [n, T], array [n, T, k]
            As known at the states 0 to T − 1, before the steps to the states 1 to T.
        event : {"learned", "forgotten"}
            "learned": first well; subjects that were well from the start are never at risk. "forgotten": first not well
            after having been well; at risk from the first time well on.

        Returns
        -------
        EventLog

        Raises
        ------
        DataError
            Not True and False of subjects × states, two states or more.
        ConfigError
            Another event.

        Examples
        --------
        >>> good = [[False, False, True, False], [True, True, False, True]]
        >>> log = EventLog.of_outcomes(good, np.zeros((2, 3)), np.zeros((2, 3, 1)))
        >>> log.events.tolist(), log.at_risk.tolist()
        ([[False, True, False], [False, False, False]], [[True, True, False], [False, False, False]])
        """
        told = numbers(good, "good")
        if told.ndim != 2 or told.shape[1] < 2 or not np.isin(told, (0, 1)).all():
            raise DataError(
                explain(
                    "good as subjects × states of True and False, at least two states",
                    f"shape {told.shape}, {int((~np.isin(told, (0, 1))).sum())} values that are neither",
                    "losses or NaN where answers belong, or one subject without its axis",
                    "pass losses < bound, and leave subjects out of which a state is not known",
                )
            )
        well = told.astype(bool)
        before, now = well[:, :-1], well[:, 1:]
        ever = np.maximum.accumulate(before, 1)
        if event == "learned":
            at_risk, happens = ~ever, now
        elif event == "forgotten":
            lost = np.maximum.accumulate(ever & ~before, 1)
            at_risk, happens = ever & ~lost, ~now
        else:
            raise ConfigError(
                explain(
                    'event as "learned" or "forgotten"',
                    f"{event!r}",
                    "a mistyped name",
                    'for a loss below a bound pass good=losses < bound and "learned"',
                )
            )
        return cls(happens & at_risk, at_risk, np.asarray(exposure), np.asarray(history))

    @classmethod
    def from_tapes(
        cls,
        tapes: Sequence[LoggedRun],
        answered: Answered,
        rows: Sequence[Any],
        *,
        event: str = "learned",
        classes: ArrayLike | None = None,
        times: int = _TIMES,
    ) -> "EventLog":
        """Return the log of queries of several runs of one recipe, which differ in their seeds.

        Subjects are query × run. Exposure is how often `rows` were in the batches up to the step to each time. History
        is the mean loss of up to 256 *other* training rows, the learning rate, and how many rows of each class the run
        has had in its batches; at one time they differ between runs only.

        Parameters
        ----------
        tapes : sequence of Tape
        answered : callable, or (queries, bound)
            `answered(model)` tells of each query whether it is answered well, as in
            `lambda model: model(x).argmax(1) == y`; or queries such as `each_loss(x, y)` and the loss below which they
            are.
        rows : sequence
            Ids of the rows asked about.
        event : {"learned", "forgotten"}
            First answered well, or first not any more, as in `of_outcomes`.
        classes : array [rows of the run], optional
            Class or source of each training row, in order.
        times : int
            Most states looked at after the first, evenly spaced; where fewer than the steps, what happens between two
            of them is dated to the second, and an order of rows that follows what was learned could look like an
            effect.

        Returns
        -------
        EventLog

        Raises
        ------
        DataError
            No tape, tapes of other lengths or rows, unknown ids, classes of other rows, or answers that are not one
            for each query.
        ConfigError
            Another event, or no time.

        Notes
        -----
        Cost: each training again (from its kept states), and at each time a forward pass of the queries and 256 rows.

        Examples
        --------
        >>> from torch import nn
        >>> from finfluence.runs import SGD, Recipe, Rows, each_loss, train
        >>> recipe = Recipe(data=Rows(x=np.eye(4), y=np.ones(4)), model=nn.Linear(4, 1), optimizer=SGD(lr=0.5),
        ...                 loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=1, epochs=1)
        >>> tapes = [train(recipe, order_seed=seed) for seed in range(3)]
        >>> log = EventLog.from_tapes(tapes, (each_loss(np.eye(4)[:2], np.ones(2)), 0.1), rows=[0])
        >>> log.events.shape, log.runs.tolist(), log.exposure[0].tolist()[-1]
        ((6, 4), [0, 0, 1, 1, 2, 2], 1.0)
        """
        place = _checked_tapes(tapes, rows, times)
        asked = np.array([place[i] for i in rows], dtype=np.int64)
        kinds = _classes(classes, len(place))
        steps = np.unique(np.linspace(0, tapes[0].steps, times + 1).round().astype(int))
        others = np.setdiff1d(np.arange(len(place)), asked)
        sample = others[np.linspace(0, len(others) - 1, min(_ROWS_OF_LOSS, len(others))).round().astype(int)]
        good, exposure, history = [], [], []
        for tape in tapes:
            outcomes, losses = [], []
            for model in tape.models(steps.tolist()):
                outcomes.append(_answers(tape, model, answered))
                losses.append(float(tape.losses_of(model, sample).mean()) if len(sample) else 0.0)
            good.append(_in_step(outcomes))
            drawn = [np.asarray(positions) for positions in tape.order[: tape.steps]]
            exposure.append(_seen(drawn, np.isin(np.arange(len(place)), asked)[:, None], steps)[:, 0])
            known = [np.array(losses[:-1])[:, None], np.asarray(tape.rates)[steps[1:] - 1][:, None]]
            history.append(np.concatenate([*known, _seen(drawn, kinds, steps)], 1))
        count = len(good[0])
        made = cls.of_outcomes(
            np.concatenate(good),
            np.repeat(exposure, count, 0),
            np.repeat(history, count, 0),
            event=event,
        )
        return replace(made, runs=np.repeat(np.arange(len(tapes)), count))


def _answers(tape: LoggedRun, model: Any, answered: Answered) -> np.ndarray:
    if callable(answered):
        said: Any = answered(model)
        plain = said.detach().cpu() if hasattr(said, "detach") else said
        return np.atleast_1d(np.asarray(plain))
    queries, bound = answered
    return np.asarray(tape.values(queries, model) < bound)


def _in_step(outcomes: list[np.ndarray]) -> np.ndarray:
    """Return whether each query is answered well at each time [Q, T + 1]."""
    shapes = {o.shape for o in outcomes}
    first = outcomes[0]
    if len(shapes) > 1 or first.ndim != 1 or not len(first) or not np.isin(np.array(outcomes), (0, 1)).all():
        raise DataError(
            explain(
                "from `answered` one True or False for each query, as many at every state",
                f"shapes {sorted(shapes)}, type {first.dtype}",
                "logits, a mean over the queries, or losses where answers belong",
                "return model(x).argmax(1) == y, or pass (each_loss(x, y), bound)",
            )
        )
    return np.array(outcomes, dtype=bool).T


def _seen(drawn: list[np.ndarray], member: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return how many rows of each kind were in the batches before each step but the first [T, kinds]."""
    each = np.array([member[positions].sum(0) for positions in drawn], dtype=np.float64)
    return np.asarray(each.cumsum(0)[steps[1:] - 1])


def _classes(classes: ArrayLike | None, n: int) -> np.ndarray:
    """Return membership of classes [n, classes - 1]: the last one's count follows from the others'."""
    if classes is None:
        return np.zeros((n, 0))
    labels = np.asarray(classes)
    if labels.shape != (n,):
        raise DataError(
            explain(
                f"a class for each of {n} training rows",
                f"shape {labels.shape}",
                "classes of the queries, or of the rows asked about alone",
                "pass them in the order of the tape's rows",
            )
        )
    return np.asarray(labels[:, None] == np.unique(labels)[None, :-1])


def _checked_tapes(tapes: Sequence[LoggedRun], rows: Sequence[Any], times: int) -> dict[Any, int]:
    """Return the position of each id."""
    if times < 1:
        raise ConfigError(explain("at least one time", f"{times}", "a mistyped option", "leave times out"))
    shapes = sorted({(tape.steps, len(tape.rows.ids)) for tape in tapes})
    if len(shapes) != 1 or any((t.rows.ids != tapes[0].rows.ids).any() for t in tapes):
        raise DataError(
            explain(
                "tapes of one recipe under other seeds: as many steps, the same rows",
                _told(shapes),
                "runs of other data or lengths in one log",
                "pass [train(recipe, seed=s) for s in range(40)]",
            )
        )
    place = {row: k for k, row in enumerate(tapes[0].rows.ids.tolist())}
    unknown = [row for row in rows if row not in place]
    if unknown or not len(rows):
        raise DataError(
            explain(
                "ids of training rows",
                f"{len(unknown)} unknown of {len(rows)}"
                + (f", the first is {unknown[0]!r}" if unknown else ""),
                "positions of rows that have ids of their own, or a selection that came out empty",
                f"use ids such as {', '.join(map(repr, list(place)[:3]))}",
            )
        )
    return place


def _told(shapes: list[tuple[int, int]]) -> str:
    each = ", ".join(f"{steps} steps of {n} rows" for steps, n in shapes[:3])
    return each + " with other ids" if len(shapes) == 1 else each or "no tape"
