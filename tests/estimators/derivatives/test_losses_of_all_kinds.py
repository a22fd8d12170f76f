"""Losses, models and optimisers that users have: effects against the derivative of the whole training, to 1e-6.

What is refused stands in the table, too, with the words that say why.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from weighted_training import OPTIMIZERS, Problem, recorded, replayed, right_effects

import finfluence.runs as fr
from finfluence.errors import FinfluenceError

ROWS, CHECKED, TOLERANCE = 16, [0, 3, 7, 12], 1e-6
DOUBLE = torch.float64


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


X, XQ = (torch.randn(n, 5, dtype=DOUBLE, generator=drawn(n)) for n in (ROWS, 20))
Y, YQ = (torch.randint(0, 3, (n,), generator=drawn(n)) for n in (ROWS, 20))
T, TQ = (torch.randint(0, 6, (n, 4), generator=drawn(n)) for n in (ROWS, 20))
I, IQ = (torch.randn(n, 1, 6, 6, dtype=DOUBLE, generator=drawn(n)) for n in (ROWS, 20))
S, SQ = (torch.randn(n, 4, 5, dtype=DOUBLE, generator=drawn(n)) for n in (ROWS, 20))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with fr.seeded(1):
        return make().double()


def mlp(activation: Callable[[], nn.Module] = nn.Tanh) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 8), activation(), nn.Linear(8, 3))


def ce(model, batch):
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def focal(model, batch):
    losses = ce(model, batch)
    return (1 - torch.exp(-losses.detach())) ** 2 * losses


def entropic(model, batch):
    p = F.softmax(model(batch["x"]), 1)
    return -(p.detach() * torch.log(p)).sum(1) + ce(model, batch)


def gradient_penalty(model, batch):
    x = batch["x"].clone().requires_grad_(True)
    losses = F.cross_entropy(model(x), batch["y"], reduction="none")
    (slope,) = torch.autograd.grad(losses.sum(), x, create_graph=True)
    return losses + 0.1 * slope.pow(2).sum(1)


def adversarial(model, batch):
    x = batch["x"].clone().requires_grad_(True)
    losses = F.cross_entropy(model(x), batch["y"], reduction="none")
    (slope,) = torch.autograd.grad(losses.sum(), x)
    return F.cross_entropy(model(batch["x"] + 0.3 * slope), batch["y"], reduction="none")


def jacobian(model, batch):
    found = torch.func.vmap(torch.func.jacrev(lambda x: model(x[None])[0]))(batch["x"])
    return ce(model, batch) + 0.05 * found.pow(2).sum((1, 2))


def straight_through(model, batch):
    out = model(batch["x"])
    soft = F.softmax(out, 1)
    hard = F.one_hot(out.argmax(1), 3) + soft - soft.detach()
    return ((hard - F.one_hot(batch["y"], 3)) ** 2).sum(1)


def inference(model, batch):
    with torch.inference_mode():
        weight = torch.sigmoid(model(batch["x"]).max(1).values)
    return ce(model, batch) * weight.clone()


def spectrum(model, batch):
    return torch.fft.rfft(model(batch["x"]), dim=1).abs().pow(2).sum(1) + ce(model, batch)


def in_row(model, batch):
    anchor, near, far = (F.normalize(model(x), dim=1) for x in (batch["x"], batch["x"] + 0.1, -batch["x"]))
    return F.triplet_margin_loss(anchor, near, far, margin=3.0, reduction="none")


def two_views(model, batch):
    one, other = model(batch["x"]), model(batch["x"] + 0.2)
    return -F.cosine_similarity(one, other.detach(), dim=1) - F.cosine_similarity(other, one.detach(), dim=1)


def clipped_ratio(model, batch):
    p = F.log_softmax(model(batch["x"]), 1).gather(1, batch["y"][:, None])[:, 0]
    ratio, gain = (p - p.detach()).exp(), batch["x"][:, 0]
    return -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain)


def penalty_of_weights(model, batch):
    return ce(model, batch) + 0.01 * sum((p * p.detach()).sum() for p in model.parameters())


def where(model, batch):
    losses = ce(model, batch)
    return torch.where(losses > 1.0, 2 * losses - 1, losses)


def of_torch(function, **options):
    def loss(model, batch):
        return function(model(batch["x"]), batch["y"], reduction="none", **options)

    return loss


def of_one_output(function, **options):
    def loss(model, batch):
        return function(model(batch["x"])[:, 0], batch["y"].double(), reduction="none", **options)

    return loss


def penalty_of_outputs(model, batch):
    out = model(batch["x"])
    losses = F.cross_entropy(out, batch["y"], reduction="none")
    (slope,) = torch.autograd.grad(losses.sum(), out, create_graph=True)
    return losses + 0.1 * slope.pow(2).sum(1)


def turning_gradients_on(model, batch):
    torch.set_grad_enabled(False)
    weight = torch.sigmoid(ce(model, batch))
    torch.set_grad_enabled(True)
    return weight * ce(model, batch)


def through_numpy(model, batch):
    losses = ce(model, batch)
    return losses * torch.from_numpy(np.exp(-losses.detach().numpy()))


def squared(model, batch):
    return F.mse_loss(model(batch["x"]), F.one_hot(batch["y"], 3).double(), reduction="none").mean(1)


class Scaled(torch.autograd.Function):
    """Values as they are, gradients three times as large."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient


def scaled(model, batch):
    return F.cross_entropy(Scaled.apply(model(batch["x"])), batch["y"], reduction="none")


def hooked(change):
    def loss(model, batch):
        out = 1.0 * model(batch["x"])
        if out.requires_grad:
            out.register_hook(change)
        return F.cross_entropy(out, batch["y"], reduction="none")

    return loss


def counted():
    calls = [0.0]

    def loss(model, batch):
        calls[0] += 1.0
        return ce(model, batch) * (1 + 0.1 * calls[0])

    return loss


def detached(model, batch):
    return ce(model, batch).detach()


WEIGHTS = torch.tensor([1.0, 5.0, 2.0], dtype=DOUBLE)
LOSSES = {
    "class weights": of_torch(F.cross_entropy, weight=WEIGHTS),
    "label smoothing": of_torch(F.cross_entropy, label_smoothing=0.1),
    "hinge": of_torch(F.multi_margin_loss, weight=WEIGHTS),
    "squared hinge": of_torch(F.multi_margin_loss, p=2, margin=0.7),
    "Huber": of_one_output(F.huber_loss, delta=0.5),
    "Poisson": of_one_output(F.poisson_nll_loss),
    "squares of one-hot codes": squared,
    "entropy, detached": entropic,
    "gradient penalty": gradient_penalty,
    "adversarial inputs": adversarial,
    "Jacobian by torch.func": jacobian,
    "argmax straight through": straight_through,
    "inference mode": inference,
    "Fourier": spectrum,
    "contrast within a row": in_row,
    "two views": two_views,
    "clipped ratio": clipped_ratio,
    "penalty of detached weights": penalty_of_weights,
    "where": where,
    "penalty of outputs": penalty_of_outputs,
    "gradients turned on": turning_gradients_on,
    "gradient scaled": scaled,
    "hook that turns gradients": hooked(lambda g: -0.5 * g),
}


class Named(nn.Module):
    """Layers by name, and a forward pass of them."""

    def __init__(self, run: Callable[[nn.Module, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def twice() -> nn.Module:
    """One layer under two names."""
    layer = nn.Linear(5, 5)
    return Named(
        lambda m, x: m.out(torch.tanh(m.b(torch.tanh(m.a(x))))), a=layer, b=layer, out=nn.Linear(5, 3)
    )


def keeping() -> nn.Module:
    """Vector quantisation, straight through, whose codes the model keeps for its loss."""

    def run(m, x):
        hidden = m.inner(x)
        code = m.book.weight[torch.cdist(hidden, m.book.weight).argmin(1)]
        m.apart = ((code - hidden.detach()) ** 2).sum(1) + 0.25 * ((code.detach() - hidden) ** 2).sum(1)
        return m.out(hidden + (code - hidden).detach())

    return Named(run, inner=nn.Linear(5, 4), book=nn.Embedding(6, 4), out=nn.Linear(4, 3))


def quantised(model, batch):
    return ce(model, batch) + model.apart


def checkpointed(reentrant: bool) -> nn.Module:
    def run(m, x):
        return m.out(checkpoint(m.body, m.inner(x), use_reentrant=reentrant))

    return Named(
        run, inner=nn.Linear(5, 5), body=nn.Sequential(nn.Linear(5, 8), nn.GELU()), out=nn.Linear(8, 3)
    )


def in_place() -> nn.Module:
    def run(m, x):
        hidden = m.inner(x)
        hidden.clamp_(min=-0.5)
        hidden[:, 0].mul_(2.0)
        return m.out(F.relu(hidden, inplace=True))

    return Named(run, inner=nn.Linear(5, 8), out=nn.Linear(8, 3))


def partly_without_gradient() -> nn.Module:
    def run(m, x):
        with torch.no_grad():
            stopped = torch.tanh(m.inner(x))
        return m.out(stopped + torch.tanh(m.inner(x)))

    return Named(run, inner=nn.Linear(5, 8), out=nn.Linear(8, 3))


def experts() -> nn.Module:
    def run(m, x):
        chance, chosen = F.softmax(m.gate(x), 1).topk(1, 1)
        each = torch.stack([m.first(x), m.second(x)], 1)
        return chance * each.gather(1, chosen[:, :, None].expand(-1, -1, 3))[:, 0]

    return Named(run, gate=nn.Linear(5, 2), first=nn.Linear(5, 3), second=nn.Linear(5, 3))


def in_pairs() -> nn.Module:
    def run(m, x):
        return m.out(torch.tanh((x.to(torch.complex128) @ torch.view_as_complex(m.inner.weight)).abs()))

    return Named(run, inner=nn.Embedding(5, 8).apply(paired), out=nn.Linear(4, 3))


def paired(layer: nn.Module) -> None:
    layer.weight = nn.Parameter(layer.weight.detach().view(5, 4, 2))


def parametrised(how: Callable[[nn.Module], nn.Module]) -> nn.Module:
    model = mlp()
    how(model[0])
    return model


def with_hook(register: str, hook: Callable[..., object]) -> nn.Module:
    model = mlp()
    getattr(model[1] if register.endswith(("forward_hook", "backward_hook")) else model[0].weight, register)(
        hook
    )
    return model


def convolved(normalised: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), normalised, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    )


def recurrent(layer: nn.Module) -> nn.Module:
    return Named(lambda m, x: m.out(m.inner(x)[0][:, -1]), inner=layer, out=nn.Linear(4, 3))


def attending() -> nn.Module:
    def run(m, x):
        q, k, v = m.inner(x).chunk(3, -1)
        return m.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).mean(1))

    return Named(run, inner=nn.Linear(5, 15), out=nn.Linear(5, 3))


def embedded(tied: bool = False, bag: bool = False, **options: object) -> nn.Module:
    def run(m, x):
        hidden = m.inner(x) if bag else m.inner(x).mean(1)
        return m.out(torch.tanh(m.mix(hidden)))[:, :3]

    kind = nn.EmbeddingBag if bag else nn.Embedding
    model = Named(run, inner=kind(6, 5, **options), mix=nn.Linear(5, 5), out=nn.Linear(5, 6, bias=False))
    if tied:
        model.out.weight = model.inner.weight
    return model


FEATURES, TOKENS, IMAGES, SERIES = (
    (partial(dict, x=x, y=Y), xq) for x, xq in ((X, XQ), (T, TQ), (I, IQ), (S, SQ))
)
MODELS = {
    "Hardtanh": (partial(mlp, nn.Hardtanh), FEATURES),
    "Hardsigmoid": (partial(mlp, nn.Hardsigmoid), FEATURES),
    "SiLU": (partial(mlp, nn.SiLU), FEATURES),
    "one layer, two names": (twice, FEATURES),
    "checkpoints": (partial(checkpointed, False), FEATURES),
    "reentrant checkpoints": (partial(checkpointed, True), FEATURES),
    "in place": (in_place, FEATURES),
    "partly without gradient": (partly_without_gradient, FEATURES),
    "experts": (experts, FEATURES),
    "complex by pairs": (in_pairs, FEATURES),
    "weight norm": (partial(parametrised, parametrizations.weight_norm), FEATURES),
    "backward hook": (
        partial(with_hook, "register_full_backward_hook", lambda m, inside, out: (0.5 * inside[0],)),
        FEATURES,
    ),
    "forward hook": (partial(with_hook, "register_forward_hook", lambda m, x, y: y + y.detach()), FEATURES),
    "LayerNorm": (lambda: nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3)), FEATURES),
    "max-pooling, GroupNorm": (lambda: convolved(nn.GroupNorm(3, 3)), IMAGES),
    "max-pooling, frozen statistics": (lambda: convolved(nn.BatchNorm2d(3).eval()), IMAGES),
    "GRU": (lambda: recurrent(nn.GRU(5, 4, batch_first=True)), SERIES),
    "LSTM": (lambda: recurrent(nn.LSTM(5, 4, batch_first=True)), SERIES),
    "attention": (attending, SERIES),
    "tied, padding": (partial(embedded, True, padding_idx=0), TOKENS),
    "tied, by frequency, padding": (partial(embedded, True, padding_idx=1, scale_grad_by_freq=True), TOKENS),
    "bag": (partial(embedded, bag=True), TOKENS),
}  # fmt: skip


def problem(model: Callable[[], nn.Module], loss: Callable[..., Tensor], kind=FEATURES) -> Problem:
    data, asked = kind
    return Problem(partial(seeded, model), loss, data(), lambda m: F.cross_entropy(m(asked), YQ))


def assert_right(of: Problem, optimizer: str) -> None:
    got = replayed(of, recorded(of, optimizer)).data.effect.values[CHECKED, 0]
    want = right_effects(of, optimizer, CHECKED)
    assert np.abs(want).max() > 1e-5
    assert np.abs(got - want).max() < TOLERANCE * np.abs(want).max(), (got, want)


def alternating(names) -> list[tuple[str, str]]:
    """Each name with one of the optimisers, in turn."""
    kinds = list(OPTIMIZERS)
    return [(name, kinds[k % len(kinds)]) for k, name in enumerate(names)]


def of_both_losses(models) -> list[Any]:
    """Each model with a plain loss, and with one whose derivative is not symmetric."""
    return [
        pytest.param(loss, *model, id=f"{kind}-{'-'.join(model)}")
        for kind, loss in (("plain", ce), ("detached", focal))
        for model in models
    ]


@pytest.mark.parametrize(("name", "optimizer"), alternating(LOSSES))
@pytest.mark.quick(3)
def test_losses(name, optimizer):
    assert_right(problem(mlp, LOSSES[name]), optimizer)


@pytest.mark.parametrize(("loss", "name", "optimizer"), of_both_losses(alternating(MODELS)))
@pytest.mark.filterwarnings(
    "ignore:None of the inputs have requires_grad"
)  # of reentrant checkpoints evaluated
@pytest.mark.quick(6)
def test_models(loss, name, optimizer):
    model, kind = MODELS[name]
    assert_right(problem(model, loss, kind), optimizer)


def test_a_query_whose_model_keeps_its_activations_is_asked_how_its_value_changes():
    """Autograd's gradient of the query is that of the straight-through estimator, not of the value."""
    assert_right(problem(keeping, quantised), "momentum")


REFUSED = {
    "hook that clips": (
        problem(mlp, hooked(lambda g: g.clamp(-0.1, 0.1))), "derivatives of the gradient that training got",
        "clips or normalises",
    ),
    "hook that normalises": (
        problem(mlp, hooked(lambda g: g / (g.norm(dim=1, keepdim=True) + 1e-3))),
        "derivatives of the gradient that training got", "clips or normalises",
    ),
    "hook on a parameter": (
        problem(partial(with_hook, "register_hook", lambda g: 0.5 * g), ce), "a loop that can be taken again",
        "a hook on '0.weight'",
    ),
    "hook after accumulation": (
        problem(
            partial(with_hook, "register_post_accumulate_grad_hook", lambda p: (p.grad.mul_(0.5), None)[1]), ce
        ),
        "a loop that can be taken again", "a hook on '0.weight'",
    ),
    "a loss that counts its calls": (
        problem(mlp, counted()), "the same numbers for the same weights", "counts its calls",
    ),
    "values out of tensors": (
        problem(mlp, through_numpy), "derivatives of the gradient that training got", "taken out of tensors",
    ),
    "a loss without gradient": (
        problem(mlp, detached), "depends on the trained parameters", "computed from detached values",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_why(name):
    of, expected, cause = REFUSED[name]
    with pytest.raises(FinfluenceError) as caught:
        replayed(of, recorded(of, "momentum"))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("expected ") and expected in lines[0]
    assert cause in "\n".join(lines[1:]) and lines[3].startswith("  next step: ")


class ScaledWhere(torch.autograd.Function):
    """Gradients of flagged rows three times as large; without a forward derivative."""

    @staticmethod
    def forward(ctx, x, flag):
        ctx.save_for_backward(flag)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        (flag,) = ctx.saved_tensors
        return gradient * torch.where(flag, 3.0, 1.0)[:, None], None


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_step_tells_whether_its_row_derivatives_are_those_of_its_gradient(optimizer):
    """Flagged rows are in no step that is looked at as a whole: not the first, middle, last, nor the 4th one back."""
    plain = problem(mlp, ce)
    tape = recorded(plain, optimizer)
    seen = {r for t in (0, 5, 11, 8) for r in tape.at(t).rows.tolist()}
    flag = torch.tensor([row not in seen for row in range(ROWS)])
    assert flag.any()

    def loss(model, batch):
        return F.cross_entropy(
            ScaledWhere.apply(model(batch["x"]), batch["flag"]), batch["y"], reduction="none"
        )

    of = Problem(plain.model, loss, {**plain.data, "flag": flag}, plain.query)
    with pytest.raises(FinfluenceError, match="belongs to the gradients that training got") as caught:
        replayed(of, recorded(of, optimizer))
    assert "row derivatives that are" in str(caught.value) and "on some batches only" in str(caught.value)
