"""Training and replay write on nothing that belongs to the user: modules, data, global random state."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
import plain_training as pt


def global_states() -> tuple[bytes, bytes]:
    return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes()


def noisy_loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    x = batch["x"] + 0.1 * torch.randn_like(batch["x"])
    return nn.functional.cross_entropy(model(x), batch["y"], reduction="none")


@pytest.mark.parametrize("method", ["online", "full"])
@pytest.mark.parametrize("loss", [pt.class_loss, noisy_loss])
def test_global_random_state_is_left_alone(method, loss):
    before = global_states()
    tape = fi.train(pt.recipe(loss=loss, model=lambda seed: pt.mlp().to(pt.DOUBLE)))
    data = tape.recipe.rows.fields
    noisy = fi.Query(lambda m: m(data["x"] + torch.randn_like(data["x"])).sum(), name="noisy", sign=1)
    fi.replay(tape, [fi.mean_loss(data["x"], data["y"]), noisy], method=method)
    assert global_states() == before


def test_results_do_not_depend_on_the_global_random_state():
    described = pt.recipe(loss=noisy_loss, model=lambda seed: pt.mlp().to(pt.DOUBLE))
    data = described.rows.fields

    def run():
        return fi.replay(fi.train(described, seed=4), fi.mean_loss(data["x"], data["y"])).data.effect.values

    first = run()
    torch.rand(3)
    assert np.array_equal(first, run())


def test_the_users_module_is_not_touched():
    module = pt.made(pt.mlp).train()
    module[1].eval()
    calls: list[int] = []
    handle = module[0].register_forward_hook(lambda *args: calls.append(1))
    module[0].weight.grad = torch.ones_like(module[0].weight)
    weights = {k: v.clone() for k, v in module.state_dict().items()}
    identities = {name: id(p) for name, p in module.named_parameters()}
    hooks = len(module[0]._forward_hooks)
    tape = fi.train(pt.recipe(model=module, optimizer=fr.AdamW(lr=0.1)))
    fi.replay(tape, fi.own_loss([0]), method="full")
    assert all(torch.equal(v, weights[k]) for k, v in module.state_dict().items())
    assert {name: id(p) for name, p in module.named_parameters()} == identities
    assert module.training and not module[1].training and module[2].training
    assert len(module[0]._forward_hooks) == hooks
    assert torch.equal(module[0].weight.grad, torch.ones_like(module[0].weight))
    assert module[2].weight.grad is None
    handle.remove()


def test_a_factory_that_hands_out_one_module_does_not_get_it_trained():
    module = pt.made(pt.mlp)
    start = pt.flat(module)
    described = pt.recipe(model=lambda seed: module)
    first, second = fi.train(described, seed=0), fi.train(described, init_seed=1, order_seed=0)
    assert torch.equal(pt.flat(module), start)
    assert torch.equal(first.state(0), start) and torch.equal(first.state(), second.state())


def test_data_is_not_touched_and_may_be_read_only():
    x, y = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32), np.arange(12) % 3
    x.flags.writeable = y.flags.writeable = False
    kept = x.copy(), y.copy()
    model = pt.made(pt.mlp, dtype=torch.float32)
    tape = fi.train(pt.recipe(data=fi.Rows(x=x, y=y), model=model))
    fi.replay(tape, fi.own_loss([1]))
    assert np.array_equal(x, kept[0]) and np.array_equal(y, kept[1])


def test_default_dtype_and_grad_mode_stay():
    before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    fi.replay(fi.train(pt.recipe()), fi.own_loss([1]))
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()) == before


def test_recipe_is_frozen_and_copies_describe_alike():
    described = pt.recipe()
    with pytest.raises(AttributeError):
        described.epochs = 7
    assert copy.deepcopy(described).digest() == described.digest()
    assert pt.recipe(epochs=4).digest() != described.digest()
