"""Why a first-order effect understates a group of near-duplicates: the behaviour against the weight of the group.

    python -m benchmarks.group_weight

A tiny language model with random weights (two layers, adapters on the upper one), 96 rows of random tokens, of which 24
have one and the same response; the behaviour is the log-probability of that response to other prompts. The losses of
the group are weighed by w, everything else stays (start, batches, steps). Replay at w = 1 gives the slope dq/dw there.
"""

import numpy as np
import torch

import finfluence as fi
from finfluence.runs import Optimizer, Recipe, Stepper, initial_model, seeded

WORDS, ROWS, GROUP, BATCH = 32, 96, 24, 8
WEIGHTS = (1.0, 0.95, 0.75, 0.5, 0.25, 0.1, 0.0)
CASES: dict[str, tuple[Optimizer, int]] = {
    "AdamW 0.002, 2 epochs": (fi.AdamW(lr=0.002, weight_decay=0.0), 2),
    "AdamW 0.02, 4 epochs": (fi.AdamW(lr=0.02, weight_decay=0.0), 4),
    "SGD 0.1, 2 epochs": (fi.SGD(lr=0.1), 2),
    "SGD 1, 4 epochs": (fi.SGD(lr=1.0), 4),
}


def texts() -> tuple[list[fi.lm.Encoded], list[fi.lm.Encoded]]:
    """Return the rows, the group first, and what is asked."""
    rng = np.random.default_rng(0)
    taught = rng.integers(2, WORDS, 4)

    def text(response: np.ndarray) -> fi.lm.Encoded:
        tokens = np.concatenate([rng.integers(2, WORDS, 5), response])
        return fi.lm.Encoded(tokens, np.arange(len(tokens)) >= 5)

    rows = [
        text(taught if k < GROUP else rng.integers(2, WORDS, int(rng.integers(2, 6)))) for k in range(ROWS)
    ]
    return rows, [text(taught) for _ in range(4)]


def model() -> torch.nn.Module:
    """Return the model, with adapters that change nothing yet."""
    import transformers

    config = transformers.LlamaConfig(
        vocab_size=WORDS, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, attn_implementation="sdpa",
    )  # fmt: skip
    with seeded(0):
        made = transformers.LlamaForCausalLM(config).eval()
    adapted: torch.nn.Module = fi.lm.add_lora(made, fi.lm.LoraOptions(rank=4, layers="last:1", seed=0))
    return adapted


def main() -> None:
    """Print a line for each training: the slope that replay gives, and what each weight does to the behaviour."""
    torch.set_num_threads(1)
    rows, asked = texts()
    held, whole = fi.lm.TextRows(asked), model()
    query = fi.Query(
        lambda m: -fi.lm.mean_token_loss(m, held.batch(torch.arange(len(held)))).mean(), name="taught"
    )
    print(
        "| training | loss of the group | replay: -dq/dw at 1 |",
        " | ".join(f"w = {w:g}" for w in WEIGHTS[1:]),
        "|",
    )
    print("|" + "---|" * (2 + len(WEIGHTS)))
    for name, (optimizer, epochs) in CASES.items():

        def recipe(w: float, optimizer: Optimizer = optimizer, epochs: int = epochs) -> Recipe:
            weighed = fi.lm.TextRows(rows, weights=[w] * GROUP + [1.0] * (ROWS - GROUP), batch_size=BATCH)
            return Recipe(
                data=weighed, model=whole, loss=fi.lm.mean_token_loss, optimizer=optimizer, batch_size=BATCH,
                epochs=epochs, schedule="cosine",
            )  # fmt: skip

        found = fi.replay(
            fi.train(recipe(1.0)), query, subsets={"group": list(range(GROUP))}, late=0.0, groups="linear",
            horizon=epochs,
        )  # fmt: skip
        slope = float(found.data["effect"].values[0, 0]) * (ROWS - GROUP) / ROWS
        values = []
        for w in WEIGHTS:
            made = recipe(w)
            tuned = initial_model(made, 0)
            stepper = Stepper(made, tuned, 0)
            with seeded(0):
                for t, positions in enumerate(made.order(0)):
                    stepper.step(t, positions)
            with torch.no_grad():
                values.append(float(query.values(tuned.eval(), made)[0]))
        moved = " | ".join(f"{v - values[0]:+.3f}" for v in values[1:])
        print(f"| {name} | {found.data['own_loss'].values[0]:.2f} | {slope:+.3f} | {moved} |", flush=True)


if __name__ == "__main__":
    main()
