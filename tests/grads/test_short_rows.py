"""Kernels written out give what the kernels give."""

import pytest
import torch
from torch.func import jvp, vmap

from finfluence.grads import Traces
from finfluence.grads.tracing import split_short_rows


@pytest.mark.parametrize("keepdim", [True, False])
@pytest.mark.parametrize("dims", [[1], [0, 1], [-1]])
def test_mean_and_variance(keepdim, dims):
    def function(x):
        variance, mean = torch.var_mean(x, dims, correction=0, keepdim=keepdim)
        return variance * 2, mean

    x = torch.randn(5, 7) + 30
    found = Traces(finish=split_short_rows).run("moments", function, x)
    for ours, theirs in zip(found, function(x), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("queries", [1, 2, 5])
def test_tangents_of_a_common_matrix(queries):
    x, w, u = torch.randn(6, 4), torch.randn(4, 3), torch.randn(queries, 4, 3)

    def function(x, w, u):
        gradient = lambda w: x.T @ (x @ w).sin()  # noqa: E731
        return vmap(lambda v: jvp(gradient, (w,), (v,))[1])(u)

    torch.testing.assert_close(
        Traces(finish=split_short_rows).run("step", function, x, w, u), function(x, w, u)
    )
