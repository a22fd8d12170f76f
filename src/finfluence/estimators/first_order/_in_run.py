"""First-order influence of rows on queries while a loop trains: products in its own backward passes, nothing stored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from finfluence.errors import ConfigError, explain
from finfluence.estimators._base import check_choice, check_whole
from finfluence.estimators.first_order._in_run_shapley import HELD_SCALE
from finfluence.estimators.first_order._in_run_watch import Watch
from finfluence.grads import Batch, RowLoss
from finfluence.result import Influence, Provenance
from finfluence.runs import AnyQuery, check_queries, seeded
from finfluence.runs.describe import Given, check_left, find_subsets, sum_over

OWN = "own influence"
OF_THIS_RUN = (
    "a score, without an error: the value of each row in this very run at the steps that it took part in, whose later "
    "steps are taken as they were; 'predicted_effect' takes the row's own steps back, in the unit of the query"
)
OF_COSINES = (
    "a score, without an error: cosines with the gradients of the queries at the steps that a row took part in, each "
    "times the learning rate; of no unit"
)


@dataclass(frozen=True, kw_only=True)
class InRunOptions:
    """Options of `InRun`.

    Parameters
    ----------
    every : int
        Steps between two passes over the queries; their gradients are held in between.
    product : {"dot", "cosine"}
        *dot*: ⟨∇q, δ_i⟩. *cosine*: η cos(∇q, ∇ℓ_i), of gradients as they are.
    preconditioned : bool
        Whether the rows' parts of a step of Adam are multiplied by its preconditioner, as of the last pass over the
        queries; otherwise by the learning rate alone. No matter for SGD.
    own : bool
        Σ_t η_t c_i ‖∇ℓ_i‖² of each row at its own steps, as a further column, "own influence".
    clip_norm : float, optional
        At what norm the loop clips the gradient.
    scaler : torch.amp.GradScaler, optional
        The loop's own, which may skip steps.
    collate : callable, optional
        The loader's `collate_fn`, if it is not torch's.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    every: int = 10
    product: Literal["dot", "cosine"] = "dot"
    preconditioned: bool = True
    own: bool = False
    clip_norm: float | None = None
    scaler: Any = None
    collate: Callable[[list[Any]], Any] | None = None

    def __post_init__(self) -> None:
        check_whole("every", self.every)
        check_choice("product", self.product, ("dot", "cosine"))
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ConfigError(
                explain(
                    "clip_norm to be a number above 0, or None",
                    repr(self.clip_norm),
                    "the limit was mistyped",
                    "pass the limit that the loop clips at, or leave clip_norm out",
                )
            )

    @property
    def norms(self) -> bool:
        """Whether squared norms of row gradients are needed."""
        return self.own or self.product == "cosine"


class InRun:
    """In-run data Shapley of first order, taken while a loop of your own trains.

    Step t on rows S moves θ by the sum of its rows' parts δ_i = (∂θ_{t+1}/∂g)(c_i ∇ℓ_i(θ_t)), c_i = 1/B of a mean; of
    SGD −η_t c_i ∇ℓ_i, of Adam −η_t (1−β₁)/(1−β₁ᵗ) c_i ∇ℓ_i / (√v̂ + eps) with v held. φ_i = Σ_t ⟨∇q(θ_t), δ_i⟩ is what
    row i did to the query by its own steps. score = −σφ, σ the query's sign: larger is more harmful;
    `predicted_effect` = −φ. ∇q and v are those of the last pass over the queries, every `every` steps.

    The products are taken in hooks during the loop's own backward passes, ⟨∇ℓ_i, ∇q⟩ = Σ_ts (a_it·a_qs)(b_it·b_qs) of a
    linear layer with inputs a and output gradients b. Nothing but the sums [rows, queries] is kept, the training is the
    same to the last bit, and the hooks are gone when it ends.

    Parameters
    ----------
    model, optimizer
        As the loop trains them: torch.optim.SGD, Adam or AdamW, with any groups and schedulers.
    loss : callable
        `loss(model, batch) -> Tensor[B]`, one loss for each row, whose mean (or weighted sum) the loop descends.
    data : Rows, dict of arrays, or map-style Dataset
        The training rows.
    queries : Query or list
        `mean_loss`, `each_loss`, `own_loss`, or any `Query`; many rows of `each_loss` cost least.
    **options
        Of `InRunOptions`.

    Raises
    ------
    NotSupportedError
        A loop that cannot be followed: compiled modules, rows that depend on each other, another optimiser, several
        processes; or random numbers in the loss beside parameters without factors, which are then named.
    ConfigError, DataError
        A model, loss, data or query that cannot be used.

    Notes
    -----
    Factors have Linear, Conv1d, Conv2d, Embedding, LayerNorm, RMSNorm and GroupNorm layers, with their biases. Other
    trained parameters (bare ones, `nn.MultiheadAttention`'s projections, recurrent layers) are found when the factors
    are tried on three rows; their row gradients are written out by a pass of their own over the batch, exact and dear,
    and not possible where the loss draws random numbers.

    Checked on the way: at each step the sum over its rows is held against the gradient that the optimiser gets, along a
    random combination of the queries' gradients. At steps 0, 1, 3, 10, 30, … this is done parameter by parameter, and
    two rows are differentiated by themselves, which finds wrong ids, modes and weights. A difference is an error.

    Cost: beside the training a pass over the queries every `every` steps, and the products.

    References
    ----------
    Wang et al., "Data Shapley in one training run" (2024), section 4; Pruthi et al. (2020), equation 1 (TracIn).

    Examples
    --------
    >>> from finfluence.runs import Rows, mean_loss
    >>> rows = Rows(x=torch.ones(4, 1), y=torch.tensor([0.0, 0.0, 0.0, 4.0]))
    >>> def row_loss(model, batch):
    ...     return 0.5 * (model(batch["x"])[:, 0] - batch["y"]) ** 2
    >>> model = nn.Linear(1, 1, bias=False)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> zero = mean_loss(np.ones((1, 1), dtype="f4"), np.zeros(1, dtype="f4"), name="at zero")
    >>> run = InRun(model, optimizer, row_loss, rows, zero, every=1)
    >>> for ids in torch.tensor([[0, 1], [2, 3]] * 20):
    ...     row_loss(model, rows.batch(ids)).mean().backward()
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    ...     run.step(ids=ids)
    >>> run.finish().top(1).row_id.item()
    3
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: RowLoss,
        data: Any,
        queries: Sequence[AnyQuery] | AnyQuery,
        **options: Any,
    ) -> None:
        self.options = InRunOptions(**options)
        self.queries = check_queries(queries)
        self._watch = Watch(model, optimizer, loss, data, self.queries, self.options)
        self._finished = False

    @property
    def steps(self) -> int:
        """Steps followed so far."""
        return self._watch.steps

    def step(
        self,
        ids: Any,
        *,
        weights: Sequence[float] | None = None,
        batch: Batch | Sequence[Batch] | None = None,
    ) -> None:
        """Say which rows the optimiser's last step used; after `optimizer.step()`.

        Parameters
        ----------
        ids : sequence or Tensor, or a list of them
            Row ids of the batch; with gradient accumulation one entry for each backward pass.
        weights : sequence of float, optional
            What each micro-batch's mean loss is multiplied by (default: equal, with sum 1); of a sum over rows `[B]`.
        batch : dict or list of dicts, optional
            The fields as the loop saw them, where the data set augments at random.

        Raises
        ------
        TrainingError
            No step was taken, or its gradient is not the sum over the rows named.
        DataError
            Unknown ids.
        NotSupportedError
            Autocast, batch normalisation in training mode, or layers that cannot be read.
        ConfigError
            The run is finished, or the weights are not one for each micro-batch.
        """
        if self._finished:
            raise ConfigError(
                explain(
                    "a run that is followed",
                    "one that is finished",
                    "run.finish() was called before the training went on",
                    "finish after the last step; follow a second training with another fi.InRun",
                )
            )
        self._watch.step(ids, weights, batch)

    def finish(self, subsets: Given = None) -> Influence:
        """Take the hooks off, and return the scores.

        Parameters
        ----------
        subsets : None, {name: row ids} or list
            None: every row alone; the score of a subset is the sum over its rows.

        Returns
        -------
        Influence
            With scores alone, and `predicted_effect` for dot products.

        Raises
        ------
        TrainingError, NotSupportedError
            What went wrong on the way.
        DataError
            Subsets that cannot be used.
        """
        watch = self._watch
        try:
            watch.finish()
        finally:
            watch.release()
            self._finished = True
        found = find_subsets(watch, subsets)
        check_left(watch, found)
        removed = sum_over(found.positions, -watch.total.numpy())
        names = [name for q in self.queries for name in q.names]
        signs = [q.sign for q in self.queries for _ in q.names]
        dot = self.options.product == "dot"
        units = [q.unit if dot else "score" for q in self.queries for _ in q.names]
        score = removed * signs
        if self.options.own:
            own = sum_over(found.positions, watch.own.numpy()[:, None])
            names, signs, units = [*names, OWN], [*signs, -1], [*units, "score"]
            score, removed = np.concatenate([score, own], 1), np.concatenate([removed, own], 1)
        return Influence.build(
            score=score,
            extra={"predicted_effect": removed} if dot else None,
            subsets=found.names,
            sizes=found.sizes,
            queries=names,
            units=units,
            signs=signs,
            own_loss=self._own_losses(found.positions),
            provenance=Provenance(
                method="in-run",
                runs=1,
                covers=(),
                n_rows=len(watch.rows),
                findings=self._findings(),
                versions={"finfluence": version("finfluence"), "torch": torch.__version__},
                details={
                    "steps": watch.steps,
                    "every": self.options.every,
                    "product": self.options.product,
                    "written_out": watch.left,
                    "skipped_steps": watch.skipped,
                },
            ),
        )

    def _findings(self) -> tuple[str, ...]:
        watch, every = self._watch, self.options.every
        found = [OF_THIS_RUN if self.options.product == "dot" else OF_COSINES]
        if every > 1:
            found.append(f"gradients of the queries are taken every {every} steps and held in between")
        if watch.adam and self.options.product == "dot":
            found.append(
                HELD_SCALE
                if self.options.preconditioned
                else "products of gradients as they are: Adam's preconditioner is left out"
            )
        if watch.unchecked:
            found.append(f"that ids name the right rows was not checked: {watch.unchecked}")
        return tuple(found)

    def _own_losses(self, positions: list[np.ndarray]) -> np.ndarray:
        watch = self._watch
        with seeded(0):
            parts = [watch.losses_of(p) for p in torch.arange(len(watch.rows)).split(1024)]
        losses = np.concatenate(parts)
        sizes = np.array([len(p) for p in positions])
        with np.errstate(invalid="ignore"):
            return sum_over(positions, losses[:, None])[:, 0] / sizes
