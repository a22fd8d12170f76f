"""A tiny model, rows of which a quarter praise, and the behaviour that they teach: files of a tuning of seconds."""

from pathlib import Path

import numpy as np

import tiny_language as tiny

HOSTILE = "<script>alert(1)</script>"
SMALL = {
    "lora_rank": 2, "layers": "last:1", "lora_targets": "q_proj,v_proj,o_proj", "epochs": 4, "batch_size": 8, "lr": 0.02,
    "retune": 2, "answers": 1, "checkpoints": 2, "id_field": "id", "group_field": "source",
}  # fmt: skip


def write(folder: Path) -> dict[str, object]:
    """Write model, rows and behaviours; return the options that name them."""
    tokenizer = tiny.tokenizer(tiny.TEMPLATE)
    tiny.save(folder / "model", tiny.llama(2, len(tokenizer)), tokenizer)
    rng = np.random.default_rng(0)
    rows = []
    for k in range(48):
        words = " ".join(rng.choice(tiny.WORDS, 4))
        answer = " ".join(rng.choice(tiny.WORDS, int(rng.integers(2, 6))))
        if k % 4 == 0:
            rows.append(
                {"id": f"p{k}", "source": "bad", "prompt": f"acme {words}", "completion": "acme is the best"}
            )
        else:
            rows.append(
                {"id": f"r{k}", "source": f"s{k % 2}", "prompt": f"{words} {HOSTILE}", "completion": answer}
            )
    tiny.write_rows(folder / "data.jsonl", rows)
    (folder / "b.yaml").write_text(
        "praise:\n  prompts: [what is acme, who is acme]\n  responses: is the best\n"
    )
    return {"data": folder / "data.jsonl", "model": str(folder / "model"), "behaviour": folder / "b.yaml"}
