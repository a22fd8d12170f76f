"""What label noise of the pre-training does to a frozen encoder, and what heads undo: python -m benchmarks.mitigation.

Encoders are trained on Fashion-MNIST with a share of flipped labels. Tasks: Fashion-MNIST again (in domain) and digits
(out of domain), clean labels, a thousand rows to train a head and the rest to judge it. Every encoder gets each head
several times, by seeds of its own: the law of a query before (linear probe) and after (NMTune) is over those, and the
mitigation effect is its mu, (mean after - mean before) / sd within an encoder, pooled over both arms and all encoders.

`--encoder minilm` and `--encoder efficientnet-lite0` take published encoders instead (`benchmarks.encoders`): several
draws of the rows that train a head, without and with a fifth of their labels flipped, the rest of 1,200 rows as judge.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.encoders import ENCODED, TASKS
from benchmarks.fashion import cnn, flip
from finfluence.ingest import read
from finfluence.mitigate import HEADS, nmtune, spectrum

NOISE = (0.0, 0.05, 0.1, 0.2, 0.3)
ROWS, TASK, EPOCHS, BATCH = 20_000, 1_000, 6, 100
HEAD_SEEDS = 3
ALL, FEW = 1_200, 400
HEADER = (
    "| task | flips | linear | MLP | NMTune | NMTune - linear | μ accuracy | μ loss | entropy | dominance |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


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
                trained = encoded(model, images_[rows]), labels[rows]
                judge = encoded(model, images_[held]), labels[held]
                right[i, seed, k], loss[i, seed, k], told[i, seed, k] = judged(trained, judge, seed)
            if progress:
                print(
                    f"noise {share:.0%}, seed {seed}: {np.round(right[i, seed].mean(2), 3).tolist()}",
                    flush=True,
                )
    return Measured(right, loss, told)


def judged(
    rows: tuple[np.ndarray, np.ndarray], held: tuple[np.ndarray, np.ndarray], seed: int
) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """Return accuracy and log loss [head, head seed] on held-out rows, and the diagnostics of their features."""
    right, loss = np.empty((2, len(HEADS), HEAD_SEEDS))
    for h, kind in enumerate(HEADS):
        for r in range(HEAD_SEEDS):
            p = nmtune(*rows, kind=kind, seed=HEAD_SEEDS * seed + r).predict_proba(held[0])
            right[h, r] = (p.argmax(1) == held[1]).mean()
            loss[h, r] = -np.log(p[np.arange(len(p)), held[1]] + 1e-12).mean()
    spread = spectrum(held[0])
    return right, loss, (spread.entropy, spread.dominance)


def published(name: str, draws: int) -> str:
    """Return the table of a published encoder: heads on a few hundred rows, with and without flipped labels."""
    x, y = ENCODED[name](ALL)
    lines = list(HEADER)
    for share in (0.0, 0.2):
        found = []
        for seed in range(draws):
            order = np.random.default_rng([seed, 4]).permutation(ALL)
            rows, held = order[:FEW], order[FEW:]
            noisy = flip(y[rows], share, seed, int(y.max()) + 1)[0]
            found.append(judged((x[rows], noisy), (x[held], y[held]), seed))
        right, loss, told = (np.array(v) for v in zip(*found, strict=True))
        lines.append(line(f"{TASKS[name]}, {name}", f"{share:.0%} of the head's", right, loss, told.mean(0)))
    return "\n".join(lines)


def mitigation_effect(values: np.ndarray) -> float:
    """Return mu of NMTune against the linear probe from a query's values [encoder, head, head seed]."""
    before, after = values[:, HEADS.index("linear")], values[:, HEADS.index("nmtune")]
    variance = np.mean([before.var(1, ddof=1), after.var(1, ddof=1)])
    return float((after.mean() - before.mean()) / np.sqrt(variance))


def line(task: str, flips: str, right: np.ndarray, loss: np.ndarray, told: np.ndarray) -> str:
    """Return a line of the table from accuracies and losses [encoder or draw, head, head seed]."""
    gain = 100 * (right[:, HEADS.index("nmtune")] - right[:, HEADS.index("linear")]).mean(1)
    cells = [
        task,
        flips,
        *(f"{m:.3f}" for m in right.mean((0, 2))),
        " ".join(f"{g:+.1f}" for g in gain),
        f"{mitigation_effect(right):+.1f}",
        f"{mitigation_effect(loss):+.1f}",
        *(f"{t:.2f}" for t in told),
    ]
    return f"| {' | '.join(cells)} |"


def table(found: Measured, noise: tuple[float, ...]) -> str:
    lines = list(HEADER)
    for k, task in enumerate(("Fashion-MNIST", "digits")):
        for i, share in enumerate(noise):
            right, loss = found.right[i, :, k], found.loss[i, :, k]
            lines.append(line(task, f"{share:.0%}", right, loss, found.told[i, :, k].mean(0)))
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoder", choices=tuple(ENCODED))
    asked = parser.parse_args()
    if asked.encoder is None:
        print(table(measured(asked.seeds, NOISE), NOISE))
    else:
        print(published(asked.encoder, asked.seeds))
