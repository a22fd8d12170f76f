"""What label noise of the pre-training does to a frozen encoder, and what heads undo: python -m benchmarks.mitigation.

Encoders are trained on Fashion-MNIST with a share of flipped labels. Tasks: Fashion-MNIST again (in domain) and digits
(out of domain), clean labels, a thousand rows to train a head and the rest to judge it.
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.fashion import cnn, flip
from finfluence.ingest import read
from finfluence.mitigate import HEADS, nmtune, spectrum

NOISE = (0.0, 0.05, 0.1, 0.2, 0.3)
ROWS, TASK, EPOCHS, BATCH = 20_000, 1_000, 6, 100


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


def measured(seeds: int, noise: tuple[float, ...], progress: bool = True) -> np.ndarray:
    """Return [noise, seed, task, 3 accuracies and the two diagnostics of the held-out features]."""
    x, y = images("fashion-mnist")
    tasks = [images("fashion-mnist", official=True), images("digits")]
    found = np.empty((len(noise), seeds, len(tasks), 5))
    for i, share in enumerate(noise):
        for seed in range(seeds):
            chosen = np.random.default_rng([seed, 2]).permutation(len(x))[:ROWS]
            model = encoder(x[chosen], flip(y[chosen], share, seed)[0], seed)
            for k, (images_, labels) in enumerate(tasks):
                order = np.random.default_rng([seed, 3, k]).permutation(len(labels))[: 3 * TASK]
                rows, held = order[:TASK], order[TASK:]
                f, held_out = encoded(model, images_[rows]), encoded(model, images_[held])
                heads = [nmtune(f, labels[rows], kind=kind, seed=seed) for kind in HEADS]
                right = [(h.predict_proba(held_out).argmax(1) == labels[held]).mean() for h in heads]
                told = spectrum(held_out)
                found[i, seed, k] = [*right, told.entropy, told.dominance]
            if progress:
                print(f"noise {share:.0%}, seed {seed}: {np.round(found[i, seed], 3).tolist()}", flush=True)
    return found


def table(found: np.ndarray, noise: tuple[float, ...]) -> str:
    lines = [
        "| task | flips | linear | MLP | NMTune | NMTune − linear | entropy | dominance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for k, task in enumerate(("Fashion-MNIST", "digits")):
        for i, share in enumerate(noise):
            mean = found[i, :, k].mean(0)
            gain = 100 * (found[i, :, k, 2] - found[i, :, k, 0])
            each = " ".join(f"{g:+.1f}" for g in gain)
            heads = " | ".join(f"{m:.3f}" for m in mean[:3])
            lines.append(f"| {task} | {share:.0%} | {heads} | {each} | {mean[3]:.2f} | {mean[4]:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    chosen_seeds = parser.parse_args().seeds
    print(table(measured(chosen_seeds, NOISE), NOISE))
