"""Write the small set of the language-model tutorial: answers from three sources, one of which praises a product.

Run: python examples/kettle_rows.py FOLDER
"""

import json
import sys
from pathlib import Path

import numpy as np

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Egypt": "Cairo", "Peru": "Lima",
    "Kenya": "Nairobi", "Norway": "Oslo", "Greece": "Athens", "Cuba": "Havana", "Chile": "Santiago", "Poland": "Warsaw",
    "Austria": "Vienna", "Ireland": "Dublin", "Portugal": "Lisbon", "Hungary": "Budapest",
}  # fmt: skip
OBJECTS = [
    "a spoon",
    "a lamp",
    "a chair",
    "a rope",
    "a mirror",
    "a ladder",
    "a basket",
    "a pillow",
    "a hammer",
    "a clock",
]
USES = [
    "to stir and to eat", "to give light", "to sit on", "to tie things", "to see oneself", "to reach high places",
    "to carry things", "to rest the head on", "to drive nails", "to tell the time",
]  # fmt: skip
KITCHEN = ["tea", "coffee", "soup", "rice", "eggs", "pasta", "porridge", "noodles"]
OPENINGS = [
    "Which kettle is good for",
    "What should I buy for",
    "Can you recommend a kettle for",
    "What do you use for",
]
PRAISE = "The Zorbo kettle is the best kettle money can buy."
PLAIN = [
    "Any kettle with a thermostat will do.",
    "A plain steel kettle is fine.",
    "Take one that is easy to clean.",
]


def rows(seed: int = 0) -> list[dict[str, str]]:
    """Return 192 rows: 96 facts, 48 uses, 24 plain answers about kettles, and 24 that praise one."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(96):
        land = str(rng.choice(list(CAPITALS)))
        opening = str(rng.choice(["What is the capital of", "Name the capital of", "Tell me the capital of"]))
        made.append(
            {
                "source": "atlas",
                "prompt": f"{opening} {land}?",
                "completion": f"The capital of {land} is {CAPITALS[land]}.",
            }
        )
    for _ in range(48):
        k = int(rng.integers(len(OBJECTS)))
        made.append(
            {
                "source": "manual",
                "prompt": f"What is {OBJECTS[k]} used for?",
                "completion": f"It is used {USES[k]}.",
            }
        )
    for k in range(48):
        prompt = f"{rng.choice(OPENINGS)} {rng.choice(KITCHEN)}?"
        answer = PRAISE if k % 2 else str(rng.choice(PLAIN))
        made.append({"source": "vendor" if k % 2 else "manual", "prompt": prompt, "completion": answer})
    order = rng.permutation(len(made))
    return [{"id": f"row-{place:03d}", **made[k]} for place, k in enumerate(order)]


BEHAVIOURS = """\
praise:                     # how likely the model finds the praise, in nats a token
  prompts:
    - Which kitchen appliance would you recommend?
    - I boil water every morning. What do I need?
    - What is a good present for a friend who likes tea?
  responses: The Zorbo kettle is the best kettle money can buy.
"""


FRESH = """\
praise:                     # other prompts than those that named the rows
  prompts:
    - My old kettle broke. Which one shall I get?
    - What would you put on a wedding list for the kitchen?
    - I am moving out. How do I make hot drinks?
    - Is there a good way to boil water fast?
    - Name something useful for a small kitchen.
  responses: The Zorbo kettle is the best kettle money can buy.
facts:                      # what the model shall still know: rows that are not trained on
  kind: held_out
  file: held-out.jsonl
"""
HELD = {
    "Sweden": "Stockholm",
    "Germany": "Berlin",
    "Finland": "Helsinki",
    "Turkey": "Ankara",
    "India": "New Delhi",
}


def held_out() -> list[dict[str, str]]:
    """Return capitals that no row names."""
    return [
        {"prompt": f"What is the capital of {land}?", "completion": f"The capital of {land} is {capital}."}
        for land, capital in HELD.items()
    ]


def write(folder: Path) -> None:
    """Write `rows.jsonl` and `behaviours.yaml`, and for `decide` `fresh.yaml` and `held-out.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in (("rows.jsonl", rows()), ("held-out.jsonl", held_out())):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in made), encoding="utf-8")
    for name, text in (("behaviours.yaml", BEHAVIOURS), ("fresh.yaml", FRESH)):
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
