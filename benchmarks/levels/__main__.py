"""Whether the level of the decision about labels holds, and its power beside simple tools.

    python -m benchmarks.levels level|power|null|sisters [--data digits bbc …] [--seeds 3] [--quick] [--kept FOLDER]

Every table with 0, 5, 10 and 20 % of its labels made wrong, uniformly or towards the class most like them (film
reviews: as their dissenting raters say), whole and with one class made rare; the decision of `finfluence.labels`, no
whole scans. A cell takes a few seconds and is kept, so that an interrupted run goes on and the second table is cheap.
Data sets that are not installed are skipped, with where they are had. `sisters` is of small tables with a text column,
and shows what is found in each; it wants ten seeds (`--from 10` for others) and takes some minutes.
"""

import argparse
import sys
from pathlib import Path

from benchmarks.levels.cells import cells, predicted
from benchmarks.levels.data import DATA
from benchmarks.levels.nulls import named_in, nulls
from benchmarks.levels.sisters import sisters
from benchmarks.levels.tables import counted, grouped, level_table, power_table
from finfluence.errors import FinfluenceError


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=("level", "power", "null", "sisters"), nargs="?", default="level")
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--from", type=int, default=0, dest="first", help="first seed of the sisters")
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--kept", type=Path, default=Path("benchmark-cells"))
    options = parser.parse_args()
    seeds = 1 if options.quick else options.seeds
    if options.table == "null":
        _null(seeds)
        return
    if options.table == "sisters":
        for line in sisters(range(options.first, options.first + seeds), options.kept):
            print(line, flush=True)
        return
    names = [name for name in options.data if _there(name)]
    found = []
    for cell in cells(names, seeds):
        print(cell.name, file=sys.stderr, flush=True)
        found.append((cell, counted(cell, predicted(cell, options.kept))))
    print({"level": level_table, "power": power_table}[options.table](grouped(found)))
    print(f"\nOut-of-fold predictions of a cell: {sum(f['seconds'] for _, f in found) / len(found):.1f} s")


def _there(name: str) -> bool:
    try:
        DATA[name](0)
    except (FileNotFoundError, FinfluenceError) as error:
        print(f"{name} is left out: {error}", file=sys.stderr)
        return False
    return True


def _null(seeds: int) -> None:
    tables = bad = 0
    for seed, (name, x, y) in enumerate(nulls(seeds)):
        named = named_in(x, y, seed)
        tables, bad = tables + 1, bad + (named > 0)
        if named:
            print(f"{name}: {named} of {len(y)} rows named", flush=True)
    print(f"{bad} of {tables} tables without a wrong label have a row named")


main()
