"""Copies of a model whose forward was replaced by one that holds the model: they compute with their own weights."""

import functools
import types

import pytest
import torch
from torch import nn

from finfluence.errors import NotSupportedError
from finfluence.grads import no_checkpointing
from finfluence.runs.describe import copy_model
from four_parts import assert_parts


def patched(wrapping: bool) -> nn.Module:
    """Return a layer whose forward calls the layer's own, as TRL and accelerate replace it."""
    layer = nn.Linear(2, 1)
    original = layer.forward

    def forward(self, x, extra=False):
        return original(x)

    layer.forward = types.MethodType(
        functools.wraps(nn.Linear.forward)(forward) if wrapping else forward, layer
    )
    return nn.Sequential(layer)


def test_a_wrapped_forward_is_that_of_the_class_in_a_copy():
    model = patched(wrapping=True)
    copied = copy_model(model)
    with torch.no_grad():
        copied[0].weight.fill_(1.0)
        copied[0].bias.zero_()
    assert copied(torch.ones(1, 2)).item() == 2.0
    assert "forward" in vars(model[0]), "the user's model is left as it is"


def test_a_forward_that_nobody_knows_is_refused():
    with pytest.raises(NotSupportedError) as caught:
        copy_model(patched(wrapping=False))
    assert_parts(
        caught.value, "by a copy of it", "a forward of '0'", "holds the model itself", "write a subclass"
    )


def test_a_bound_function_that_holds_no_model_stays():
    model = nn.Linear(2, 1)
    model.forward = types.MethodType(lambda self, x: self.weight.sum() * x.sum(), model)
    copied = copy_model(model)
    with torch.no_grad():
        copied.weight.fill_(1.0)
    assert copied(torch.ones(3)).item() == 6.0


def test_a_hook_that_asks_for_a_gradient_of_the_embedding_lets_derivatives_pass():
    embedding = nn.Embedding(3, 2)
    embedding.register_forward_hook(lambda module, args, output: output.requires_grad_(True))
    tokens, ask = torch.tensor([0, 2]), torch.Tensor.requires_grad_

    def loss(weight):
        return torch.func.functional_call(embedding, {"weight": weight}, (tokens,)).square().sum()

    weight = embedding.weight.detach()
    with no_checkpointing():
        found = torch.func.jvp(torch.func.grad(loss), (weight,), (torch.ones_like(weight),))[1]
    assert found.tolist() == [[2.0, 2.0], [0.0, 0.0], [2.0, 2.0]]
    assert torch.Tensor.requires_grad_ is ask
