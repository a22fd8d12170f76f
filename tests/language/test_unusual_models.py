"""Architectures whose body cannot be asked alone, or whose logits depend on the batch: refused in words."""

import numpy as np
import pytest
import torch

import tiny_language as tl
from finfluence.errors import NotSupportedError
from finfluence.language import Encoded, TextRows, check_logits
from four_parts import assert_parts

transformers = pytest.importorskip("transformers")


def texts(*lengths):
    encoded = [Encoded(np.arange(7, 7 + n), np.arange(n) >= n // 2) for n in lengths]
    return TextRows(encoded).batch(torch.arange(len(lengths)))


def alibi():
    return transformers.BloomForCausalLM(
        transformers.BloomConfig(vocab_size=32, hidden_size=32, n_layer=1, n_head=4)
    )


def without_attention():
    return transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=32, hidden_size=32, num_hidden_layers=1)
    )


@pytest.mark.parametrize("make", [alibi, without_attention])
def test_a_body_that_cannot_be_asked(make):
    model = make().eval()
    with pytest.raises(NotSupportedError) as caught:
        check_logits(model, texts(4, 9))
    assert_parts(
        caught.value, "mask of attention in four", type(model).__name__, "alibi", "use another model"
    )


def test_positions_that_are_scaled_by_the_length_of_the_batch():
    """Within the first context, a text says the same alone and beside a longer one; beyond it, it does not."""
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    with torch.random.fork_rng():
        model = tl.llama(layers=1, rope_parameters=rope)
    model.model.rotary_emb.original_max_seq_len = model.model.rotary_emb.max_seq_len_cached = 8
    model.config.max_position_embeddings = 8
    check_logits(model, texts(4, 7))
    with pytest.raises(NotSupportedError) as caught:
        check_logits(model, texts(4, 15))
    assert_parts(caught.value, "head's output", "differ by up to", "length of a batch", "first context")
