"""Folders of models with something missing or of another model, and texts beyond what a model knows: in words."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import finfluence as fi
import tiny_language as tl
from finfluence.errors import ConfigError, NotSupportedError
from finfluence.language import Encoded, TextRows, before_answers, check_texts, load_model
from four_parts import assert_parts

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tl.save(tmp_path_factory.mktemp("model"), tl.llama(layers=1), tl.tokenizer())


def edited(folder, to, edit):
    shutil.copytree(folder, to)
    weights = load_file(to / "model.safetensors")
    edit(weights)
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.0.mlp.down_proj.weight"])
def test_a_weight_that_is_missing_is_no_random_number(folder, name, tmp_path):
    broken = edited(folder, tmp_path / "m", lambda weights: weights.pop(name))
    with pytest.raises(ConfigError) as caught:
        load_model(str(broken))
    assert_parts(caught.value, "for every parameter of LlamaForCausalLM", f"none for {name}, which would be random",
                 "without its head", "save_pretrained")  # fmt: skip


def test_a_body_whose_folder_does_not_say_what_it_is(tmp_path):
    body = tl.save(tmp_path / "m", tl.llama(layers=1).model, tl.tokenizer())
    config = json.loads((body / "config.json").read_text())
    del config["architectures"]
    (body / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"none for lm_head\.weight, which"):
        load_model(str(body))


def test_tied_and_further_weights_load(folder, tmp_path):
    load_model(str(edited(folder, tmp_path / "m", lambda weights: weights.update(more=torch.ones(2)))))
    load_model(str(tl.save(tmp_path / "tied", tl.llama(layers=1, tie_word_embeddings=True), tl.tokenizer())))


def test_weights_that_are_no_numbers(folder, tmp_path):
    broken = edited(folder, tmp_path / "m", lambda w: w["model.norm.weight"].fill_(float("nan")))
    with pytest.raises(NotSupportedError) as caught:
        check_texts(load_model(str(broken)).model, texts(6))
    assert_parts(caught.value, "finite numbers", "NaN or infinity", "damaged weights", "--dtype float32")


def texts(length, first=7):
    return TextRows([Encoded(np.full(length, first), np.arange(length) > 1)])


def test_tokens_that_the_model_has_no_embedding_for():
    model = tl.llama(layers=1, vocabulary=20)
    asked = fi.lm.log_prob(["the"], "sum", tl.tokenizer(), name="q")
    for rows in (texts(4, first=21), asked):
        with pytest.raises(ConfigError) as caught:
            check_texts(model, texts(4), rows)
        assert_parts(caught.value, "tokens below 20", "token ", "another model's", "resize_token_embeddings")


def test_places_that_the_model_has_no_embedding_for():
    with pytest.raises(NotSupportedError) as caught:
        check_texts(tl.gpt2(layers=1), texts(4), texts(150))
    assert_parts(
        caught.value, "within the 128 places", "up to 152", "an embedding for each place", "--max-length 128"
    )


def test_a_template_that_begins_no_answer_is_told():
    assert before_answers(tl.tokenizer(tl.TEMPLATE)) == ""
    assert (
        before_answers(tl.tokenizer(tl.TEMPLATE.replace("add_generation_prompt", "false"))) == "<|assistant|>"
    )
