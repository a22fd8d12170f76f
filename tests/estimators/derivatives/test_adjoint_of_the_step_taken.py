"""Losses whose returned gradient is not that of their value: effects against the derivative of the whole training.

In float64, to 1e-6 of the largest effect, or refused in words.
"""

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from weighted_training import OPTIMIZERS, Problem, recorded, replayed, right_effects

import finfluence as fi
import finfluence.runs as fr
from finfluence.errors import ConfigError, FinfluenceError, NotSupportedError
from finfluence.estimators.derivatives import exact_choice, query_gradients
from four_parts import assert_parts

ROWS, CHECKED, TOLERANCE = 16, [0, 3, 7, 12], 1e-6


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


X, XQ = (torch.randn(n, 5, dtype=torch.float64, generator=drawn(n)) for n in (ROWS, 20))
Y, YQ = (torch.randint(0, 3, (n,), generator=drawn(n)) for n in (ROWS, 20))
T, TQ = (torch.randint(0, 6, (n, 4), generator=drawn(n)) for n in (ROWS, 20))


def seeded(make, seed: int = 1) -> nn.Module:
    with fr.seeded(seed):
        return make().double()


def mlp(activation: type[nn.Module] = nn.Tanh) -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(5, 8), activation(), nn.Linear(8, 3)))


def cross_entropy(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def focal(model: nn.Module, batch: dict[str, Tensor], stop: str) -> Tensor:
    losses = cross_entropy(model, batch)
    if stop == "no_grad":
        with torch.no_grad():
            weight = (1 - torch.exp(-losses)) ** 2
    else:
        stopped = {"detach": losses.detach(), "data": losses.data, "nothing": losses}[stop]
        weight = (1 - torch.exp(-stopped)) ** 2
    return weight * losses


def normalised(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    losses = cross_entropy(model, batch)
    return 0.3 * losses / losses.detach()


def weighted_within_the_batch(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    losses = cross_entropy(model, batch)
    return losses * (losses / losses.sum()).detach()


def semi_gradient(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    value, following = model(batch["x"])[:, 0], model(batch["x"].roll(1, 1)).max(1).values
    return (batch["y"] + 0.5 * following.detach() - value) ** 2


def through_the_round(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    out = model(batch["x"])
    rounded = out + (torch.round(2 * out) / 2 - out).detach()
    return F.cross_entropy(rounded + 0.1 * out, batch["y"], reduction="none")


class Reversed(torch.autograd.Function):
    """Gradient reversal, as it is usually written."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -0.5 * gradient


class ReversedForTransforms(torch.autograd.Function):
    """The same for torch.func: a forward derivative that lies as the backward one does."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return -0.5 * gradient

    @staticmethod
    def jvp(ctx, tangent):
        return -0.5 * tangent


class Rounded(torch.autograd.Function):
    """A straight-through estimator whose backward cannot be differentiated."""

    @staticmethod
    def forward(ctx, x):
        return torch.round(4 * x) / 4

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class Softplus(torch.autograd.Function):
    """As fused kernels are written: right backward, no forward derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return F.softplus(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * torch.sigmoid(x)


class Outside(torch.autograd.Function):
    """A sine that NumPy computes."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(np.sin(x.detach().numpy()))

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * torch.from_numpy(np.cos(x.detach().numpy()))


class Inside(nn.Module):
    """A function between two layers."""

    def __init__(self, function, activation=torch.tanh) -> None:
        super().__init__()
        self.body, self.head, self.function, self.activation = (
            nn.Linear(5, 8),
            nn.Linear(8, 3),
            function,
            activation,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.activation(self.function(self.body(x))))


class Adversarial(nn.Module):
    """A second head that sees the features through gradient reversal."""

    def __init__(self, function) -> None:
        super().__init__()
        self.body, self.head, self.domain, self.function = (
            nn.Linear(5, 8),
            nn.Linear(8, 3),
            nn.Linear(8, 2),
            function,
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x)))

    def domains(self, x: Tensor) -> Tensor:
        return self.domain(self.function(torch.tanh(self.body(x))))


def adversarial(model: Adversarial, batch: dict[str, Tensor]) -> Tensor:
    domain = F.cross_entropy(model.domains(batch["x"]), (batch["x"][:, 0] > 0).long(), reduction="none")
    return cross_entropy(model, batch) + domain


class Hooked(nn.Module):
    """A gradient that a hook turns round on its way back."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.body(x))
        turned = 1.0 * hidden
        if turned.requires_grad:
            turned.register_hook(lambda gradient: -0.3 * gradient)
        return self.head(hidden + turned)


class Tokens(nn.Module):
    """Mean of embeddings, and an output that may be tied to them."""

    def __init__(self, tied: bool, **options: object) -> None:
        super().__init__()
        self.embed, self.mix = nn.Embedding(6, 5, **options), nn.Linear(5, 5)
        self.out = nn.Linear(5, 6, bias=False)
        if tied:
            self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.tanh(self.mix(self.embed(tokens).mean(1))))


def of_features(model, loss=cross_entropy) -> Problem:
    return Problem(model, loss, {"x": X, "y": Y}, lambda m: F.cross_entropy(m(XQ), YQ))


def of_tokens(tied: bool, **options: object) -> Problem:
    model = partial(seeded, lambda: Tokens(tied, **options), 2)
    return Problem(model, cross_entropy, {"x": T, "y": Y}, lambda m: F.cross_entropy(m(TQ), YQ))


def inside(function, activation=torch.tanh):
    return partial(seeded, lambda: Inside(function, activation))


SYMMETRIC = {
    "plain": of_features(mlp),
    "plain, ReLU": of_features(partial(mlp, nn.ReLU)),
    "focal, nothing stopped": of_features(mlp, partial(focal, stop="nothing")),
    "tied embedding": of_tokens(True),
}
ASYMMETRIC = {
    "focal, detached": of_features(mlp, partial(focal, stop="detach")),
    "focal, no_grad": of_features(mlp, partial(focal, stop="no_grad")),
    "focal, data": of_features(mlp, partial(focal, stop="data")),
    "focal, detached, ReLU": of_features(partial(mlp, nn.ReLU), partial(focal, stop="detach")),
    "self-normalised": of_features(mlp, normalised),
    "semi-gradient": of_features(mlp, semi_gradient),
    "straight through, detach": of_features(mlp, through_the_round),
    "straight through, function": of_features(inside(Rounded.apply)),
    "straight through, ReLU": of_features(inside(Rounded.apply, torch.relu)),
    "reversal": of_features(partial(seeded, lambda: Adversarial(Reversed.apply)), adversarial),
    "reversal for transforms": of_features(
        partial(seeded, lambda: Adversarial(ReversedForTransforms.apply)), adversarial
    ),
    "hook": of_features(partial(seeded, Hooked)),
    "embedding with padding": of_tokens(False, padding_idx=0),
    "tied embedding with padding": of_tokens(True, padding_idx=0),
    "gradients by frequency": of_tokens(False, scale_grad_by_freq=True),
}


def assert_right(problem: Problem, optimizer: str) -> fi.Influence:
    found = replayed(problem, recorded(problem, optimizer))
    got, want = found.data.effect.values[CHECKED, 0], right_effects(problem, optimizer, CHECKED)
    assert np.abs(want).max() > 1e-5
    assert np.abs(got - want).max() < TOLERANCE * np.abs(want).max(), (got, want)
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", SYMMETRIC)
@pytest.mark.quick(2)
def test_the_gradient_of_the_loss_is_taken_forward_over_reverse(name, optimizer):
    attrs = assert_right(SYMMETRIC[name], optimizer).data.attrs
    assert attrs["differentiation"] == "exact" and "in double precision" in attrs["differentiation_reason"]
    assert not any("derivatives were taken" in f for f in attrs["findings"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ASYMMETRIC)
@pytest.mark.quick(2)
def test_another_gradient_is_taken_reverse_over_reverse(name, optimizer):
    attrs = assert_right(ASYMMETRIC[name], optimizer).data.attrs
    assert attrs["differentiation"] == "reverse-over-reverse"
    (finding,) = (f for f in attrs["findings"] if "derivatives were taken" in f)
    assert "the gradient that training got" in finding and "along 2 random directions" in finding


def dropping() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 3)))


def quantised(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    out = torch.fake_quantize_per_tensor_affine(model(batch["x"]).float(), 0.05, 0, -128, 127)
    return F.cross_entropy(out.double(), batch["y"], reduction="none")


REFUSED = {
    "weights on the batch": (
        of_features(mlp, weighted_within_the_batch),
        (
            "does not depend on the other rows",
            "0 among others",
            "normalisation over the batch",
            "that row only",
        ),
    ),
    "dropout": (
        of_features(dropping, partial(focal, stop="detach")),
        (
            "own derivative can be taken",
            "draws random numbers",
            "a stopped gradient",
            "without random numbers",
        ),
    ),
    "NumPy inside": (
        of_features(inside(Outside.apply)),
        ("gradient that training got", "are ", "numpy", "elementary PyTorch operations"),
    ),
    "quantisation": (
        of_features(mlp, quantised),
        ("the gradient that training got", "are ", "quantisation", "elementary PyTorch operations"),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_adjoint_is_refused_in_words(name):
    problem, words = REFUSED[name]
    with pytest.raises(FinfluenceError) as caught:
        replayed(problem, recorded(problem, "momentum"))
    assert_parts(caught.value, *words)


@pytest.mark.parametrize("name", ["focal, detached", "reversal"])
def test_differences_of_gradients_are_refused_where_the_derivative_is_not_symmetric(name):
    problem = ASYMMETRIC[name]
    with pytest.raises(NotSupportedError) as caught:
        replayed(problem, recorded(problem, "momentum"), differentiation="finite-difference")
    assert_parts(caught.value, "symmetric derivative", "as asked", "(∂g/∂θ)ᵀu", "'auto' or 'exact'")


def test_a_forward_pass_that_writes_on_parameters_is_refused_by_name():
    problem = of_tokens(False, max_norm=0.5)
    with pytest.raises(FinfluenceError, match="a loop that can be taken again"):
        recorded(problem, "momentum")
    recipe = fr.Recipe(
        data=fr.Rows(x=T, y=Y), model=problem.model(), loss=cross_entropy, optimizer=fr.SGD(lr=0.1), batch_size=4,
        epochs=2,
    )  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        fi.replay(fi.train(recipe), fi.Query(problem.query, name="q"))
    assert_parts(caught.value, "leaves the model", "'embed.weight'", "max_norm", "its forward pass only read")


def test_a_choice_does_not_depend_on_what_was_asked_before():
    smooth = of_features(inside(Softplus.apply))
    once, again = (recorded(smooth, "momentum") for _ in range(2))
    assert replayed(smooth, once).data.attrs["differentiation"] == "finite-difference"
    assert (
        replayed(smooth, again, differentiation="exact").data.attrs["differentiation"]
        == "reverse-over-reverse"
    )
    assert replayed(smooth, again).data.attrs["differentiation"] == "finite-difference"


def test_rows_that_share_in_each_others_gradients_are_named():
    coupled, apart = ASYMMETRIC["gradients by frequency"], ASYMMETRIC["embedding with padding"]
    said = [replayed(p, recorded(p, "momentum")).data.attrs["findings"] for p in (coupled, apart)]
    assert [sum("depends on the other rows" in f for f in findings) for findings in said] == [1, 0]


def stopped_where_flagged(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    losses = cross_entropy(model, batch)
    return losses * torch.where(batch["flag"], losses.detach(), torch.ones_like(losses))


def test_what_stops_gradients_on_other_batches_only_is_found_on_the_way():
    """Flagged rows are in the batch four steps back, which is looked at again, and in none of those checked first."""
    order = [set(recorded(SYMMETRIC["plain"], "momentum").at(t).rows.tolist()) for t in range(12)]
    flagged = sorted(order[8] - order[0] - order[5] - order[11])
    flag = torch.zeros(ROWS, dtype=torch.bool)
    flag[flagged] = True
    problem = Problem(mlp, stopped_where_flagged, {"x": X, "y": Y, "flag": flag}, SYMMETRIC["plain"].query)
    tape = recorded(problem, "momentum")
    assert flagged and "steps 0, 5, 11" in exact_choice(tape).reason
    with pytest.raises(NotSupportedError) as caught:
        replayed(problem, tape)
    assert_parts(
        caught.value, "belongs to the gradients", "products with ∂g/∂θ", "some batches only", "leave out"
    )


def test_a_query_is_asked_how_its_value_changes():
    """A loss divided by itself is 1 wherever the training ends, although autograd gives it a gradient."""
    tape = recorded(SYMMETRIC["plain"], "momentum")
    model = tape.model()

    def one(model: nn.Module) -> Tensor:
        loss = F.cross_entropy(model(XQ), YQ)
        return loss / loss.detach()

    def stopped(model: nn.Module) -> Tensor:
        loss = F.cross_entropy(model(XQ), YQ)
        return loss * loss.detach()

    queries = [fi.Query(one, name="one"), fi.Query(stopped, name="square"), fi.own_loss([1])]
    values, found = query_gradients(queries, model, tape)
    parameters = list(model.parameters())
    loss = F.cross_entropy(model(XQ), YQ)
    (want,) = (torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss**2, parameters)]),)
    assert not found[0].any() and values[0] == 1.0
    torch.testing.assert_close(found[1], want, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(
        found[2], fr.gradients(queries[2:], model, tape, parameters)[1][0], rtol=0, atol=0
    )


def test_a_query_without_a_derivative_is_refused_by_name():
    tape = recorded(SYMMETRIC["plain"], "momentum")

    def taken_out(model: nn.Module) -> Tensor:
        loss = F.cross_entropy(model(XQ), YQ)
        return loss * loss.item()

    def quantised(model: nn.Module) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(model(XQ).float(), 1e-3, 0, -(2**14), 2**14).mean()

    with pytest.raises(NotSupportedError) as caught:
        query_gradients([fi.Query(taken_out, name="out")], tape.model(), tape)
    assert_parts(
        caught.value, "'out' whose operations can be written out", "", "depends on values", "fi.retrain"
    )
    with pytest.raises(NotSupportedError) as caught:
        query_gradients([fi.Query(quantised, name="steps")], tape.model(), tape)
    assert_parts(
        caught.value, "'steps' with a derivative", "differences of its values", "quantises", "fi.retrain"
    )
