"""Turn-over dropout: every row is kept from a part of the network, which then tells what the rest learnt from it."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import t
from torch import Tensor, nn

from finfluence._progress import Progress
from finfluence._seeds import stream
from finfluence.errors import ConfigError, NotSupportedError, explain
from finfluence.estimators._base import AbstractEstimator, Cost, check_whole
from finfluence.estimators._one_run import (
    activation_bytes,
    forward_values,
    in_trainings,
    labels,
    one_run,
    own_losses,
)
from finfluence.result import Influence
from finfluence.runs import AnyQuery, Tape, seeded
from finfluence.runs.describe import Subsets, sum_over

WORD = 0xFFFFFFFF
OF_MASKS = (
    "spread is that of the query over sub-networks of this one run, not over trainings; layers before the first mask, "
    "and biases behind it, have seen every row, so that effects are understated"
)


class TurnOver(nn.Module):
    """A layer that lets each row train a fixed random part of the units, placed in a model by its owner.

    In training, unit u of row r is multiplied by m(r, u)/p, m the row's own mask of zeros and ones with mean p: weights
    behind a unit that is off get no gradient from the row. In evaluation, and without rows, nothing is masked.

    Parameters
    ----------
    p : float
        Share of the units that a row trains, above 0 and below 1.
    seed : int
        Of the masks; layers of one model take different ones.

    Raises
    ------
    ConfigError
        p that is no share.

    Notes
    -----
    Masks are hashes of whole numbers: nothing is stored, and large numbers are as good as small ones. Put one layer
    early and one late; a row number is a field that stays with the row, or `batch["id"]`, its position.

    Examples
    --------
    >>> layer = TurnOver(p=0.5, seed=1)
    >>> layer(torch.ones(1, 8), torch.tensor([3])).unique().tolist()
    [0.0, 2.0]
    >>> layer.eval()(torch.ones(1, 8), torch.tensor([3])).unique().tolist()
    [1.0]
    """

    def __init__(self, p: float = 0.5, seed: int = 0) -> None:
        super().__init__()
        if not 0 < p < 1:
            raise ConfigError(
                explain(
                    "p above 0 and below 1",
                    repr(p),
                    "a rate of dropping, or a percentage, was passed",
                    "pass p=0.5: each row trains half of the units",
                )
            )
        self.p, self.seed = p, seed
        self.asked: tuple[int, bool] | None = None

    def forward(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return x [B, …, units], masked for these rows [B] in training; as `asked` if a sub-network was asked for."""
        if self.asked is not None:
            number, seen = self.asked
            kept = self.mask(torch.tensor([number], device=x.device), x.shape[-1])
            share = self.p if seen else 1 - self.p
            return x * ((kept if seen else ~kept)[0].to(x) / share)
        if rows is None or not self.training:
            return x
        kept = self.mask(rows, x.shape[-1]).to(x) / self.p
        return x * kept.view(len(rows), *[1] * (x.ndim - 2), x.shape[-1])

    def mask(self, rows: Tensor, units: int) -> Tensor:
        """Return which units each row trains [B, units]."""
        seed = _mixed(torch.tensor(self.seed & WORD, device=rows.device))
        row = _mixed((rows & WORD) + _mixed(((rows >> 32) & WORD) + seed))
        unit = _mixed(torch.arange(units, device=rows.device) * 0x9E3779B9 + 1)
        return _mixed(row[:, None] + unit) < int(self.p * 2**32)


def _mixed(x: Tensor) -> Tensor:
    """Return a hash of 32 bits of each whole number."""
    x = x & WORD
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & WORD
    x = ((x ^ (x >> 15)) * 0x846CA68B) & WORD
    return x ^ (x >> 16)


@dataclass(frozen=True, kw_only=True)
class TurnOverOptions:
    """Options of `TurnOverDropout`.

    Parameters
    ----------
    controls : int
        Random masks that no row had, whose sub-networks show what masks alone do.
    seed : int
        Of these masks.

    Raises
    ------
    ConfigError
        A value that cannot be used.
    """

    controls: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_whole("controls", self.controls, 3)
        check_whole("seed", self.seed, 0)


class TurnOverDropout(AbstractEstimator[Tape, TurnOverOptions]):
    """Turn-over dropout: the query of the sub-network that never saw a row, minus that of the one that did.

    d_i = q(f, (1 − m_i)/(1 − p)) − q(f, m_i/p), with the row's masks m_i in every `TurnOver` layer of the model.
    effect(S) = Σ_{i∈S} (d_i − mean_c d_c), c random masks that no row had: positive where removing the row raises the
    query. effect_se = sd(d_c) √(|S| + |S|²/C), spread = sd of the query over the sub-networks of the C controls,
    μ = effect/spread; p by Student's t.

    Notes
    -----
    One run answers for all rows, with a large error for a single one: its two sub-networks differ by their masks, too.
    The published code divides masks of both kinds by 1 − p when it scores, which is right for p = ½ only; here each is
    divided by the share of units that it keeps.

    Cost: two evaluations of the queries for each row and each control.

    References
    ----------
    Kobayashi et al., "Efficient estimation of influence of a training instance" (2020), equation 6.

    Examples
    --------
    >>> from finfluence.runs import SGD, Recipe, Rows, own_loss, train
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first, self.masked, self.last = nn.Linear(4, 64), TurnOver(), nn.Linear(64, 1)
    ...     def forward(self, x, rows=None):
    ...         return self.last(self.masked(self.first(x).relu(), rows))[:, 0]
    >>> recipe = Recipe(data=Rows(x=np.eye(4), y=np.arange(4.0)), model=Net(), optimizer=SGD(lr=0.05), batch_size=2,
    ...                 loss=lambda m, b: (m(b["x"], b["id"]) - b["y"]) ** 2, epochs=50)
    >>> found = TurnOverDropout().estimate(train(recipe), own_loss([3]), [3])
    >>> bool(found.data.effect.item() > 0)
    True
    """

    name = "turn-over"
    family = "resampling"
    paper = "arXiv 2012.04207"
    yields = "mu"
    needs = Tape
    Options = TurnOverOptions

    def _check(self, source: Tape) -> None:
        row_numbers(source, torch.arange(1))

    def _estimate(
        self, source: Tape, queries: list[AnyQuery], subsets: Subsets, progress: Progress
    ) -> Influence:
        o, model = self.options, source.model()
        numbers = row_numbers(source, torch.arange(len(source.rows)))
        drawn = stream(o.seed, "turn-over controls").integers(2**32, 2**62, size=o.controls)
        asked = np.unique(np.concatenate([s for s in subsets.positions if len(s)] or [np.zeros(0, int)]))
        differences = np.zeros((len(source.rows), sum(len(q.names) for q in queries)))
        for done, i in enumerate(asked, start=1):
            seen, unseen = sub_networks(source, model, queries, int(numbers[i]))
            differences[i] = unseen - seen
            progress("rows", done, len(asked))
        pairs = np.array([sub_networks(source, model, queries, int(number)) for number in drawn])
        null = pairs[:, 1] - pairs[:, 0]
        sizes = subsets.sizes[:, None]
        effect = sum_over(subsets.positions, differences) - sizes * null.mean(0)
        effect_se = null.std(0, ddof=1) * np.sqrt(sizes + sizes**2 / o.controls)
        spread = np.broadcast_to(pairs.std((0, 1), ddof=1), effect.shape)
        with np.errstate(divide="ignore", invalid="ignore"):
            p = np.where(effect == 0, 1.0, 2 * t.sf(np.abs(effect / effect_se), o.controls - 1))
        return Influence.build(
            effect=effect, effect_se=effect_se, spread=spread, se=effect_se / spread, p_value=p,
            own_loss=own_losses(source, subsets),
            provenance=one_run(
                source, self.name, covers=("masks",), findings=(OF_MASKS,), seed=o.seed,
                details={"controls": o.controls},
            ),
            **labels(queries, subsets),
        )  # fmt: skip

    def _cost(self, source: Tape, queries: list[AnyQuery], subsets: Subsets) -> Cost:
        columns = sum(len(q.names) for q in queries)
        held = 8 * columns * (len(source.rows) + 2 * self.options.controls + 6 * len(subsets))
        return Cost(in_trainings(source, 2 * len(source.rows)), activation_bytes(source, 1024) + held)


def sub_networks(
    tape: Tape, model: nn.Module, queries: list[AnyQuery], number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the queries [Q] of the sub-network that a row of this number trained, and of the one that it did not."""
    layers, found = _layers(model), []
    for seen in (True, False):
        for layer in layers:
            layer.asked = (number, seen)
        found.append(forward_values(queries, model, tape))
    for layer in layers:
        layer.asked = None
    return found[0], found[1]


def row_numbers(tape: Tape, positions: Tensor) -> Tensor:
    """Return the numbers [n] of rows that the loss hands to the model's `TurnOver` layers in training.

    Returns
    -------
    Tensor

    Raises
    ------
    NotSupportedError
        No such layer, or one that is not handed the rows.
    """
    model, seen = tape.model().train(), list[Tensor]()

    def look(layer: nn.Module, args: tuple[Tensor, ...], given: dict[str, Tensor]) -> None:
        rows = args[1] if len(args) > 1 else given.get("rows")
        seen.extend([] if rows is None else [rows])

    layers = _layers(model)
    for layer in layers:
        layer.register_forward_pre_hook(look, with_kwargs=True)
    if layers:
        with torch.no_grad(), seeded(0):
            for part in positions.split(1024):
                tape.loss(model, tape.batch(part))
    if not seen or len(seen) % len(layers):
        raise NotSupportedError(
            explain(
                "a model with TurnOver layers, to which the loss hands the rows' numbers",
                "a layer without them" if layers else f"{type(model).__name__} without such a layer",
                "turn-over dropout is part of the model, and is put there before training",
                "place finfluence.estimators.resampling.TurnOver in the model, and call it in the loss as "
                'model(batch["x"], batch["id"])',
            )
        )
    return torch.cat(seen[:: len(layers)])


def _layers(model: nn.Module) -> list[TurnOver]:
    return [module for module in model.modules() if isinstance(module, TurnOver)]
