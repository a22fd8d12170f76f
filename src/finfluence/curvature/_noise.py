"""Random directions in the space of a model's outputs whose mean outer product is the curvature of the loss there."""

from collections.abc import Callable

import torch
from torch import Tensor

from finfluence.errors import NotSupportedError, explain

WIDEST = 256


def output_noise(losses: Callable[[Tensor], Tensor], outputs: Tensor, signs: Tensor) -> tuple[Tensor, float]:
    """Return e_i = (∂²ℓ_i/∂o_i²)^{1/2} z_i for random signs z: E[e eᵀ] is the second derivative of the row's loss.

    Parameters
    ----------
    losses : callable
        Outputs [B, …] to losses [B], row by row.
    outputs : Tensor [B, …]
        o, of at most 256 numbers a row.
    signs : Tensor [B, C]
        z, of ±1.

    Returns
    -------
    Tensor [B, …]
        e.
    float
        Largest negative eigenvalue that was taken as zero, relative to the largest: 0 for a loss convex in the outputs.

    Raises
    ------
    NotSupportedError
        More than 256 outputs a row.

    Examples
    --------
    >>> e, _ = output_noise(lambda o: 2 * o[:, 0] ** 2, torch.zeros(1, 1), torch.tensor([[-1.0]]))
    >>> e.tolist()
    [[-2.0]]
    """
    rows, width = signs.shape
    if width > WIDEST:
        raise NotSupportedError(
            explain(
                f"at most {WIDEST} outputs a row, to write the curvature of the loss in them out",
                f"{width:,}",
                "a language model puts out a number for every token and word",
                "use curvature='empirical-fisher', which takes the gradients of the losses themselves",
            )
        )
    with torch.enable_grad():
        held = outputs.detach().requires_grad_()
        (first,) = torch.autograd.grad(losses(held).sum(), held, create_graph=True)
        second = torch.zeros(rows, width, width, dtype=outputs.dtype, device=outputs.device)
        for c in range(width) if first.requires_grad else ():
            (found,) = torch.autograd.grad(
                first.flatten(1)[:, c].sum(), held, retain_graph=True, allow_unused=True
            )
            if found is not None:
                second[:, c] = found.flatten(1)
    if second.dtype not in (torch.float32, torch.float64):  # half precision has no eigenvalues in torch
        second = second.float()
    values, basis = torch.linalg.eigh((second + second.mT) / 2)
    largest = float(values.abs().max())
    clamped = float((-values).clamp_min(0).max()) / largest if largest > 0 else 0.0
    root = basis * values.clamp_min(0).sqrt()[:, None] @ basis.mT
    return (root @ signs.to(root).unsqueeze(2))[..., 0].view_as(outputs).to(outputs), clamped
