"""One test, two devices: the GPU where there is one, the CPU with the slow tests."""

from collections.abc import Iterator

import pytest
import torch

GPU = pytest.param(
    "cuda",
    marks=pytest.mark.skipif(
        not torch.cuda.is_available(), reason="torch sees no GPU (torch.cuda.is_available())"
    ),
)


@pytest.fixture(params=[pytest.param("cpu", marks=pytest.mark.slow), GPU])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """The device, with deterministic kernels and float32 products of full precision; settings are given back."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    was, matmul = torch.are_deterministic_algorithms_enabled(), torch.backends.cuda.matmul.allow_tf32
    conv = torch.backends.cudnn.allow_tf32
    torch.use_deterministic_algorithms(True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield torch.device(request.param)
    torch.use_deterministic_algorithms(was)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, conv
