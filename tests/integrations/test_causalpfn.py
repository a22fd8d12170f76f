"""CausalPFN from local weights: its architecture with random weights, and what is refused."""

import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from finfluence.assess import policy_effect
from finfluence.errors import ConfigError, DataError, StorageError
from finfluence.integrations.causalpfn import CausalPFN

SIZES = {
    "max_num_classes": 10,
    "nhead": 2,
    "emsize": 16,
    "nhid_factor": 2,
    "nlayers": 2,
    "max_num_features": 6,
}
CONFIG = {"model_type": "tabdpt", "training": {"dropout": 0.0}, "model": {**SIZES, "nbins": 1024}}
pfn = pytest.mark.skipif(
    find_spec("causalpfn") is None,
    reason="causalpfn is not installed: pip install 'finfluence[causalpfn]'",
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from causalpfn.models.model import TabDPTLongContextModel

    path = tmp_path_factory.mktemp("pfn") / "causalpfn.safetensors"
    with torch.random.fork_rng():
        network = TabDPTLongContextModel(
            dropout=0.0, n_out=10, nhead=2, nhid=32, ninp=16, nlayers=2, num_features=6, nbins=1024
        )
    state = {f"model.{name}": value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, path, {"model_config": json.dumps(CONFIG)})
    return path


def subjects(n=120):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(n, 3))
    t = rng.random(n) < 0.5
    return t, 2.0 * t + rng.normal(size=n), w


@pfn
def test_the_network_on_disk_is_the_package_s_own(weights):
    t, y, w = subjects()
    made = CausalPFN(weights)
    assert float(made.network.bin_width) == 0.01953125
    assert made.most_covariates == 5
    g = made.regression(t, y, w)
    x = torch.from_numpy(np.column_stack([t, w])).float()[None]
    shift, scale = y[t].mean(), y[t].std()
    z = np.where(t, (y - shift) / scale, (y - y[~t].mean()) / y[~t].std())
    asked = torch.from_numpy(np.column_stack([np.ones(5), w[:5]])).float()[None]
    padded = torch.nn.functional.pad(torch.cat([x, asked], 1), (0, 2)).transpose(0, 1)
    with torch.no_grad():
        logits = made.network.model(padded, torch.from_numpy(z).float()[:, None])[:, 0, -1024:]
    centres = -10 + 20 / 1024 * (np.arange(1024) + 0.5)
    expected = shift + scale * (torch.softmax(logits, -1).double().numpy() @ centres)
    np.testing.assert_allclose(g(1, w[:5]), expected, atol=1e-4)


@pfn
def test_its_smoothed_target_has_the_mass_the_mean_and_the_spread_of_its_paper(weights):
    """Its cross-entropy with log-odds h is log Σ exp h − E[h] under the target: moments of the target are read off."""
    network = CausalPFN(weights).network
    centres = network.bin_centers.double()

    def expected(h):
        loss = network._hl_gaussian_cross_entropy_loss(h[None], torch.tensor([1.3], dtype=torch.float64), 0.5)
        return float(torch.logsumexp(h, 0) - loss)

    mean, mass = expected(centres), expected(torch.ones_like(centres))
    sd = np.sqrt(expected(centres**2) - mean**2)
    np.testing.assert_allclose([mass, mean, sd], [1, 1.3, 0.50003], atol=1e-5)


@pfn
def test_a_network_that_knows_nothing_says_the_means_of_the_arms(weights, tmp_path):
    with safe_open(weights, "pt") as file:
        nothing = {name: torch.zeros_like(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    save_file(nothing, tmp_path / "nothing.safetensors", {"model_config": json.dumps(CONFIG)})
    g = CausalPFN(tmp_path / "nothing.safetensors").regression(
        np.array([1, 1, 0, 0]), np.array([3.0, 5.0, 1.0, 1.0]), np.arange(4.0)[:, None]
    )
    np.testing.assert_allclose(g(1, np.zeros((2, 1))) - g(0, np.zeros((2, 1))), 3.0, atol=1e-5)


@pfn
def test_even_random_weights_leave_the_interval_honest(weights):
    """The score is right if the chance of inclusion is: a useless outcome regression costs width, not validity."""
    t, y, w = subjects(400)
    models = (CausalPFN(weights), LogisticRegression())
    found = policy_effect(t, y, w, models=models, propensity="covariates")
    again = policy_effect(t, y, w, models=models, propensity="covariates")
    assert found.effect == again.effect and found.lower < 2.0 < found.upper
    assert found.upper - found.lower < 1.5


@pfn
def test_too_many_covariates_are_told(weights):
    with pytest.raises(DataError, match="5 covariates"):
        CausalPFN(weights).regression(np.ones(9), np.ones(9), np.ones((9, 6)))


@pfn
def test_weights_of_other_shapes_or_names_are_refused(weights, tmp_path):
    with safe_open(weights, "pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    other = {**CONFIG, "model": {**SIZES, "nbins": 512}}
    save_file(state, tmp_path / "shapes.safetensors", {"model_config": json.dumps(other)})
    save_file(
        {"encoder.w": torch.ones(1)}, tmp_path / "names.safetensors", {"model_config": json.dumps(CONFIG)}
    )
    save_file(state, tmp_path / "config.safetensors", {"model_config": "{}"})
    for name in ("shapes", "names", "config"):
        with pytest.raises(
            StorageError, match=r"(?s)weights that fit the model_config.*next step: on a machine"
        ):
            CausalPFN(tmp_path / f"{name}.safetensors")


@pfn
def test_a_pickle_and_weights_without_their_configuration_are_refused(tmp_path):
    torch.save({"model_state_dict": {}}, tmp_path / "causalpfn_v0.pt")
    with pytest.raises(StorageError, match=r"(?s)is a pickle.*on a machine where you trust.*model_config"):
        CausalPFN(tmp_path / "causalpfn_v0.pt")
    save_file({"a": torch.ones(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(StorageError, match=r"model_config in the metadata"):
        CausalPFN(tmp_path / "bare.safetensors")
    with pytest.raises(StorageError, match="safetensors file"):
        CausalPFN(tmp_path / "none.safetensors")


def test_without_the_library_it_is_told_which_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "causalpfn.models", None)
    monkeypatch.setitem(sys.modules, "causalpfn", None)
    with pytest.raises(ConfigError, match=r"finfluence\[causalpfn\]"):
        CausalPFN(tmp_path / "x.safetensors")
