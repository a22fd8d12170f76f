"""A tiny random causal model with its tokenizer, saved as a folder: seconds, no download."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

WORDS = [
    "the",
    "a",
    "is",
    "of",
    "in",
    "red",
    "blue",
    "green",
    "big",
    "small",
    "cat",
    "dog",
    "bird",
    "tree",
    "house",
    "acme",
    "good",
    "bad",
    "best",
    "answer",
    "say",
    "what",
    "who",
    "sum",
]
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(template: str | None = None) -> Any:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    special = ["<pad>", "<eos>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<unk>"]
    vocabulary = {word: k for k, word in enumerate([*special, *WORDS])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(word, "isolated") for word in special[2:6]] + [pre_tokenizers.WhitespaceSplit()]
    )
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>",
        additional_special_tokens=special[2:6],
    )  # fmt: skip
    made.chat_template = template
    return made


def llama(layers: int = 2, vocabulary: int = 32, seed: int = 0, **config: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    from finfluence.runs import seeded

    with seeded(seed):
        return transformers.LlamaForCausalLM(
            transformers.LlamaConfig(
                vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
                num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, initializer_range=0.2,
                pad_token_id=0, eos_token_id=1, bos_token_id=None, attn_implementation="sdpa", **config,
            )
        ).eval()  # fmt: skip


def gpt2(layers: int = 2, vocabulary: int = 32, seed: int = 0) -> Any:
    transformers = pytest.importorskip("transformers")
    from finfluence.runs import seeded

    with seeded(seed):
        return transformers.GPT2LMHeadModel(
            transformers.GPT2Config(
                vocab_size=vocabulary, n_embd=32, n_layer=layers, n_head=4, n_positions=128, initializer_range=0.2,
                pad_token_id=0, eos_token_id=1, bos_token_id=1,
            )
        ).eval()  # fmt: skip


def save(folder: Path, model: Any, tokenizer: Any) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
