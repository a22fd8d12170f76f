"""Gradients of rows in factors: layers watched during a pass, and which parameters they give all of."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from finfluence.grads._checkpointing import no_checkpointing
from finfluence.grads._directions import Directions
from finfluence.grads._losses import Batch, RowLoss
from finfluence.grads.rules import Rule, Term, rule_of

ROWS_TRIED = 3
NUDGE = 0.02
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3}


@dataclass(frozen=True)
class Layer:
    """A layer with a rule.

    Attributes
    ----------
    module : nn.Module
    rule : callable
    names : dict
        Each of its trained parameters, by its own name there: its name in the model.
    """

    module: nn.Module
    rule: Rule
    names: dict[str, str]

    def terms(self, a: Tensor, b: Tensor) -> dict[str, Term] | None:
        """Return a term for each trained parameter, by its name in the model; None for inputs without rows."""
        found = self.rule(self.module, a, b)
        if found is None:
            return None
        return {name: found[key] for key, name in self.names.items() if key in found}


def layers_of(model: nn.Module, names: Sequence[str]) -> list[Layer]:
    """Return the layers with a rule that hold some of the named parameters.

    Returns
    -------
    list of Layer

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(3, 2), nn.PReLU())
    >>> [layer.names for layer in layers_of(model, [name for name, _ in model.named_parameters()])]
    [{'weight': '0.weight', 'bias': '0.bias'}]
    """
    chosen = set(names)
    known = {id(p): name for name, p in model.named_parameters() if name in chosen}
    found = []
    for module in model.modules():
        rule = rule_of(module)
        own = {k: known[id(p)] for k, p in module._parameters.items() if p is not None and id(p) in known}
        if rule is not None and own:
            found.append(Layer(module, rule, own))
    return found


@dataclass
class RowTerms:
    """The gradients of B rows in factors.

    Attributes
    ----------
    rows : int
        B.
    terms : dict
        The terms of each parameter, by name: one for each call of a layer.
    whole : set
        The parameters whose gradients they are all of; those without a term have none.
    """

    rows: int
    terms: dict[str, list[Term]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)

    def add(self, found: dict[str, Term]) -> None:
        """Add the terms of one call."""
        for name, term in found.items():
            self.terms.setdefault(name, []).append(term)

    def gradients(self, name: str) -> Tensor:
        """Return the gradients [B, P] of one parameter, written out."""
        parts = [term.gradients() for term in self.terms[name]]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def products(self, directions: Directions) -> Tensor | float:
        """Return ⟨g_i, u_q⟩ [B, Q] over the parameters of the terms."""
        total: Tensor | float = 0.0
        for name, terms in self.terms.items():
            for term in terms:
                part = directions.products(name, term)
                if part is not None:
                    total = total + part
        return total

    def squared_norms(self) -> Tensor | float:
        """Return ‖g_i‖² [B] over the parameters of the terms."""
        total: Tensor | float = 0.0
        for name, terms in self.terms.items():
            whole: Term | None = terms[0]
            for term in terms[1:]:
                whole = None if whole is None else whole.joined(term)
            total = total + ((self.gradients(name) ** 2).sum(1) if whole is None else whole.squared_norms())
        return total


class Factorised:
    """Row gradients of a model of ours in factors; the parameters of which a pass does not give them are named.

    A parameter is covered where its layers have rules, their factors give the gradient of each of three rows by itself
    (tried at parameters beside the model's, so that a factor that begins at zero hides nothing), and each batch uses it
    as often as its layers are called: by counts in the graph of the losses.

    Parameters
    ----------
    model : nn.Module
        Ours; hooks are on it during a pass only.
    loss : callable
        `loss(model, batch) -> Tensor[B]`.
    names : sequence of str
        Trained parameters.
    batch : dict
        A few rows, to try.
    covered : set of str, optional
        What is covered, if a copy was tried already: this model is not written on then.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: RowLoss,
        names: Sequence[str],
        batch: Batch,
        covered: set[str] | None = None,
    ) -> None:
        self.model, self.loss, self.names = model, loss, list(names)
        self._layers = layers_of(model, self.names)
        self._named = dict(model.named_parameters())
        self._name_of = {id(self._named[name]): name for name in self.names}
        self.covered = set(self.names)
        if covered is None:
            few = {k: v[:ROWS_TRIED] for k, v in batch.items()}
            with _nudged([self._named[name] for name in self.names]):
                covered = self._agreeing(few)
        self.covered = set(covered)
        self._layers = [layer for layer in self._layers if self.covered & set(layer.names.values())]

    def terms(self, batch: Batch) -> tuple[RowTerms, list[str]]:
        """Return the factors of the rows of a batch, and the parameters that they leave out there.

        Returns
        -------
        tuple
        """
        losses, calls = self._forward(lambda: self.loss(self.model, batch))
        made = self._terms(losses, calls)
        return made, [name for name in self.names if name not in made.whole]

    def of_values(self, values: Callable[[], Tensor]) -> tuple[Tensor, RowTerms, dict[str, Tensor]]:
        """Return numbers [K] of the model, their gradients in factors, and written out [K, P] where factors leave out.

        Returns
        -------
        tuple
        """
        outputs, calls = self._forward(values)
        made = self._terms(outputs, calls)
        left = [name for name in self.names if name not in made.whole]
        rows: dict[str, list[Tensor]] = {name: [] for name in left}
        for output in outputs if left else ():
            parts = torch.autograd.grad(
                output, [self._named[name] for name in left], retain_graph=True, allow_unused=True
            )
            for name, part in zip(left, parts, strict=True):
                rows[name].append(torch.zeros_like(self._named[name]) if part is None else part)
        written = {name: torch.stack(found).reshape(len(found), -1) for name, found in rows.items()}
        return outputs.detach(), made, written

    def _forward(self, values: Callable[[], Tensor]) -> tuple[Tensor, list[tuple[Layer, Tensor, Tensor]]]:
        with watched(self._layers) as calls, torch.enable_grad(), no_checkpointing():
            losses = values()
        return losses, calls

    def _terms(self, losses: Tensor, calls: list[tuple[Layer, Tensor, Tensor]]) -> RowTerms:
        rows, outputs = len(losses), [out for _, _, out in calls]
        made = RowTerms(rows, whole=self._seen_whole(losses, calls))
        if not losses.requires_grad:
            return made
        back: Sequence[Tensor | None] = ()
        if outputs:
            back = torch.autograd.grad(losses.sum(), outputs, allow_unused=True, retain_graph=True)
        for (layer, a, out), b in zip(calls, back, strict=True):
            found = layer.terms(a, torch.zeros_like(out) if b is None else b)
            if found is None or any(term.rows % rows for term in found.values()):
                made.whole -= set(layer.names.values())
                continue
            made.add({n: t if t.rows == rows else t.regrouped(rows) for n, t in found.items()})
        made.terms = {name: terms for name, terms in made.terms.items() if name in made.whole}
        return made

    def _seen_whole(self, losses: Tensor, calls: list[tuple[Layer, Tensor, Tensor]]) -> set[str]:
        """Return the covered parameters that the graph uses as often as their layers were called."""
        expected = dict.fromkeys(self.covered, 0)
        for layer, _, _ in calls:
            for name in layer.names.values():
                if name in expected:
                    expected[name] += 1
        used = uses(losses) if losses.requires_grad else {}
        return {name for name, count in expected.items() if used.get(id(self._named[name]), 0) == count}

    def _agreeing(self, batch: Batch) -> set[str]:
        """Return the parameters whose factors give the gradient of each row."""
        losses, calls = self._forward(lambda: self.loss(self.model, batch))
        made = self._terms(losses, calls)
        names = [name for name in self.names if name in made.terms]
        unused = [name for name in made.whole if name not in made.terms]
        tolerance = TOLERANCE.get(losses.dtype, 2e-3)
        good = set(names)
        found = {name: made.gradients(name) for name in names}
        for i in range(len(losses) if names else 0):
            parts = torch.autograd.grad(
                losses[i], [self._named[n] for n in names], retain_graph=True, allow_unused=True
            )
            for name, part in zip(names, parts, strict=True):
                true = torch.zeros_like(found[name][i]) if part is None else part.reshape(-1)
                scale = true.norm() + 1e-3 * found[name].norm()
                if not (found[name][i] - true).norm() <= tolerance * scale + 1e-12:
                    good.discard(name)
        return good | set(unused)


@contextmanager
def watched(layers: list[Layer]) -> Iterator[list[tuple[Layer, Tensor, Tensor]]]:
    """Watch layers of a model of ours in a forward pass: what goes in, and what comes out before others write on it.

    Yields
    ------
    list
        Filled during the block: layer, input and output of each call.
    """
    calls: list[tuple[Layer, Tensor, Tensor]] = []

    def watch(layer: Layer) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            a = args[0] if args else kwargs.get("input")
            if not isinstance(a, Tensor) or not isinstance(output, Tensor) or not output.requires_grad:
                return None
            calls.append((layer, a.detach(), output))
            return output.clone()

        return hook

    handles = [
        layer.module.register_forward_hook(watch(layer), with_kwargs=True, prepend=True) for layer in layers
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def uses(losses: Tensor) -> dict[int, int]:
    """Return how many operations of a graph take each leaf, by the leaf's id.

    Returns
    -------
    dict

    Examples
    --------
    >>> weight = torch.ones(2, requires_grad=True)
    >>> uses(weight * 2 + weight.exp())[id(weight)]
    2
    """
    counts: dict[int, int] = {}
    seen, open_ = {losses.grad_fn}, [losses.grad_fn]
    while open_:
        node: Any = open_.pop()
        for following, _ in node.next_functions if node is not None else ():
            if following is None:
                continue
            leaf = getattr(following, "variable", None)
            if leaf is not None:
                counts[id(leaf)] = counts.get(id(leaf), 0) + 1
            elif following not in seen:
                seen.add(following)
                open_.append(following)
    return counts


@contextmanager
def _nudged(parameters: list[nn.Parameter]) -> Iterator[None]:
    """Inside the block, parameters are a little beside their values."""
    kept = [p.detach().clone() for p in parameters]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for p in parameters:
                noise = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p)
                p.add_(noise * (NUDGE + 0.1 * p.abs().mean()))
        yield
    finally:
        with torch.no_grad():
            for p, was in zip(parameters, kept, strict=True):
                p.copy_(was)
