"""Heads on frozen features: linear probe, plain MLP, and NMTune."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from finfluence._indices import same_rows
from finfluence._progress import Progress, silent
from finfluence._seeds import stream, torch_seed
from finfluence.errors import ConfigError, DataError, TrainingError, explain
from finfluence.mitigate._diagnostics import feature_matrix
from finfluence.mitigate._terms import terms
from finfluence.runs import seeded
from finfluence.stats import numbers

HEADS = ("linear", "mlp", "nmtune")
_WIDER = 4
_EPOCHS, _FEWEST_STEPS = 30, 600


@dataclass(frozen=True)
class HeadOptions:
    """How a head is trained: AdamW with a cosine to zero, the published values.

    Attributes
    ----------
    epochs : int or None
        None: 30 as published, on small tables as many as make 600 steps.
    learning_rate : float or None
        None: 0.01 for the linear probe, 0.001 for the others.
    """

    epochs: int | None = None
    batch_size: int = 64
    learning_rate: float | None = None
    weight_decay: float = 1e-4


@dataclass(frozen=True, eq=False)
class Head:
    """A trained head.

    Attributes
    ----------
    kind
        "linear", "mlp" or "nmtune".
    classes : array
        Labels in the order of the columns of `predict_proba`.
    module : torch.nn.Module
        Features to logits, after standardising by `mean` and `scale`.
    mean, scale : Tensor [M]
    losses : array [epochs]
        Mean training loss of each epoch, terms included.
    """

    kind: str
    classes: np.ndarray
    module: nn.Module
    mean: Tensor
    scale: Tensor
    losses: np.ndarray

    def predict_proba(self, features: ArrayLike) -> np.ndarray:
        """Return the chance of each class, rows × classes."""
        with torch.no_grad():
            return np.asarray(functional.softmax(self.module(self._standardised(features)), 1).double())

    def transform(self, features: ArrayLike) -> np.ndarray:
        """Return the features as the last, linear layer sees them, rows × dimensions."""
        with torch.no_grad():
            x = self._standardised(features)
            return np.asarray(self.module[0](x).double())  # type: ignore[index]

    def _standardised(self, features: ArrayLike) -> Tensor:
        x = torch.as_tensor(feature_matrix(features), dtype=torch.float32)
        if x.shape[1] != len(self.mean):
            raise DataError(
                explain(
                    f"features of {len(self.mean)} dimensions",
                    f"{x.shape[1]}",
                    "another encoder or layer than the head was trained on",
                    "encode the rows as the training rows were",
                )
            )
        return (x - self.mean) / self.scale


class Residual(nn.Module):
    """Z = F + s ⊙ MLP(F), s learned for each dimension and 1 at the start."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.mlp = _mlp(size)
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """Return Z."""
        moved: Tensor = x + self.scale * self.mlp(x)
        return moved


def nmtune(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    kind: str = "nmtune",
    weights: ArrayLike | None = None,
    options: HeadOptions | None = None,
    seed: int = 0,
    progress: Progress = silent,
) -> Head:
    r"""Train a head on the features of a frozen encoder, so that noise of its pre-training does less harm.

    .. math:: Z = F + s \odot \mathrm{MLP}(F), \qquad
              L = \mathrm{CE}(WZ + b, y) + L_{\mathrm{MSE}} + 0.04\,L_{\mathrm{COV}} + 0.001\,L_{\mathrm{SVD}}

    with the terms of `finfluence.mitigate.terms`. "mlp" is the same network by cross-entropy alone, "linear" a linear
    layer on F. Features are standardised by the rows given; each row passes once (the published code passes two
    random views of an image; features have one).

    Parameters
    ----------
    features : array [n, M]
        The encoder's output.
    labels : array [n]
        Of the task, of any kind that numpy can sort.
    kind : {"nmtune", "mlp", "linear"}
    weights : array [n], optional
        Weight of each row's cross-entropy, not negative (`finfluence.mitigate.reweight`); scaled to a mean of one.
    options : HeadOptions
    seed : int
        Of initial weights and order. The same seed gives the same head, bit for bit on CPU.
    progress : callable
        Called as `progress("head", done, total)` in epochs.

    Returns
    -------
    Head

    Raises
    ------
    DataError
        Shapes disagree, values not finite, rows all alike, labels missing, fewer than four rows or two classes.
    ConfigError
        An unknown kind, or options that cannot be used.
    TrainingError
        The loss is not finite.

    References
    ----------
    Chen et al., "Understanding and mitigating the label noise in pre-training on downstream tasks" (ICLR 2024,
    arXiv 2309.17002); "Learning with noisy foundation models" (arXiv 2403.06869).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat([0, 1], 60)
    >>> head = nmtune(rng.normal(size=(120, 5)) + 2 * y[:, None], y)
    >>> bool((head.predict_proba([[0] * 5, [2] * 5]).argmax(1) == [0, 1]).all())
    True
    """
    chosen = _checked_options(kind, options or HeadOptions())
    same_rows(features=features, labels=labels, weights=weights)
    matrix, classes, y, w = _checked_rows(features, labels, weights)
    mean, deviation = matrix.mean(0), matrix.std(0)
    scale = np.where(deviation > 0, deviation, 1.0)
    x = torch.as_tensor((matrix - mean) / scale, dtype=torch.float32)
    module = untrained(kind, x.shape[1], len(classes), seed)
    losses = _fit(
        module, _objective(kind, module), (x, torch.as_tensor(y), torch.as_tensor(w)), chosen, seed, progress
    )
    module.eval()
    as_float = [torch.as_tensor(v, dtype=torch.float32) for v in (mean, scale)]
    return Head(kind, classes, module, as_float[0], as_float[1], losses)


def _mlp(size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(size, _WIDER * size),
        nn.BatchNorm1d(_WIDER * size),
        nn.ReLU(),
        nn.Linear(_WIDER * size, size),
    )


def untrained(kind: str, size: int, classes: int, seed: int) -> nn.Sequential:
    """Return a head's network with initial weights of `seed`."""
    with seeded(torch_seed(seed, "head")):
        first = nn.Identity() if kind == "linear" else Residual(size)
        return nn.Sequential(first, nn.Linear(size, classes))


def _objective(kind: str, module: nn.Sequential) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def loss(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        z = module[0](x)
        found = _finite((w * functional.cross_entropy(module[1](z), y, reduction="none")).mean())
        return _finite(found + terms(x, z).total) if kind == "nmtune" else found

    return loss


def _finite(loss: Tensor) -> Tensor:
    if not loss.isfinite():
        raise TrainingError(
            explain(
                "a finite loss of the head",
                f"{loss.item()}",
                "a learning rate that is too large, or features of wild scale",
                "lower HeadOptions(learning_rate=…), or look at the features",
            )
        )
    return loss


def _fit(
    module: nn.Module,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    rows: tuple[Tensor, Tensor, Tensor],
    options: HeadOptions,
    seed: int,
    progress: Progress,
) -> np.ndarray:
    n = len(rows[0])
    batches = max(1, n // options.batch_size)
    epochs = options.epochs or max(_EPOCHS, -(-_FEWEST_STEPS // batches))
    assert options.learning_rate is not None
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    losses = []
    module.train()
    for epoch in range(epochs):
        order = torch.as_tensor(stream(seed, "head order", epoch).permutation(n))
        total = 0.0
        for batch in torch.tensor_split(order, batches):
            value = loss(*(r[batch] for r in rows))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.item() / batches
        losses.append(total)
        progress("head", epoch + 1, epochs)
    return np.array(losses)


def _checked_options(kind: str, options: HeadOptions) -> HeadOptions:
    if kind not in HEADS:
        raise ConfigError(
            explain(f"kind as one of {', '.join(HEADS)}", f"{kind!r}", "a mistyped name", 'write "nmtune"')
        )
    rates_fit = (options.learning_rate or 1) > 0 and options.weight_decay >= 0
    if (options.epochs is not None and options.epochs < 1) or options.batch_size < 2 or not rates_fit:
        raise ConfigError(
            explain(
                "at least one epoch, two rows a batch, a positive learning rate and no negative weight decay",
                f"{options}",
                "a mistyped option",
                "leave it out: the published values are the defaults",
            )
        )
    if options.learning_rate is None:
        return replace(options, learning_rate=0.01 if kind == "linear" else 0.001)
    return options


def one_a_row(labels: ArrayLike, count: int, rows: str = "rows") -> np.ndarray:
    """Return the labels of `count` rows as an array, or say that there is not one for each.

    Returns
    -------
    array [count]

    Raises
    ------
    DataError
    """
    y = np.asarray(labels)
    if y.shape != (count,):
        raise DataError(
            explain(
                f"one label for each of {count} {rows}",
                f"labels of shape {y.shape}",
                "one-hot labels, or labels of other rows",
                "pass one class a row",
            )
        )
    return y


def _classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes in order, and the position of each label among them."""
    missing = np.array([v is None or v != v for v in y.tolist()], dtype=bool)
    kinds = sorted({type(v).__name__ for v in y[~missing].tolist()})
    if missing.any() or (y.dtype == object and len(kinds) > 1):
        raise DataError(
            explain(
                "a label of one kind for every row",
                f"{int(missing.sum())} of {len(y)} missing, the others of type {', '.join(kinds) or 'none'}",
                "rows that nobody labelled, or numbers mixed with text",
                "leave these rows out, or write all labels as text",
            )
        )
    classes, positions = np.unique(y, return_inverse=True)
    return classes, positions


def _checked_rows(
    features: ArrayLike, labels: ArrayLike, weights: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    matrix = feature_matrix(features)
    y = one_a_row(labels, len(matrix))
    classes, positions = _classes(y)
    if len(classes) < 2 or len(matrix) < 4:
        raise DataError(
            explain(
                "at least four rows of at least two classes",
                f"{len(matrix)} rows of {len(classes)}",
                "a filter that left one class",
                "pass rows of all classes",
            )
        )
    if (matrix == matrix[0]).all():
        raise DataError(
            explain(
                "features that differ between rows",
                f"the same {matrix.shape[1]} numbers in all {len(matrix)}",
                "an encoder that is dead, or the wrong layer's output",
                "look at the features; take another layer",
            )
        )
    w = np.ones(len(matrix)) if weights is None else numbers(weights, "weights")
    if w.shape != (len(matrix),) or not np.isfinite(w).all() or (w < 0).any() or w.sum() == 0:
        raise DataError(
            explain(
                f"{len(matrix)} finite weights, none negative, not all zero",
                f"shape {w.shape}, smallest {np.min(w) if w.size else 'none'}",
                "scores where weights belong",
                "make weights of them: finfluence.mitigate.reweight(chance_wrong)",
            )
        )
    return matrix, classes, positions.astype(np.int64), (w / w.mean()).astype(np.float32)
