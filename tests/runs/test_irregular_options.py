"""Options that a loop computes from what it trains: the tape says that effects through them are left out."""

import pytest
import torch
from torch.optim import SGD, lr_scheduler

import finfluence as fi
import plain_training as pt
from finfluence.runs import seeded

NOTE = "moves from step to step as no schedule of the step alone does"


def polyak(step, optimizer, loss, gradients):
    return 0.2 * loss.item() / (float(sum((g**2).sum() for g in gradients)) + 0.1)


def adaptive(step, optimizer, loss, gradients):
    optimizer.seen = getattr(optimizer, "seen", 1.0) + float(sum((g**2).sum() for g in gradients))
    return 0.1 / optimizer.seen**0.5


def by_weights(step, optimizer, loss, gradients):
    return 0.02 * sum((p**2).sum().item() for g in optimizer.param_groups for p in g["params"]) ** 0.5


def plateau(step, optimizer, loss, gradients):
    return 0.1 * 0.5 ** (step // 5)


def recorded(rate=None, scheduler=None, option="lr", epochs=6):
    data, model = pt.table(16), pt.made(pt.mlp)
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.5)
    schedule = scheduler(optimizer) if scheduler else None
    tape = fi.Tape.record(model, optimizer, loss=pt.class_loss, data=data)
    with seeded(0):
        for step in range(4 * epochs):
            ids = torch.arange(4) + 4 * (step % 4)
            loss = pt.class_loss(model, data.batch(ids)).mean()
            loss.backward()
            if rate is not None:
                gradients = [p.grad for p in model.parameters()]
                optimizer.param_groups[0][option] = rate(step, optimizer, loss, gradients)
            optimizer.step()
            if schedule is not None:
                schedule.step()
            optimizer.zero_grad()
            tape.step(ids=ids)
    return tape.finish()


@pytest.mark.parametrize("rate", [polyak, adaptive, by_weights])
def test_a_rate_computed_from_what_is_trained_is_said(rate):
    (note,) = [n for n in recorded(rate).notes if NOTE in n]
    assert "'lr'" in note and "a row also acts through it, and the effects leave that out" in note


def test_another_option_is_named():
    def decay(step, optimizer, loss, gradients):
        return 1e-3 * loss.item()

    (note,) = [n for n in recorded(decay, option="weight_decay").notes if NOTE in n]
    assert "'weight_decay'" in note


@pytest.mark.parametrize(
    "scheduler",
    [
        None,
        lambda o: lr_scheduler.CosineAnnealingLR(o, 24),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 8),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=25),
        lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 10),
        lambda o: lr_scheduler.ExponentialLR(o, 0.9),
        lambda o: lr_scheduler.StepLR(o, 2, 0.8),
        lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=8),
        lambda o: lr_scheduler.PolynomialLR(o, 24, 2.0),
        lambda o: lr_scheduler.LambdaLR(o, lambda t: min((t + 1) / 5, ((t + 1) / 5) ** -0.5)),
    ],
)
def test_schedules_of_the_step_are_not(scheduler):
    assert not any(NOTE in note for note in recorded(scheduler=scheduler).notes)


def test_few_values_cannot_be_told():
    assert not any(NOTE in note for note in recorded(plateau, epochs=5).notes)


def test_the_result_says_it():
    data = pt.table(16)
    query = fi.Query(
        lambda m: pt.class_loss(m, data.batch(torch.arange(4))).mean(), name="loss", unit="nats", sign=-1
    )
    result = fi.replay(recorded(polyak), [query])
    assert any(NOTE in finding for finding in result.provenance.findings)
