"""Under forward derivatives dropout drops what it drops in training, however its input lies in memory."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import grad, jvp, vmap

from finfluence.grads import Elementary
from finfluence.runs import seeded

LAYOUTS = {
    "as made": lambda x: x,
    "transposed": lambda x: x.transpose(1, 2),
    "turned": lambda x: x.permute(2, 0, 1),
    "every other": lambda x: x[:, ::2],
    "repeated": lambda x: x[:1].expand(3, -1, -1),
}
DROPOUTS = {
    "dropout": lambda x: F.dropout(x, 0.4),
    "by position": lambda x: torch.dropout(x, 0.4, True),
    "alpha": lambda x: F.alpha_dropout(x, 0.4, True),
    "in place": lambda x: F.dropout(1.0 * x, 0.4, inplace=True),
    "alpha in place": lambda x: F.alpha_dropout(1.0 * x, 0.4, True, inplace=True),
    "nothing": lambda x: F.dropout(x, 0.0),
    "all": lambda x: F.dropout(x, 1.0),
    "evaluated": lambda x: F.dropout(x, 0.4, False),
}
X, V = torch.randn(2, 3, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", DROPOUTS)
def test_values_and_derivatives_are_those_of_training(name, layout):
    def found(x):
        return DROPOUTS[name](LAYOUTS[layout](x))

    x = X.clone().requires_grad_(True)
    with seeded(1):
        plain = found(x)
    (slope,) = torch.autograd.grad(plain.sum(), x)
    with seeded(1), Elementary():
        value, moved = jvp(lambda x: found(x), (X,), (V,))
    with seeded(1), Elementary():
        several = vmap(
            lambda v: jvp(grad(lambda x: found(x).square().sum()), (X,), (v,))[0], randomness="same"
        )(torch.stack([V, -V]))
    assert torch.equal(value, plain.detach())
    torch.testing.assert_close(moved.sum(), (slope * V).sum())
    with seeded(1):
        (want,) = torch.autograd.grad(found(x).square().sum(), x)
    torch.testing.assert_close(several[0], want)
    torch.testing.assert_close(several[1], want)
