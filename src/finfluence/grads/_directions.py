"""Directions in parameter space, one parameter after the other: in factors where rows made them, else written out."""

from collections.abc import Mapping

import torch
from torch import Tensor

from finfluence.grads.rules import Term

MOST_WRITTEN = 2**26  # numbers of directions written out for one parameter


class Directions:
    """Q directions u_q in the space of some parameters, to be multiplied with gradients of rows.

    Parameters
    ----------
    count : int
        Q.

    Examples
    --------
    >>> from finfluence.grads.rules import Flat
    >>> directions = Directions(2)
    >>> directions.add("bias", Flat(torch.tensor([[1.0, 2.0]])), first=1)
    >>> directions.products("bias", Flat(torch.tensor([[3.0, 4.0]]))).tolist()
    [[0.0, 11.0]]
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._terms: dict[str, list[tuple[Term, Tensor | None, int]]] = {}
        self._written: dict[str, Tensor] = {}

    def add(self, name: str, term: Term, weights: Tensor | None = None, first: int = 0) -> None:
        """Add the gradients of a term's entries to the directions from `first` on.

        Parameters
        ----------
        name : str
            Of the parameter.
        term : Term
            Of L entries.
        weights : Tensor [K, L], optional
            How entries combine to K directions; each is one by itself unless given.
        """
        self._terms.setdefault(name, []).append((term, weights, first))

    def add_written(self, name: str, vectors: Tensor) -> None:
        """Add vectors [Q, P] to the directions in one parameter."""
        known = self._written.get(name)
        self._written[name] = vectors if known is None else known + vectors

    def place(self, other: "Directions", first: int) -> None:
        """Add directions that count from `first` on here."""
        for name, terms in other._terms.items():
            for term, weights, place in terms:
                self._terms.setdefault(name, []).append((term, weights, first + place))
        for name, vectors in other._written.items():
            placed = vectors.new_zeros(self.count, vectors.shape[1])
            placed[first : first + other.count] = vectors
            self.add_written(name, placed)

    @property
    def names(self) -> list[str]:
        """Parameters in which a direction is not zero."""
        return sorted({*self._terms, *self._written})

    def written(self, name: str) -> Tensor | None:
        """Return the directions [Q, P] in one parameter, written out from now on; None if they are zero."""
        terms = self._terms.pop(name, [])
        if terms:
            found = self._written.get(name)
            if found is None:
                found = terms[0][0].zeros(self.count)
            for term, weights, first in terms:
                rows = term.gradients() if weights is None else term.summed(weights)
                found[first : first + len(rows)] += rows
            self._written[name] = found
        return self._written.get(name)

    def products(self, name: str, term: Term) -> Tensor | None:
        """Return ⟨G_l, u_q⟩ [L, Q] for a term of one parameter, the cheaper way; None if all u are zero there."""
        terms = self._terms.get(name, [])
        if terms and self._cheaper_written(term, terms):
            self.written(name)
            terms = []
        known = self._written.get(name)
        found = None if known is None else term.along(known)
        for other, weights, first in terms:
            part = term.cross(other)
            part = part if weights is None else part @ weights.T
            if found is None and part.shape[1] == self.count:
                found = part
                continue
            if found is None:
                found = part.new_zeros(term.rows, self.count)
            found[:, first : first + part.shape[1]] += part
        return found

    def combined(self, weights: Tensor) -> dict[str, Tensor]:
        """Return Σ_q w_q u_q [P] for each parameter, for weights [Q]."""
        found = {name: weights @ vectors for name, vectors in self._written.items()}
        for name, terms in self._terms.items():
            for term, rows, first in terms:
                some = weights[first : first + (term.rows if rows is None else len(rows))]
                total = term.summed((some if rows is None else some @ rows).unsqueeze(0))[0]
                found[name] = found[name] + total if name in found else total
        return found

    def scaled(self, scale: Mapping[str, Tensor]) -> "Directions":
        """Return the directions multiplied by a vector [P] for each parameter: written out."""
        made = Directions(self.count)
        for name in self.names:
            vectors = self.written(name)
            assert vectors is not None, "the name is one of a direction"
            made.add_written(name, vectors * scale[name])
        return made

    def squared_norms(self) -> Tensor:
        """Return ‖u_q‖² [Q] in double precision."""
        total: Tensor | None = None
        for name in self.names:
            vectors = self.written(name)
            assert vectors is not None, "the name is one of a direction"
            part = (vectors.double() ** 2).sum(1)
            total = part if total is None else total + part
        return torch.zeros(self.count, dtype=torch.float64) if total is None else total

    def _cheaper_written(self, term: Term, terms: list[tuple[Term, Tensor | None, int]]) -> bool:
        if type(term) is not type(terms[0][0]):
            return True
        crossed = sum(term.cross_cost(other) for other, _, _ in terms)
        fits = self.count * term.size <= MOST_WRITTEN
        return fits and term.cost(self.count) < crossed
