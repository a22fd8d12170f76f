"""What label noise of the pre-training does to a frozen encoder, and what heads undo: python -m benchmarks.mitigation.

Encoders are trained on Fashion-MNIST with a share of flipped labels. Tasks: Fashion-MNIST again (in domain) and digits
(out of domain), clean labels, a thousand rows to train a head and the rest to judge it. Every encoder gets each head
several times, by seeds of its own: the law of a query before (linear probe) and after (NMTune) is over those, and the
mitigation effect is its mu, (mean after - mean before) / sd within an encoder, pooled over both arms and all encoders.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.fashion import cnn, flip
from finfluence.ingest import read
from finfluence.mitigate import HEADS, nmtune, spectrum

NOISE = (0.0, 0.05, 0.1, 0.2, 0.3)
ROWS, TASK, EPOCHS, BATCH = 20_000, 1_000, 6, 100
HEAD_SEEDS = 3


def images(name: str, official: bool = False) -> tuple[Tensor, np.ndarray]:
    """Return images [n, 1, 28, 28] in 0 to 1 and labels."""
    raw = read(name)
    raw = raw.official if official else raw
    x = torch.from_numpy(np.asarray(raw.pixels, dtype=np.float32))
    side = int(np.sqrt(x[0].numel()))
    x = x.reshape(-1, 1, side, side)
    x = functional.interpolate(x / x.max(), size=28, mode="bilinear") if side != 28 else x / x.max()
    return x, np.unique(raw.labels.astype(str), return_inverse=True)[1]


def encoder(x: Tensor, y: np.ndarray, seed: int) -> nn.Module:
    """Return a network trained on (x, y), without its last layer."""
    model = cnn(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    steps = EPOCHS * len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    labels = torch.from_numpy(y)
    for epoch in range(EPOCHS):
        for batch in torch.from_numpy(np.random.default_rng([seed, 1, epoch]).permutation(len(x))).split(
            BATCH
        ):
            functional.cross_entropy(model(x[batch]), labels[batch]).backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model[:-1]


def encoded(model: nn.Module, x: Tensor) -> np.ndarray:
    with torch.no_grad():
        return torch.cat([model(part) for part in x.split(2000)]).numpy()


@dataclass(frozen=True, eq=False)
class Measured:
    """right, loss : accuracy and log loss [noise, seed, task, head, head seed]. told : diagnostics [..., 2]."""

    right: np.ndarray
    loss: np.ndarray
    told: np.ndarray


def measured(seeds: int, noise: tuple[float, ...], progress: bool = True) -> Measured:
    x, y = images("fashion-mnist")
    tasks = [images("fashion-mnist", official=True), images("digits")]
    shape = (len(noise), seeds, len(tasks))
    right, loss = (np.empty((*shape, len(HEADS), HEAD_SEEDS)) for _ in range(2))
    told = np.empty((*shape, 2))
    for i, share in enumerate(noise):
        for seed in range(seeds):
            chosen = np.random.default_rng([seed, 2]).permutation(len(x))[:ROWS]
            model = encoder(x[chosen], flip(y[chosen], share, seed)[0], seed)
            for k, (images_, labels) in enumerate(tasks):
                order = np.random.default_rng([seed, 3, k]).permutation(len(labels))[: 3 * TASK]
                rows, held = order[:TASK], order[TASK:]
                f, held_out = encoded(model, images_[rows]), encoded(model, images_[held])
                for h, kind in enumerate(HEADS):
                    for r in range(HEAD_SEEDS):
                        head = nmtune(f, labels[rows], kind=kind, seed=HEAD_SEEDS * seed + r)
                        p = head.predict_proba(held_out)
                        right[i, seed, k, h, r] = (p.argmax(1) == labels[held]).mean()
                        loss[i, seed, k, h, r] = -np.log(p[np.arange(len(held)), labels[held]] + 1e-12).mean()
                spread = spectrum(held_out)
                told[i, seed, k] = spread.entropy, spread.dominance
            if progress:
                print(
                    f"noise {share:.0%}, seed {seed}: {np.round(right[i, seed].mean(2), 3).tolist()}",
                    flush=True,
                )
    return Measured(right, loss, told)


def mitigation_effect(values: np.ndarray) -> float:
    """Return mu of NMTune against the linear probe from a query's values [encoder, head, head seed]."""
    before, after = values[:, HEADS.index("linear")], values[:, HEADS.index("nmtune")]
    variance = np.mean([before.var(1, ddof=1), after.var(1, ddof=1)])
    return float((after.mean() - before.mean()) / np.sqrt(variance))


def table(found: Measured, noise: tuple[float, ...]) -> str:
    lines = [
        "| task | flips | linear | MLP | NMTune | NMTune - linear | μ accuracy | μ loss | entropy | dominance |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for k, task in enumerate(("Fashion-MNIST", "digits")):
        for i, share in enumerate(noise):
            right, loss, told = found.right[i, :, k], found.loss[i, :, k], found.told[i, :, k].mean(0)
            gain = 100 * (right[:, HEADS.index("nmtune")] - right[:, HEADS.index("linear")]).mean(1)
            cells = [
                task,
                f"{share:.0%}",
                *(f"{m:.3f}" for m in right.mean((0, 2))),
                " ".join(f"{g:+.1f}" for g in gain),
                f"{mitigation_effect(right):+.1f}",
                f"{mitigation_effect(loss):+.1f}",
                *(f"{t:.2f}" for t in told),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    chosen_seeds = parser.parse_args().seeds
    print(table(measured(chosen_seeds, NOISE), NOISE))
