"""What is counted of a large model, on a small one of the same kind."""

import argparse

import pytest
from benchmarks.eight_billion import LEARNED, counted, table

SMALL = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "tie_word_embeddings": False, "attn_implementation": "sdpa",
}  # fmt: skip


def test_operations_are_those_of_the_matrices() -> None:
    pytest.importorskip("peft")
    rows, length, rank = 2, 16, 4
    found = counted(SMALL, rows, length, rank)
    linear = 64 * (64 + 32 + 32 + 64) + 3 * 64 * 128
    adapters = rank * ((64 + 64) * 2 + (64 + 32) * 2 + (64 + 128) * 3)
    assert found.adapters == 2 * adapters
    assert found.parameters == 2 * (linear + adapters) + 2 * 512 * 64 + 5 * 64
    dense = 2 * rows * length * (2 * (linear + adapters) + LEARNED * 512 * 64)
    assert dense <= found.forward <= 1.2 * dense  # and attention
    assert 1.9 < found.step / found.forward < 2.4 and found.saved > 0
    given = argparse.Namespace(rows=100, epochs=2, batch=rows, length=length, flops=1e9)
    said = table(found, given)
    assert "computed, not measured" in said and "100 steps" in said
