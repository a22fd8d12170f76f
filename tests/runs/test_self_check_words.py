"""What the self-check says of a loop that cannot be taken again: its cause, and what to pass."""

import pytest
import torch
from torch import nn

import plain_training as pt
from finfluence.errors import TrainingError
from four_parts import assert_parts
from recorded_loops import LOOPS, begin

UNSAID = {
    "clip norm": ("clips the norm", "pass clip_norm=0.4 to Tape.record"),
    "clip value": ("by value", "pass clip_value=0.05 to Tape.record"),
}


@pytest.mark.parametrize("name", UNSAID)
def test_clipping_that_was_not_said(name):
    loop = LOOPS[name]
    with pytest.raises(TrainingError) as caught:
        loop.run(record=True, clip_norm=None, clip_value=None)[1].finish()
    assert_parts(caught.value, "can be taken again", "a gradient at step 0 that differs by", *UNSAID[name])


def broken(change, ids=lambda t, order: order[t], **options):
    """A loop in which `change(model, optimizer, batch, t)` takes the step."""
    rows, order = pt.table(), [o.tolist() for o in pt.recipe(epochs=4).order(0)]
    model, optimizer, tape = begin(**options)
    for t, step in enumerate(order):
        change(model, optimizer, rows.batch(torch.tensor(step)), t)
        optimizer.zero_grad()
        tape.step(ids=ids(t, order))
    with pytest.raises(TrainingError) as caught:
        tape.finish()
    return caught.value


def plain(model, optimizer, batch, t, loss=pt.class_loss, factor=1.0):
    (factor * loss(model, batch).mean()).backward()
    optimizer.step()


def test_the_self_check_names_step_size_and_cause():
    summed = broken(lambda m, o, b, t: plain(m, o, b, t, factor=4.0))
    assert_parts(
        summed, "can be taken again", "a gradient at step 0 that differs by 75.0%", "times 4", "weights=[4]"
    )
    smooth = broken(
        lambda m, o, b, t: plain(
            m, o, b, t, lambda m, b: nn.functional.cross_entropy(m(b["x"]), b["y"], label_smoothing=0.5)
        )
    )
    assert_parts(
        smooth,
        "can be taken again",
        "step 0",
        "another loss than the one given",
        "compare loss(model, batch)",
    )
    shifted = broken(plain, ids=lambda t, order: order[(t + 1) % len(order)])
    assert_parts(
        shifted,
        "can be taken again",
        "a gradient at step",
        "",
        "ids of the batch that the optimiser has just used" if "named at" in str(shifted) else "compare",
    )
    late = broken(lambda m, o, b, t: plain(m, o, b, t, factor=2.0 if t > 2 else 1.0))
    assert_parts(late, "can be taken again", "at step 3 that differs by 50.0%", "times 2", "weights=[2]")


def test_the_self_check_sees_parameters_that_move_by_themselves():
    def averaged(model, optimizer, batch, t):
        plain(model, optimizer, batch, t)
        with torch.no_grad():
            model[0].weight.mul_(0.9)

    error = broken(averaged)
    assert_parts(
        error,
        "can be taken again",
        "parameters that move after the optimiser's step",
        "averaged weights",
        "only the optimiser",
    )


def test_the_self_check_knows_autocast_and_modes():
    def cast(model, optimizer, batch, t):
        with torch.autocast("cpu", torch.bfloat16):
            losses = pt.class_loss(model, batch)
        losses.mean().backward()
        optimizer.step()

    single = {"model": pt.made(pt.mlp, dtype=torch.float32), "data": pt.table(dtype=torch.float32)}
    rows = single["data"]

    def run(model, optimizer, batch, t):
        cast(model, optimizer, {k: v.float() if v.is_floating_point() else v for k, v in batch.items()}, t)

    assert len(rows) == 12
    assert_parts(
        broken(run, **single),
        "can be taken again",
        "step 0",
        "under autocast in torch.bfloat16",
        "inside the loss",
    )


WEIGHTS = torch.tensor([1.0, 5.0, 2.0], dtype=pt.DOUBLE)


def row_weighted(model, batch):
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], weight=WEIGHTS, reduction="none")


def class_weighted(steps=4, weights=None, sizes=(4, 4, 4, 4), clip=None, **options):
    """A loop that averages as torch's weighted cross-entropy does: by the sum of the weights of the batch's classes."""
    rows = pt.table(16)
    model, optimizer, tape = begin(loss=row_weighted, data=rows, sampling="independent", **options)
    start = 0
    for size in sizes[:steps]:
        ids = torch.arange(start, start + size)
        start += size
        batch = rows.batch(ids)
        nn.functional.cross_entropy(model(batch["x"]), batch["y"], weight=WEIGHTS).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=ids, weights=None if weights is None else [weights(ids, batch["y"])])
    return tape


def test_class_weights_get_advice_that_works():
    with pytest.raises(TrainingError) as caught:
        class_weighted().finish()
    assert_parts(
        caught.value, "can be taken again", "a gradient at step 0", "times another number at every step",
        "weights=[len(ids) / w[y].sum()]",
    )  # fmt: skip
    assert "at step 0" in str(caught.value) and "class weights" in str(caught.value)
    followed = class_weighted(weights=lambda ids, y: len(ids) / WEIGHTS[y].sum().item()).finish()
    assert followed.notes[0].startswith("self-check: steps 0, 1, 3 of 4 taken again")
    with pytest.raises(TrainingError, match="times another number at every step"):
        class_weighted(weights=lambda ids, y: 0.5).finish()


def test_a_single_step_leaves_all_explanations_open():
    with pytest.raises(TrainingError) as caught:
        class_weighted(steps=1).finish()
    assert_parts(
        caught.value, "can be taken again", "step 0", "sum of class weights",
        "weights=[len(ids) / w[y].sum()] for class weights",
    )  # fmt: skip


def scaled_loop(share, sizes=3):
    model, optimizer, tape = begin()
    for ids in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]):
        (share * pt.class_loss(model, pt.table().batch(torch.tensor(ids))).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=ids)
    return tape


@pytest.mark.parametrize(("share", "cause"), [(0.25, "the loop divides the loss"), (4.0, "sums over rows")])
def test_one_factor_at_every_step_is_a_weight(share, cause):
    with pytest.raises(TrainingError) as caught:
        scaled_loop(share).finish()
    assert_parts(caught.value, "can be taken again", "step 0", cause, f"weights=[{share:.4g}]")
    assert "clip" not in str(caught.value)


def test_clipping_of_some_steps_is_told_from_weights():
    """Steps that are not longer than the limit are whole; the others have its length."""
    model, optimizer, tape = begin()
    norms = []
    for ids in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [3, 2, 1, 0]):
        pt.class_loss(model, pt.table().batch(torch.tensor(ids))).mean().backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 0.3)))
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=ids)
    assert max(norms) > 0.3
    with pytest.raises(TrainingError) as caught:
        tape.finish()
    assert_parts(
        caught.value, "can be taken again", "a gradient", "never longer than 0.3", "pass clip_norm=0.3"
    )


def other_norms(order):
    def change(model, optimizer, batch, t):
        pt.class_loss(model, batch).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.05, norm_type=order)
        optimizer.step()

    return change


def normalising(model, optimizer, batch, t):
    pt.class_loss(model, batch).mean().backward()
    size = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    for p in model.parameters():
        p.grad.div_(size)
    optimizer.step()


@pytest.mark.parametrize(
    ("change", "measure"),
    [
        (other_norms(float("inf")), "its largest entry is 0.05"),
        (other_norms(1.0), "its sum of absolute entries is 0.05"),
        (normalising, "its norm is 1"),
    ],
)
def test_clipping_by_other_measures_is_not_taken_for_weights(change, measure):
    """As weights, the scale would count as a constant: effects would be wrong without a word."""
    assert_parts(broken(change), "can be taken again", "a gradient at step 0", measure, "clip by the 2-norm")


def counting_late():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.calls = pt.mlp(), 0

        def forward(self, x):
            self.calls += self.training
            return self.body(x) * (2.0 if self.calls > 8 else 1.0)

    return Counting()


def test_a_count_that_tells_late_is_told_from_other_causes():
    error = broken(plain, model=pt.made(counting_late))
    assert_parts(
        error, "can be taken again", "and from step", "another one each time it is asked", "generator alone"
    )


class Clock:
    t = 0.0


def following_a_clock(model, batch):
    return pt.class_loss(model, batch) * (1 + Clock.t)


def test_what_the_loss_reads_and_changes_on_the_way_is_named():
    def step(model, optimizer, batch, t):
        Clock.t = 0.1 * t
        plain(model, optimizer, batch, t, following_a_clock)

    error = broken(step, loss=following_a_clock)
    Clock.t = 0.0
    assert_parts(
        error, "can be taken again", "step 0", "'Clock.t', which the loss reads", "a field of the batch"
    )


def test_a_part_that_changes_its_mode_is_named():
    model = pt.made(lambda: nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)))

    def step(model, optimizer, batch, t):
        model[1].train(t < 5)
        plain(model, optimizer, batch, t)

    error = broken(step, model=model)
    assert_parts(
        error, "can be taken again", "step 10", "'1' was in evaluation mode at this step", "leave them there"
    )


def test_a_second_optimiser_is_named_by_what_it_moves():
    model = pt.made(pt.mlp)
    second = torch.optim.SGD(model[2].parameters(), lr=0.1)

    def step(model, optimizer, batch, t):
        plain(model, optimizer, batch, t)
        second.step()
        second.zero_grad()

    error = broken(step, model=model, optimizer=torch.optim.SGD(model[0].parameters(), lr=0.1))
    assert_parts(
        error, "can be taken again", "a gradient at step 1", "'2.weight' is not trained", "one optimiser"
    )


def test_micro_batches_that_count_by_their_rows():
    model, optimizer, tape = begin()
    for t in range(3):
        ids = torch.arange(4 * t, 4 * t + 4)
        pt.class_loss(model, pt.table().batch(ids)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        tape.step(ids=[ids[:3], ids[3:]])
    with pytest.raises(TrainingError) as caught:
        tape.finish()
    assert_parts(
        caught.value, "can be taken again", "step 0", "count by their rows", "weights=[len(part) / rows"
    )


def test_steps_at_other_weights_are_not_taken_for_moves():
    """Sharpness-aware steps leave the weights as they were but for rounding; the gradient is another one."""

    def step(model, optimizer, batch, t):
        pt.class_loss(model, batch).mean().backward()
        ups = [0.05 * p.grad / p.grad.norm() for p in model.parameters()]
        for sign in (1, -1):
            with torch.no_grad():
                for p, up in zip(model.parameters(), ups, strict=True):
                    p.add_(up, alpha=sign)
            if sign == 1:
                optimizer.zero_grad()
                pt.class_loss(model, batch).mean().backward()
        optimizer.step()

    assert_parts(
        broken(step), "can be taken again", "a gradient at step 0", "gradients that the loop edits", "compare"
    )
