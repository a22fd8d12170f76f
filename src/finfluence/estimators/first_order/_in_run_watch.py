"""A training loop that is watched step by step: what `InRun` does behind its two calls."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._seeds import torch_seed
from finfluence.errors import FinfluenceError
from finfluence.estimators.first_order import _in_run_words as words
from finfluence.estimators.first_order._in_run_hooks import Hooks
from finfluence.estimators.first_order._in_run_moves import check_known, moves, preconditioner
from finfluence.estimators.first_order._in_run_step import Asked, OpenStep, Products
from finfluence.estimators.gradient_products import RowProducts, SourceOfRows
from finfluence.grads import (
    Batch,
    Factorised,
    Layout,
    RowLoss,
    WrittenRows,
    check_row_separable,
    no_checkpointing,
    without_graph,
)
from finfluence.runs import AnyQuery, RowSource
from finfluence.runs.describe import check_loss, check_model, check_parameters, copy_model, varies
from finfluence.runs.record import (
    RowIds,
    check_module,
    checked_step,
    micro_batch_fields,
    micro_batches,
    rows_of,
    try_out,
)
from finfluence.runs.steps import copied, module_modes, set_module_modes, trained_names, untouched

FEW = 3
ROWS_CHECKED = 2
OFF = {torch.float64: 1e-6, torch.float32: 5e-3}


@dataclass(eq=False)
class _Taken:
    """What the optimiser's step left for the call that names its rows."""

    step: OpenStep
    moves: list[float]
    rates: list[float]
    measured: dict[str, Tensor]
    enlarged: float
    norm: float
    theta: Tensor | None = None
    modes: list[bool] = field(default_factory=list)


class Watch:
    """Hooks on a model and its optimiser, and the sums [rows, queries].

    Attributes
    ----------
    rows, loss, layout
        As of a tape.
    twin : nn.Module
        A copy in evaluation mode that shares the memory of the user's parameters and buffers.
    total : Tensor [n, Q]
        Σ_t φ_i of each row.
    own : Tensor [n]
        Own influence, if asked for.
    left : list of str
        Parameters without factors.
    steps, skipped : int
        Steps followed, and skipped by the gradient scaler.
    unchecked : str
        Why ids could not be checked; "" where they were.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: RowLoss,
        data: Any,
        queries: list[AnyQuery],
        options: Any,
    ) -> None:
        check_model(model)
        check_module(model)
        words.check_not_compiled(model)
        words.check_one_process()
        check_loss(loss)
        check_known(optimizer)
        check_row_separable(model)
        self.model, self.optimizer, self.loss = model, optimizer, loss
        self.options, self.queries = options, queries
        self.names = trained_names(model, optimizer, None)
        self.named = {name: p for name, p in model.named_parameters() if name in set(self.names)}
        check_parameters(dict(model.named_parameters()), dict(model.named_modules()))
        place = {id(p): k for k, g in enumerate(optimizer.param_groups) for p in g["params"]}
        self.group_of = {name: place[id(p)] for name, p in self.named.items()}
        self.adam = not isinstance(optimizer, torch.optim.SGD)
        self._scaled = self.adam and options.preconditioned and options.product == "dot"
        self.steps, self.skipped, self.unchecked = 0, 0, ""
        self._by_row: set[str] = set()
        self._problem: Exception | None = None
        self._taken: _Taken | None = None
        with untouched(0):
            self._start(data)
            self._ask()
        self._ids = RowIds(self.rows.ids)
        self._groups = {name: group for name, group in self.group_of.items() if name in self.covered}
        count = sum(len(q.names) for q in queries)
        self.total = torch.zeros(len(self.rows), count, dtype=torch.float64)
        self.own = torch.zeros(len(self.rows), dtype=torch.float64)
        covered = [name for name in self.names if name not in set(self.left)]
        self._open_step()
        self._hooks = Hooks(model, covered, self._take, self._told)
        self._handle = optimizer.register_step_pre_hook(self._before)

    def batch(self, positions: Tensor) -> Batch:
        """Return the fields of rows, on the device of the parameters."""
        return {k: v.to(self.layout.device) for k, v in self.rows.batch(positions).items()}

    def losses_of(self, positions: Tensor) -> np.ndarray:
        """Return the losses of rows [B] at the parameters as they are now, in evaluation mode."""
        with no_checkpointing():
            found = without_graph(lambda: self.loss(self.twin, self.batch(positions)))
        values: np.ndarray = found.double().cpu().numpy()
        return values

    def release(self) -> None:
        """Take the hooks off."""
        self._hooks.release()
        self._handle.remove()

    def finish(self) -> None:
        """End; raise what went wrong on the way.

        Raises
        ------
        FinfluenceError
        """  # noqa: DOC501 - made by a function
        self.release()
        if self._problem is not None:
            raise self._problem
        if self._taken is not None:
            raise words.unnamed(self.steps)
        if not self.steps:
            raise words.no_steps()
        self._share()

    def step(self, ids: Any, weights: Sequence[float] | None, batch: Batch | Sequence[Batch] | None) -> None:
        """Name the rows of the step that was just taken.

        Raises
        ------
        FinfluenceError
        """
        if self._problem is not None:
            raise self._problem
        if self._taken is None:
            self._no_step()
            return
        taken, self._taken = self._taken, None
        try:
            self._count(taken, micro_batches(ids), weights, batch)
        except FinfluenceError as error:
            self._problem = error
            raise
        self.steps += 1
        if self.steps % self.options.every == 0:
            with untouched(0):
                self._ask()
        self._open_step()

    def _start(self, data: Any) -> None:
        self.rows: RowSource = rows_of(data, self.options.collate)
        self.varying = varies(self.rows)
        trial = copied(self.model, self.names)
        self.layout = Layout(trial)
        modes = module_modes(trial)
        self.random, _ = try_out(trial, self.loss, self.rows, self.layout, self.varying)
        set_module_modes(trial, modes)
        if not trial.training:
            trial.train()
        check_row_separable(trial)
        few = self.batch(torch.arange(min(FEW, len(self.rows))))
        self.covered = Factorised(trial, self.loss, self.names, few).covered
        self.left = [name for name in self.names if name not in self.covered]
        if self.random:
            self.unchecked = "the loss draws random numbers (dropout)"
        if self.left and self.random:
            raise words.random_beside(self.left)
        source = SourceOfRows(self.rows, self.loss, self.layout)
        in_evaluation = RowProducts(copied(self.model, self.names), source).factorised.covered
        shared = [*self.model.parameters(), *self.model.buffers()]
        self.twin = copy_model(self.model, shared).eval()
        chosen = set(self.names)
        for name, p in self.twin.named_parameters():
            p.requires_grad_(name in chosen)
        self._products = RowProducts(self.twin, source, in_evaluation)
        self._aside = copied(self.model, self.names)
        self._written: dict[tuple[str, ...], WrittenRows] = {}

    def _ask(self) -> None:
        """Take the gradients of the queries at the parameters as they are now."""
        self._share()
        plain = torch.autocast(self.layout.device.type, enabled=False)
        with plain, torch.enable_grad(), no_checkpointing():
            directions = self._products.directions(self.queries)
        self._lengths = directions.squared_norms().sqrt() if self.options.product == "cosine" else None
        generator = torch.Generator().manual_seed(torch_seed(self.steps, "in-run"))
        signs = torch.randint(0, 2, (directions.count,), generator=generator) * 2 - 1
        self._due = self._scaled
        self._asked = Asked(directions, signs.to(self.layout.device, self.layout.dtype))

    def _share(self) -> None:
        """Let the twin share the memory of the model's tensors, wherever that is now."""
        theirs = dict(self.model.named_parameters())
        for name, p in self.twin.named_parameters():
            p.data = theirs[name].data
        buffers = dict(self.model.named_buffers())
        for name, buffer in self.twin.named_buffers():
            if buffer.data_ptr() != buffers[name].data_ptr():
                buffer.data = buffers[name].data

    def _open_step(self) -> None:
        hold = self.options.norms or self._due
        by_name = checked_step(self.steps) or self.options.clip_norm is not None
        self._open = OpenStep(self._asked, self._groups, hold, by_name)

    def _take(self, at: int, terms: dict[str, Any]) -> None:
        self._open.take(at, terms)

    def _told(self, error: Exception) -> None:
        if self._problem is None:
            self._problem = error

    def _before(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._problem is not None:
            return
        try:
            with torch.no_grad():
                self._read_step()
        except FinfluenceError as error:
            self._told(error)
        except Exception as error:
            self._told(words.unreadable_step(self.steps, error))

    def _read_step(self) -> None:
        if self._taken is not None:
            self._told(words.unnamed(self.steps))
            return
        opened = self._open
        if self._due:
            scale = preconditioner(self.optimizer, self.named)
            assert scale is not None, "only Adam has one"
            self._asked = Asked(self._asked.directions.scaled(scale), self._asked.signs)
            opened.asked, self._due = self._asked, False
            if not self.options.norms:
                opened.multiply_held()
        along = self._asked.along
        measured = {
            name: torch.dot(p.grad.reshape(-1), along[name])
            for name, p in self.named.items()
            if name in self.covered and p.grad is not None and name in along
        }
        enlarged = 1.0 if self.options.scaler is None else float(self.options.scaler.get_scale())
        norm = 0.0
        if self.options.clip_norm is not None:
            norm = float(
                torch.nn.utils.get_total_norm([p.grad for p in self.named.values() if p.grad is not None])
            )
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._taken = _Taken(opened, moves(self.optimizer), rates, measured, enlarged, norm)
        if self.left or (checked_step(self.steps) and not self.random):
            self._taken.theta = torch.cat([p.detach().reshape(-1) for p in self.named.values()])
            self._taken.modes = module_modes(self.model)

    def _count(
        self,
        taken: _Taken,
        parts: list[Any],
        weights: Sequence[float] | None,
        batch: Batch | Sequence[Batch] | None,
    ) -> None:
        """Add what a step's rows did."""
        positions = [self._ids.positions(part, self.steps) for part in parts]
        given = words.checked_weights(weights, len(parts))
        seen = [] if batch is None else micro_batch_fields(batch, len(parts))
        passes = words.dealt_passes(taken.step.passes, len(parts), self.steps)
        self._check_counts(taken.step, passes, [len(rows) for rows in positions])
        with torch.no_grad():
            found = [
                taken.step.products(at, len(rows), self.options.norms)
                for at, rows in zip(passes, positions, strict=True)
            ]
        totals = [products.total() for products in found]
        summed = taken.step.summed([total for total in totals if total is not None])
        scale = self._scale(taken, summed)
        wrong = taken.step.apart(taken.measured, summed, scale)
        if wrong is not None:
            raise words.other_gradient(wrong, self.steps)
        clipped = scale * taken.enlarged
        for k, (products, rows) in enumerate(zip(found, positions, strict=True)):
            each = given[k] / len(rows)
            fields = seen[k] if seen else None
            if k == 0 and taken.theta is not None and not self.random:
                self._check_rows(taken, products, rows, fields, each)
            if self.left:
                self._add_left(taken, products, rows, fields, each)
            self._add(taken, products, rows, each, scale, clipped)

    def _check_counts(self, step: OpenStep, passes: list[list[int]], rows: list[int]) -> None:
        """Raise where a layer that has seen one entry for each row before sees another number of them."""
        seen = step.by_row(passes, rows)
        odd = (self._by_row & set(step.entries)) - seen
        if odd:
            name = min(odd)
            raise words.other_rows(sum(rows), sum(count for _, count in step.entries[name]))
        self._by_row |= seen

    def _scale(self, taken: _Taken, summed: tuple[Tensor, Tensor]) -> float:
        """Return what the gradient was multiplied by since the backward passes."""
        expected, clip = 1.0 / taken.enlarged, self.options.clip_norm
        if clip is None:
            return expected
        if taken.norm < 0.999 * clip or not float(summed[1]):
            return expected
        found = float(torch.stack(list(taken.measured.values())).sum() / summed[0])
        return found if 0.0 < found <= 1.001 * expected else expected

    def _add(
        self, taken: _Taken, products: Products, rows: np.ndarray, each: float, scale: float, clipped: float
    ) -> None:
        device = self.layout.device
        total = torch.zeros(len(rows), self.total.shape[1], dtype=torch.float64, device=device)
        if self._lengths is not None:
            summed, square = products.total(), products.squares.values()
            if summed is not None and square:
                lengths = torch.stack(list(square)).sum(0).double().sqrt().unsqueeze(1) * self._lengths
                cosine = torch.where(lengths > 0, summed.double() / lengths, 0.0)
                total -= taken.rates[0] * cosine
        else:
            for group, values in products.values.items():
                total += scale * taken.moves[group] * values.double()
        where = torch.from_numpy(rows)
        self.total.index_add_(0, where, total.cpu())
        if self.options.own:
            for group, squares in products.squares.items():
                part = taken.rates[group] * clipped / (each * taken.enlarged**2) * squares.double()
                self.own.index_add_(0, where, part.cpu())

    def _add_left(
        self, taken: _Taken, products: Products, rows: np.ndarray, fields: Batch | None, each: float
    ) -> None:
        """Add the parameters without factors, whose row gradients are written out."""
        gradients = self._rows_of(taken, self.left).gradients(self._fields(rows, fields))
        gradients = gradients * (each * taken.enlarged)
        at = 0
        for name in self.left:
            size = self.named[name].numel()
            part, group = gradients[:, at : at + size], self.group_of[name]
            at += size
            vectors = self._asked.directions.written(name)
            known = products.values.get(group)
            if vectors is not None:
                found = part @ vectors.T
                products.values[group] = found if known is None else known + found
            if self.options.norms:
                squares = products.squares.get(group, torch.zeros_like(part[:, 0]))
                products.squares[group] = squares + (part**2).sum(1)

    def _check_rows(
        self, taken: _Taken, products: Products, rows: np.ndarray, fields: Batch | None, each: float
    ) -> None:
        """Hold the products of two rows against their gradients, from the data by themselves."""
        if self.varying and fields is None:
            self.unchecked = "the data set changes at every reading, and no batch was passed"
            return
        total = products.total()
        names = [name for name in self.names if name in self.covered and name in self._asked.along]
        if total is None or not names:
            return
        few = {k: v[:ROWS_CHECKED] for k, v in self._fields(rows[:ROWS_CHECKED], fields).items()}
        direction = torch.cat([self._asked.along[name] for name in names])
        true = self._rows_of(taken, names).gradients(few) @ direction * each * taken.enlarged
        along = total @ self._asked.signs
        found = along[: len(true)]
        tolerance = OFF.get(true.dtype, 5e-3)
        limit = (
            tolerance * torch.maximum(true.abs(), found.abs()) + tolerance * 0.1 * along.abs().mean() + 1e-12
        )
        if not bool(((found - true).abs() <= limit).all()):
            raise words.other_rows_than_named(found, true, self.steps)

    def _fields(self, rows: np.ndarray, fields: Batch | None) -> Batch:
        if fields is not None:
            return {k: v.to(self.layout.device) for k, v in fields.items() if isinstance(v, Tensor)}
        if self.varying:
            raise words.varying()
        return self.batch(torch.from_numpy(rows))

    def _rows_of(self, taken: _Taken, names: list[str]) -> WrittenRows:
        """Return row gradients at the parameters before a step, in the modes of training."""
        assert taken.theta is not None, "kept where they are asked for"
        self.layout.assign(self._aside, taken.theta)
        set_module_modes(self._aside, taken.modes)
        if tuple(names) not in self._written:
            mapped = names == self.left
            self._written[tuple(names)] = WrittenRows(self._aside, self.loss, names, mapped)
        return self._written[tuple(names)]

    def _no_step(self) -> None:
        if self.options.scaler is None:
            self._problem = words.no_step(self.steps)
            raise self._problem
        self.skipped += 1
        self._open_step()
