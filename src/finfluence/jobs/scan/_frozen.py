"""A network that stays as it was trained, and a new head on its features: for rows that cannot be taken back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from finfluence._files import digest
from finfluence.jobs.scan._estimate import Context
from finfluence.jobs.scan._measures import Hidden
from finfluence.jobs.scan._models import BUILT_IN
from finfluence.jobs.scan._versions import Asked, answers, original
from finfluence.mitigate import HEADS, nmtune
from finfluence.runs import initial_model

MOST_WIDE, MOST_NUMBERS = 512, 1_000_000
FEWEST = 4


@dataclass(frozen=True, eq=False)
class Frozen:
    """Features that no training changes any more.

    Attributes
    ----------
    what
        Whose they are, in words.
    width
        Their number; 0 where they are the rows' own.
    """

    what: str
    width: int = 0


def frozen(context: Context) -> Frozen | str:
    """Return the features that a scan's network keeps, or why there are none."""
    data, name = context.data, context.training.model.name
    if data.train.target.classes is None:
        return "the target is a number: the heads are classifiers"
    if data.train.kind == "arrays":
        if data.train.x.shape[1] > MOST_WIDE:
            return (
                f"the file has more than {MOST_WIDE} features: finfluence mitigate takes them, given the file"
            )
        return Frozen("the features of the file")
    if name not in BUILT_IN:
        return f"{name} is your own network: which of its layers are features is not known"
    model = initial_model(context.training.recipe, context.training.seeds[0])
    assert isinstance(model, nn.Sequential)
    layers = [m for m in model if any(True for _ in m.parameters())]
    if len(layers) < 2:
        return "the network is linear: it has no layer before the last"
    last = model[-1]
    assert isinstance(last, nn.Linear)
    numbers = last.in_features * sum(map(len, (data.train, data.evaluation)))
    if last.in_features > MOST_WIDE or numbers > MOST_NUMBERS:
        return f"the last layer of the network takes {last.in_features:,} features of many rows: too many for heads"
    return Frozen(
        f"the last hidden layer of the network ({name}), trained on the rows as they are", last.in_features
    )


def features(
    context: Context, of: Frozen, x: Sequence[np.ndarray], seeds: Sequence[int]
) -> list[list[np.ndarray]]:
    """Return, for the network of each seed, the features of each block of rows."""
    if not of.width:
        return [[block.reshape(len(block), -1) for block in x]] * len(seeds)
    asked = [
        Asked(Hidden(torch.from_numpy(rows), of.width), digest(b"hidden", rows.tobytes())) for rows in x
    ]  # a question for each block: what is said of one does not depend on the others
    found = answers(context, [original(context, seeds)], asked, "features")
    blocks = [next(iter(of_version.values())) for of_version in found]
    return [[block[r].reshape(-1, of.width) for block in blocks] for r in range(len(seeds))]


@dataclass(frozen=True, eq=False)
class Mended:
    """What new heads of one kind say.

    Attributes
    ----------
    outputs
        Of the evaluation rows as `RowOutputs` gives them [runs, 2n].
    chances
        Logarithm of every class's probability on the evaluation rows, then the further ones [runs, (n + m) · K].
    """

    outputs: np.ndarray
    chances: np.ndarray


def why_not(context: Context, named: np.ndarray) -> str:
    """Return why no head can be trained by the rows that are not named; "" if it can."""
    of = frozen(context)
    if isinstance(of, str):
        return of
    train = context.data.train
    kept, k = ~named, len(train.target.classes or ())
    if not named.any():
        return "no row is named: a new head would see the same rows"
    if kept.sum() < FEWEST or len(np.unique(train.y[kept])) < k:
        return "too few rows would be left to train a head on, or a class without any"
    return ""


def mended(
    context: Context,
    kept: np.ndarray,
    further: np.ndarray | None,
    seeds: Sequence[int],
    kinds: Sequence[str] = HEADS,
) -> dict[str, Mended]:
    """Train heads on the rows that are kept, for the network of each seed, and return what each kind of head says.

    The networks are those that are trained on all rows as they are. Ask `why_not` first.

    Returns
    -------
    dict
    """
    of = frozen(context)
    assert isinstance(of, Frozen)
    train, held = context.data.train, context.data.evaluation
    k = len(train.target.classes or ())
    blocks = [train.x, held.x, *([] if further is None else [further])]
    found: dict[str, Mended] = {}
    of_seeds = features(context, of, blocks, seeds)
    for place, kind in enumerate(kinds):
        outputs, chances = [], []
        for run, (of_train, *others) in enumerate(of_seeds):
            if not all(np.isfinite(block).all() for block in (of_train, *others)):
                outputs.append(np.full(2 * len(held), np.nan))
                chances.append(np.full(sum(map(len, others)) * k, np.nan))
                continue
            head = nmtune(of_train[kept], train.y[kept], kind=kind, seed=seeds[run])
            p = np.concatenate([head.predict_proba(block) for block in others])
            at_label = p[np.arange(len(held)), held.y]
            outputs.append(np.concatenate([at_label, p[: len(held)].argmax(1) == held.y]))
            chances.append(np.log(np.maximum(p, 1e-30)).ravel())
            context.progress("train heads", place * len(seeds) + run + 1, len(kinds) * len(seeds))
        found[kind] = Mended(np.array(outputs), np.array(chances))
    return found
