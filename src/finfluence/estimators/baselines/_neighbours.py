"""How many of a row's nearest neighbours in the model's representation have another label."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from finfluence.errors import NotSupportedError, explain
from finfluence.estimators._base import check_whole
from finfluence.estimators._one_run import id_order
from finfluence.estimators.baselines._probabilities import class_probabilities
from finfluence.estimators.baselines._row_score import RowScore, RowScoreOptions
from finfluence.runs import Tape, seeded
from finfluence.runs.tape import affordable_rows


@dataclass(frozen=True, kw_only=True)
class NeighboursOptions(RowScoreOptions):
    """Options of `Neighbours`.

    Parameters
    ----------
    neighbours : int
        Nearest rows that are asked.
    rows_at_once : int
        Rows evaluated together, fewer where memory asks for it; results do not depend on it.

    Raises
    ------
    ConfigError
        A value that is no whole number of at least 1.
    """

    neighbours: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("neighbours", self.neighbours)


class Neighbours(RowScore[NeighboursOptions]):
    """Share of each row's nearest neighbours in the representation that have another label.

    score(S) = Σ_{i∈S} mean_{j∈N(i)} 1[y_j ≠ y_i]; of one row between 0 and 1; larger is more suspect. N(i): the k other
    rows of largest cosine in what goes into the model's last Linear layer, at the end of the run.

    Notes
    -----
    Cost: two evaluations of every row, and n² products. For classifiers, as `margin`. A linear model is compared in its
    inputs.

    References
    ----------
    Bahri, Jiang and Gupta, "Deep k-NN for noisy labels" (2020).

    Examples
    --------
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> x, y = np.array([[-1.0], [-1.0], [-1.0], [1.0], [1.0]]), np.array([0, 0, 1, 1, 1])
    >>> recipe = Recipe(data=Rows(x=x, y=y), model=nn.Linear(1, 2), optimizer=SGD(lr=0.1), batch_size=2, epochs=40,
    ...                 loss=lambda m, b: nn.functional.cross_entropy(m(b["x"]), b["y"], reduction="none"))
    >>> found = Neighbours(NeighboursOptions(neighbours=1)).estimate(train(recipe), own_loss([2]))
    >>> found.data.score.values.ravel().tolist()
    [0.0, 0.0, 1.0, 0.0, 0.0]
    """

    name = "neighbours"
    paper = "arXiv 2004.12289"
    Options = NeighboursOptions

    def _check(self, source: Tape) -> None:
        class_probabilities(source, rows_at_once=2, rows=2)
        representation(source, torch.arange(2))

    def scores(self, tape: Tape) -> np.ndarray:
        """Return the share of each row's neighbours that have another label [n]."""
        order = torch.from_numpy(id_order(tape).copy())
        _, labels = class_probabilities(tape, self.options.rows_at_once)
        together = affordable_rows(tape, self.options.rows_at_once)
        parts = [representation(tape, rows) for rows in order.split(together)]
        found = np.empty(len(order))
        found[order.numpy()] = disagreement(torch.cat(parts), labels[order.numpy()], self.options.neighbours)
        return found

    def _evaluations(self, source: Tape) -> float:
        return 2.0


def representation(tape: Tape, rows: Tensor) -> Tensor:
    """Return what goes into the last Linear layer for these rows [B, d], at the end of the run.

    Returns
    -------
    Tensor

    Raises
    ------
    NotSupportedError
        No Linear layer is called, or not with one vector for each row.
    """
    model = tape.model().eval()
    seen: list[Tensor] = []
    handles = [
        module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.no_grad(), seeded(0):
        model(tape.batch(rows)["x"])
    for handle in handles:
        handle.remove()
    if not seen or seen[-1].ndim != 2 or len(seen[-1]) != len(rows):
        raise NotSupportedError(
            explain(
                "a model whose last Linear layer is given one vector for each row",
                f"inputs of shape {tuple(seen[-1].shape)}" if seen else "no Linear layer that is called",
                "a convolution or an attention at the end",
                "use method='margin', which needs the outputs only",
            )
        )
    return seen[-1].double()


def disagreement(vectors: Tensor, labels: np.ndarray, neighbours: int) -> np.ndarray:
    """Return the share of each row's nearest others, by cosine, that have another label [n].

    Parameters
    ----------
    vectors : Tensor [n, d]
    labels : array of int [n]
    neighbours : int
        k, or all others if there are fewer; of equally near ones, the first.

    Returns
    -------
    array [n]

    Examples
    --------
    >>> x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> disagreement(x, np.array([0, 0, 1, 0]), 1).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    unit = nn.functional.normalize(vectors, dim=1)
    k, found = min(neighbours, len(unit) - 1), []
    for rows in torch.arange(len(unit)).split(1024):
        cosines = (unit[rows] @ unit.T).round(decimals=12)
        cosines[torch.arange(len(rows)), rows] = -2.0
        nearest = cosines.sort(dim=1, descending=True, stable=True).indices[:, :k].cpu().numpy()
        found.append((labels[nearest] != labels[rows.numpy()][:, None]).mean(1))
    return np.concatenate(found)
