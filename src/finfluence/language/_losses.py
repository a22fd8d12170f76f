"""Losses of rows of texts: of their learned tokens, weighted or not, and of preferences."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finfluence._files import digest
from finfluence.errors import ConfigError, DataError, explain
from finfluence.grads import Batch
from finfluence.language._encode import Tokenizer, Window, encode
from finfluence.language._model import token_log_probs
from finfluence.language._prefix import Prefix
from finfluence.language._rows import TextRows


def token_losses(model: nn.Module, batch: Batch) -> Tensor:
    """Return −log p of every learned token [B, R], in nats; 0 for padding."""
    return -token_log_probs(model, batch)


def mean_token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Row loss: the mean over a row's learned tokens, ℓ_i = −(1/n_i) Σ_t w_{i,t} log p(y_{i,t} | …), in nats.

    w is 1 but for `TextRows` with weights: with advantages as weights this is the loss of a policy gradient.

    Returns
    -------
    Tensor [B]
    """
    return (batch["weights"] * token_losses(model, batch)).sum(-1) / batch["counts"]


def sum_token_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Row loss: the sum over a row's learned tokens, ℓ_i = −Σ_t w_{i,t} log p(y_{i,t} | …), in nats."""
    return (batch["weights"] * token_losses(model, batch)).sum(-1)


@dataclass(frozen=True)
class SmoothedLoss:
    """Row loss: the mean over a row's learned tokens with smoothed labels, in nats.

    ℓ_i = −(1/n_i) Σ_t w_{i,t} [(1−ε) log p(y_{i,t} | …) + ε (1/V) Σ_v log p(v | …)], V the tokens of the vocabulary
    that the model has logits for; `mean_token_loss` where ε = 0.

    Parameters
    ----------
    epsilon : float
        0 ≤ ε ≤ 1: the share of a label that is spread over the vocabulary.

    Raises
    ------
    ConfigError
        ε is not a number from 0 to 1.

    References
    ----------
    Szegedy et al., "Rethinking the Inception architecture" (arXiv 1512.00567), section 7.

    Examples
    --------
    >>> SmoothedLoss(epsilon=0.1).epsilon
    0.1
    """

    epsilon: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon <= 1:
            raise ConfigError(
                explain(
                    "epsilon of smoothed labels to be a number from 0 to 1",
                    repr(self.epsilon),
                    "a percentage, or a mistyped option",
                    "pass epsilon=0.1 (label_smoothing_factor=0.1 in a Trainer)",
                )
            )

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of each row [B]."""
        smoothed = token_log_probs(model, batch, self.epsilon)
        return -(batch["weights"] * smoothed).sum(-1) / batch["counts"]


class PreferenceRows:
    """Pairs of responses to one prompt, of which the first is preferred, as rows for `DPO`.

    Parameters
    ----------
    chosen, rejected : TextRows
        One text each for every row, in one order and with the same ids.
    reference : array [n, 2], optional
        Log-probabilities of both under the reference model; `with_reference` computes them, once.

    Raises
    ------
    DataError
        Other ids on one side than on the other.

    Notes
    -----
    Fields of a batch: those of both sides, as `chosen.targets` and `rejected.targets`, and `reference` [B, 2].
    """

    def __init__(self, chosen: TextRows, rejected: TextRows, reference: np.ndarray | None = None) -> None:
        if chosen.ids.tolist() != rejected.ids.tolist():
            raise DataError(
                explain(
                    "a chosen and a rejected response for each row",
                    f"{len(chosen)} and {len(rejected)} rows, or other ids",
                    "one side was filtered, or left out as too long",
                    "make both sides from the same rows, and truncate long ones",
                )
            )
        self.chosen, self.rejected, self.reference = chosen, rejected, reference
        self.ids, self.padded_sizes = chosen.ids, chosen.padded_sizes + rejected.padded_sizes

    @classmethod
    def of(
        cls,
        triples: Sequence[tuple[str, str, str]],
        tokenizer: Tokenizer,
        ids: Sequence[Any] | None = None,
        window: Window = Window(),
    ) -> "PreferenceRows":
        """Return rows of triples (prompt, chosen response, rejected response).

        Returns
        -------
        PreferenceRows
        """
        sides = [
            encode([(triple[0], triple[k]) for triple in triples], tokenizer, ids, window) for k in (1, 2)
        ]
        both = [p for p in sides[0].positions if p in set(sides[1].positions)]
        made = []
        for side in sides:
            place = {p: k for k, p in enumerate(side.positions)}
            names = both if ids is None else [ids[p] for p in both]
            made.append(TextRows([side.rows[place[p]] for p in both], names))
        return cls(made[0], made[1])

    def __len__(self) -> int:
        return len(self.ids)

    def with_reference(self, model: nn.Module, at_once: int = 8) -> "PreferenceRows":
        """Return the rows with the log-probabilities that `model`, as it is now, gives both responses.

        Returns
        -------
        PreferenceRows
        """
        found = []
        device = next(model.parameters()).device
        with torch.no_grad():
            for positions in torch.arange(len(self)).split(at_once):
                both = [
                    _total(model, _moved(s.batch(positions), device)) for s in (self.chosen, self.rejected)
                ]
                found.append(torch.stack(both, -1).cpu())
        return PreferenceRows(self.chosen, self.rejected, torch.cat(found).numpy())

    def through(self, prefix: Prefix) -> "PreferenceRows":
        """Return the same rows as the layers above a frozen prefix see them."""
        return PreferenceRows(self.chosen.through(prefix), self.rejected.through(prefix), self.reference)

    def batch(self, positions: Tensor) -> Batch:
        """Return the rows at `positions`, both sides padded.

        Returns
        -------
        dict

        Raises
        ------
        ConfigError
            No reference was computed.
        """
        if self.reference is None:
            raise ConfigError(
                explain(
                    "log-probabilities of the reference model",
                    "rows without them",
                    "they are computed once, before training",
                    "write rows = rows.with_reference(model) before the first step",
                )
            )
        made: Batch = {"id": positions, "reference": torch.from_numpy(self.reference)[positions]}
        for name, side in (("chosen", self.chosen), ("rejected", self.rejected)):
            made.update({f"{name}.{k}": v for k, v in side.batch(positions).items() if k != "id"})
        return made

    def digest(self) -> str:
        """Return a hash of both sides and of the reference."""
        reference = b"" if self.reference is None else self.reference.tobytes()
        return digest(self.chosen.digest().encode(), self.rejected.digest().encode(), reference)


@dataclass(frozen=True)
class DPO:
    """Row loss of direct preference optimisation, for `PreferenceRows`.

    ℓ_i = −log σ(β [(log p(c_i) − log p_ref(c_i)) − (log p(r_i) − log p_ref(r_i))]), c chosen and r rejected.

    Parameters
    ----------
    beta : float
        β > 0: how dear it is to leave the reference.

    Raises
    ------
    ConfigError
        β is not a positive number.

    References
    ----------
    Rafailov et al., "Direct preference optimization" (arXiv 2305.18290), equation 7.

    Examples
    --------
    >>> DPO(beta=0.1).beta
    0.1
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.beta < float("inf"):
            raise ConfigError(
                explain("beta to be a positive number", repr(self.beta), "a mistyped option", "pass beta=0.1")
            )

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of each pair [B]."""
        gains = []
        for k, side in enumerate(("chosen", "rejected")):
            start = f"{side}."
            part = {name.removeprefix(start): v for name, v in batch.items() if name.startswith(start)}
            gains.append(_total(model, part) - batch["reference"][:, k])
        return -nn.functional.logsigmoid(self.beta * (gains[0] - gains[1]))


def _total(model: nn.Module, batch: Batch) -> Tensor:
    return token_log_probs(model, batch).sum(-1)


def _moved(batch: Batch, device: torch.device) -> Batch:
    return {k: v.to(device) for k, v in batch.items()}
