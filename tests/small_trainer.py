"""A transformers Trainer of seconds: few short texts, accumulation, clipping, weight decay."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_language as tl

EPOCHS, MICRO, ACCUMULATION = 2, 3, 2


def items(n: int = 11) -> list[dict[str, list[int]]]:
    """Texts of unequal length, of which the second half is learned; 11 rows leave a short micro-batch and step."""
    draw = np.random.default_rng(0)
    texts = [draw.integers(7, 32, size=5 + k % 4).tolist() for k in range(n)]
    return [{"input_ids": t, "labels": [-100] * (len(t) // 2) + t[len(t) // 2 :]} for t in texts]


def collator() -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.DataCollatorForSeq2Seq(tl.tokenizer(), label_pad_token_id=-100)


def trainer(
    folder: Path,
    model: Any,
    *callbacks: Any,
    kind: Any = None,
    data: Any = None,
    collate: Any = None,
    **options: Any,
) -> Any:
    transformers = pytest.importorskip("transformers")
    arguments = transformers.TrainingArguments(
        str(folder), **{
            "num_train_epochs": EPOCHS, "per_device_train_batch_size": MICRO, "learning_rate": 3e-3, "seed": 4,
            "gradient_accumulation_steps": ACCUMULATION, "weight_decay": 0.1, "max_grad_norm": 0.5, "use_cpu": True,
            "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_strategy": "no", **options,
        }
    )  # fmt: skip
    return (kind or transformers.Trainer)(
        model, arguments, train_dataset=items() if data is None else data, eval_dataset=items(3),
        data_collator=collate or collator(), callbacks=list(callbacks),
    )  # fmt: skip


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
