"""Does seeing some rows drive an event: the local covariance test, cross-fitted."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from finfluence._seeds import stream
from finfluence.assess._event_log import Answered, EventLog, Forgotten, LoggedRun
from finfluence.assess._learners import folds, sklearn
from finfluence.errors import ConfigError, DataError, explain
from finfluence.report import Line, lines
from finfluence.stats import check_level, numbers

_FEWEST_SUBJECTS, _FEWEST_RUNS, _FEWEST_EVENTS = 20, 20, 10
_TERMS = 200
_REPLICATES, _CHUNK = 4000, 500
_RIDGE = 1e-4
_DEPTHS = (1, 2, 3)


@dataclass(frozen=True, eq=False)
class ExposureTest:
    r"""Whether the event depends on the exposure beyond the history.

    Attributes
    ----------
    statistic, p : float
        :math:`\sqrt n \sup_t |\hat\gamma_t| / \hat\sigma_T`, and the chance of so large a deviation if the exposure
        drives nothing, by 4,000 draws of Gaussian weights of subjects (of whole runs, where the log knows them).
    p_limit : float
        The same chance by the limit law of many subjects and a fine grid; on a coarse grid it is too large.
    gamma : array [T]
        Local covariance of exposure and event up to each time, events a subject. Positive: exposed subjects have more
        events than their history explains.
    band : float
        Half-width around gamma that holds for all times at once, at the level.
    level : float
        Of the band.
    subjects, events : int
    findings : tuple of str
    """

    statistic: float
    p: float
    p_limit: float
    gamma: np.ndarray
    band: float
    level: float
    subjects: int
    events: int
    findings: tuple[str, ...]

    def svg(self) -> str:
        """Return a picture of gamma over the times of the log with its band, one SVG that stands alone.

        Returns
        -------
        str

        Examples
        --------
        >>> found = ExposureTest(1.0, 0.3, 0.3, np.array([0.1, 0.2]), 0.4, 0.95, 50, 20, ())
        >>> found.svg().startswith("<svg"), "band, 95 %" in found.svg()
        (True, True)
        """
        times = np.arange(1, len(self.gamma) + 1).tolist()
        ends = (self.gamma - self.band, self.gamma + self.band)
        drawn = [
            Line("local covariance", times, self.gamma.tolist()),
            *(Line(f"band, {self.level:.0%}".replace("%", " %"), times, end.tolist()) for end in ends),
            Line("no effect", times, [0.0] * len(times)),
        ]
        return lines(
            drawn, "time", "events brought forward, each subject", "Local covariance of exposure and event"
        )

    def __str__(self) -> str:
        end = self.gamma[np.abs(self.gamma).argmax()]
        told = (
            f"exposure {'brings the event forward' if end > 0 else 'holds the event back'}"
            if self.p < 1 - self.level
            else "exposure cannot be told to drive the event"
        )
        first = (
            f"{told}: statistic {self.statistic:.2f}, p = {self.p:.3g} (local covariance test, "
            f"{self.subjects} subjects, {self.events} events)"
        )
        return "\n".join([first, *(f"  {f}" for f in self.findings)])


def exposure(
    source: EventLog | LoggedRun | Sequence[LoggedRun],
    rows: Sequence[Any] | None = None,
    *,
    event: Answered | Forgotten | None = None,
    classes: ArrayLike | None = None,
    folds_count: int = 5,
    level: float = 0.95,
    seed: int = 0,
) -> ExposureTest:
    r"""Test whether an event depends on how often some rows have been seen, given the history.

    With the intensity :math:`\lambda` of the event given time and history, and the residual
    :math:`G_t = X_t - \mathrm{E}[X_t \mid \text{history}]` of the exposure, both fitted on the other folds,

    .. math:: \hat\gamma_t = \frac1n \sum_{i} \sum_{s \le t} G_{is}\,(dN_{is} - 1[\text{at risk}]\,\hat\lambda_{is}),
              \quad \hat\sigma^2_t = \frac1n \sum_i \sum_{s \le t} G_{is}^2\,dN_{is}, \quad
              p = 1 - F\!\left(\sqrt n\,\sup_t |\hat\gamma_t| / \hat\sigma_T\right)

    where F is the law of :math:`\sup_{[0,1]} |B|` of a Brownian motion (`p_limit`). On a grid of few times
    `p` is truer, by multipliers: :math:`\sup_t |\frac1n \sum_i \xi_i \sum_{s \le t} G\,dM|`
    with normal ξ.

    Errors of the two fits only matter as a product: neither has to be right to the last digit. The intensity is fitted
    by boosted trees with a Poisson loss on the person-period table, their depth chosen inside each fold; the exposure
    by ridge regression at each time.

    Parameters
    ----------
    source : sequence of Tape, or EventLog
        Runs of one recipe that differ in their seeds, or a log of your own, which holds the rest.
    rows : sequence, optional
        Of tapes: ids of the rows whose sight is the exposure.
    event : callable, (queries, bound) or Forgotten, optional
        Of tapes: what happens. `lambda model: model(x).argmax(1) == y`: a query is first answered right; `(each_loss(x,
        y), 0.25)`: its loss falls below 0.25; `Forgotten(either)`: that is first so no longer.
    classes : array, optional
        Of tapes: class or source of each training row; the history then holds how many of each the run has seen.
    folds_count : int
        K of the cross-fitting, over subjects, at least 2.
    level : float
        Of the band of gamma.
    seed : int
        Of the folds and the multipliers.

    Returns
    -------
    ExposureTest

    Raises
    ------
    DataError
        Shapes disagree, values not finite, an event off risk or twice, fewer than 20 subjects or 10 events, an
        exposure that is the same for all, or fewer than 20 runs.
    ConfigError
        An option that cannot be used; tapes without rows or event, or a log with them.
    ConfigError
        scikit-learn is not installed.

    Notes
    -----
    Queries of one run share the order of its rows: a single tape has no other to compare with. Of tapes the log is
    `EventLog.from_tapes(source, answered, rows, …)`, whose option `times` says at how many states it looks.
    Without `runs` in a log of your own, subjects are taken as independent; queries of one run are not, and the test
    would be too sure. With them folds and multipliers are of whole runs, and :math:`\hat\sigma^2_T` is the mean square
    of the runs' sums.

    References
    ----------
    Christgau, Petersen and Hansen, "Nonparametric conditional local independence testing" (Annals of Statistics 2023);
    cross-fitted throughout (the authors' code tunes its trees on the whole sample).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> seen = rng.poisson(1.0, (400, 10)).cumsum(1)
    >>> hazard = np.minimum(0.02 + 0.02 * seen, 0.9)
    >>> happened = rng.random((400, 10)) < hazard
    >>> at_risk = np.cumsum(happened, 1) - happened == 0
    >>> log = EventLog(happened & at_risk, at_risk, seen, np.zeros((400, 10, 1)))
    >>> exposure(log).p < 0.01
    True

    From tapes: does seeing row 0 teach the answer to it?

    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, each_loss, train
    >>> recipe = Recipe(data=Rows(x=np.eye(4), y=np.ones(4)), model=nn.Linear(4, 1, bias=False), optimizer=SGD(lr=0.5),
    ...                 loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=1, epochs=1)
    >>> tapes = [train(recipe, order_seed=seed) for seed in range(20)]
    >>> found = exposure(tapes, rows=[0], event=(each_loss(np.eye(4)[:1], [1.0]), 0.1))
    >>> found.subjects, found.events, bool(found.gamma[-1] > 0)
    (20, 20, True)
    """
    check_level(level)
    log = _log_of(source, rows, event, classes)
    events, at_risk, x, history = _checked(log, folds_count)
    runs = _runs(log, len(x))
    residual, intensity = np.empty(x.shape), np.zeros(x.shape)
    ever = np.bincount(runs, events.any(1)) > 0
    _check_folds(ever, folds_count, "subjects" if log.runs is None else "runs")
    for others, fold in (
        (np.flatnonzero(np.isin(runs, a)), np.flatnonzero(np.isin(runs, b)))
        for a, b in folds(ever, folds_count, seed, "exposure folds")
    ):
        residual[fold] = _exposure_residual(x, history, others, fold)
        intensity[fold] = _intensity(events, at_risk, history, others, fold)
    gamma, variance = local_covariance(events, at_risk, residual, intensity)
    n, paths = len(x), np.zeros((runs.max() + 1, x.shape[1]))
    np.add.at(paths, runs, _increments(events, at_risk, residual, intensity).cumsum(1))
    spread = variance[-1] if log.runs is None else float((paths[:, -1] ** 2).sum() / n)
    if spread == 0 or variance[-1] == 0:
        raise DataError(_nothing_left(int(events.sum())))
    largest = np.abs(gamma).max()
    statistic = float(np.sqrt(n) * largest / np.sqrt(spread))
    chance = _largest_by_chance(paths, seed) / n
    return ExposureTest(
        statistic,
        float((1 + (chance >= largest).sum()) / (1 + len(chance))),
        1 - sup_of_brownian_motion(statistic),
        gamma,
        float(np.quantile(chance, level)),
        level,
        n,
        int(events.sum()),
        (
            f"{'subjects' if log.runs is None else f'{len(paths)} runs'} are taken as independent, and the history as "
            "all that drives both the exposure and the event"
            + ("; queries of one run share its randomness" if log.runs is None else ""),
        ),
    )


def _log_of(
    source: EventLog | LoggedRun | Sequence[LoggedRun],
    rows: Sequence[Any] | None,
    event: Answered | Forgotten | None,
    classes: ArrayLike | None,
) -> EventLog:
    """Return the log that is given, or that of the tapes."""
    if isinstance(source, EventLog):
        if rows is not None or event is not None or classes is not None:
            raise ConfigError(
                explain(
                    "of a log neither rows nor event nor classes",
                    "a log and some of them",
                    "options of tapes: a log says itself what was exposed to what and when it happened",
                    "write exposure(log), or exposure(tapes, rows, event=…)",
                )
            )
        return source
    if rows is None or event is None:
        raise ConfigError(
            explain(
                "of tapes the rows asked about and the event",
                f"no {'rows' if rows is None else 'event'}",
                "a tape records a run, not what is asked of it",
                "write exposure(tapes, rows, event=lambda model: model(x).argmax(1) == y), or event=(each_loss(x, y), "
                "0.25) for a loss below 0.25",
            )
        )
    tapes = list(source) if isinstance(source, Sequence) else [source]
    if len(tapes) < _FEWEST_RUNS:
        raise DataError(_few_runs(len(tapes)))
    if isinstance(event, Forgotten):
        return EventLog.from_tapes(tapes, event.answered, rows, event="forgotten", classes=classes)
    return EventLog.from_tapes(tapes, event, rows, classes=classes)


def _few_runs(count: int) -> str:
    return explain(
        f"at least {_FEWEST_RUNS} runs",
        f"{count}",
        "many queries of few runs: they share the order of rows, and with it the exposure",
        "train more runs with other seeds, [fi.train(recipe, order_seed=s) for s in range(40)]",
    )


def local_covariance(
    events: np.ndarray, at_risk: np.ndarray, residual: np.ndarray, intensity: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return gamma and its variance at each time [T], from residuals and intensities [n, T].

    Returns
    -------
    tuple of array
    """
    increments = _increments(events, at_risk, residual, intensity)
    return increments.mean(0).cumsum(), (residual**2 * events).mean(0).cumsum()


def _increments(
    events: np.ndarray, at_risk: np.ndarray, residual: np.ndarray, intensity: np.ndarray
) -> np.ndarray:
    """Return G dM of each subject and time [n, T]."""
    found: np.ndarray = residual * (events - np.where(at_risk, intensity, 0.0))
    return found


def sup_of_brownian_motion(x: float) -> float:
    r"""Return the chance that a Brownian motion stays within ±x up to time 1.

    .. math:: F(x) = \frac4\pi \sum_{k \ge 1} \frac{(-1)^{k+1}}{2k-1} \exp\!\left(-\frac{(2k-1)^2\pi^2}{8x^2}\right)

    Returns
    -------
    float

    Examples
    --------
    >>> round(sup_of_brownian_motion(1.0), 6), round(sup_of_brownian_motion(2.241403), 4)
    (0.370777, 0.95)
    """
    if x <= 0:
        return 0.0
    odd = 2 * np.arange(1, _TERMS + 1) - 1
    terms = (-1.0) ** np.arange(_TERMS) / odd * np.exp(-(odd**2) * np.pi**2 / (8 * x**2))
    return float(np.clip(4 / np.pi * terms.sum(), 0.0, 1.0))


def _runs(log: EventLog, n: int) -> np.ndarray:
    """Return the number of each subject's run; each its own where the log knows none."""
    if log.runs is None:
        return np.arange(n)
    given = np.asarray(log.runs)
    if given.shape != (n,):
        raise DataError(
            explain(
                f"a run for each of {n} subjects",
                f"shape {given.shape}",
                "one number for each run instead of for each subject",
                "repeat each run's number once for each of its queries",
            )
        )
    names, numbers = np.unique(given, return_inverse=True)
    if len(names) < _FEWEST_RUNS:
        raise DataError(_few_runs(len(names)))
    return np.asarray(numbers)


def _largest_by_chance(paths: np.ndarray, seed: int) -> np.ndarray:
    """Return draws of n sup|gamma| where exposure drives nothing: each path at a random Gaussian weight."""
    rng = stream(seed, "exposure multipliers")
    draws = [
        np.abs(rng.standard_normal((_CHUNK, len(paths))) @ paths).max(1) for _ in range(_REPLICATES // _CHUNK)
    ]
    return np.concatenate(draws)


def _exposure_residual(
    x: np.ndarray, history: np.ndarray, others: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """Return exposure less its ridge prediction from the history up to and at each time [fold, T]."""
    found = np.empty((len(fold), x.shape[1]))
    for time in range(x.shape[1]):
        path = history[:, : time + 1].reshape(len(x), -1)
        mean, sd = path[others].mean(0), path[others].std(0)
        scaled = (path - mean)[:, sd > 0] / sd[sd > 0]
        a = scaled[others]
        centre = x[others, time].mean()
        gram = a.T @ a + _RIDGE * len(others) * np.eye(a.shape[1])
        beta = np.linalg.solve(gram, a.T @ (x[others, time] - centre))
        found[:, time] = x[fold, time] - centre - scaled[fold] @ beta
    return found


def _intensity(
    events: np.ndarray, at_risk: np.ndarray, history: np.ndarray, others: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """Return the chance of the event in each step given time and history [fold, T]; the depth of trees is tuned."""
    times = np.broadcast_to(np.arange(events.shape[1])[None, :, None], (*events.shape, 1))
    table = np.concatenate([times, history], 2)
    part = np.arange(len(others)) % 4 == 0
    losses = []
    tuned = all(events[rows].any() for rows in (others[part], others[~part]))
    for depth in _DEPTHS if tuned else ():
        model = _trees(depth).fit(*_person_periods(table, events, at_risk, others[~part]))
        inputs, counts = _person_periods(table, events, at_risk, others[part])
        rate = np.maximum(model.predict(inputs), 1e-12)
        losses.append(float((rate - counts * np.log(rate)).mean()))
    model = _trees(_DEPTHS[int(np.argmin(losses))] if tuned else _DEPTHS[0]).fit(
        *_person_periods(table, events, at_risk, others)
    )
    rate = model.predict(table[fold].reshape(-1, table.shape[2])).reshape(len(fold), -1)
    found: np.ndarray = np.where(at_risk[fold], rate, 0.0)
    return found


def _trees(depth: int) -> Any:
    return sklearn("ensemble").HistGradientBoostingRegressor(
        loss="poisson", learning_rate=0.1, max_iter=60, max_depth=depth, min_samples_leaf=10, random_state=0
    )


def _person_periods(
    table: np.ndarray, events: np.ndarray, at_risk: np.ndarray, subjects: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    risk = at_risk[subjects]
    return table[subjects][risk], events[subjects][risk].astype(np.float64)


def _check_folds(ever: np.ndarray, k: int, units: str) -> None:
    """Refuse folds that would be empty, or leave no event to learn from."""
    if k > len(ever) or ever.sum() < 2:
        raise DataError(
            explain(
                f"at least {k} {units} for {k} folds, and events in two of them",
                f"{len(ever)} {units}, {int(ever.sum())} with an event",
                f"more folds than {units}, or an event that one run alone had",
                "take fewer folds, or log more runs",
            )
        )


def _nothing_left(events: int) -> str:
    return explain(
        "an exposure that differs between subjects of equal history",
        f"no difference left in {events} events",
        "a run's own step count as exposure, or a history that holds the exposure itself",
        "log runs with different orders or subsets, and leave the exposure out of the history",
    )


def _checked(log: EventLog, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    if k < 2:
        raise ConfigError(explain("at least two folds", f"{k}", "a mistyped option", "write folds_count=5"))
    events, at_risk = numbers(log.events, "events"), numbers(log.at_risk, "at_risk")
    x, history = numbers(log.exposure, "exposure"), numbers(log.history, "history")
    alike = events.ndim == 2 and at_risk.shape == x.shape == events.shape
    if not alike or history.ndim != 3 or history.shape[:2] != x.shape:
        raise DataError(
            explain(
                "events, at_risk and exposure as subjects × times, history as subjects × times × numbers",
                f"shapes {events.shape}, {at_risk.shape}, {x.shape} and {history.shape}",
                "one history without its last axis, or times before subjects",
                "pass history[..., None] for a single one",
            )
        )
    if not (np.isin(events, (0, 1)).all() and np.isin(at_risk, (0, 1)).all()):
        raise DataError(
            explain(
                "events and at_risk as True and False",
                "other values",
                "counts or times",
                "compare first: counts > 0",
            )
        )
    if not (np.isfinite(x).all() and np.isfinite(history).all()):
        raise DataError(
            explain(
                "finite exposure and history",
                f"{int((~np.isfinite(x)).sum()) + int((~np.isfinite(history)).sum())} values that are not",
                "times after a subject was lost",
                "carry the last value forward and set at_risk to False there",
            )
        )
    events, at_risk = events.astype(bool), at_risk.astype(bool)
    if (events & ~at_risk).any() or (events.sum(1) > 1).any():
        raise DataError(
            explain(
                "at most one event a subject, while it is at risk",
                f"{int((events & ~at_risk).sum())} events off risk, {int((events.sum(1) > 1).sum())} subjects with "
                "several",
                "at_risk cleared at the event instead of after it",
                "make at_risk True up to and at the event",
            )
        )
    if len(events) < _FEWEST_SUBJECTS or events.sum() < _FEWEST_EVENTS:
        raise DataError(
            explain(
                f"at least {_FEWEST_SUBJECTS} subjects and {_FEWEST_EVENTS} events",
                f"{len(events)} subjects, {int(events.sum())} events",
                "too few runs or queries, or an event that hardly happens",
                "log more runs, or choose an event that is reached more often",
            )
        )
    if (x == x[:1]).all():
        raise DataError(_nothing_left(int(events.sum())))
    return events, at_risk, x, history
