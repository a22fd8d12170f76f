"""What one call of a layer adds to the gradient of one parameter, row by row, held as factors.

L is the leading axis of the call, whose entries are rows or equal parts of rows (tokens, if a model flattens them); T
are the positions inside an entry, over which the gradient sums.
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

AT_ONCE = 2**24  # numbers of one intermediate result


class Term(ABC):
    """Gradients G_l [P] of one parameter for each entry l of the leading axis.

    Attributes
    ----------
    rows : int
        L.
    size : int
        P, the numbers in the parameter.
    positions : int
        T.
    """

    rows: int
    size: int
    positions: int

    @abstractmethod
    def gradients(self) -> Tensor:
        """Return G [L, P], written out."""

    @abstractmethod
    def along(self, directions: Tensor) -> Tensor:
        """Return ⟨G_l, W_q⟩ [L, Q] for directions W [Q, P]."""

    @abstractmethod
    def cross(self, other: "Term") -> Tensor:
        """Return ⟨G_l, G′_m⟩ [L, L′] with a term of the same kind, without writing either out."""

    @abstractmethod
    def squared_norms(self) -> Tensor:
        """Return ‖G_l‖² [L]."""

    @abstractmethod
    def cost(self, directions: int) -> float:
        """Return the multiplications of `along` with so many directions, for one entry."""

    @abstractmethod
    def cross_cost(self, other: "Term") -> float:
        """Return the multiplications of `cross`, for one entry."""

    @abstractmethod
    def zeros(self, count: int) -> Tensor:
        """Return zeros [count, P] of the kind of the gradients."""

    def summed(self, weights: Tensor) -> Tensor:
        """Return Σ_l w_kl G_l [K, P] for weights [K, L]."""
        return weights @ self.gradients()

    @abstractmethod
    def regrouped(self, rows: int) -> "Term":
        """Return the same gradients with L = `rows`: each row sums over as many entries that follow one another."""

    @abstractmethod
    def joined(self, other: "Term") -> "Term | None":
        """Return the sum of two calls over the same rows as one term; None if they are of different kinds."""


class Flat(Term):
    """Gradients of a small parameter, written out: biases, weights of norms."""

    def __init__(self, gradients: Tensor) -> None:
        self._gradients = gradients
        self.rows, self.size, self.positions = gradients.shape[0], gradients.shape[1], 1

    def gradients(self) -> Tensor:
        """Return G [L, P]."""
        return self._gradients

    def along(self, directions: Tensor) -> Tensor:
        """Return ⟨G_l, W_q⟩ [L, Q]."""
        return self._gradients @ directions.T

    def cross(self, other: Term) -> Tensor:
        """Return ⟨G_l, G′_m⟩ [L, L′]."""
        return self._gradients @ other.gradients().T

    def squared_norms(self) -> Tensor:
        """Return ‖G_l‖² [L]."""
        return (self._gradients**2).sum(1)

    def cost(self, directions: int) -> float:
        """Return the multiplications of `along`."""
        return float(directions * self.size)

    def cross_cost(self, other: Term) -> float:
        """Return the multiplications of `cross`."""
        return float(other.rows * self.size)

    def zeros(self, count: int) -> Tensor:
        """Return zeros [count, P]."""
        return self._gradients.new_zeros(count, self.size)

    def regrouped(self, rows: int) -> Term:
        """Return sums over entries."""
        return Flat(self._gradients.view(rows, -1, self.size).sum(1))

    def joined(self, other: Term) -> Term | None:
        """Return the sum."""
        return Flat(self._gradients + other.gradients()) if isinstance(other, Flat) else None


class Outer(Term):
    """Weights of linear maps: G_l = Σ_t b_lt a_ltᵀ, block by block where a convolution has groups.

    Parameters
    ----------
    inputs : Tensor [L, T, g, in]
        a.
    outputs : Tensor [L, T, g, out]
        b, the gradients of what came out.

    Examples
    --------
    >>> a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])
    >>> term = Outer(a[:, None, None], b[:, None, None])
    >>> term.gradients().tolist(), term.cross(term).tolist(), term.squared_norms().tolist()
    ([[3.0, 6.0]], [[45.0]], [45.0])
    """

    def __init__(self, inputs: Tensor, outputs: Tensor) -> None:
        self.rows, self.positions, self.groups, self._in = inputs.shape
        self._out = outputs.shape[3]
        self.size = self.groups * self._in * self._out
        self.a, self.b = inputs, outputs
        self._flat: tuple[Tensor, Tensor] | None = None

    @property
    def flat(self) -> tuple[Tensor, Tensor]:
        """A [LT, in] and b [LT, out] where there is one group."""
        if self._flat is None:
            self._flat = self.a.reshape(-1, self._in), self.b.reshape(-1, self._out)
        return self._flat

    def gradients(self) -> Tensor:
        """Return G [L, P], in the order of the weight: groups, outputs, inputs."""
        a, b = self.a.transpose(1, 2), self.b.transpose(1, 2)
        return torch.matmul(b.transpose(2, 3), a).reshape(self.rows, self.size)

    def along(self, directions: Tensor) -> Tensor:
        """Return ⟨G_l, W_q⟩ [L, Q]: Σ_t b_ltᵀ W_q a_lt."""
        count = len(directions)
        if self.positions > 1 or self.groups > 1:
            most = max(1, AT_ONCE // self.size)
            parts = [
                Outer(a, b).gradients() @ directions.T
                for a, b in zip(self.a.split(most), self.b.split(most), strict=True)
            ]
            return torch.cat(parts)
        a, b = self.a[:, 0, 0], self.b[:, 0, 0]
        maps = directions.view(count, self._out, self._in)
        if count == 1:
            return ((a @ maps[0].T) * b).sum(1, keepdim=True)
        most = max(1, AT_ONCE // (count * self._out))
        parts = []
        for some, back in zip(a.split(most), b.split(most), strict=True):
            passed = (some @ maps.reshape(-1, self._in).T).view(len(some), count, self._out)
            parts.append(torch.matmul(passed, back.unsqueeze(2))[:, :, 0])
        return torch.cat(parts)

    def cross(self, other: Term) -> Tensor:
        """Return ⟨G_l, G′_m⟩ [L, L′]: Σ_ts (a_lt·a′_ms)(b_lt·b′_ms)."""
        assert isinstance(other, Outer), "terms of one parameter in one kind of layer"
        columns = other.rows * other.positions
        if self.positions * other.positions * self.groups == 1 and self.rows * columns <= AT_ONCE:
            (a, b), (others_a, others_b) = self.flat, other.flat
            return (a @ others_a.T).mul_(b @ others_b.T)
        most = max(1, AT_ONCE // (self.positions * columns))
        parts = []
        for a, b in zip(self.a.split(most), self.b.split(most), strict=True):
            found = None
            for g in range(self.groups):
                left = a[:, :, g].reshape(-1, self._in) @ other.a[:, :, g].reshape(columns, -1).T
                left *= b[:, :, g].reshape(-1, self._out) @ other.b[:, :, g].reshape(columns, -1).T
                found = left if found is None else found + left
            assert found is not None, "a convolution has a group"
            if self.positions > 1 or other.positions > 1:
                found = found.view(len(a), self.positions, other.rows, other.positions).sum((1, 3))
            parts.append(found)
        return torch.cat(parts)

    def squared_norms(self) -> Tensor:
        """Return ‖G_l‖² [L], from Gram matrices of positions or from G, whichever is cheaper."""
        if self.positions == 1:
            return ((self.a**2).sum(3) * (self.b**2).sum(3)).sum((1, 2))
        if self.positions * (self._in + self._out) < self._in * self._out:
            a, b = self.a.transpose(1, 2), self.b.transpose(1, 2)
            return (torch.matmul(a, a.transpose(2, 3)) * torch.matmul(b, b.transpose(2, 3))).sum((1, 2, 3))
        most = max(1, AT_ONCE // self.size)
        parts = [
            (Outer(a, b).gradients() ** 2).sum(1)
            for a, b in zip(self.a.split(most), self.b.split(most), strict=True)
        ]
        return torch.cat(parts)

    def cost(self, directions: int) -> float:
        """Return the multiplications of `along`."""
        written = 0 if self.positions == 1 else self.positions * self.size
        return float(written + directions * self.size)

    def cross_cost(self, other: Term) -> float:
        """Return the multiplications of `cross`."""
        return float(self.positions * other.rows * other.positions * self.groups * (self._in + self._out + 8))

    def summed(self, weights: Tensor) -> Tensor:
        """Return Σ_l w_kl G_l [K, P]; one combination is one product of matrices."""
        if len(weights) > max(1, self.rows // 4) and self.rows * self.size <= AT_ONCE:
            return weights @ self.gradients()
        a = self.a.permute(2, 0, 1, 3).reshape(self.groups, -1, self._in)
        found = []
        for row in weights:
            b = (self.b * row.view(-1, 1, 1, 1)).permute(2, 0, 1, 3).reshape(self.groups, -1, self._out)
            found.append(torch.bmm(b.transpose(1, 2), a).reshape(-1))
        return torch.stack(found)

    def zeros(self, count: int) -> Tensor:
        """Return zeros [count, P]."""
        return self.b.new_zeros(count, self.size)

    def regrouped(self, rows: int) -> Term:
        """Return entries as positions."""
        a = self.a.reshape(rows, -1, self.groups, self._in)
        return Outer(a, self.b.reshape(rows, -1, self.groups, self._out))

    def joined(self, other: Term) -> Term | None:
        """Return both calls as one."""
        if not isinstance(other, Outer) or other.rows != self.rows:
            return None
        return Outer(torch.cat([self.a, other.a], 1), torch.cat([self.b, other.b], 1))


class Gathered(Term):
    """The weight of an embedding: row `index_lt` of G_l has b_lt added.

    Parameters
    ----------
    index : Tensor [L, T]
    outputs : Tensor [L, T, d]
        b.
    entries : int
        Rows of the weight.
    """

    def __init__(self, index: Tensor, outputs: Tensor, entries: int) -> None:
        self.index, self.b, self._entries = index, outputs, entries
        self.rows, self.positions, self._width = outputs.shape
        self.size = entries * self._width

    def gradients(self) -> Tensor:
        """Return G [L, P]."""
        found = self.b.new_zeros(self.rows, self._entries, self._width)
        where = self.index.unsqueeze(2).expand_as(self.b)
        return found.scatter_add_(1, where, self.b).view(self.rows, self.size)

    def along(self, directions: Tensor) -> Tensor:
        """Return ⟨G_l, W_q⟩ [L, Q]."""
        tables = directions.view(len(directions), self._entries, self._width)
        return torch.stack([(table[self.index] * self.b).sum((1, 2)) for table in tables], 1)

    def cross(self, other: Term) -> Tensor:
        """Return ⟨G_l, G′_m⟩ [L, L′]: Σ over positions of the same index of b·b′."""
        assert isinstance(other, Gathered), "terms of one parameter in one kind of layer"
        columns = other.rows * other.positions
        most = max(1, AT_ONCE // (self.positions * columns))
        back, index = other.b.reshape(columns, -1), other.index.reshape(-1)
        parts = []
        for i, b in zip(self.index.split(most), self.b.split(most), strict=True):
            alike = i.reshape(-1, 1) == index
            found = (b.reshape(-1, self._width) @ back.T) * alike
            parts.append(found.view(len(i), self.positions, other.rows, other.positions).sum((1, 3)))
        return torch.cat(parts)

    def squared_norms(self) -> Tensor:
        """Return ‖G_l‖² [L]."""
        alike = self.index.unsqueeze(2) == self.index.unsqueeze(1)
        return (torch.matmul(self.b, self.b.transpose(1, 2)) * alike).sum((1, 2))

    def cost(self, directions: int) -> float:
        """Return the multiplications of `along`."""
        return float(directions * self.positions * self._width)

    def cross_cost(self, other: Term) -> float:
        """Return the multiplications of `cross`."""
        return float(self.positions * other.rows * other.positions * (self._width + 8))

    def summed(self, weights: Tensor) -> Tensor:
        """Return Σ_l w_kl G_l [K, P]."""
        found = self.b.new_zeros(len(weights), self._entries, self._width)
        for table, row in zip(found, weights, strict=True):
            table.index_add_(
                0, self.index.reshape(-1), (self.b * row.view(-1, 1, 1)).reshape(-1, self._width)
            )
        return found.view(len(weights), self.size)

    def zeros(self, count: int) -> Tensor:
        """Return zeros [count, P]."""
        return self.b.new_zeros(count, self.size)

    def regrouped(self, rows: int) -> Term:
        """Return entries as positions."""
        index = self.index.reshape(rows, -1)
        return Gathered(index, self.b.reshape(rows, -1, self._width), self._entries)

    def joined(self, other: Term) -> Term | None:
        """Return both calls as one."""
        if not isinstance(other, Gathered) or other.rows != self.rows:
            return None
        return Gathered(
            torch.cat([self.index, other.index], 1), torch.cat([self.b, other.b], 1), self._entries
        )
