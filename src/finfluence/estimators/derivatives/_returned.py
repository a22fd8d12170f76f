"""The gradient that training gets: plain autograd on the given loss, with the kernels that training runs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from finfluence.errors import NotSupportedError, explain
from finfluence.grads import Batch, InDouble, Layout, RowLoss, in_double, no_checkpointing, seed_generators


def batch_normalised(model: nn.Module) -> bool:
    """Whether a layer normalises over the rows of a batch."""
    kind = nn.modules.batchnorm._BatchNorm
    return any(isinstance(m, kind) and (m.training or m.running_mean is None) for m in model.modules())


class ReturnedGradient:
    """g(θ, v) = Σ_i v_i ∇̃ℓ_i(θ), whatever autograd returns for it.

    Parameters
    ----------
    model : nn.Module
        Copied, if `double`; else its parameters are overwritten.
    loss : callable
        `loss(model, batch) -> Tensor[B]`.
    double : bool
        Compute in double precision, whatever the model's precision is.
    """

    def __init__(self, model: nn.Module, loss: RowLoss, double: bool = False) -> None:
        self.model = in_double(model) if double else model
        self._loss, self.double = loss, double
        self.layout = Layout(self.model)
        self._parameters = self.layout.parameters(self.model)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the row losses [B], in this object's precision."""
        if not self.double:
            return self._loss(model, batch)
        with InDouble():
            return self._loss(model, batch)

    def raised(self, batch: Batch) -> Batch:
        """Return the batch in this object's precision."""
        if not self.double:
            return batch
        return {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}

    def at(self, theta: Tensor, batch: Batch, seed: int | None, cotangent: Tensor) -> Tensor:
        """Differentiate the losses at θ [P] with the cotangent v [B].

        Returns
        -------
        g(θ, v) [P]

        Raises
        ------
        NotSupportedError
            The forward pass writes on a parameter.
        RuntimeError
            Whatever the loss raises.
        """
        self.layout.assign(self.model, theta)
        try:
            found = self._gradients(batch, seed, cotangent)
        except RuntimeError as error:  # reentrant checkpoints run in backward() only
            if "use_reentrant" not in str(error):
                raise
            with no_checkpointing():
                found = self._gradients(batch, seed, cotangent)
        return torch.cat(
            [
                torch.zeros_like(p).reshape(-1) if g is None else g.to_dense().reshape(-1)
                for p, g in zip(self._parameters, found, strict=True)
            ]
        )

    def _gradients(self, batch: Batch, seed: int | None, cotangent: Tensor) -> Sequence[Tensor | None]:
        if seed is not None:
            seed_generators(seed, cotangent.device)
        versions = [p._version for p in self._parameters]
        with torch.enable_grad():
            losses = self.loss(self.model, batch)
            self._check_unwritten(versions)
            return torch.autograd.grad(losses, self._parameters, cotangent, allow_unused=True)

    def _check_unwritten(self, versions: list[int]) -> None:
        for name, parameter, version in zip(self.layout.names, self._parameters, versions, strict=True):
            if parameter._version != version:
                raise NotSupportedError(
                    explain(
                        "a forward pass that leaves the parameters as they are",
                        f"one that writes on '{name}'",
                        "an embedding with max_norm rescales the rows that it looks up, or the loss changes weights",
                        "leave max_norm out, or bound the norms in the loss",
                    )
                )
