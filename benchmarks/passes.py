"""Finite differences against the exact pass along a replay: relative errors by activation and step width.

    python -m benchmarks.passes [--epochs 6]

A network is trained on 1,000 digits and walked back exactly; at every 13th step, for four queries, slopes and H u are
also taken from θ ± εu with ‖εu‖ = ρ‖θ‖. Medians and largest values over these steps and queries.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

import finfluence as fi
import finfluence.runs as fr
from benchmarks.models import transformer
from benchmarks.problems import digits
from finfluence.estimators.derivatives import Adjoint, FiniteDifference
from finfluence.grads import RowLosses
from finfluence.runs import gradients, seeded

RELATIVE = (1e-1, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5, 1e-6)
EVERY = 13


def deep(activation: type[nn.Module]) -> nn.Module:
    with seeded(0):
        return nn.Sequential(
            nn.Linear(64, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, 10)
        )


CASES: dict[str, tuple[Callable[[], nn.Module], fr.SGD | fr.AdamW]] = {
    "GELU, SGD 0.1": (lambda: deep(nn.GELU), fr.SGD(lr=0.1)),
    "SiLU, SGD 0.1": (lambda: deep(nn.SiLU), fr.SGD(lr=0.1)),
    "tanh, SGD 0.1": (lambda: deep(nn.Tanh), fr.SGD(lr=0.1)),
    "GELU, AdamW 3e-3": (lambda: deep(nn.GELU), fr.AdamW(lr=3e-3)),
    "transformer, AdamW 2e-3": (lambda: transformer(0), fr.AdamW(lr=2e-3)),
    "ReLU, SGD 0.1": (lambda: deep(nn.ReLU), fr.SGD(lr=0.1)),
}


def errors(
    model: nn.Module, optimizer: fr.SGD | fr.AdamW, dtype: torch.dtype, epochs: int
) -> dict[float, np.ndarray]:
    """Return {ρ: relative errors [steps × queries, 2]} of slopes and of H u."""
    problem = digits("adamw")
    given = problem.recipe.rows.fields
    data = fi.Rows(x=given["x"].to(dtype), y=given["y"])
    recipe = replace(
        problem.recipe, data=data, model=model.to(dtype), optimizer=optimizer, epochs=epochs, batch_size=50
    )
    held = torch.from_numpy(problem.x_test).to(dtype)
    queries = [fi.mean_loss(held, problem.y_test), fi.each_loss(held[:3], problem.y_test[:3])]
    tape = fi.train(recipe)
    final = tape.model()
    _, start = gradients(queries, final, tape, tape.layout.parameters(final))
    exact = Adjoint(RowLosses(tape.working, tape.step_loss, tape.layout), tape.optimizer)
    plain = RowLosses(tape.working, tape.step_loss, tape.layout, fused=True)
    near = {rho: FiniteDifference(plain, tape.optimizer, relative=rho) for rho in RELATIVE}
    lam = torch.zeros(len(start), 1 + len(tape.optimizer.slots), tape.layout.size, dtype=dtype)
    lam[:, 0] = start
    found: dict[float, list[np.ndarray]] = {rho: [] for rho in RELATIVE}
    for t in reversed(range(tape.steps)):
        state, step = tape.state(t), tape.at(t)
        lam, slopes, u = exact.step(state, step.hyper, step.batch, lam)
        if t % EVERY:
            continue
        theta = state[: tape.layout.size]
        curved, _ = exact.products(theta, u, step.batch)
        for rho, adjoint in near.items():
            got_curved, got_slopes = adjoint.products(theta, u, step.batch)
            pairs = ((got_slopes, slopes), (got_curved, curved))
            found[rho].append(np.stack([((a - b).norm(dim=1) / b.norm(dim=1)).numpy() for a, b in pairs], 1))
    return {rho: np.concatenate(parts) for rho, parts in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for dtype in (torch.float32, torch.float64):
        print(f"\n{dtype}: median / largest relative error, slopes and H u")
        print(f"  {'':26s}" + "".join(f"{rho:>16.0e}" for rho in RELATIVE))
        for name, (model, optimizer) in CASES.items():
            found = errors(model(), optimizer, dtype, options.epochs)
            for index, what in enumerate(("slopes", "H u")):
                cells = [
                    f"{np.median(found[r][:, index]):8.0e}/{found[r][:, index].max():7.0e}" for r in RELATIVE
                ]
                print(f"  {name if not index else '':24s}{what:>6s}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
