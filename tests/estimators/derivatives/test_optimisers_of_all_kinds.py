"""Optimisers, schedules and what loops do beside them: effects against the derivative of the whole training, to 1e-6.

What something else than the optimiser does to weights, gradients or buffers is refused, at whatever step it happens.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR
from torch.optim.swa_utils import AveragedModel

import finfluence as fi
import finfluence.runs as fr
from finfluence.errors import FinfluenceError

ROWS, BATCH, EPOCHS, SHIFT, CHECKED = 16, 4, 3, 1e-5, [0, 7]
STEPS, MID = ROWS // BATCH * EPOCHS, 5
DOUBLE = torch.float64
Loop = Callable[["Training", int], object]


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


X, XQ = (torch.randn(n, 5, dtype=DOUBLE, generator=drawn(n)) for n in (ROWS, 20))
Y, YQ = (torch.randint(0, 3, (n,), generator=drawn(n)) for n in (ROWS, 20))


def ce(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def query(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(XQ), YQ)


@dataclass
class Training:
    """A loop: its optimiser, what happens at a step before and after the optimiser's own, and options of the tape."""

    optimizer: Callable[[nn.Sequential], torch.optim.Optimizer]
    graded: Loop = lambda loop, t: None
    stepped: Loop = lambda loop, t: None
    between: Loop = lambda loop, t: None
    start: Callable[["Training"], object] = lambda loop: None
    options: dict[str, Any] = field(default_factory=dict)
    keeps: Any = None

    def run(
        self, weights: Tensor | None = None, added: tuple[int, float] | None = None, record: bool = False
    ) -> Any:
        """Train with a weight on every row, or with some of a row's gradient in every step; return model or tape."""
        with fr.seeded(1):
            self.model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
        self.theirs = self.optimizer(self.model)
        self.start(self)
        tape = None
        if record:
            tape = fi.Tape.record(self.model, self.theirs, loss=ce, data=fi.Rows(x=X, y=Y), **self.options)
        weights, order = torch.ones(ROWS, dtype=DOUBLE) if weights is None else weights, drawn(3)
        batches = [b for _ in range(EPOCHS) for b in torch.randperm(ROWS, generator=order).split(BATCH)]
        for t, rows in enumerate(batches):
            losses = ce(self.model, {"x": X[rows], "y": Y[rows]})
            loss = (losses * weights[rows]).sum() / weights[rows].sum()
            if added is not None:
                each = ce(self.model, {"x": X, "y": Y})
                loss = loss - added[1] * (each[added[0]] - each.mean()) / (ROWS - 1)
            loss.backward()
            self.graded(self, t)
            self.theirs.step()
            self.stepped(self, t)
            self.theirs.zero_grad()
            if tape is not None:
                tape.step(ids=rows)
            self.between(self, t)
        return self.model if tape is None else tape.finish()

    def right(self, row: int, method: str) -> float:
        """Minus the derivative of the query in the row's weight, as others take its place; or in all steps."""

        def outcome(shift: float) -> float:
            weights = torch.ones(ROWS, dtype=DOUBLE)
            weights[row] += shift
            model = self.run(weights) if method == "online" else self.run(added=(row, -shift))
            with torch.no_grad():
                return float(query(model))

        scale = BATCH / (BATCH - 1) if method == "online" else 1.0
        return scale * (outcome(-SHIFT) - outcome(SHIFT)) / (2 * SHIFT)


def replayed(tape: fi.Tape, method: str = "online") -> fi.Influence:
    return fi.replay(tape, fi.Query(query, name="q"), method, late=0.0, horizon=EPOCHS, first_steps="tangent")


def of(kind: type[torch.optim.Optimizer], **options: Any) -> Callable[[nn.Sequential], torch.optim.Optimizer]:
    return lambda model: kind(model.parameters(), **options)


def groups(kind, first: dict[str, Any], last: dict[str, Any], **options: Any):
    return lambda m: kind(
        [{"params": m[0].parameters(), **first}, {"params": m[2].parameters(), **last}], **options
    )


def scheduled(optimizer, make) -> Training:
    def start(loop):
        loop.keeps = make(loop.theirs)

    return Training(optimizer, start=start, between=lambda loop, t: loop.keeps.step())


def clipped(optimizer, **options: float) -> Training:
    def graded(loop, t):
        if "clip_norm" in options:
            nn.utils.clip_grad_norm_(loop.model.parameters(), options["clip_norm"])
        else:
            nn.utils.clip_grad_value_(loop.model.parameters(), options["clip_value"])

    return Training(optimizer, graded=graded, options=options)


def set_options(group: int, when: Callable[[int], bool], **options: Any) -> dict[str, Loop]:
    before: dict[str, Any] = {}

    def between(loop, t):
        own = loop.theirs.param_groups[group]
        if t == 0:
            before.update({k: own[k] for k in options})
        own.update(options if when(t) else before)

    return {"between": between}


def averaged(loop):
    loop.keeps = AveragedModel(loop.model)


def swapped(loop, t):
    """Averaged weights for a moment, as for an evaluation."""
    own = deepcopy(loop.model.state_dict())
    loop.model.load_state_dict(loop.keeps.module.state_dict())
    loop.model.load_state_dict(own)


PLAIN, MOMENTUM = of(SGD, lr=0.2), of(SGD, lr=0.2, momentum=0.5)
ADAM = of(Adam, lr=0.02, eps=1e-3)
RIGHT = {
    "Nesterov": Training(of(SGD, lr=0.2, momentum=0.5, nesterov=True)),
    "dampening": Training(of(SGD, lr=0.2, momentum=0.5, dampening=0.3)),
    "decay": Training(of(SGD, lr=0.2, weight_decay=0.05)),
    "maximised": Training(of(SGD, lr=0.02, momentum=0.5, maximize=True, weight_decay=0.1)),
    "foreach": Training(of(SGD, lr=0.2, momentum=0.5, foreach=True)),
    "fused": Training(of(Adam, lr=0.02, eps=1e-3, fused=True)),
    "Adam, decay": Training(of(Adam, lr=0.02, eps=1e-3, weight_decay=0.1)),
    "Adam, decoupled": Training(of(Adam, lr=0.02, eps=1e-3, weight_decay=0.1, decoupled_weight_decay=True)),
    "AMSGrad, maximised": Training(of(AdamW, lr=0.002, eps=1e-3, amsgrad=True, maximize=True)),
    "rate as a tensor": Training(of(Adam, lr=torch.tensor(0.02), eps=1e-3)),
    "long memory": Training(of(Adam, lr=0.02, eps=1e-3, betas=(0.98, 0.999))),
    "clipped by norm": clipped(MOMENTUM, clip_norm=0.5),
    "clipped by norm, no momentum": clipped(PLAIN, clip_norm=0.5),
    "clipped by value": clipped(ADAM, clip_value=0.05),
    "groups": Training(groups(SGD, {"lr": 0.3}, {"momentum": 0.0}, lr=0.2, momentum=0.5)),
    "groups of Adam": Training(groups(Adam, {"betas": (0.8, 0.9)}, {"weight_decay": 0.1}, lr=0.02, eps=1e-3)),
    "a group held still": Training(groups(SGD, {"lr": 0.0}, {}, lr=0.2, momentum=0.5)),
    "OneCycle": scheduled(MOMENTUM, lambda o: OneCycleLR(o, 0.3, total_steps=STEPS + 1)),
    "OneCycle of Adam": scheduled(ADAM, lambda o: OneCycleLR(o, 0.03, total_steps=STEPS + 1)),
    "cosine, decay": scheduled(
        of(AdamW, lr=0.02, eps=1e-3, weight_decay=0.1), lambda o: CosineAnnealingLR(o, STEPS)
    ),
    "no rate at first": scheduled(MOMENTUM, lambda o: LambdaLR(o, lambda t: float(t > 1))),
    "no rate at last": scheduled(MOMENTUM, lambda o: LambdaLR(o, lambda t: float(t < 9))),
    "momentum off and on": Training(MOMENTUM, **set_options(0, lambda t: t in (4, 5), momentum=0.0)),
    "momentum of a group off and on": Training(
        groups(SGD, {"lr": 0.3}, {"momentum": 0.0}, lr=0.2, momentum=0.5),
        **set_options(0, lambda t: t in (4, 5), momentum=0.0),
    ),
    "betas changed": Training(ADAM, **set_options(0, lambda t: t > MID, betas=(0.5, 0.9))),
    "averages beside": Training(
        ADAM, start=averaged, stepped=lambda loop, t: loop.keeps.update_parameters(loop.model), between=swapped
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "method"), [(name, ("online", "full")[k % 2]) for k, name in enumerate(RIGHT)]
)
@pytest.mark.quick(7)
def test_effects_are_those_of_the_whole_training(name, method):
    loop = RIGHT[name]
    got = replayed(loop.run(record=True), method).data.effect.values[CHECKED, 0]
    want = np.array([loop.right(row, method) for row in CHECKED])
    assert np.abs(want).max() > 1e-5
    assert np.abs(got - want).max() < 1e-6 * np.abs(want).max(), (got, want)


def once(change: Callable[[Training], object]) -> Loop:
    """At a step that the self-check does not repeat."""

    def at(loop, t):
        if t == MID:
            with torch.no_grad():
                change(loop)

    return at


def every(change: Callable[[nn.Parameter], object]) -> Callable[[Training], object]:
    return lambda loop: [change(p) for p in loop.model.parameters()]


def buffers_reset(loop):
    for state in loop.theirs.state.values():
        next(v for k, v in state.items() if k != "step").zero_()


def slow_weights(loop, t):
    """Lookahead, written by hand."""
    if t == 0:
        loop.keeps = [p.detach().clone() for p in loop.model.parameters()]
    elif t % 6 == MID:
        for slow, p in zip(loop.keeps, loop.model.parameters(), strict=True):
            p.data.copy_(slow.add_((p.data - slow) / 2))


CHANGES: dict[str, dict[str, Loop]] = {
    "clamped": {"between": once(every(lambda p: p.clamp_(-0.2, 0.2)))},
    "clamped, unseen by version counters": {"between": once(every(lambda p: p.data.clamp_(-0.2, 0.2)))},
    "decayed": {"stepped": once(every(lambda p: p.mul_(0.95)))},
    "a layer begins anew": {"between": once(lambda loop: loop.model[2].weight.fill_(0.1))},
    "weights between backward pass and step": {"graded": once(lambda loop: loop.model[2].weight.mul_(0.5))},
    "slow weights": {"between": slow_weights},
    "noise": {"graded": once(every(lambda p: p.grad.add_(0.1 * torch.randn(p.shape, generator=drawn(5)))))},
    "signs": {"graded": once(every(lambda p: p.grad.sign_()))},
    "one layer's gradient": {"graded": once(lambda loop: loop.model[0].weight.grad.zero_())},
}  # fmt: skip
HIDING = {
    "clipped": clipped(MOMENTUM, clip_norm=0.5),
    "clipped, no momentum": clipped(PLAIN, clip_norm=0.5),
    "groups": RIGHT["groups"],
    "long memory": RIGHT["long memory"],
}
PLAINLY = {"plain": Training(PLAIN), "momentum": Training(MOMENTUM), "Adam": Training(ADAM)}


def with_change(loop: Training, change: dict[str, Loop]) -> Training:
    """The loop with a further change, before its own where both are at one place."""

    def both(name: str) -> Loop:
        return lambda l, t: (change.get(name, lambda *_: None)(l, t), getattr(loop, name)(l, t))

    names = ("graded", "stepped", "between")
    return Training(loop.optimizer, **{n: both(n) for n in names}, start=loop.start, options=loop.options)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.quick(3)
def test_what_something_else_than_the_optimiser_does_is_refused(change):
    kinds = {**PLAINLY, **HIDING}
    chosen = list(kinds)[list(CHANGES).index(change) % len(kinds) :][:2]
    for kind in chosen:
        tape = with_change(kinds[kind], CHANGES[change]).run(record=True)
        with pytest.raises(FinfluenceError) as caught:
            replayed(tape)
        lines = str(caught.value).splitlines()
        assert lines[0] in (
            "expected a loop that can be taken again from what was recorded",
            "expected a backward pass that belongs to the gradients that training got",
        )
        first = MID - change.startswith(
            "weights between"
        )  # what step 4 left, as it was when step 5 was taken
        assert f"step {first} " in lines[1], lines[1]  # though the pass goes backwards
        assert "edits gradients" in lines[2] or "changes gradients, weights" in lines[2]
        assert "let only the optimiser move the parameters" in lines[3]


@pytest.mark.parametrize("kind", ["momentum", "Adam", "clipped", "groups"])
@pytest.mark.quick(1)
def test_buffers_that_are_reset_are_refused(kind):
    loop = with_change({**PLAINLY, **HIDING}[kind], {"between": once(buffers_reset)})
    with pytest.raises(FinfluenceError, match="record each phase of the training by itself"):
        replayed(loop.run(record=True))


def adds_a_group(loop):
    loop.theirs.add_param_group({"params": [nn.Parameter(torch.zeros(2, dtype=DOUBLE))]})


def unfrozen(loop):
    loop.model[0].weight.requires_grad_(True)


REFUSED = {
    "a group is added": (Training(PLAIN, between=once(adds_a_group)), "groups of 4, 1 parameters at step 6"),
    "a group is taken out": (
        Training(groups(SGD, {}, {}, lr=0.2), between=once(lambda loop: loop.theirs.param_groups.pop())),
        "groups of 2 parameters at step 6, and of 2, 2 at the start",
    ),
    "momentum is turned on": (
        Training(PLAIN, **set_options(0, lambda t: t >= MID, momentum=0.5)), "'momentum_buffer' from step 6 on",
    ),
    "Nesterov is turned on": (
        Training(MOMENTUM, **set_options(0, lambda t: t >= MID, nesterov=True)), "a move of the parameters at step 10", "and from step 6 on",
    ),
    "unfrozen": (
        Training(
            MOMENTUM, start=lambda loop: loop.model[0].weight.requires_grad_(False), between=once(unfrozen)
        ),
        "other values of '0.weight'",
    ),
    "frozen": (
        Training(PLAIN, between=once(lambda loop: loop.model[0].weight.requires_grad_(False))),
        "'0.weight' with a gradient at some steps and none at others, first at step 6",
    ),
    "RMSprop": (Training(of(torch.optim.RMSprop, lr=0.02)), "torch.optim.rmsprop.RMSprop"),
    "Adagrad": (Training(of(torch.optim.Adagrad, lr=0.02)), "torch.optim.adagrad.Adagrad"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_changes_on_the_way_and_cannot_be_told_is_refused_in_words(name):
    loop, *got = REFUSED[name]
    with pytest.raises(FinfluenceError) as caught:
        loop.run(record=True)
    lines = str(caught.value).splitlines()
    assert all(part in lines[1] for part in got) and lines[3].startswith("  next step: ")


def test_weights_loaded_after_the_last_step_are_said_not_to_be_those_asked():
    loop = Training(ADAM)
    halved = Training(ADAM, between=lambda l, t: t == STEPS - 1 and l.model.load_state_dict(
        {k: v / 2 for k, v in l.model.state_dict().items()}
    ))  # fmt: skip
    plain, tape = loop.run(record=True), halved.run(record=True)
    said = "weights were changed after the last step"
    assert any(said in line for line in tape.notes) and not any(said in line for line in plain.notes)
    assert np.array_equal(replayed(tape).data.effect.values, replayed(plain).data.effect.values)
