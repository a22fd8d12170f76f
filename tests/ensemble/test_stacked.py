import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import finfluence.runs as fr
from finfluence.ensemble import RunSpec, StackedRuns, Workers, final_models, not_stackable, train_many
from finfluence.grads import Layout, trace
from finfluence.grads.tracing import split_log_softmax
from finfluence.runs import initial_model, seeded
from small_recipes import Noisy, branching_loss, class_loss, classifier, held_out, mlp, rows

OPTIMIZERS = {
    "sgd": fr.SGD(lr=0.2),
    "momentum": fr.SGD(lr=0.1, momentum=0.9, weight_decay=1e-3),
    "nesterov": fr.SGD(lr=0.1, momentum=0.9, nesterov=True),
    "dampened": fr.SGD(lr=0.1, momentum=0.9, dampening=0.3),
    "adam": fr.Adam(lr=1e-2, weight_decay=1e-3),
    "adamw": fr.AdamW(lr=1e-2),
}


def stacked(recipe: fr.Recipe, specs: list[RunSpec]) -> torch.Tensor:
    return StackedRuns(recipe, initial_model(recipe, 0)).train(specs)


def one_by_one(recipe: fr.Recipe, specs: list[RunSpec]) -> torch.Tensor:
    size = Layout(initial_model(recipe, 0)).size
    tapes = [fr.train(recipe, init_seed=s.init_seed, order_seed=s.order_seed) for s in specs]
    return torch.stack([tape.final_state()[:size] for tape in tapes])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.quick(6)
def test_stacked_runs_equal_separate_runs(name, drop_last):
    recipe = classifier(OPTIMIZERS[name], drop_last=drop_last, schedule="cosine")
    specs = [RunSpec(0, k) for k in range(5)]
    assert not_stackable(recipe, [0, 0]) is None
    torch.testing.assert_close(stacked(recipe, specs), one_by_one(recipe, specs), rtol=1e-9, atol=1e-9)


def test_every_lane_has_its_own_initialisation():
    recipe = classifier(fr.AdamW(lr=1e-2), model=mlp)
    specs = [RunSpec(k, 10 + k) for k in range(4)]
    assert not_stackable(recipe, [0, 1]) is None
    torch.testing.assert_close(stacked(recipe, specs), one_by_one(recipe, specs), rtol=1e-9, atol=1e-9)
    first, second = stacked(recipe, [RunSpec(0, 0), RunSpec(1, 0)])
    assert not torch.allclose(first, second)


def test_single_precision_agrees_loosely():
    recipe = classifier(data=rows(dtype=torch.float32), model=mlp(1, dtype=torch.float32))
    specs = [RunSpec(0, k) for k in range(3)]
    torch.testing.assert_close(stacked(recipe, specs), one_by_one(recipe, specs), rtol=1e-4, atol=1e-5)


def test_removed_rows_are_never_trained_on_and_steps_stay():
    keep = np.delete(np.arange(31), [3, 4, 5])
    recipe = classifier()
    (theta,) = stacked(recipe, [RunSpec(0, 7, keep)])
    model = initial_model(recipe, 0)
    optimizer = recipe.optimizer.torch(model.parameters())
    batches = recipe.order(7, keep)
    assert len(batches) == recipe.steps
    assert not np.isin(torch.cat(batches).numpy(), [3, 4, 5]).any()
    for batch in batches:
        optimizer.zero_grad()
        class_loss(model, recipe.rows.batch(batch)).mean().backward()
        optimizer.step()
    torch.testing.assert_close(theta, Layout(model).theta(model), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "activation",
    [
        nn.GELU,
        nn.Tanh,
        *(pytest.param(each, marks=pytest.mark.slow) for each in (nn.SiLU, nn.Softplus, nn.ELU)),
    ],
)
@pytest.mark.parametrize("optimizer", [fr.SGD(lr=0.2), fr.AdamW(lr=1e-2)], ids=["sgd", "adamw"])
@pytest.mark.quick(2)
def test_a_run_is_bit_equal_whatever_runs_beside_it(optimizer, activation):
    # 5 rows, 7 units and 3 classes fill no vector register evenly
    with seeded(0):
        model = nn.Sequential(nn.Linear(5, 7), activation(), nn.Linear(7, 3))
    data = rows(dtype=torch.float32)
    recipe = classifier(optimizer, data=data, model=model, batch_size=5)
    query = [fr.each_loss(data.fields["x"][:3], data.fields["y"][:3])]
    whole = train_many(recipe, [RunSpec(0, k) for k in range(19)], query).values
    for picked in ([4], [8, 2, 0], [5, 4, 3, 2, 1, 0], [18, 3]):
        part = train_many(recipe, [RunSpec(0, k) for k in picked], query).values
        assert np.array_equal(part, whole[picked])


def test_a_diverged_run_is_nan_and_alone():
    recipe = classifier(fr.SGD(lr=0.2))
    x = recipe.rows.fields["x"].clone()
    x[0] = 1e160
    poisoned = classifier(fr.SGD(lr=0.2), data=fr.Rows(x=x, y=recipe.rows.fields["y"]), drop_last=False)
    without = np.arange(1, 31)
    result = train_many(poisoned, [RunSpec(0, 1), RunSpec(0, 1, without)], held_out())
    assert np.isnan(result.values[0]).all()
    assert np.isfinite(result.values[1]).all()


def test_adam_reports_divergence():
    recipe = classifier(
        fr.Adam(lr=1e-2), loss=lambda m, b: class_loss(m, b) * torch.where(b["id"] == 0, torch.nan, 1.0)
    )
    assert torch.isnan(stacked(recipe, [RunSpec(0, 0, np.arange(8))])).all()


def test_frozen_normalisation_layers_stay_frozen():
    with seeded(3):
        model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    model[1].eval()
    model[1].running_mean.fill_(0.3)
    recipe = classifier(model=model)
    specs = [RunSpec(0, k) for k in range(2)]
    assert not_stackable(recipe, [0, 0]) is None
    torch.testing.assert_close(stacked(recipe, specs), one_by_one(recipe, specs), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": mlp(1, dropout=0.5)}, "the loss draws random numbers (dropout or augmentation)"),
        ({"model": lambda seed: Noisy()}, "frozen parameters or buffers differ between initialisation seeds"),
        ({"loss": branching_loss}, "data-dependent control flow"),
    ],
    ids=["dropout", "random buffers", "branch"],
)
def test_what_cannot_be_stacked_is_trained_one_by_one(changes, reason):
    recipe = classifier(**changes)
    assert reason in (not_stackable(recipe, [0, 1]) or "stackable")
    specs = [RunSpec(k, k) for k in range(2)]
    result = train_many(recipe, specs, held_out()[:1], Workers("serial"))
    assert result.how.startswith("one by one: ")
    for value, spec in zip(result.values, specs, strict=True):
        model = fr.train(recipe, init_seed=spec.init_seed, order_seed=spec.order_seed).model().eval()
        assert value[0] == held_out()[0].values(model, recipe).item()


def test_memory_bounds_the_number_of_copies():
    recipe = classifier()
    stack = StackedRuns(recipe, initial_model(recipe, 0))
    each = stack.bytes_per_replica()
    assert stack.replicas(40 * each) == 32
    assert stack.replicas(3 * each) == stack.replicas(1) == 1
    assert stack.replicas(2**40) == 64


def test_queries_are_those_of_the_final_models():
    recipe, queries = classifier(), held_out()
    specs = [RunSpec(0, k) for k in range(3)]
    got = train_many(recipe, specs, queries)
    assert got.how == "stacked, 64 at once"
    for values, model in zip(got.values, final_models(recipe, specs), strict=True):
        assert model is not None
        want = [q.values(model.eval(), recipe).item() for q in queries]
        np.testing.assert_allclose(values, want, rtol=1e-12)


def test_a_query_that_vmap_cannot_follow_is_asked_one_model_at_a_time():
    recipe = classifier()
    odd = fr.Query(lambda m: torch.tensor(float(np.sort(m[0].bias.tolist())[0])), name="least bias")
    got = train_many(recipe, [RunSpec(0, k) for k in range(3)], [odd]).values[:, 0]
    want = [min(m[0].bias.tolist()) for m in final_models(recipe, [RunSpec(0, k) for k in range(3)])]
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_workers():
    recipe = classifier(model=mlp(1, dropout=0.3))
    specs = [RunSpec(0, k) for k in range(5)]
    here = train_many(recipe, specs, held_out()[:1], Workers("serial")).values
    there = train_many(recipe, specs, held_out()[:1], Workers("joblib", 2)).values
    assert np.array_equal(here, there)
    stacks = train_many(classifier(), specs, held_out(), Workers("joblib", 2)).values
    assert np.array_equal(stacks, train_many(classifier(), specs, held_out()).values)


def test_the_number_of_threads_is_given_back():
    before = torch.get_num_threads()
    train_many(classifier(), [RunSpec(0, 0)], held_out())
    assert torch.get_num_threads() == before


def test_an_unknown_executor_says_what_exists():
    from finfluence.errors import ConfigError

    with pytest.raises(
        ConfigError, match="expected executor to be None, 'serial', 'joblib' or 'ray'\n  got: 'dask'"
    ):
        train_many(classifier(), [RunSpec(0, 0)], held_out(), Workers("dask"))


def test_log_softmax_in_elementary_operations_is_the_same_function():
    def slope(x: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda t: F.cross_entropy(t, torch.tensor([0, 2, 1]), reduction="sum") ** 2)(x)

    x = torch.tensor([[0.0, 1.0, -2.0], [700.0, -700.0, 1.0], [3.0, 3.0, 3.0]], dtype=torch.float64)
    traced = trace(slope, x)
    split_log_softmax(traced.graph)
    assert not [n for n in traced.graph.graph.nodes if "log_softmax" in str(n.target)]
    torch.testing.assert_close(traced(x), slope(x), rtol=1e-14, atol=1e-14)


def test_long_rows_keep_the_kernel_of_torch():
    traced = trace(lambda t: torch.log_softmax(t, 1), torch.zeros(2, 65))
    split_log_softmax(traced.graph)
    assert [n for n in traced.graph.graph.nodes if "log_softmax" in str(n.target)]
