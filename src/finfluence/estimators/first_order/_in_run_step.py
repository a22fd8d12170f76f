"""One step of a loop that is watched: products of its rows, held until their ids are known, and what they sum to."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from finfluence.estimators.first_order import _in_run_words as words
from finfluence.grads import Directions
from finfluence.grads.rules import Term

LEAST = 1e-12
WHOLE = {torch.float64: 1e-9, torch.float32: 2e-4}
EACH = {torch.float64: 1e-7, torch.float32: 2e-3}
REDUCED = 10  # times as much where a GPU multiplies in lower precision


@dataclass
class Asked:
    """The gradients of the queries that rows are multiplied with, until they are taken anew.

    Attributes
    ----------
    directions : Directions
        u [Q]: ∇q, or the same times a preconditioner.
    signs : Tensor [Q]
        Random signs r.
    along : dict
        Σ_q r_q u_q [P] of each parameter.
    """

    directions: Directions
    signs: Tensor
    along: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.along = self.directions.combined(self.signs)


@dataclass
class Products:
    """Products of the rows of one micro-batch.

    Attributes
    ----------
    values : dict
        [B, Q] for each parameter group.
    squares : dict
        ‖c_i ∇ℓ_i‖² [B] for each parameter group, where they are asked for.
    """

    values: dict[int, Tensor] = field(default_factory=dict)
    squares: dict[int, Tensor] = field(default_factory=dict)

    def total(self) -> Tensor | None:
        """Return the sum over groups [B, Q]."""
        found = list(self.values.values())
        return found[0] if len(found) == 1 else torch.stack(found).sum(0) if found else None


class OpenStep:
    """Collects what backward passes leave until the optimiser's step, and after it until the rows are named.

    Attributes
    ----------
    entries : dict
        The forward passes that each parameter took part in, and the entries that its layer saw there.

    Parameters
    ----------
    asked : Asked
    group_of : dict
        Parameter group of each parameter with factors.
    hold : bool
        Keep factors until they are asked for instead of multiplying them at once.
    by_name : bool
        Whether sums over rows are held against the gradient of each parameter, and not of all together.
    """

    def __init__(self, asked: Asked, group_of: dict[str, int], hold: bool, by_name: bool) -> None:
        self.asked, self.group_of, self.hold, self.by_name = asked, group_of, hold, by_name
        self._held: list[tuple[int, str, Term]] = []
        self._values: dict[tuple[int, int, int], Tensor] = {}
        self._along: dict[str, list[Tensor]] = {}
        self.entries: dict[str, set[tuple[int, int]]] = {}

    @property
    def passes(self) -> list[int]:
        """The forward passes that had a gradient, in order."""
        return sorted({at for at, _, _ in self._values} | {at for at, _, _ in self._held})

    def take(self, at: int, terms: dict[str, Term]) -> None:
        """Take the terms of a call in the forward pass `at`."""
        for name, term in terms.items():
            if name not in self.group_of:
                continue
            self.entries.setdefault(name, set()).add((at, term.rows))
            if self.hold:
                self._held.append((at, name, term))
            else:
                self._multiply(at, name, term)

    def by_row(self, passes: list[list[int]], rows: list[int]) -> set[str]:
        """Return the parameters whose layers have seen one entry for each of the rows of every micro-batch."""
        of = {at: count for some, count in zip(passes, rows, strict=True) for at in some}
        return {n for n, seen in self.entries.items() if all(of.get(at) == count for at, count in seen)}

    def multiply_held(self) -> None:
        """Multiply what was held."""
        held, self._held = self._held, []
        for at, name, term in held:
            self._multiply(at, name, term)

    def products(self, passes: list[int], rows: int, squares: bool) -> Products:
        """Return the products of the rows of one micro-batch, whose forward passes these are.

        Parameters
        ----------
        passes : list of int
        rows : int
            B.
        squares : bool
            Squared norms, too: of factors that were held.

        Returns
        -------
        Products

        Raises
        ------
        TrainingError
            A layer has seen another number of rows.
        """  # noqa: DOC501 - made by a function
        chosen, found = set(passes), Products()
        if squares:
            self._join(chosen, rows, found)
        for at, name, term in self._held:
            if at in chosen:
                self._multiply(at, name, term)
        self._held = [entry for entry in self._held if entry[0] not in chosen]
        for (at, group, entries), values in self._values.items():
            if at not in chosen:
                continue
            if entries % rows:
                raise words.other_rows(rows, entries)
            part = values if entries == rows else values.view(rows, -1, values.shape[1]).sum(1)
            found.values[group] = found.values[group] + part if group in found.values else part
        return found

    def summed(self, totals: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return Σ_i x_i and Σ_i |x_i| of products [B, Q] of micro-batches, x_i = ⟨c_i ∇ℓ_i, v⟩, v = Σ_q r_q u_q."""
        signs = self.asked.signs
        along = [total @ signs for total in totals] or [signs.new_zeros(1)]
        joined = along[0] if len(along) == 1 else torch.cat(along)
        return joined.sum(), joined.abs().sum()

    def apart(
        self, measured: dict[str, Tensor], whole: tuple[Tensor, Tensor], scale: float
    ) -> tuple[str, float, float] | None:
        """Return where the gradient is not the sum over its rows, with ⟨g, v⟩ and what rows sum to; None if it is.

        Parameters
        ----------
        measured : dict
            ⟨g, v⟩ of the optimiser's gradient, by parameter.
        whole : tuple
            Of `summed`.
        scale : float
            What the gradient was multiplied by since the backward passes.

        Returns
        -------
        tuple or None
        """
        if not measured:
            return None
        names, found = list(measured), torch.stack(list(measured.values()))
        summed, size, place = whole[0].reshape(1), whole[1].reshape(1), ["all parameters"]
        tolerance = WHOLE.get(found.dtype, 2e-4)
        if self.by_name:
            empty = found.new_zeros(1)
            parts = [torch.cat(self._along[name]) if name in self._along else empty for name in names]
            summed = torch.stack([part.sum() for part in parts])
            size, place = torch.stack([part.abs().sum() for part in parts]), names
            tolerance = EACH.get(found.dtype, 2e-3)
        else:
            found = found.sum().reshape(1)
        if found.is_cuda:
            tolerance *= REDUCED
        limit = tolerance * (abs(scale) * size + 1e-3 * found.abs()) + LEAST
        apart = (found - scale * summed).abs() - limit
        if not bool((apart > 0).any()) and bool(torch.isfinite(apart).all()):
            return None
        wrong = int(apart.nan_to_num(nan=torch.inf).argmax())
        return place[wrong], float(found[wrong]), float(scale * summed[wrong])

    def _multiply(self, at: int, name: str, term: Term) -> None:
        values = self.asked.directions.products(name, term)
        if values is None:
            values = self.asked.signs.new_zeros(term.rows, self.asked.directions.count)
        if self.by_name:
            self._along.setdefault(name, []).append(values @ self.asked.signs)
        key = (at, self.group_of[name], term.rows)
        self._values[key] = self._values[key] + values if key in self._values else values

    def _join(self, chosen: set[int], rows: int, found: Products) -> None:
        whole: dict[str, Term] = {}
        written: dict[str, Tensor] = {}
        for at, name, term in self._held:
            if at not in chosen:
                continue
            if term.rows % rows:
                raise words.other_rows(rows, term.rows)
            term = term if term.rows == rows else term.regrouped(rows)
            joined = whole[name].joined(term) if name in whole else term
            if name in written or joined is None:
                before = whole.pop(name).gradients() if name in whole else written[name]
                written[name] = before + term.gradients()
            else:
                whole[name] = joined
        squares = {name: term.squared_norms() for name, term in whole.items()}
        squares |= {name: (g**2).sum(1) for name, g in written.items()}
        for name, square in squares.items():
            group = self.group_of[name]
            found.squares[group] = found.squares[group] + square if group in found.squares else square
