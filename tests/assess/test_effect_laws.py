"""The posterior of effects by inclusion: calibrated on its own worlds and on others, by grid and by network."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tools.train_inclusion import Network, tokens_of, worlds

from finfluence.assess import inclusion, network_file, network_laws, network_prior
from finfluence.errors import ConfigError
from finfluence.runs import read_tensors

ROWS, RUNS = 64, 300
FEW = 78
"""Runs too few for the check on the other half, which costs as much again."""


def of_kind(kind, seed, runs=RUNS):
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.uniform(np.log(0.05), np.log(0.4)))
    effects = {
        "spike": lambda: np.where(rng.random(ROWS) < 0.4, scale * rng.normal(size=ROWS), 0.0),
        "two scales": lambda: scale * np.where(rng.random(ROWS) < 0.2, 1.0, 0.1) * rng.normal(size=ROWS),
        "Cauchy": lambda: 0.2 * scale * rng.standard_cauchy(ROWS),
        "two clusters": lambda: scale * (rng.choice([-1.0, 1.0], ROWS) + 0.1 * rng.normal(size=ROWS)),
    }[kind]()
    predicted = effects + scale * rng.normal(size=ROWS)
    included = rng.random((runs, ROWS)) < 0.5
    return included, rng.normal(size=runs) - included @ effects, effects, predicted


def ranks(found, effects, rng):
    """Return where each effect lies in its posterior, from 0 to 1, drawn within the atom at zero."""
    above = found.cdf(effects)
    below = above - np.where(effects == 0, found.laws.at_zero, 0.0)
    return below + rng.random(len(effects)) * (above - below)


def of_prior(seed):
    """Return a log of a world drawn from the laws that the grid holds."""
    rng = np.random.default_rng([seed, 5])
    scale = np.exp(rng.uniform(np.log(0.1), np.log(0.8)))
    base = [
        rng.normal,
        lambda size: rng.standard_t(3, size),
        rng.standard_cauchy,
        lambda size: rng.choice([-1.0, 1.0], size) + rng.choice([0.1, 0.3], size) * rng.normal(size=size),
    ][rng.integers(4)](size=ROWS)
    other = rng.choice([0.0, 0.05, 0.2]) * rng.normal(size=ROWS)
    effects = scale * np.where(rng.random(ROWS) < rng.random(), base, other)
    noise = scale * np.exp(rng.uniform(np.log(0.1), np.log(10)))
    predicted = (effects + noise * rng.normal(size=ROWS)) / np.exp(rng.normal(0, 0.4))
    included = rng.random((FEW, ROWS)) < 0.5
    return included, rng.normal(size=FEW) - included @ effects, effects, predicted


@pytest.mark.slow
def test_ranks_of_effects_drawn_from_the_laws_are_even():
    """Simulation-based calibration: where the truth lies in its posterior, in five equal parts."""
    rng, found = np.random.default_rng(0), []
    for seed in range(10):
        included, outcome, effects, predicted = of_prior(seed)
        found.extend(ranks(inclusion(included, outcome, predicted=predicted), effects, rng))
    shares = np.histogram(found, 5, (0, 1))[0] / (10 * ROWS)
    np.testing.assert_allclose(shares, 0.2, atol=0.06)  # a standard error is .016 if rows were independent


@pytest.mark.parametrize(
    "kind",
    ["spike", *(pytest.param(k, marks=pytest.mark.slow) for k in ("two scales", "Cauchy", "two clusters"))],
)
def test_intervals_hold_for_zero_small_heavy_and_clustered_effects(kind):
    held = []
    for seed in range(3):
        included, outcome, effects, predicted = of_kind(kind, seed, FEW)
        found = inclusion(included, outcome, predicted=predicted)
        held.extend((found.lower <= effects) & (effects <= found.upper))
    assert np.mean(held) > 0.82  # 192 rows: .90 less 3.7 standard errors


def test_the_posterior_of_a_known_law_is_the_closed_form():
    """All effects normal, errors equal, many rows: mean and deviation of the normal posterior."""
    rng = np.random.default_rng(1)
    effects = 0.3 * rng.normal(size=150)
    included = rng.random((800, 150)) < 0.5
    outcome = rng.normal(size=800) - included @ effects
    found = inclusion(included, outcome)
    shrink = 0.09 / (0.09 + found.se**2)
    np.testing.assert_allclose(found.effect, shrink * found.difference, atol=0.35 * found.se.mean())
    np.testing.assert_allclose(found.sd, np.sqrt(shrink) * found.se, rtol=0.2)


def test_clusters_are_told_apart_and_zero_lies_between_them():
    rng = np.random.default_rng(2)
    effects = 0.6 * (rng.choice([-1.0, 1.0], ROWS) + 0.1 * rng.normal(size=ROWS))
    included = rng.random((900, ROWS)) < 0.5
    found = inclusion(included, rng.normal(size=900) - included @ effects)
    sides = found.laws.share[[1, 3]]  # below and above zero
    assert sides.sum(0).mean() > 0.9
    assert (sides.argmax(0) == (effects > 0)).mean() > 0.85
    assert np.mean((found.effect - effects) ** 2) < 0.8 * np.mean((found.difference - effects) ** 2)


def test_levels_and_chances_come_from_the_same_posterior():
    included, outcome, _, predicted = of_kind("spike", 3, FEW)
    found = inclusion(included, outcome, predicted=predicted, level=0.9)
    low, high = found.interval(0.5)
    assert (found.lower <= low).all() and (high <= found.upper).all()
    smooth = (found.laws.at_zero < 1e-3) | ((found.lower > 0) | (found.upper < 0))
    np.testing.assert_allclose(found.cdf(found.upper)[smooth], 0.95, atol=1e-6)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        found.interval(90)


def test_the_network_in_numpy_is_the_one_that_was_trained():
    generator = torch.Generator().manual_seed(5)
    z, predicted, there, _ = worlds(3, 32, generator)
    network = Network().double()
    network.load_state_dict({name: value.double() for name, value in read_tensors(network_file()).items()})
    with torch.no_grad():
        said = network(tokens_of(z.double(), predicted.double(), there))
    by_z, by_prediction, shift, spread, chance = (part.numpy() for part in said.chunk(5, -1))
    mean = z[..., None].numpy() / (1 + np.exp(-by_z)) + by_prediction * predicted[..., None].numpy() + shift
    share = torch.softmax(torch.from_numpy(chance), -1).numpy()
    for world in range(3):
        given = predicted[world].double().numpy() if bool(there[world]) else None
        found = network_laws(z[world].double().numpy(), np.ones(32), given)
        np.testing.assert_allclose(found.mean, mean[world].T, atol=1e-6)
        np.testing.assert_allclose(found.share, share[world].T, atol=1e-8)
        np.testing.assert_allclose(found.sd, np.logaddexp(0, spread[world]).T + 0.02, atol=1e-8)


def test_the_network_s_file_is_small_says_its_prior_and_travels_with_the_package():
    assert network_file().stat().st_size < 1_000_000
    with safe_open(network_file(), "numpy") as file:
        assert file.metadata() == {
            "prior": network_prior(),
            "made_by": "python -m tools.train_inclusion --seed 0",
        }
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    listed = project.split("[tool.setuptools.package-data]")[1].split("\n\n")[0].split("= ", 1)[1]
    assert "assess/inclusion.safetensors" in json.loads(listed)


@pytest.mark.slow
def test_the_network_is_calibrated_on_its_own_worlds_and_close_to_the_grid():
    generator = torch.Generator().manual_seed(11)

    found = []
    z, predicted, there, truth = (v.double().numpy() for v in worlds(60, 128, generator))
    for k in range(60):
        laws = network_laws(z[k], np.ones(128), predicted[k] if there[k] else None)
        found.extend(np.abs(laws.cdf(truth[k]) - 0.5)[truth[k] != 0])
    assert np.mean(np.array(found) < 0.45) == pytest.approx(0.9, abs=0.06)
    errors = []
    for seed in range(4):
        included, outcome, effects, given = of_kind("spike", seed, FEW)
        both = [inclusion(included, outcome, predicted=given, posterior=p) for p in ("grid", "network")]
        errors.append([np.mean((f.effect - effects) ** 2 / f.se**2) for f in both])
        errors[-1].append(np.mean((both[0].difference - effects) ** 2 / both[0].se ** 2))
    grid, network, plain = np.mean(errors, 0)
    assert network < 0.6 * plain and grid < 1.15 * network


def test_more_rows_than_the_network_reads_at_once():
    rng = np.random.default_rng(2)
    effects = 0.3 * rng.normal(size=600)
    included = rng.random((900, 600)) < 0.5
    outcome = rng.normal(size=900) - included @ effects
    found, again = (inclusion(included, outcome, predicted=effects, posterior="network") for _ in range(2))
    np.testing.assert_array_equal(found.effect, again.effect)
    assert np.corrcoef(found.effect, effects)[0, 1] > 0.95


@pytest.mark.parametrize("posterior", ["grid", "network"])
def test_constant_outcomes_and_a_useless_prediction(posterior):
    included, outcome, _, _ = of_kind("spike", 4)
    nothing = inclusion(included, np.full(RUNS, 2.5), posterior=posterior)
    np.testing.assert_allclose(nothing.effect, 0.0, atol=0.2)
    assert np.isfinite(
        inclusion(included, outcome, predicted=np.zeros(ROWS), posterior=posterior).effect
    ).all()


def test_effects_unlike_the_network_s_worlds_are_said():
    rng = np.random.default_rng(6)
    effects = 8.0 + 0.02 * rng.normal(size=ROWS)  # all alike, far from zero
    included = rng.random((RUNS, ROWS)) < 0.5
    outcome = 0.05 * rng.normal(size=RUNS) - included @ effects
    known = [inclusion(*of_kind(kind, 9)[:2]).findings for kind in ("spike", "two scales")]
    assert known == [(), ()]
    found = inclusion(included, outcome, predicted=effects, posterior="network")
    assert any("unlike the laws" in f for f in found.findings)


def test_an_unknown_posterior_is_told():
    with pytest.raises(ConfigError, match="grid, network"):
        inclusion(*of_kind("spike", 0)[:2], posterior="flat")
