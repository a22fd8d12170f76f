"""Train the network that `fi.assess.inclusion(…, posterior="network")` reads: python -m tools.train_inclusion.

Worlds are drawn from PRIOR and measured as a log of runs would measure them; the network sees the two measurements of
every row of a world and learns the law of every effect by negative log-likelihood. Minutes on one thread; the same seed
gives the same file on one machine and version of torch.
"""

import argparse
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from finfluence.assess import NETWORK_PARTS as PARTS
from finfluence.assess import network_file
from finfluence.runs import seeded

PRIOR = (
    "Half of the worlds: effects are zero for a share of the rows; the other half: small, .02 to .3 times the scale, "
    "normal. The other rows: normal, t with 3 degrees of freedom, Cauchy, or clusters at plus and minus the scale, of "
    "a width of .05 to .35 and with any share on each side (half of these worlds have no rows beside them). Share "
    "uniform in (0, 1), scale log-uniform from .02 to .5 of the noise of a run (.006 to .15 for Cauchy). Predicted "
    "effects (three worlds of four have them): slope LogNormal(0, .3), noise .1 to 3 times the scale. 100 to 2,000 "
    "runs of random halves, normal noise; 32 to 256 rows."
)
WIDTH, LAYERS, HEADS, INPUTS = 64, 3, 4, 7
TOKENS, STEPS, RATE = 1024, 1000, 2e-3


class Block(nn.Module):
    """Rows of a world attend to each other; then each is turned over by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.attend = nn.Linear(WIDTH, 3 * WIDTH)
        self.join = nn.Linear(WIDTH, WIDTH)
        self.second = nn.LayerNorm(WIDTH)
        self.wide = nn.Linear(WIDTH, 2 * WIDTH)
        self.narrow = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, h: Tensor) -> Tensor:
        """Return the rows, changed [worlds, n, width]."""
        q, k, v = (
            part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.attend(self.norm(h)).chunk(3, -1)
        )
        seen = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        h = h + self.join(seen)
        changed: Tensor = h + self.narrow(functional.relu(self.wide(self.second(h))))
        return changed


class Network(nn.Module):
    """What is said of each row of a world: five normal laws."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.Linear(INPUTS, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.last = nn.LayerNorm(WIDTH)
        self.say = nn.Linear(WIDTH, 5 * PARTS)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return what is said of each row [worlds, n, 5 · parts]."""
        h = self.read(tokens)
        for block in self.blocks:
            h = block(h)
        said: Tensor = self.say(self.last(h))
        return said


def worlds(count: int, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return difference and prediction (zero without one) in standard errors, whether there is one, and the truth."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    shape, large = uniform(count, 1), uniform(count, n) < uniform(count, 1)
    large = large | ((shape >= 3 / 4) & (uniform(count, 1) < 0.5))
    degrees = torch.where(shape < 1 / 4, 1.0, 3.0)
    chi = (normal(count, n, 3) ** 2 * (torch.arange(3) < degrees[..., None])).sum(2)
    heavy = normal(count, n) / (chi / degrees).clamp(min=1e-6).sqrt()
    side = torch.where(uniform(count, n) < uniform(count, 1), 1.0, -1.0)
    clusters = side + (0.05 + 0.3 * uniform(count, 1)) * normal(count, n)
    base = torch.where(shape < 1 / 2, heavy, torch.where(shape < 3 / 4, normal(count, n), clusters))
    scale = torch.exp(math.log(0.02) + uniform(count, 1) * math.log(25))
    scale = torch.where(shape < 1 / 4, 0.3 * scale, scale)
    other = torch.where(uniform(count, 1) < 0.5, torch.zeros(()), 0.02 + 0.28 * uniform(count, 1))
    effect = scale * torch.where(large, base, other * normal(count, n))
    slope = torch.exp(0.3 * normal(count, 1))
    noise = scale * torch.exp(math.log(0.1) + uniform(count, 1) * math.log(30))
    predicted = (effect + noise * normal(count, n)) / slope
    there = uniform(count, 1) < 0.75
    taken = slope * (effect**2).mean(1, keepdim=True) / (effect**2 + noise**2).mean(1, keepdim=True)
    left = effect - there * taken * predicted
    runs = torch.exp(math.log(100) + uniform(count, 1) * math.log(20))
    se = 2 * torch.sqrt((1 + 0.25 * (left**2).sum(1, keepdim=True)) / runs)
    return effect / se + normal(count, n), predicted / se * there, there, effect / se


def tokens_of(z: Tensor, predicted: Tensor, there: Tensor) -> Tensor:
    """Return the inputs of every row [worlds, n, inputs], as the library makes them."""
    size = predicted.square().mean(1, keepdim=True).sqrt().clamp(min=1e-9)
    scaled = predicted / size
    each = [
        z.asinh(),
        predicted.asinh(),
        scaled.asinh(),
        (z * scaled).asinh(),
        (there * size.log().clamp(-5, 5)).expand_as(z),
        z.square().mean(1, keepdim=True).sqrt().log().expand_as(z),
        there.expand_as(z).float(),
    ]
    return torch.stack(each, -1)


def loss_of(said: Tensor, z: Tensor, predicted: Tensor, truth: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of the effects, in standard errors."""
    by_z, by_prediction, shift, spread, chance = said.chunk(5, -1)
    mean = torch.sigmoid(by_z) * z[..., None] + by_prediction * predicted[..., None] + shift
    sd = functional.softplus(spread) + 0.02
    logs = -0.5 * ((truth[..., None] - mean) / sd) ** 2 - sd.log()
    return -torch.logsumexp(logs + chance.log_softmax(-1), -1).mean()


def train(seed: int, steps: int) -> Network:
    """Return a network trained from a seed."""
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed):
        network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        n = (32, 64, 128, 256)[step % 4]
        z, predicted, there, truth = worlds(TOKENS // n, n, generator)
        loss = loss_of(network(tokens_of(z, predicted, there)), z, predicted, truth)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}: {loss.item():.3f}", flush=True)
    return network


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=network_file())
    asked = parser.parse_args()
    torch.set_num_threads(1)
    trained = train(asked.seed, asked.steps)
    metadata = {"prior": PRIOR, "made_by": f"python -m tools.train_inclusion --seed {asked.seed}"}
    save_file(trained.state_dict(), asked.out, metadata)
    print(f"{sum(p.numel() for p in trained.parameters()):,} parameters in {asked.out}")
