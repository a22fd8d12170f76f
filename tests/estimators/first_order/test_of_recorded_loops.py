"""First-order methods on loops of the user's own: rates, moments and steps are those that the loop took."""

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import plain_training as pt
from finfluence.errors import NotSupportedError
from four_parts import assert_parts
from recorded_loops import Loop

HALVED = Loop(
    optimizer=lambda m: torch.optim.SGD(
        [{"params": m[0].parameters(), "lr": 0.1}, {"params": m[2].parameters(), "lr": 0.4}]
    ),
    scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, step_size=6, gamma=0.5),
)


def recorded(loop: Loop) -> fi.Tape:
    _, tape = loop.run(record=True)
    assert tape is not None
    return tape.finish()


def test_rates_are_averaged_over_parameters():
    """25 parameters at .1 and 18 at .4, halved after six of twelve steps."""
    mean = (25 * 0.1 + 18 * 0.4) / 43
    np.testing.assert_allclose(recorded(HALVED).rates, [mean] * 6 + [mean / 2] * 6, rtol=1e-12)
    described = pt.recipe(schedule="cosine")
    expected = [0.1 * described.rate(t) for t in range(9)]
    np.testing.assert_allclose(fi.train(described).rates, expected, rtol=1e-12)


def test_a_loop_like_the_recipe_gives_the_recipes_scores():
    loop = Loop()
    described = pt.recipe(data=loop.data(), model=loop.start(), batch_size=4, epochs=4)
    mine, theirs = recorded(loop), fi.train(described, seed=loop.seed)
    for method in ("tracin", "less", "in-run-shapley", "kernel-trak", "source", "mean-loss"):
        a, b = (fi.estimate(t, fi.own_loss([0]), method).data.score.values for t in (mine, theirs))
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12, err_msg=method)


def test_moments_of_a_loop_with_groups():
    def made(model: nn.Module) -> torch.optim.Optimizer:
        groups = [
            {"params": model[0].parameters(), "lr": 0.01},
            {"params": model[2].parameters(), "lr": 0.02, "betas": (0.7, 0.99)},
        ]  # type: ignore[index]
        return torch.optim.AdamW(groups, betas=(0.8, 0.95))

    tape = recorded(Loop(optimizer=made))
    found = fi.estimate(tape, fi.own_loss([0]), "less", checkpoints=1)
    m, v = tape.state().reshape(3, -1)[1:].numpy()
    model, gradients = tape.model(), []
    for i in range(12):
        loss = tape.loss(model, tape.batch(torch.tensor([i])))[0]
        gradients.append(
            torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(model.parameters()))])
        )
    g = torch.stack(gradients).numpy()
    first, second = np.repeat([0.8, 0.7], [25, 18]), np.repeat([0.95, 0.99], [25, 18])
    step = (first * m + (1 - first) * g) / np.sqrt(second * v + (1 - second) * g**2 + 1e-8)
    expected = -(step @ g[0]) / np.linalg.norm(step, axis=1) / np.linalg.norm(g[0])
    np.testing.assert_allclose(found.data.score.values[:, 0], expected, rtol=1e-8)


def test_values_of_parameters_at_rates_of_their_own_add_up():
    """Over the run, second-order values sum to what happened to the query, up to third order."""
    tape, query = recorded(HALVED), fi.own_loss([0])
    with torch.no_grad():
        before, after = (tape.loss(tape.model(t), tape.batch(torch.tensor([0]))).item() for t in (0, 12))
    found = fi.estimate(tape, query, "in-run-shapley", second_order=True).data.predicted_effect.values
    assert -found.sum() == pytest.approx(after - before, rel=0.02)


def test_steps_that_are_no_sum_of_rows_are_refused():
    clipped = recorded(Loop(clip=lambda p: nn.utils.clip_grad_norm_(p, 0.5), options={"clip_norm": 0.5}))
    for method, tape, got, cause in (
        ("in-run-shapley", clipped, "clipped gradients", "the sum of what each row adds"),
        ("source", clipped, "clipped gradients", "one learning rate"),
        ("source", recorded(HALVED), "groups of parameters with options of their own", "one learning rate"),
    ):
        with pytest.raises(NotSupportedError) as caught:
            fi.estimate(tape, fi.own_loss([0]), method)
        assert_parts(caught.value, "without clipping", got, cause, "use method='replay'")
