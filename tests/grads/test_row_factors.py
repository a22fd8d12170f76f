"""Gradients of rows in factors against each row differentiated by itself, and what has no factors named."""

import pytest
import torch
from torch import Tensor, nn

from finfluence.grads import Directions, Factorised, WrittenRows
from finfluence.runs import seeded

DOUBLE = torch.float64
ROWS = 4


class Tied(nn.Module):
    """An embedding whose weight is that of the last layer, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(6, 3, padding_idx=0)
        self.last = nn.Linear(3, 6, bias=False)
        self.last.weight = self.embed.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.embed(x).tanh())


class Twice(nn.Module):
    """One layer called twice, and a norm between."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 3), nn.LayerNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.norm(self.layer(x)).tanh())


class Outside(nn.Module):
    """A weight used by its layer and outside it, beside one that only its layer uses, and a bare parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x) * self.scale
        return self.second((hidden @ self.first.weight).tanh())


class Attention(nn.Module):
    """Attention whose projections are functional, rows first or positions first."""

    def __init__(self, rows_first: bool) -> None:
        super().__init__()
        self.rows_first = rows_first
        self.embed = nn.Linear(3, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=rows_first)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x if self.rows_first else x.transpose(0, 1))
        out = self.last(self.attention(hidden, hidden, hidden, need_weights=False)[0])
        return out if self.rows_first else out.transpose(0, 1)


def transposed() -> nn.Module:
    """GPT-2's linear layers, which keep their weight as [in, out]."""
    layer = pytest.importorskip("transformers.pytorch_utils").Conv1D
    return nn.Sequential(layer(5, 3), nn.Tanh(), layer(2, 5))


class Flattened(nn.Module):
    """Positions of all rows in one axis on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 3), nn.RMSNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x.flatten(0, 1))).view_as(x)


class Frozen(nn.Module):
    """A frozen layer below a trained one, and a part without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.above = nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 3)
        self.aside = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            shift = self.aside(x)
        return self.above(self.below(x).tanh() + shift)


def numbers(*shape: int) -> Tensor:
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


def tokens(*shape: int) -> Tensor:
    return torch.randint(0, 6, (ROWS, *shape), generator=torch.Generator().manual_seed(1))


CASES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)), numbers(3), []),
    "sequence": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.LayerNorm(5)), numbers(7, 3), []),
    "transposed": (transposed, numbers(3), []),
    "transposed-sequence": (transposed, numbers(7, 3), []),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), nn.GroupNorm(3, 6)),
        numbers(4, 9),
        [],
    ),
    "conv2d": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, (3, 2), dilation=2, padding="same", padding_mode="circular"),
            nn.GELU(),
            nn.BatchNorm2d(4).eval(),
            nn.Conv2d(4, 4, 3, groups=4, bias=False),
        ),
        numbers(2, 6, 5),
        [],
    ),
    "embedding": (lambda: nn.Sequential(nn.Embedding(6, 3, padding_idx=2), nn.Linear(3, 2)), tokens(5), []),
    "tied": (Tied, tokens(5), []),
    "twice": (Twice, numbers(3), []),
    "flattened": (Flattened, numbers(5, 3), []),
    "frozen": (Frozen, numbers(3), []),
    "outside": (Outside, numbers(3), ["scale", "first.weight"]),
    "prelu": (lambda: nn.Sequential(nn.Linear(3, 2), nn.PReLU()), numbers(3), ["1.weight"]),
    "attention": (
        lambda: Attention(True),
        numbers(5, 3),
        ["attention.in_proj_weight", "attention.in_proj_bias", "attention.out_proj.weight", "attention.out_proj.bias"],
    ),
    "recurrent": (lambda: Recurrent(), numbers(5, 3), ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0"]),
}  # fmt: skip


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.last = nn.GRU(3, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.rnn(x)[0])


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return (model(batch["x"]) - 0.3).pow(2).flatten(1).sum(1)


def made(factory: object) -> tuple[nn.Module, list[str]]:
    with seeded(3):
        model = factory().to(DOUBLE)  # type: ignore[operator]
    return model, [name for name, p in model.named_parameters() if p.requires_grad]


def one_by_one(model: nn.Module, names: list[str], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    named = dict(model.named_parameters())
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    for i in range(ROWS):
        alone = loss(model, {k: v[i : i + 1] for k, v in batch.items()}).sum()
        parts = torch.autograd.grad(alone, [named[n] for n in names], allow_unused=True)
        for name, part in zip(names, parts, strict=True):
            rows[name].append(torch.zeros_like(named[name]) if part is None else part)
    return {name: torch.stack(found).flatten(1) for name, found in rows.items()}


@pytest.mark.parametrize("case", CASES)
def test_gradients_products_and_norms_are_those_of_each_row_by_itself(case):
    factory, x, left = CASES[case]
    model, names = made(factory)
    batch = {"x": x}
    kept = {name: p.clone() for name, p in model.state_dict().items()}
    factorised = Factorised(model, loss, names, batch)
    terms, without = factorised.terms(batch)
    assert sorted(without) == sorted(left)
    assert all(torch.equal(kept[name], p) for name, p in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())
    true = one_by_one(model, names, batch)
    rows = WrittenRows(model, loss, left).gradients(batch) if left else None
    if rows is not None:
        order = [name for name in names if name in left]
        torch.testing.assert_close(rows, torch.cat([true[name] for name in order], 1))
    whole = torch.cat([true[name] for name in names if name not in left], 1)
    for name in set(names) - set(left):
        made_of = terms.gradients(name) if name in terms.terms else torch.zeros_like(true[name])
        torch.testing.assert_close(made_of, true[name])
    crossed, written = Directions(ROWS), Directions(ROWS)
    for name, several in terms.terms.items():
        for term in several:
            crossed.add(name, term)
        written.add_written(name, true[name])
    for directions in (written, crossed):
        torch.testing.assert_close(terms.products(directions), whole @ whole.T)
    torch.testing.assert_close(terms.squared_norms(), (whole**2).sum(1))
    weights = torch.arange(1.0, ROWS + 1, dtype=DOUBLE)
    combined = crossed.combined(weights)
    for name in terms.terms:
        torch.testing.assert_close(combined[name], weights @ true[name])


def test_positions_before_rows_are_found_by_trying_rows_one_by_one():
    model, names = made(lambda: Attention(False))
    batch = {"x": numbers(6, 3)}  # 6 positions, which three rows divide
    _, without = Factorised(model, loss, names, batch).terms(batch)
    assert {"embed.weight", "last.weight", "embed.bias", "last.bias"} <= set(without)


def test_a_factor_that_begins_at_zero_hides_nothing():
    model, names = made(lambda: Attention(False))
    with torch.no_grad():
        model.last.weight.zero_()
        model.last.bias.fill_(0.3)  # all gradients are zero here
    _, without = Factorised(model, loss, names, {"x": numbers(6, 3)}).terms({"x": numbers(6, 3)})
    assert "embed.weight" in without


def test_a_batch_that_takes_another_way_is_seen():
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            out = self.layer(x)
            return out @ self.layer.weight if float(x.sum()) > 1e3 else out

    model, names = made(Branch)
    factorised = Factorised(model, loss, names, {"x": numbers(3)})
    assert factorised.terms({"x": numbers(3)})[1] == []
    assert factorised.terms({"x": numbers(3) + 1e3})[1] == ["layer.weight"]


def test_a_layer_that_overrides_forward_has_no_rule():
    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model, names = made(lambda: nn.Sequential(Doubled(3, 2), nn.Linear(2, 2)))
    _, without = Factorised(model, loss, names, {"x": numbers(3)}).terms({"x": numbers(3)})
    assert without == ["0.weight", "0.bias"]


def test_a_loss_that_branches_on_values_is_taken_row_by_row():
    model, names = made(lambda: nn.Linear(3, 2))

    def branching(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        found = loss(model, batch)
        return found if float(found.sum()) > 0 else -found

    rows = WrittenRows(model, branching, names).gradients({"x": numbers(3)})
    true = one_by_one(model, names, {"x": numbers(3)})
    torch.testing.assert_close(rows, torch.cat([true[name] for name in names], 1))
