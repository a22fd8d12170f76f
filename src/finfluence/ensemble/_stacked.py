"""Training many copies of a recipe in one step: states [R, P], gradients by vmap, updates elementwise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from finfluence.ensemble._coupled_order import paired_order
from finfluence.grads import Batch, Layout, RowLosses, Traced, Traces
from finfluence.grads.tracing import split_log_softmax
from finfluence.runs import Recipe, Rows, RowSource, Stepper, initial_model, seeded

_REPLICAS = {"cpu": 64, "cuda": 4096}
# Vector instructions treat the last few elements of a tensor apart, and some functions (SiLU) round
# differently there. A number of replicas that is a multiple of this leaves no such rest, so that a replica's
# numbers depend neither on its place nor on how many replicas there are.
ALIGNED = 16
_LOOKED_AT = 16


@dataclass(frozen=True, eq=False)
class RunSpec:
    """One run of a recipe: its seeds, and the positions of the rows it trains on (all if None).

    `paired` runs follow the batch order of the run on all rows with the same seeds as closely as they can.
    """

    init_seed: int
    order_seed: int
    keep: np.ndarray | None = None
    paired: bool = False

    def epoch_order(self, recipe: Recipe, epoch: int) -> list[Tensor]:
        """Return the row positions of each step of one epoch."""
        if self.paired and self.keep is not None:
            return paired_order(recipe, self.order_seed, epoch, self.keep)
        return recipe.epoch_order(self.order_seed, epoch, self.keep)


class StackedRuns:
    """R runs of one recipe, advanced together by a traced step.

    θ_r ← U_t(θ_r, mean_{i∈B_{t,r}} ∇ℓ_i(θ_r)) for every replica r at once; no replica sees another: on CPU its
    numbers are bit for bit those it has beside any other replicas, as long as stacks are padded.

    Parameters
    ----------
    recipe : Recipe
        A recipe for which `not_stackable` returns None.
    template : nn.Module
        Any model of the recipe: it gives structure, buffers and frozen parameters.
    """

    def __init__(self, recipe: Recipe, template: nn.Module) -> None:
        self.recipe = recipe
        self.layout = Layout(template)
        self._slots = len(recipe.optimizer.slots)
        self._losses = RowLosses(template, recipe.loss, self.layout)
        self._traces = Traces(finish=split_log_softmax)
        self._fixed = None if recipe.random_initialisation else self.layout.theta(template)

    def initial(self, seeds: Sequence[int]) -> Tensor:
        """Return the initial parameters [R, P] of the runs with these seeds."""
        if self._fixed is not None:
            return self._fixed.repeat(len(seeds), 1)
        by_seed = {s: self.layout.theta(initial_model(self.recipe, s)) for s in dict.fromkeys(seeds)}
        return torch.stack([by_seed[s] for s in seeds])

    def train(
        self,
        runs: Sequence[RunSpec],
        padded: bool = True,
        after_epoch: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Train the runs side by side.

        Parameters
        ----------
        runs : sequence of RunSpec
            Their seeds and rows.
        padded : bool
            Fill the stack with copies of the last run up to a multiple of `ALIGNED` replicas.
        after_epoch : callable, optional
            Called as `after_epoch(epochs done, parameters [R, P])`.

        Returns
        -------
        Tensor [R, P]
            Final parameters, NaN for runs that diverged.
        """
        recipe, wanted = self.recipe, len(runs)
        if padded:
            runs = [*runs, *[runs[-1]] * (-wanted % ALIGNED)]
        theta = self.initial([run.init_seed for run in runs])
        state = [theta, *(torch.zeros_like(theta) for _ in range(self._slots))]
        t = 0
        for epoch in range(recipe.epochs):
            orders = [run.epoch_order(recipe, epoch) for run in runs]
            for step in range(recipe.steps_per_epoch):
                positions = torch.stack([order[step] for order in orders])
                state = self._advance(state, self.batch(positions), t)
                t += 1
            if after_epoch is not None:
                after_epoch(epoch + 1, state[0][:wanted])
        finite = torch.stack([torch.isfinite(part).all(1) for part in state]).all(0)
        return state[0].masked_fill(~finite[:, None], torch.nan)[:wanted]

    def batch(self, positions: Tensor) -> Batch:
        """Return the fields [R, B, …] of the rows at `positions` [R, B]."""
        flat = _rows_at(self.recipe.rows, positions.reshape(-1))
        return {
            name: value.to(self.layout.device).view(*positions.shape, *value.shape[1:])
            for name, value in flat.items()
        }

    def gradients(self, theta: Tensor, batch: Batch) -> Tensor:
        """Return the gradient [R, P] of each replica's mean batch loss."""
        return vmap(grad(lambda p, b: self._losses(p, b).mean()))(theta, batch)

    def bytes_per_replica(self) -> int:
        """Return an upper bound on what one more replica takes during a step: all intermediates at once."""
        positions = torch.arange(2 * self.recipe.batch_size).remainder(len(self.recipe.rows)).view(2, -1)
        theta = self.initial([0, 0])
        state = [theta, *(torch.zeros_like(theta) for _ in range(self._slots))]
        batch = self.batch(positions)
        traced = self._traced(state, batch, self._hyper(0))
        held = [*state, *batch.values()]
        if traced.graph is None:
            return 8 * sum(t.nbytes for t in held) // 2
        metas = [node.meta.get("tensor_meta") for node in traced.graph.graph.nodes]
        sizes = [m.shape.numel() * m.dtype.itemsize for m in metas if hasattr(m, "shape")]
        return (sum(sizes) + sum(t.nbytes for t in held)) // 2

    def replicas(self, max_bytes: int) -> int:
        """Return how many copies to train at once: as memory allows, up to the fastest number measured.

        Returns
        -------
        int
            One, or a multiple of `ALIGNED`.
        """
        most = min(_REPLICAS.get(self.layout.device.type, 64), max_bytes // self.bytes_per_replica())
        return max(1, most - most % ALIGNED)

    def _hyper(self, t: int) -> list[Tensor]:
        values = self.recipe.optimizer.hyper(t, self.recipe.rate(t))
        return [torch.tensor(v, dtype=torch.float64) for v in values]

    def _advance(self, state: list[Tensor], batch: Batch, t: int) -> list[Tensor]:
        hyper = self._hyper(t)
        return list(self._traced(state, batch, hyper)(*state, *batch.values(), *hyper))

    def _traced(self, state: list[Tensor], batch: Batch, hyper: list[Tensor]) -> Traced:
        names, n_state = list(batch), len(state)

        def step(*tensors: Tensor) -> tuple[Tensor, ...]:
            theta, slots = tensors[0], tensors[1:n_state]
            fields = dict(zip(names, tensors[n_state : n_state + len(names)], strict=True))
            gradient = self.gradients(theta, fields)
            new, kept = self.recipe.optimizer.update(theta, slots, gradient, tensors[n_state + len(names) :])
            return (new, *kept)

        return self._traces.of("step", step, *state, *batch.values(), *hyper)


def _rows_at(rows: RowSource, positions: Tensor) -> Batch:
    """As `rows.batch`; rows in memory by `index_select`, six times faster than indexing."""
    if not isinstance(rows, Rows):
        return rows.batch(positions)
    return {**{k: v.index_select(0, positions) for k, v in rows.fields.items()}, "id": positions}


def not_stackable(recipe: Recipe, seeds: Sequence[int]) -> str | None:
    """Find out, by trying one step, why runs of a recipe cannot be trained as one stack.

    Parameters
    ----------
    recipe : Recipe
        What is to be trained.
    seeds : sequence of int
        Two initialisation seeds of the runs to come.

    Returns
    -------
    str or None
        The reason; None where they can.
    """
    if _padded(recipe.rows):
        return "rows are padded to different lengths"
    models = [initial_model(recipe, seed) for seed in seeds[:2]]
    if Stepper(recipe, models[0], 0).stochastic:
        return "the loss draws random numbers (dropout or augmentation)"
    layout = Layout(models[0])
    if not same_frozen(models, layout):
        return "frozen parameters or buffers differ between initialisation seeds"
    stack = StackedRuns(recipe, models[0])
    count = min(recipe.batch_size, len(recipe.rows))
    positions = torch.arange(count).repeat(len(models), 1)
    theta = torch.stack([layout.theta(m) for m in models])
    try:
        with seeded(0):
            batch = stack.batch(positions)
            got = stack.gradients(theta, batch)
    except Exception as error:  # whatever torch.func cannot follow: the runs still work one by one
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}"
    for replica, model in enumerate(models):
        parameters = layout.parameters(model)
        loss = recipe.loss(model, {k: v[replica] for k, v in batch.items()}).mean()
        parts = torch.autograd.grad(loss, parameters, allow_unused=True)
        want = layout.flatten(
            [torch.zeros_like(p) if g is None else g for g, p in zip(parts, parameters, strict=True)]
        )
        if not torch.allclose(got[replica], want, rtol=1e-3, atol=1e-4 * float(want.abs().max())):
            return "stacked gradients differ from those of a single run"
    return None


def _padded(rows: RowSource) -> bool:
    """Whether single rows, looked at here and there, come in different shapes."""
    if isinstance(rows, Rows):
        return False
    some = np.unique(np.linspace(0, len(rows) - 1, _LOOKED_AT).astype(np.int64))
    shapes = {
        tuple((name, tuple(value.shape)) for name, value in sorted(rows.batch(torch.tensor([at])).items()))
        for at in some.tolist()
    }
    return len(shapes) > 1


def same_frozen(models: list[nn.Module], layout: Layout) -> bool:
    trained = set(layout.names)
    states = [
        {k: v for k, v in [*m.named_parameters(), *m.named_buffers()] if k not in trained} for m in models
    ]
    return all(
        states[0].keys() == s.keys() and all(torch.equal(states[0][k], s[k]) for k in s) for s in states[1:]
    )
