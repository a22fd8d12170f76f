"""Class probabilities of the training rows: of a run, or as given."""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from finfluence._indices import same_rows
from finfluence.errors import DataError, NotSupportedError, explain
from finfluence.runs import Tape, seeded
from finfluence.runs.tape import affordable_rows


def class_probabilities(
    tape: Tape, rows_at_once: int = 1024, rows: int | None = None, step: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return class probabilities of training rows at a state of a run, and the rows' labels.

    The softmax of `model(batch["x"])`, or that itself where it is a probability already.

    Parameters
    ----------
    tape : Tape
        The run.
    rows_at_once : int
        Rows evaluated together.
    rows : int, optional
        The first so many only.
    step : int, optional
        Before which step; the end of the run unless given.

    Returns
    -------
    tuple of arrays
        p [n, C] and class indices [n].

    Raises
    ------
    NotSupportedError
        Rows without fields "x" and "y", a model that does not give one output per class, or labels that are no classes.
    """
    model = tape.model(step).eval()
    count = len(tape.rows) if rows is None else min(rows, len(tape.rows))
    outputs, labels = [], []
    with torch.no_grad(), seeded(0):
        for positions in torch.arange(count).split(affordable_rows(tape, rows_at_once)):
            batch = tape.batch(positions)
            if not {"x", "y"} <= batch.keys():
                raise NotSupportedError(_no_classifier(f"rows with the fields {', '.join(sorted(batch))}"))
            output, label = model(batch["x"]), batch["y"]
            _check_classes(output, label)
            outputs.append(output.double().cpu())
            labels.append(label.cpu())
    output = torch.cat(outputs)
    ready = bool((output >= 0).all()) and bool(torch.allclose(output.sum(1), output.new_ones(()), atol=1e-6))
    return (output if ready else output.softmax(1)).numpy(), torch.cat(labels).numpy()


def check_probabilities(probabilities: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return what was given as arrays, checked.

    Parameters
    ----------
    probabilities : array [rows, classes]
        Of each class.
    labels : array [rows]
        Index of the given class.

    Returns
    -------
    tuple of arrays
        Both as arrays.

    Raises
    ------
    DataError
        Labels that are no class indices, or probabilities that do not sum to 1.
    """
    same_rows(probabilities=probabilities, labels=labels)
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    fits = p.ndim == 2 and p.shape[1] >= 2 and y.shape == p.shape[:1] and y.dtype.kind in "iu"
    if not fits or (y.size and not (0 <= y.min() <= y.max() < p.shape[1])):
        raise DataError(
            explain(
                "probabilities [rows, classes] and the class index of every row",
                f"probabilities {p.shape}, labels {y.shape} of {y.dtype}",
                "labels by name, or a regression",
                "encode labels as 0 .. classes-1",
            )
        )
    if not (np.isfinite(p).all() and (p >= 0.0).all() and np.allclose(p.sum(axis=1), 1.0, atol=1e-4)):
        raise DataError(
            explain(
                "probabilities that are finite and sum to 1 in each row",
                f"from {p.min()} to {p.max()}, sums up to {p.sum(axis=1).max():.4g}",
                "logits instead of probabilities",
                "apply a softmax first",
            )
        )
    return p, y


def _check_classes(output: object, label: Tensor) -> None:
    if not isinstance(output, Tensor):
        got = f"an output of type {type(output).__name__}"
    elif output.ndim != 2 or output.shape[1] < 2:
        got = f"outputs of shape {tuple(output.shape)}"
    elif label.ndim != 1 or label.is_floating_point():
        got = f"labels of shape {tuple(label.shape)} and type {label.dtype}"
    elif bool((label < 0).any()) or bool((label >= output.shape[1]).any()):
        got = f"labels from {int(label.min())} to {int(label.max())} of {output.shape[1]} classes"
    else:
        return
    raise NotSupportedError(_no_classifier(got))


def _no_classifier(got: str) -> str:
    return explain(
        'a classifier: model(batch["x"]) gives one output per class, batch["y"] the class indices',
        got,
        "a regression, a language model, or a model that is called otherwise in the loss",
        "use method='own-loss', which needs the loss only",
    )
