"""The published single-run algorithm of f-influence on a tape, by Monte Carlo in two stages; see `_fine`."""

from dataclasses import dataclass

import numpy as np

from finfluence._progress import Progress
from finfluence._seeds import stream
from finfluence.errors import ConfigError, explain
from finfluence.estimators._base import AbstractEstimator, Cost, check_whole
from finfluence.estimators._one_run import (
    activation_bytes,
    id_order,
    in_trainings,
    labels,
    one_run,
    own_losses,
)
from finfluence.estimators.first_order._recording import check_products, recorded_products, recorded_steps
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape
from finfluence.runs.describe import Subsets
from finfluence.stats import auc_probit, max_scan

_MOST_SAMPLES = 2e9


@dataclass(frozen=True, kw_only=True)
class FineMonteCarloOptions:
    """Options of `FineMonteCarlo`.

    Parameters
    ----------
    records : int
        Steps recorded, evenly spaced after a burn-in of a tenth of the run.
    auxiliary : Tape, optional
        Another run of the same recipe, for difference in differences.
    seed : int, optional
        Of the batches drawn; the tape's order seed unless given.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.

    Raises
    ------
    ConfigError
        A value that is no whole number, or below 1 (below 0 for the seed); an auxiliary run that is no tape.
    """

    records: int = 100
    auxiliary: Tape | None = None
    seed: int | None = None
    rows_at_once: int = 1024

    def __post_init__(self) -> None:
        check_whole("records", self.records)
        check_whole("rows_at_once", self.rows_at_once)
        if self.seed is not None:
            check_whole("seed", self.seed, 0)
        if self.auxiliary is not None and not isinstance(self.auxiliary, Tape):
            raise ConfigError(
                explain(
                    "auxiliary to be a tape",
                    f"an object of type {type(self.auxiliary).__name__}",
                    "the recipe of the second run was passed, or its result",
                    "pass fi.train(recipe, seed=1), or leave it out",
                )
            )


class FineMonteCarlo(AbstractEstimator[Tape, FineMonteCarloOptions]):
    """f-INE as published: samples of two arms along one run, compared by Monte Carlo.

    Stage 1 records one sample of each arm per step: independent batches from D∖S, with S added in one of them. With an
    auxiliary run, its signal *without S in both arms* is subtracted (difference in differences; with S it would cancel
    the signal). Stage 2 compares the samples: μ = −√2 Φ⁻¹(AUC), positive where removing S raises the query. The result
    holds μ alone, and beside it `mu_scan`, by the published scan: it takes the threshold of largest |μ_τ| and is biased
    away from zero: mean |μ| 0.62 at 100 records under no influence.

    Notes
    -----
    Cost: one evaluation of every row at each recorded step, twice with an auxiliary run; memory for `records` samples
    of each arm, subset and query.

    References
    ----------
    f-influence, arXiv 2510.10510, the single-run algorithm.

    Examples
    --------
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> recipe = Recipe(data=Rows(x=np.eye(4), y=np.arange(4.0)), model=nn.Linear(4, 1), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=8)
    >>> influence = FineMonteCarlo().estimate(train(recipe), own_loss([3]))
    >>> bool(influence.data.mu[3, 0] > 0), "mu_scan" in influence.data
    (True, True)
    """

    name = "fine-mc"
    family = "first_order"
    paper = "arXiv 2510.10510"
    yields = "mu"
    needs = Tape
    Options = FineMonteCarloOptions

    def _check(self, source: Tape) -> None:
        check_products(source)

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        options = self.options
        runs = [source]
        if options.auxiliary is not None:
            _check_auxiliary(source, options.auxiliary)
            runs.append(options.auxiliary)
        _check_samples(len(subsets), options.records)
        order = id_order(source)
        signals = [
            [
                products[order]
                for products in recorded_products(
                    run, queries, options.records, options.rows_at_once, progress
                )
            ]
            for run in runs
        ]
        where, columns = _ranked(subsets, order)
        x, y = self._samples(signals, where, source.batch_size, source.seed)
        shape = (len(subsets), x.shape[1])
        mu, scan = np.zeros(shape), np.zeros(shape)
        if len(where):
            mu[columns], scan[columns] = -auc_probit(x, y), -max_scan(x, y)
        return Influence.build(
            mu=mu,
            extra={"mu_scan": scan},
            own_loss=own_losses(source, subsets, options.rows_at_once),
            provenance=one_run(source, self.name, records=options.records),
            **labels(queries, subsets),
        )

    def _samples(
        self, signals: list[list[np.ndarray]], where: list[np.ndarray], batch: int, tape_seed: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the samples of the arms with S and without it, each [S, Q, records]."""
        seed = tape_seed if self.options.seed is None else self.options.seed
        with_s, without_s = [], []
        for t, main in enumerate(signals[0]):
            p, q = arms(main, where, batch, seed, t, include=True)
            for auxiliary in signals[1:]:
                p_aux, q_aux = arms(auxiliary[t], where, batch, seed, t, include=False)
                p, q = p - p_aux, q - q_aux
            with_s.append(p)
            without_s.append(q)
        return np.stack(with_s, -1), np.stack(without_s, -1)

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        rows, columns = len(source.rows), sum(len(q.names) for q in queries)
        records, runs = len(recorded_steps(source, self.options.records)), 1 + bool(self.options.auxiliary)
        tangents = activation_bytes(source, self.options.rows_at_once) * (1 + columns)
        held = 8 * columns * records * (runs * rows + 6 * len(subsets))
        return Cost(in_trainings(source, rows * (1 + runs * records)), tangents + held)


def arms(
    products: np.ndarray, where: list[np.ndarray], batch: int, seed: int, t: int, include: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one sample of each arm for every subset.

    Parameters
    ----------
    products : array [n, Q]
        s_j of all rows at step t.
    where : list of int arrays
        Positions of the rows of each S.
    batch : int
        Rows of a batch.
    seed, t : int
        What the draws depend on.
    include : bool
        Whether S is added in the first arm.

    Returns
    -------
    tuple of arrays [S, Q]
        Mean of s over a batch with S, and over another without it.
    """
    out = []
    for arm in (0, 1):
        rng = stream(seed, "fine", t, arm)
        drawn = np.empty((len(where), products.shape[1]))
        rows = rng.integers(len(products), size=(len(where), batch))
        for k, subset in enumerate(where):
            outside = rows[k][~np.isin(rows[k], subset)]
            while len(outside) < batch:
                more = rng.integers(len(products), size=batch)
                outside = np.concatenate([outside, more[~np.isin(more, subset)]])[:batch]
            total = products[outside].sum(0)
            if arm == 0 and include:
                drawn[k] = (total + products[subset].sum(0)) / (batch + len(subset))
            else:
                drawn[k] = total / batch
        out.append(drawn)
    return out[0], out[1]


def _ranked(subsets: Subsets, order: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
    """Put the subsets that have rows into the order in which batches are drawn: as listed, or by id if all rows are.

    So draws do not depend on where rows stand.

    Returns
    -------
    tuple
        Each subset as ranks of its rows in `order`, and its place in the result.
    """
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    ranked = [np.sort(rank[rows]) for rows in subsets.positions]
    columns = [k for k, rows in enumerate(ranked) if len(rows)]
    if len(columns) == len(order) and (subsets.sizes <= 1).all():
        columns.sort(key=lambda k: int(ranked[k][0]))
    return [ranked[k] for k in columns], columns


def _check_samples(subsets: int, records: int) -> None:
    if subsets * records > _MOST_SAMPLES:
        raise ConfigError(
            explain(
                "records × subsets small enough to hold",
                f"{records} × {subsets}",
                "too many steps recorded",
                "lower records, or name fewer subsets",
            )
        )


def _check_auxiliary(tape: Tape, auxiliary: Tape) -> None:
    """Refuse a second run that is of another recipe, or the first one again."""
    ours, theirs = tape.digest(), auxiliary.digest()
    seeds = tuple(tape.identity().values())
    if ours != theirs or tape.identity() == auxiliary.identity():
        raise ConfigError(
            explain(
                "auxiliary to be another run of the same recipe",
                "a run of another recipe" if ours != theirs else f"a run of the same seeds {seeds}",
                "tapes were mixed up, or one tape was passed twice",
                "train the auxiliary run from the same recipe with another seed",
            )
        )
