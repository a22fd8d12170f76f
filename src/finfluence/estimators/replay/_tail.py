"""Tail averaging: the query averaged over the last part of training.

Where the learning rate is high, the parameters hop around to the last step, and so does the gradient of a query: the
effects that two runs show differ mainly because they end at different points. What removal does to q(θ_T) is what it
does to q a few steps earlier, nearly, so it is estimated for the mean over K states of the last steps:

    q̄ = Σ_k q(θ_{t_k}) / K,    ∂q̄/∂s_t = (∂U_t/∂s)ᵀ ∂q̄/∂s_{t+1} + Σ_{k: t_k = t} ∇q(θ_t) / K

The spread is that of q(θ_T), one state. With θ_T = θ* + δ, δ normal with covariance Σ, and q quadratic,

    Var q(θ_T) = gᵀΣg + tr((HΣ)²)/2,     E[∇q(θ_T)ᵀ Σ ∇q(θ_T)] = gᵀΣg + tr((HΣ)²),     g = ∇q(θ*), H = ∇²q:

the gradient of one state counts the curved part twice, and differs from run to run. The mean gradient ḡ of K states far
enough apart has 1/K of its noise and counts tr((HΣ)²)/K. So the spread is followed back from ḡ, beside the adjoint of
q̄, and (1/2 − 1/K) tr((HΣ)²) is added, from the states themselves: for contrasts d_a = Σ_k c_ak θ_{t_k},
e_a = Σ_k c_ak ∇q(θ_{t_k}) with orthonormal c, orthogonal to every trend linear in time, d_aᵀe_b = d_aᵀHd_b and

    tr((HΣ)²) = E[(d_aᵀe_b)(d_bᵀe_a)],  a ≠ b.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn

from finfluence.errors import ConfigError, explain
from finfluence.estimators.derivatives import query_gradients
from finfluence.runs import AnyQuery, Tape

STATES, MOST = 8, 0.5


def tail_steps(steps: int, covered: int, share: float, states: int = STATES) -> tuple[int, ...]:
    """Return the states averaged, as numbers of steps before them, last first: at most `states`, equally far apart.

    They lie within `share` of the steps that the backward pass covers.

    Returns
    -------
    tuple of int

    Examples
    --------
    >>> tail_steps(400, 400, 0.1, 4)
    (400, 390, 380, 370)
    >>> tail_steps(400, 100, 0.1, 4)
    (400, 398, 395, 393)
    >>> tail_steps(400, 400, 0.0)
    (400,)
    """
    width = round(share * covered)
    count = max(1, min(states, width))
    return tuple(steps - k * width // count for k in range(count))


def check_tail(share: float) -> None:
    """Refuse a share of steps that leaves no training before the states averaged.

    Raises
    ------
    ConfigError
    """
    if not 0 <= share <= MOST:
        raise ConfigError(
            explain(
                f"late from 0 to {MOST}",
                repr(share),
                "a share of the steps was given in per cent, or as a number of steps",
                "use the default, 0.1, or 0 for the final state alone",
            )
        )


def tail_bytes(size: int, item: int, states: int = STATES) -> tuple[int, int]:
    """Return the bytes that each query's gradients at the states averaged take, and those of comparing the states.

    Parameters
    ----------
    size, item : int
        P, and the bytes of one number.
    states : int
        K, the final one among them.

    Returns
    -------
    tuple of int
        (K − 1)·P numbers of each query, until the pass has come to their states; and, once at the start, K·P numbers
        twice, as they are and in double precision.
    """
    return (states - 1) * size * item, states * size * (item + 8) if states > 1 else 0


@dataclass(frozen=True, eq=False)
class TailAverage:
    """Gradients ∇q(θ_t)/K of some queries at the states averaged.

    Parameters
    ----------
    tape : Tape
    queries : sequence of Query
        All queries asked.
    columns : range
        Those of their names that this backward pass follows.
    steps : tuple of int
        The states averaged, as numbers of steps before them, last first.
    model : nn.Module
        A working copy, overwritten.
    spread : bool
        Whether the spread is followed from the mean of all gradients: they are then taken beforehand, otherwise where
        the backward pass meets the states.
    """

    tape: Tape
    queries: Sequence[AnyQuery]
    columns: range
    steps: tuple[int, ...]
    model: nn.Module
    spread: bool = True

    @property
    def epochs(self) -> int:
        """Epochs from the end that hold averaged states beside the final one; 0 if there is none."""
        first = min(self.steps)
        return 0 if len(self.steps) == 1 else sum(epoch.stop > first for epoch in self.tape.epochs)

    def share(self, epoch: int) -> float:
        """Return how much of q̄ the epoch's steps lead to, on average over them."""
        steps = self.tape.epochs[epoch]
        return sum(sum(k > t for k in self.steps) for t in steps) / len(self.steps) / max(1, len(steps))

    def at(self, t: int, state: Tensor) -> Tensor | None:
        """Return ∇q(θ_t)/K [Q, P] if state t is averaged over, else None; of a backward pass, once."""
        if t not in self.steps:
            return None
        found = self._late.gradients.pop(t, None) if self.spread else None
        return (self._gradients(state) if found is None else found) / len(self.steps)

    def of_spread(self, final: Tensor) -> Tensor:
        """Return the gradients [Q, P] that the spread is followed back from; `final`: ∇q(θ_T)."""
        total = final.clone()
        for gradient in self._late.gradients.values():
            total += gradient
        return total / len(self.steps)

    def curved(self, final: Tensor) -> tuple[Tensor, Tensor]:
        """Return what Var(q) holds beside the variance along ḡ, and the variance of that estimate [Q], in float64."""
        last = self.tape.final_state()[: self.tape.layout.size].to(final)
        products = self._late.products(self.steps[0], final, last, sorted(self.steps))
        self._late.states.clear()  # they serve nothing else
        return curved_part(products)

    @cached_property
    def _late(self) -> "_LateStates":
        """Gradients and states before the final one, from the earliest on: each recomputed from the one before it."""
        tape, size = self.tape, self.tape.layout.size
        found = _LateStates()
        reached, state = -1, torch.empty(0)
        for t in sorted(self.steps)[:-1]:
            first, _, kept = tape.checkpoint_before(t)
            if first >= reached:
                reached, state = first, kept
            state = state if reached == t else tape.states_from(reached, state, t + 1, t - reached)[-1]
            reached = t
            found.states[t] = state[:size].to(tape.layout.device)
            found.gradients[t] = self._gradients(found.states[t])
        return found

    def _gradients(self, state: Tensor) -> Tensor:
        layout = self.tape.layout
        layout.assign(self.model, state[: layout.size])
        _, slopes = query_gradients(self.queries, self.model, self.tape, self.columns)
        return slopes


@dataclass(frozen=True, eq=False)
class _LateStates:
    """Parameters [P] and gradients [Q, P] at the states averaged, by the steps before them, but for the final one."""

    states: dict[int, Tensor] = field(default_factory=dict)
    gradients: dict[int, Tensor] = field(default_factory=dict)

    def products(self, last: int, gradient: Tensor, state: Tensor, order: Sequence[int]) -> Tensor:
        """Return ⟨θ_j − θ_T, ∇q(θ_k)⟩ [Q, K, K] of states j and k in `order`, the last of them added."""
        gradients, states = {**self.gradients, last: gradient}, {**self.states, last: state}
        moved = torch.empty(len(order), len(state), dtype=torch.float64, device=state.device)
        for k, t in enumerate(order):
            moved[k] = states[t] - state
        return torch.stack([gradients[t].double() @ moved.T for t in order], 2)


def curved_part(products: Tensor) -> tuple[Tensor, Tensor]:
    """Return (1/2 − 1/K)·tr((HΣ)²) and the variance of that estimate [Q], from ⟨θ_j, ∇q(θ_k)⟩ [Q, K, K].

    Two contrasts at least are needed, K ≥ 3; what is orthogonal to a linear trend is used from K = 5 on.

    Returns
    -------
    tuple of Tensor

    Examples
    --------
    >>> theta = torch.randn(8, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    >>> part, _ = curved_part((3 * theta @ theta.T).unsqueeze(0))      # q = 3θ²/2, Var θ = 1: tr((HΣ)²) = 9
    >>> bool(0 < part[0] < 3 * 0.375 * 9)
    True
    """
    count = products.shape[-1]
    zero = torch.zeros(len(products), dtype=torch.float64, device=products.device)
    if count < 3:
        return zero, zero
    powers = torch.linspace(-1, 1, count, dtype=torch.float64)[:, None] ** torch.arange(count)
    contrasts = torch.linalg.qr(powers).Q.T[2 if count >= 5 else 1 :].to(products)
    between = contrasts @ products @ contrasts.T
    a, b = torch.triu_indices(len(contrasts), len(contrasts), 1)
    terms = between[:, a, b] * between[:, b, a]
    missing = 0.5 - 1 / count
    part = missing * terms.mean(1).clamp_min(0.0)
    return part, missing**2 * terms.var(1, correction=min(1, len(a) - 1)) / len(a)
