"""Loading a model and putting adapters on it: what can go wrong is said, and no foreign code is run."""

import json

import pytest
import torch

import tiny_language as tiny
from finfluence.errors import ConfigError, NotSupportedError
from finfluence.language import LoraOptions, add_lora, load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    tokenizer = tiny.tokenizer(tiny.TEMPLATE)
    return tiny.save(tmp_path_factory.mktemp("model"), tiny.llama(vocabulary=len(tokenizer)), tokenizer)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)


def test_a_model_loads_frozen_and_quiet(folder):
    loaded = load_model(str(folder))
    assert not loaded.model.training and not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.model.dtype == torch.float32 and loaded.tokenizer.chat_template
    assert load_model(str(folder), "bfloat16").model.dtype == torch.bfloat16


def test_adapters_start_from_the_model_as_it_is_by_their_own_seed(folder):
    pytest.importorskip("peft")
    tokens = torch.arange(8)[None]
    plain = load_model(str(folder)).model(input_ids=tokens).logits
    made = [add_lora(load_model(str(folder)).model, LoraOptions(rank=2, seed=s)) for s in (0, 0, 1)]
    assert torch.equal(made[0](input_ids=tokens).logits, plain)
    first, same, other = ([p for p in m.parameters() if p.requires_grad] for m in made)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_layers_and_targets_are_those_asked_for(folder):
    pytest.importorskip("peft")
    model = add_lora(
        load_model(str(folder)).model, LoraOptions(rank=2, layers="last:1", targets="q_proj, v_proj")
    )
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert len(names) == 4 and all(".layers.1.self_attn." in n for n in names)


def test_an_unknown_target_names_the_candidates(folder):
    pytest.importorskip("peft")
    model = load_model(str(folder)).model
    with pytest.raises(
        ConfigError, match=r"(?s)LlamaForCausalLM: down_proj, gate_proj, k_proj.*got: 'c_attn'"
    ):
        add_lora(model, LoraOptions(targets="q_proj,c_attn"))
    with pytest.raises(ConfigError, match=r"(?s)K of at most 2.*last:9"):
        add_lora(model, LoraOptions(layers="last:9"))
    with pytest.raises(ConfigError, match=r"(?s)'all' or 'last:K'.*'top:4'"):
        LoraOptions(layers="top:4")


def test_a_folder_without_weights_is_told(folder, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(ConfigError, match=r"(?s)weights as .safetensors.*got: none"):
        load_model(str(tmp_path))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ConfigError, match=r"(?s)got: none; there is pytorch_model.bin"):
        load_model(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ConfigError, match=r"(?s)likely cause.*next step: name"):
        load_model(str(tmp_path))


def test_an_empty_folder_and_an_unknown_name_are_told(tmp_path):
    with pytest.raises(ConfigError, match=r"no config.json"):
        load_model(str(tmp_path))
    with pytest.raises(ConfigError, match=r"(?s)of the model nobody/nothing.*next step: name a folder"):
        load_model("nobody/nothing")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, "BertForMaskedLM.*fills masks"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised weights"),
        (
            {"model_type": "theirs", "auto_map": {"AutoConfig": "code.Config"}},
            "needs code of its own.*never run",
        ),
    ],
)
def test_models_that_cannot_be_tuned_are_refused(folder, tmp_path, change, words):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "code.py").write_text("raise SystemExit('run')")
    config = {**json.loads((folder / "config.json").read_text()), **change}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(NotSupportedError, match=f"(?s){words}"):
        load_model(str(tmp_path))


def test_a_missing_library_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'finfluence\[lm\]'"):
        load_model(str(folder))
