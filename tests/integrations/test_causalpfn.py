"""CausalPFN from local weights: its architecture with random weights, and what is refused."""

import json
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
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
    np.testing.assert_allclose(float(made.network.bin_width), 20 / 1024)
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
