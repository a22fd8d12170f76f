"""K-FAC and EK-FAC: a curvature of Kronecker products, fitted to the training rows."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from finfluence._seeds import torch_seed
from finfluence.curvature._block import KroneckerBlock
from finfluence.curvature._layers import Layer, factorised_layers, factors_of
from finfluence.curvature._noise import output_noise
from finfluence.curvature._objective import Objective
from finfluence.curvature._outputs import check_split, outputs_of
from finfluence.curvature._solution import Solution
from finfluence.errors import NotSupportedError, explain
from finfluence.grads import Batch, no_checkpointing

FisherKind = Literal["gauss-newton", "empirical-fisher"]
FISHERS: tuple[FisherKind, ...] = get_args(FisherKind)
SINGULAR = 1e-12  # of the largest eigenvalue
AGREES = {torch.float64: 1e-6, torch.float32: 1e-3}

Pass = Iterator[tuple[Objective, Tensor, Batch, Tensor | None]]
Pair = tuple[Tensor, Tensor]


class Kronecker:
    """A curvature of Kronecker blocks, one a layer, with a diagonal for parameters of no such layer.

    *gauss-newton*: row gradients are those of ⟨e_i, o_i⟩, o the model's outputs and e_i random signs times the square
    root of ∂²ℓ_i/∂o², whose mean outer product is Gauss–Newton's curvature: for a log-likelihood the same as labels
    drawn
    from the model. *empirical-fisher*: those of the losses.

    Linear layers and convolutions have blocks, with their bias; positions within a row (tokens, pixels) count as A's
    rows and are summed over in S ("expand"). Everything else trained (embeddings, norms, grouped convolutions, weights
    that are shared, layers whose factors do not give the gradient of a row) has the diagonal of the same matrix.

    Parameters
    ----------
    objectives : sequence of Objective
        One, or several θ of one training, over which the curvature is averaged.
    kind : {"gauss-newton", "empirical-fisher"}
    corrected : bool
        EK-FAC; otherwise K-FAC.
    seed : int
        Of the random signs.

    Attributes
    ----------
    covered, diagonal : list of str
        Names of the layers with blocks, and of the parameters without.

    Raises
    ------
    NotSupportedError
        Gauss–Newton of a loss that is not one of the model's outputs alone, or of more than 256 outputs a row.

    References
    ----------
    Martens and Grosse, "Optimizing neural networks with Kronecker-factored approximate curvature" (2015); George et
    al.,
    "Fast approximate natural gradient descent in a Kronecker-factored eigenbasis" (2018); Grosse et al., "Studying
    large
    language model generalization with influence functions" (2023), section 2.2; Eschenhagen et al. (2023), "expand".
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        kind: FisherKind = "gauss-newton",
        corrected: bool = True,
        seed: int = 0,
    ) -> None:
        self._objectives, self._kind, self._seed = list(objectives), kind, seed
        self._noise: Tensor | None = None
        first = self._objectives[0]
        self.clamped = 0.0
        if kind == "gauss-newton":
            few = first.rows.batch(torch.arange(min(2, first.rows.count)))
            check_split(first.loss, first.model, few, first.layout.parameters(first.model))
        self._names = _agreeing(first)
        self._layers = [
            layer for layer in factorised_layers(first.model, first.layout) if layer.name in self._names
        ]
        self.covered = [layer.name for layer in self._layers]
        self._blocks = [KroneckerBlock() for _ in self._layers]
        self._outside = _outside(self._layers, first.size)
        self.diagonal = _names_of(first, self._outside)
        self._fit(corrected)

    @property
    def size(self) -> int:
        """P."""
        return self._objectives[0].size

    @property
    def mean_eigenvalue(self) -> float:
        """Return tr C / P."""
        total = sum(float(block.values.sum()) for block in self._blocks) + float(self._values.sum())
        return total / self.size

    def apply(self, vectors: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Return f(C) v [K, P] for v [K, P], f a function of the eigenvalues."""
        found = torch.zeros_like(vectors)
        for layer, block in zip(self._layers, self._blocks, strict=True):
            layer.put(block.apply(layer.matrices(vectors), function), found)
        if len(self._outside):
            found[:, self._outside] = vectors[:, self._outside] * function(self._values).to(vectors)
        return found

    def damped(self, damping: float) -> "DampedKronecker":
        """Return the solver of (C + λ) x = v."""
        return DampedKronecker(self, damping)

    def _fit(self, corrected: bool) -> None:
        values = torch.zeros(len(self._outside), dtype=torch.float64, device=self._objectives[0].theta.device)
        self._sweep(KroneckerBlock.add)
        for block in self._blocks:
            block.rotate()
        if corrected and self._blocks:
            self._sweep(KroneckerBlock.correct)
            for block in self._blocks:
                block.corrected()
        if len(self._outside):
            rows = 0
            for objective, _, batch, noise in self._passes():
                gradients = objective.gradients_of_rows(batch, noise)[:, self._outside]
                values += (gradients.double() ** 2).sum(0)
                rows += len(gradients)
            values /= rows
        self._values = values
        self._noise = None

    def _sweep(self, take: Callable[[KroneckerBlock, Tensor, Tensor], None]) -> None:
        if not self._layers:
            return
        for objective in self._objectives:
            layers = [
                layer
                for layer in factorised_layers(objective.model, objective.layout)
                if layer.name in self._names
            ]
            for positions, batch in objective.rows.chunks():
                with factors_of(layers, len(positions)) as read, torch.enable_grad(), no_checkpointing():
                    found = read(self._total(objective, positions, batch))
                for block, pair in zip(self._blocks, found, strict=True):
                    assert pair is not None, "the first rows had factors"
                    take(block, *pair)

    def _total(self, objective: Objective, positions: Tensor, batch: Batch) -> Tensor:
        if self._kind == "empirical-fisher":
            return objective.loss(objective.model, batch).sum()
        outputs = outputs_of(objective.loss)(objective.model, batch)
        return (outputs * self._along(objective, positions, batch, outputs)).sum()

    def _passes(self) -> Pass:
        for objective in self._objectives:
            for positions, batch in objective.rows.chunks():
                if self._kind == "empirical-fisher":
                    yield objective, positions, batch, None
                    continue
                with torch.no_grad():
                    outputs = outputs_of(objective.loss)(objective.model, batch)
                yield objective, positions, batch, self._along(objective, positions, batch, outputs)

    def _along(self, objective: Objective, positions: Tensor, batch: Batch, outputs: Tensor) -> Tensor:
        """Return e [B, …] of these rows: the same in every pass over them."""
        width = outputs[0].numel()
        if self._noise is None:
            generator = torch.Generator().manual_seed(torch_seed(self._seed, "kronecker"))
            drawn = torch.randint(0, 2, (objective.rows.count, width), generator=generator, dtype=torch.int8)
            self._noise = objective.rows.dealt(drawn * 2 - 1)
        signs = self._noise[positions].to(outputs)
        found, clamped = output_noise(lambda o: objective.of_outputs(o, batch), outputs.detach(), signs)
        self.clamped = max(self.clamped, clamped)
        return found


class DampedKronecker:
    """Solves (C + λ) x = v for a curvature of Kronecker blocks, exactly: in its eigenbasis.

    Raises
    ------
    NotSupportedError
        λ = 0 where an eigenvalue is zero, up to rounding.
    """

    def __init__(self, curvature: Kronecker, damping: float) -> None:
        self.curvature, self.damping = curvature, damping
        values = [block.values.flatten() for block in curvature._blocks] + [curvature._values]
        smallest = min(float(v.min()) for v in values if len(v)) + damping
        if smallest <= SINGULAR * max(float(v.max()) for v in values if len(v)):
            raise NotSupportedError(
                explain(
                    "damping above zero",
                    f"damping={damping!r} and a curvature with eigenvalues of zero",
                    "some inputs of a layer are constant, or some weights never have a gradient",
                    "leave damping out for a tenth of the mean eigenvalue",
                )
            )

    def solve(self, vectors: Tensor) -> Solution:
        """Return x [K, P] for v [K, P]."""
        return Solution(self.inverse(vectors))

    def inverse(self, vectors: Tensor) -> Tensor:
        """Return (C + λ)⁻¹ v [K, P] for v [K, P]."""
        return self.curvature.apply(vectors, lambda e: 1 / (e + self.damping))


def _agreeing(objective: Objective) -> list[str]:
    """Return the names of the layers whose factors give the gradients of rows, tried on the first and the last row."""
    layers = factorised_layers(objective.model, objective.layout)
    positions = torch.arange(min(objective.rows.at_once, objective.rows.count, 8))
    batch = objective.rows.batch(positions)
    with factors_of(layers, len(positions)) as read, torch.enable_grad(), no_checkpointing():
        found = read(objective.loss(objective.model, batch).sum())
    tolerance = AGREES.get(objective.theta.dtype, 2e-2)
    agrees = [pair is not None for pair in found]
    for i in {0, len(positions) - 1}:
        gradient = objective.gradient_of(objective.rows.batch(positions[i : i + 1]))[None]
        for k, (layer, pair) in enumerate(zip(layers, found, strict=True)):
            if pair is None:
                continue
            made, whole = pair[1][i].T @ pair[0][i], layer.matrices(gradient)[0]
            agrees[k] &= bool((made - whole).norm() <= tolerance * whole.norm() + 1e-12)
    return [layer.name for layer, good in zip(layers, agrees, strict=True) if good]


def _outside(layers: list[Layer], size: int) -> Tensor:
    inside = torch.zeros(size, dtype=torch.bool)
    for layer in layers:
        inside[layer.weight] = True
        if layer.bias is not None:
            inside[layer.bias] = True
    return (~inside).nonzero()[:, 0]


def _names_of(objective: Objective, outside: Tensor) -> list[str]:
    names, at = [], 0
    held = set(outside.tolist())
    for name, size in zip(objective.layout.names, objective.layout.sizes, strict=True):
        if at in held:
            names.append(name)
        at += size
    return names
