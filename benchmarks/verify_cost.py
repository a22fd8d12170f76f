"""What verify costs, in multiples of one training, on the demo's digits.

    python -m benchmarks.verify_cost [--subsets 24] [--runs 100] [--short] [--folder bench-out/verify]

Scans the demo's files once (kept in the folder), times plain trainings of the scan's recipe, then verifies.
"""

import argparse
import shutil
import statistics
import time
from pathlib import Path

import torch

from finfluence.ensemble import RunSpec, Workers, train_many
from finfluence.jobs import demo
from finfluence.jobs.scan import ScanOptions, VerifyOptions, plan_training, read_data, run_scan, verify_scan
from finfluence.runs import mean_loss
from finfluence.verification import Plan


def one_training(options: ScanOptions, repeats: int = 7) -> float:
    """Return median seconds of one plain training of the scan's recipe, by itself, and one query."""
    data = read_data(options)
    recipe = plan_training(options, data.train).recipe
    query = mean_loss(data.query.x, data.query.y, name="held-out")
    seconds = []
    train_many(recipe, [RunSpec(0, 0)] * 2, [query], Workers("serial"))
    for seed in range(repeats):
        started = time.perf_counter()
        _plain(recipe, seed)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _plain(recipe, seed: int) -> None:
    model = recipe.model(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.optimizer.lr)
    for positions in recipe.order(seed):
        batch = recipe.rows.batch(positions)
        optimizer.zero_grad()
        recipe.loss(model, batch).mean().backward()
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--subsets", type=int, default=24)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--short", action="store_true", help="the short demo: 700 rows")
    parser.add_argument("--folder", type=Path, default=Path("bench-out/verify"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    shutil.rmtree(args.folder, ignore_errors=True)
    prepared = demo.prepare(args.folder, args.short)
    options = ScanOptions(
        source=prepared.train, target="label", holdout=prepared.holdout, out=prepared.out, runs=prepared.runs,
        proof=False,
    )  # fmt: skip
    run_scan(options)
    each = one_training(options)
    plans: list[Plan] = []
    started = time.perf_counter()
    asked = VerifyOptions(subsets=args.subsets, runs=args.runs)
    done = verify_scan(prepared.out, asked, announce=plans.append)
    spent = time.perf_counter() - started
    plan = plans[0]
    print(plan.sentence)
    print(
        f"one plain training: {each:.3f} s; stacked, as measured before the start: {plan.seconds_each:.4f} s"
    )
    print(f"verify: {spent:.1f} s, {spent / each:,.0f} plain trainings for {plan.trainings:,} of its own")
    print(done)


if __name__ == "__main__":
    main()
