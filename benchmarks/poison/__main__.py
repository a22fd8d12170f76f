"""Finding poisoned instructions, and what taking them out does: replay beside what is cheap. Resumable.

    python -m benchmarks.poison --model FOLDER --data ROWS.jsonl --out OUT [--attacks trigger refusal] [--shares 0.05]
                                [--draws 1] [--seeds 1] [--rows 160] [--layers last:2] [--epochs 3] [--length 96]
                                [--states 3 5] [--encoder FOLDER] [--forms] [--full: see FULL]

ROWS.jsonl holds `prompt` and `completion` a line: the clean rows. Each cell (attack, share, draw, seed) plants poisons
and as many benign look-alikes, tunes adapters by AdamW, replays, and tunes again without the poisons and without the
top of the ranking, under the same batch order. A draw says which rows, a seed in which order they are trained on. An
attack *works* if the behaviour then falls by three spreads at least; of one that does not, no recall is printed.
Finished cells are kept in OUT. `--encoder` names a sentence encoder of transformers; `--forms` compares forms of the
ranking score, chosen on the attacks after it and reported on the others.
"""

import argparse
import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import torch

from benchmarks.poison.attacks import ASKED, ATTACKS, SHORT, read_clean
from benchmarks.poison.cells import Base, Cell, Size, run
from benchmarks.poison.scores import sentence_encoder
from benchmarks.poison.tables import agreement_table, cell_table, form_table, method_tables

FULL = {"shares": [0.01, 0.02, 0.05], "seeds": 4, "rows": 260, "layers": "all"}


def main(arguments: Sequence[str] | None = None) -> str:
    """Run the cells that are not there yet, and return the tables."""
    given = _given(arguments)
    torch.set_num_threads(1)
    if not Path(given.data).exists():
        return f"skipped: no clean rows at {given.data}"
    clean = read_clean(Path(given.data), *SHORT)
    if len(clean) < given.rows + 2 * ASKED:
        return f"skipped: {len(clean)} clean rows of at most {SHORT} letters, {given.rows + 2 * ASKED} are needed"
    clean = [clean[k] for k in np.random.default_rng(0).permutation(len(clean))]
    size, out, base, found = (
        Size(given.rows, given.layers, given.epochs, given.length, tuple(given.states)),
        Path(given.out),
        None,
        {},
    )
    out.mkdir(parents=True, exist_ok=True)
    encoder = sentence_encoder(Path(given.encoder)) if given.encoder else None
    for seed, draw, share, attack in product(
        range(given.seeds), range(given.draws), given.shares, given.attacks
    ):
        cell = Cell(attack, share, draw, seed)
        path = cell.path(out, size)
        if not path.exists() and not given.tables:
            base = base or Base.of(given.model, given.layers, given.length, out / "answers.json")
            run(cell, size, base, clean, out, encoder)
        if path.exists():
            found[cell] = json.loads(path.read_text(encoding="utf-8"))
    if not found:
        return "no cell is finished"
    parts = [cell_table(found), method_tables(found), agreement_table(found)]
    return "\n\n".join([*parts, form_table(found, given.forms)] if given.forms else parts)


def _given(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("--model", "--data", "--out"):
        parser.add_argument(name, required=True)
    parser.add_argument("--attacks", nargs="*", default=list(ATTACKS), choices=list(ATTACKS))
    parser.add_argument("--shares", nargs="*", type=float, default=[0.05])
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--layers", default="last:2")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--length", type=int, default=96)
    parser.add_argument(
        "--states", type=int, nargs="*", default=[3, 5], help="gradients at the ends of so many parts"
    )
    parser.add_argument("--encoder")
    parser.add_argument("--forms", nargs="*", choices=list(ATTACKS))
    parser.add_argument("--tables", action="store_true", help="of finished cells; runs none")
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args(arguments)
    if given.full:
        vars(given).update(FULL)
    return given


if __name__ == "__main__":
    print(main())
