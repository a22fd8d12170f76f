"""Layers whose gradients are not what they seem: padding, scalars, written-out twins, and what rows cannot share."""

import pytest
import torch
from torch import Tensor, nn

from finfluence.errors import NotSupportedError
from finfluence.grads import (
    Elementary,
    Factorised,
    Layout,
    RowLosses,
    check_forward_writes_nothing,
    check_row_separable,
    check_rows_have_gradients,
    never_moved,
)
from finfluence.runs import seeded
from four_parts import assert_parts

DOUBLE = torch.float64
BAGS = torch.tensor([[1, 1, 3], [3, 0, 2], [3, 3, 3]])


class Shifted(nn.Module):
    """A scalar parameter beside a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.shift = nn.Linear(2, 2), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.shift


def test_gradients_of_a_scalar_parameter_are_written_out():
    model = Shifted().to(DOUBLE)
    batch = {"x": torch.eye(2, dtype=DOUBLE)}
    factorised = Factorised(
        model, lambda m, b: m(b["x"]).sum(1), [n for n, _ in model.named_parameters()], batch
    )
    _, _, written = factorised.of_values(lambda: model(batch["x"]).sum(1))
    assert written["shift"].tolist() == [[2.0], [2.0]]


@pytest.mark.parametrize("mode", ["sum", "mean"])
@pytest.mark.parametrize("padding", [None, 3, -1])
@pytest.mark.parametrize("weighted", [False, True])
def test_bags_of_embeddings_written_out_are_torchs_own(mode, padding, weighted):
    if weighted and mode == "mean":
        return  # torch has no such thing
    with seeded(0):
        bag = nn.EmbeddingBag(4, 2, mode=mode, padding_idx=padding, dtype=DOUBLE)
        given = torch.rand(BAGS.shape, dtype=DOUBLE) if weighted else None
    found = []
    for context in (torch.no_grad, Elementary):
        with context(), torch.enable_grad():
            out = bag(BAGS, per_sample_weights=given)
            found.append((out, torch.autograd.grad((out**2).sum(), bag.weight)[0]))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 2)])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_weights_of_a_direction_and_a_length_are_torchs_own(shape, dim):
    with seeded(1):
        v = torch.randn(shape, dtype=DOUBLE, requires_grad=True)
    g = torch.norm_except_dim(v.detach(), 2, dim) * 1.5
    with Elementary():
        ours = torch._weight_norm(v, g, dim)
    torch.testing.assert_close(ours, torch._weight_norm(v, g, dim))


def test_bags_and_weight_norm_have_derivatives_forward_over_reverse():
    with seeded(2):
        layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
        model = nn.Sequential(nn.EmbeddingBag(4, 2, mode="mean"), layer).to(DOUBLE)
    losses = RowLosses(model, lambda m, b: (m(b["x"]) ** 2).sum(1), Layout(model))
    theta = losses.layout.theta(model)
    gradient = torch.func.grad(lambda p: losses(p, {"x": BAGS}).sum())
    u = torch.ones_like(theta)
    exact = torch.func.jvp(gradient, (theta,), (u,))[1]
    apart = (gradient(theta + 1e-6 * u) - gradient(theta - 1e-6 * u)) / 2e-6
    torch.testing.assert_close(exact, apart, rtol=1e-6, atol=1e-6)


def test_padding_is_never_moved_unless_another_layer_shares_it():
    model = nn.Sequential(nn.Embedding(4, 2, padding_idx=-1), nn.Linear(2, 4, bias=False))
    assert never_moved(model, Layout(model)).nonzero().flatten().tolist() == [6, 7]
    bag = nn.EmbeddingBag(4, 2, padding_idx=0)
    assert never_moved(bag, Layout(bag)).nonzero().flatten().tolist() == [0, 1]
    model[1].weight = model[0].weight
    assert never_moved(model, Layout(model)) is None
    assert never_moved(nn.Embedding(4, 2), Layout(nn.Embedding(4, 2))) is None


def test_held_entries_of_theta_are_constants():
    model = nn.Embedding(3, 1, padding_idx=0, dtype=DOUBLE)
    layout = Layout(model)
    theta = layout.theta(model)
    losses = RowLosses(model, lambda m, b: m(b["x"])[:, 0], layout).holding(never_moved(model, layout), theta)
    rows = {"x": torch.tensor([0, 1])}
    assert torch.func.jvp(lambda p: losses(p, rows), (theta,), (torch.ones(3).double(),))[1].tolist() == [
        0,
        1,
    ]


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_tables_that_scale_by_the_batch_or_write_on_themselves_are_refused(kind):
    with pytest.raises(NotSupportedError) as caught:
        check_rows_have_gradients(nn.Sequential(kind(3, 2, scale_grad_by_freq=True)))
    assert_parts(
        caught.value, "sum of those of its rows", f"{kind.__name__} with scale_grad_by_freq=True at '0'",
        "how often the batch uses it", "leave scale_grad_by_freq out",
    )  # fmt: skip
    with pytest.raises(NotSupportedError) as caught:
        check_forward_writes_nothing(kind(3, 2, max_norm=0.5))
    assert_parts(
        caught.value, "leaves the parameters as they are", f"max_norm=0.5 at '{kind.__name__}'",
        "rescales the entries that it looks up", "leave max_norm out",
    )  # fmt: skip
    check_rows_have_gradients(kind(3, 2))
    check_forward_writes_nothing(kind(3, 2))


def test_batch_normalisation_without_statistics_mixes_rows_in_evaluation_too():
    check_row_separable(nn.BatchNorm1d(2).eval())
    check_row_separable(nn.InstanceNorm1d(2, affine=True))
    with pytest.raises(NotSupportedError) as caught:
        check_row_separable(nn.Sequential(nn.BatchNorm1d(2, track_running_stats=False)).eval())
    assert_parts(
        caught.value, "does not depend on the other rows", "BatchNorm1d without running statistics at '0'",
        "mixes the rows", "GroupNorm",
    )  # fmt: skip
