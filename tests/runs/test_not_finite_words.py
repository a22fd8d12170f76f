"""A training that meets NaN or infinite values is refused by the first step that did, and by what it met."""

import pytest
import torch
from torch import Tensor, nn

import finfluence as fi
import finfluence.runs as fr
from finfluence.errors import NotSupportedError, TrainingError
from four_parts import assert_parts

STEPS, BATCH = 12, 2
FIRST, MIDDLE, LAST = 1, 5, STEPS - 1  # the self-check repeats steps 0, 1, 3 and 10


def losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Squares; `bad` makes them NaN, infinite, or finite with a gradient of NaN, once weights have moved from 0."""
    found = (model(batch["x"])[:, 0] - batch["y"]) ** 2
    bad = batch["bad"] * (model.weight.detach() != 0).view(1)
    factor = torch.ones_like(found).masked_fill(bad == 1, torch.nan).masked_fill(bad == 2, torch.inf)
    return found * factor + torch.where(bad == 3, found * 0, 1.0).sqrt()


def recorded(
    bad: dict[int, int], change=lambda model, optimizer, t: None, before=lambda model, t: None, **options
):
    x = torch.linspace(-1, 1, STEPS * BATCH, dtype=torch.float64)[:, None]
    kind = torch.zeros(len(x))
    for t, what in bad.items():
        kind[BATCH * t] = what
    rows = fr.Rows(x=x, y=x[:, 0] ** 2 + 100, bad=kind)
    model = nn.Linear(1, 1, dtype=torch.float64)
    for p in model.parameters():
        nn.init.zeros_(p)
    optimizer = torch.optim.SGD(model.parameters(), **{"lr": 0.1, "momentum": 0.9, **options})
    tape = fi.Tape.record(model, optimizer, loss=losses, data=rows)
    for t, ids in enumerate(torch.arange(len(x)).split(BATCH)):
        losses(model, rows.batch(ids)).mean().backward()
        before(model, t)
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=ids)
        change(model, optimizer, t)
    return tape


def refused(tape: fr.TapeRecorder, got: str, step: int) -> None:
    with pytest.raises(TrainingError) as caught:
        tape.finish()
    assert_parts(
        caught.value,
        "losses, gradients and parameters are finite",
        got,
        "diverged",
        f"look at the rows of step {step}",
    )


@pytest.mark.parametrize("t", [FIRST, MIDDLE, LAST])
@pytest.mark.parametrize(
    ("kind", "got"),
    [
        (1, "a loss of nan at step {}"),
        (2, "a loss of inf at step {}"),
        (3, "a gradient of 'weight' with NaN"),
    ],
)
def test_the_first_step_is_named_wherever_it_is(kind: int, got: str, t: int) -> None:
    refused(recorded({t: kind}), got.format(t), t)


def test_of_several_the_first_is_named() -> None:
    refused(recorded({MIDDLE: 2, MIDDLE + 1: 1, LAST: 1}), f"a loss of inf at step {MIDDLE}", MIDDLE)


@pytest.mark.parametrize("t", [FIRST, MIDDLE, LAST])
def test_a_step_that_goes_beyond_all_numbers_is_named(t: int) -> None:
    def rate(model: nn.Module, optimizer: torch.optim.Optimizer, after: int) -> None:
        optimizer.param_groups[0]["lr"] = 1e308 if after + 1 == t else 0.1

    tape = recorded({}, rate, lr=1e308 if t == 0 else 0.1)
    refused(tape, f"parameters or buffers with NaN or infinite values after step {t}", t)


def spoilt_gradient(model: nn.Module, t: int) -> None:
    if t == MIDDLE:
        model.weight.grad.fill_(torch.nan)


def spoilt_buffer(model: nn.Module, optimizer: torch.optim.Optimizer, t: int) -> None:
    if t == MIDDLE:
        optimizer.state[model.weight]["momentum_buffer"].fill_(torch.inf)


@pytest.mark.parametrize("spoilt", [{"before": spoilt_gradient}, {"change": spoilt_buffer}])
def test_what_the_loop_puts_there_itself_is_said_not_to_come_from_the_loss(spoilt) -> None:
    got = f"infinite values that the loss and rows given do not make after step {MIDDLE}"
    refused(recorded({}, **spoilt), got, MIDDLE)


def test_buffers_that_are_no_numbers_from_the_start() -> None:
    x = torch.ones(4, 1)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(x).sum().backward()
    optimizer.step()
    optimizer.state[model.weight]["momentum_buffer"].fill_(torch.nan)
    rows = fr.Rows(x=x, y=x[:, 0], bad=torch.zeros(4))
    tape = fi.Tape.record(model, optimizer, loss=losses, data=rows)
    losses(model, rows.batch(torch.arange(4))).mean().backward()
    optimizer.step()
    tape.step(ids=torch.arange(4))
    refused(tape, "parameters or buffers with NaN or infinite values before the first step", 0)


def masked(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """NaN for marked rows, with a gradient of 0."""
    return torch.where(batch["bad"] > 0, torch.nan, (model(batch["x"])[:, 0] - batch["y"]) ** 2)


def of_masked_rows(t: int) -> fr.TapeRecorder:
    x = torch.linspace(-1, 1, STEPS * BATCH, dtype=torch.float64)[:, None]
    bad = torch.zeros(len(x)).index_fill(0, torch.tensor([BATCH * t]), 1.0)
    rows = fr.Rows(x=x, y=x[:, 0] ** 2, bad=bad)
    with fr.seeded(0):
        model = nn.Linear(1, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    tape = fi.Tape.record(model, optimizer, loss=masked, data=rows)
    for ids in torch.arange(len(x)).split(BATCH):
        masked(model, rows.batch(ids)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=ids)
    return tape


def test_a_loss_that_is_none_with_a_gradient_that_is_one() -> None:
    with pytest.raises(TrainingError) as caught:
        of_masked_rows(10).finish()
    assert_parts(
        caught.value,
        "losses, gradients and parameters are finite",
        "a loss of nan at step 10, with a gradient that is finite",
        "rows are masked with NaN",
        "give masked rows a loss of 0, or leave them out; look at the rows of step 10",
    )


def test_where_it_was_not_looked_at_gradients_tell_and_differences_do_not() -> None:
    tape = of_masked_rows(7).finish()
    query = fi.Query(lambda model: model.weight.sum(), name="w")
    exact = fi.replay(tape, query, late=0.0, differentiation="exact")
    assert torch.isfinite(torch.from_numpy(exact.data.effect.values)).all()
    with pytest.raises(NotSupportedError) as caught:
        fi.replay(tape, query, late=0.0, differentiation="finite-difference")
    assert_parts(
        caught.value,
        "row derivatives that are numbers",
        "NaN or infinite ones at step ",
        "a loss there that is NaN or infinite",
        "give masked rows a loss of 0, or use differentiation='exact'",
    )
