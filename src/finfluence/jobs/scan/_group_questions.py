"""On which held-out rows a group of training rows is asked: those of other groups, which do not share its faults."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from finfluence.ingest import Table
from finfluence.jobs.scan._data import ScanData
from finfluence.jobs.scan._measures import bounded_loss
from finfluence.jobs.scan._options import BOUNDED, HELD_OUT, PER_CLASS
from finfluence.result import LINEAR, TWIN, Influence
from finfluence.runs import AnyQuery, mean_loss

MOST_BLOCKS = 5
_HARDLY = 0.2
"""Share of its share in all rows below which a class is as good as missing among other groups."""
_VALUES = ("effect", "effect_se", "spread", "se", "p_value", "mu", "lower", "upper")


@dataclass(frozen=True, eq=False)
class GroupQuestions:
    """Blocks of groups: each group is asked on the query rows of all groups outside its block.

    Attributes
    ----------
    block
        Block of every group, by its name; with up to five groups each has its own.
    rows
        For each block, the positions of the query rows that its groups are asked on; empty where there are none.
    apart
        Whether the query rows say which group they are of. If not, every group is asked on all of them.
    of_own_class
        Groups most of whose rows are of classes that the groups outside their block hardly have: a model without them
        no longer knows these classes, and does better on rows of the others, whatever their labels are.
    """

    block: dict[str, int]
    rows: tuple[np.ndarray, ...]
    apart: bool
    of_own_class: frozenset[str] = frozenset()

    def asked_rows(self, group: str) -> int:
        """Return on how many held-out rows a group is asked."""
        return len(self.rows[self.block[group]])


def group_questions(data: ScanData) -> GroupQuestions | None:
    """Divide the groups into at most five blocks of about as many query rows each; None without groups.

    Returns
    -------
    GroupQuestions | None
    """
    if data.train.groups is None:
        return None
    names = data.train.groups.astype(str)
    if data.query.groups is None:
        return GroupQuestions(dict.fromkeys(names.tolist(), 0), (np.arange(len(data.query)),), False)
    held = data.query.groups.astype(str)
    groups = np.unique(np.concatenate([names, held]))
    sizes = np.array([(held == group).sum() for group in groups])
    block: dict[str, int] = {}
    load = np.zeros((2, min(MOST_BLOCKS, len(groups))), dtype=np.int64)  # groups, rows
    for place in np.argsort(-sizes, kind="stable"):
        lightest = int(np.lexsort(load)[0])
        block[str(groups[place])] = lightest
        load[:, lightest] += (1, sizes[place])
    of_rows = np.array([block[group] for group in held], dtype=np.int64)
    rows = tuple(np.flatnonzero(of_rows != b) for b in range(load.shape[1]))
    alone = _of_own_class(data.train.y, names, block) if data.train.task == "classification" else frozenset()
    return GroupQuestions(block, rows, True, alone)


def _of_own_class(y: np.ndarray, names: np.ndarray, block: dict[str, int]) -> frozenset[str]:
    at = np.array([block[name] for name in names.tolist()], dtype=np.int64)
    whole = np.bincount(y) / len(y)
    found = set()
    for name in set(names.tolist()):
        outside, own = y[at != block[name]], y[names == name]
        if not len(outside):
            continue
        shares = np.bincount(outside, minlength=len(whole)) / len(outside)
        if (shares < _HARDLY * whole)[own].mean() > 0.5:
            found.add(name)
    return frozenset(found)


def loss_queries(held: Table, asked: Collection[str], unit: str, block: int | None = None) -> list[AnyQuery]:
    """Return the mean loss on held-out rows, and perhaps the bounded one and that of each class.

    Parameters
    ----------
    asked
        As `ScanOptions.queries`.
    block
        Where the queries are for the groups of one block.

    Returns
    -------
    list
    """
    queries: list[AnyQuery] = [mean_loss(held.x, held.y, name=_name(HELD_OUT, block), unit=unit)]
    if BOUNDED in asked:
        queries.append(bounded_loss(held, _name(BOUNDED, block)))
    classes = held.target.classes if PER_CLASS in asked else None
    for k, name in enumerate(classes or ()):
        rows = np.flatnonzero(held.y == k)
        if len(rows):
            queries.append(
                mean_loss(held.x[rows], held.y[rows], name=_name(f"class {name}", block), unit=unit)
            )
    return queries


def questions_of_blocks(
    questions: GroupQuestions, held: Table, asked: Collection[str], unit: str
) -> list[AnyQuery]:
    """Return the queries of every block that has rows to be asked on; none where all groups are asked alike."""
    if not questions.apart:
        return []
    return [
        query
        for block, rows in enumerate(questions.rows)
        if len(rows)
        for query in loss_queries(held.take(rows), asked, unit, block)
    ]


def by_own_question(found: Influence, names: Sequence[str], questions: GroupQuestions) -> Influence:
    """Return the influence of groups on the queries of these names, each group by the queries of its block.

    Values are NaN where there is nothing to ask a group on. A result of an earlier version, which asked every group on
    all held-out rows, keeps these.

    Returns
    -------
    Influence
    """
    known = set(found.queries)
    apart = questions.apart and any(_name(names[0], block) in known for block in range(len(questions.rows)))
    data = found.data
    wanted = [v for v in (*_VALUES, *TWIN, LINEAR) if v in data]
    values = {v: np.full((len(found.subsets), len(names)), np.nan) for v in wanted}
    for at, group in enumerate(found.subsets.tolist()):
        for column, name in enumerate(names):
            asked = _name(name, questions.block[str(group)] if apart else None)
            if asked in known:
                for v in wanted:
                    values[v][at, column] = data[v].sel(query=asked).values[at]
    return _built(found, names, values)


def first_queries(found: Influence, names: Sequence[str]) -> Influence:
    """Return the result on its first queries alone, which are of these names."""
    if list(found.queries) == list(names):
        return found
    part = found.data.sel(query=list(names))
    wanted = [v for v in (*_VALUES, *TWIN, LINEAR) if v in part]
    return _built(found, names, {v: part[v].values for v in wanted})


def _built(found: Influence, names: Sequence[str], values: dict[str, np.ndarray]) -> Influence:
    main, made, count = found.data.sel(query=list(names)), found.provenance, len(names)
    assert made.horizon is not None and made.query_values is not None  # of a replay
    profile = made.spread_profile
    made = replace(
        made,
        horizon=made.horizon[:count],
        query_values=tuple(run[:count] for run in made.query_values),
        spread_profile=None if profile is None else profile[:count],
    )
    return Influence.build(
        **{v: values[v] for v in _VALUES},
        subsets=found.subsets,
        queries=list(names),
        provenance=made,
        units=[str(u) for u in main["unit"].values],
        signs=main["sign"].values.tolist(),
        sizes=found.data["size"].values,
        own_loss=found.data["own_loss"].values,
        twin={name: values[name] for name in TWIN},
        extra={LINEAR: values[LINEAR]} if LINEAR in values else None,
    )


def _name(query: str, block: int | None) -> str:
    return query if block is None else f"{query}, for the groups of block {block + 1}"
