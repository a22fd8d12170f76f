"""Finding flipped labels, and what cleaning does: replay beside the baselines.

    python -m benchmarks.detection [--problem digits fashion] [--share 0.1 0.2] [--seeds 3]

For each score: average precision, and at false-discovery level 10 % the recall and the realised share of false
discoveries, means over seeds. Then held-out accuracy: trained on all rows, on the rows left after cleaning, and after
as many random removals.
"""

import argparse
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from torch import nn

import finfluence as fi
from benchmarks.fashion import fashion, flip
from benchmarks.problems import Problem, digits_data, mlp, row_loss
from finfluence.clean import DecisionOptions, Predictions, decide_influence
from finfluence.ensemble import RunSpec, final_models
from finfluence.estimators.baselines import cleanlab_score, loss_score, margin_score, random_score
from finfluence.evaluate import average_precision, false_discovery_proportion, recall_flagged
from finfluence.labels import judge_labels, out_of_fold
from finfluence.result import Influence
from finfluence.stats import empirical_fdr

FDR, RUNS, PROOF_RUNS = 0.1, 4, 10


def digits_flipped(share: float, seed: int) -> Problem:
    """Return the digits problem with another share of flipped labels; initialisation drawn per run."""
    x, _, clean, _, x_test, y_test = digits_data(seed)
    noisy, flipped = flip(clean, share, seed)
    recipe = fi.Recipe(
        data=fi.Rows(x=x, y=noisy), model=lambda s: mlp(nn.ReLU, s), loss=row_loss, optimizer=fi.SGD(lr=0.1),
        batch_size=50, epochs=30,
    )  # fmt: skip
    return Problem(
        recipe, {}, [fi.mean_loss(x_test, y_test, name="held-out")], clean, flipped, x_test, y_test
    )


def gradient_norms(model: nn.Module, recipe: fi.Recipe) -> np.ndarray:
    """Return ‖∇ℓ_i‖ at the end of training for every row, by one backward pass a row."""
    norms = []
    for i in range(len(recipe.rows)):
        model.zero_grad()
        recipe.loss(model, recipe.rows.batch(torch.tensor([i]))).sum().backward()
        norms.append(float(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None)) ** 0.5)
    return np.array(norms)


def probabilities(model: nn.Module, recipe: fi.Recipe) -> np.ndarray:
    """Return the model's class probabilities on its own training rows."""
    model.eval()
    with torch.no_grad():
        return model(recipe.rows.fields["x"]).softmax(1).double().numpy()


def accuracy(models: list[nn.Module], x: np.ndarray, y: np.ndarray) -> float:
    """Return mean held-out accuracy."""
    inputs = torch.as_tensor(x)
    with torch.no_grad():
        return float(np.mean([(m.eval()(inputs).argmax(1).numpy() == y).mean() for m in models]))


def one_seed(problem: Problem, seed: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return {score: (AP, recall, false discoveries, named)} and held-out accuracies."""
    recipe, n = problem.recipe, len(problem.recipe.rows)
    is_flipped = np.isin(np.arange(n), problem.flipped)
    tapes = [fi.train(recipe, seed=100 * seed + r) for r in range(RUNS)]
    replayed = [fi.replay(tape, problem.queries) for tape in tapes]
    model = tapes[0].model()
    probs, labels = probabilities(model, recipe), recipe.rows.fields["y"].numpy()
    pooled = fi.pool(replayed)
    verdict = judge_labels(out_of_fold(recipe.rows.fields["x"].numpy(), labels, seed=seed), labels)
    predictions = Predictions(labels, verdict.predicted, verdict.confidence, verdict.q_values)
    decided = decide_influence(pooled, predictions=predictions, options=DecisionOptions(FDR)).frame
    scores = {
        "replay, 1 run": _replayed(replayed[0]),
        "replay, 4 runs pooled": _replayed(pooled),
        "replay and labels judged out of fold": (
            -decided["q_value"].to_numpy(),
            decided["flagged"].to_numpy(),
        ),
        "fine (published, closed form)": _replayed(fi.estimate(tapes[0], problem.queries, "fine")),
        "own loss": _top(loss_score(probs, labels), None),
        "margin": _top(margin_score(probs, labels), None),
        "gradient norm": _top(gradient_norms(model, recipe), None),
        "cleanlab": _top(cleanlab_score(probs, labels), None),
        "random": _top(random_score(n, seed=seed), None),
    }
    found = {}
    for name, (score, flagged) in scores.items():
        row = [average_precision(score, is_flipped), np.nan, np.nan, np.nan]
        if flagged is not None:
            row[1:] = [
                recall_flagged(flagged, is_flipped),
                false_discovery_proportion(flagged, is_flipped) if flagged.any() else 0.0,
                flagged.sum(),
            ]
        found[name] = np.array(row, dtype=float)
    return found, _proof(problem, decided, seed)


def _replayed(influence: Influence) -> tuple[np.ndarray, np.ndarray]:
    harm = influence.harm("held-out")
    return harm, empirical_fdr(harm, fdr=FDR).flagged


def _top(score: np.ndarray, flagged: None) -> tuple[np.ndarray, None]:
    return np.asarray(score), flagged


def _proof(problem: Problem, decided: pd.DataFrame, seed: int) -> dict[str, float]:
    """Return held-out accuracy after each treatment, over runs with the same seeds."""
    recipe, rng = problem.recipe, np.random.default_rng([seed, 11])
    action = decided["suggested_action"].to_numpy()
    drop, relabel, flagged = action == "drop", action == "relabel", decided["flagged"].to_numpy()
    y = recipe.rows.fields["y"].numpy().copy()
    y[relabel] = decided["suggested_label"].to_numpy()[relabel].astype(np.int64)
    mended = replace(recipe, data=fi.Rows(x=recipe.rows.fields["x"], y=y))
    n, changed = len(y), int(drop.sum() + relabel.sum())
    seeds = [10_000 + 100 * seed + run for run in range(PROOF_RUNS)]
    arms = {
        "all rows": (recipe, [RunSpec(s, s) for s in seeds]),
        "cleaned as suggested": (mended, [RunSpec(s, s, np.flatnonzero(~drop)) for s in seeds]),
        "all named rows dropped": (recipe, [RunSpec(s, s, np.flatnonzero(~flagged)) for s in seeds]),
        "as many changed at random dropped": (
            recipe,
            [RunSpec(s, s, np.sort(rng.permutation(n)[: n - changed])) for s in seeds],
        ),
    }
    return {
        arm: accuracy(list(final_models(which, runs)), problem.x_test, problem.y_test)
        for arm, (which, runs) in arms.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--problem", nargs="+", choices=["digits", "fashion"], default=["digits", "fashion"])
    parser.add_argument("--share", nargs="+", type=float, default=[0.1, 0.2])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.problem:
        for share in options.share:
            results = []
            for seed in range(options.seeds):
                problem = digits_flipped(share, seed) if name == "digits" else fashion(share, seed)
                results.append(one_seed(problem, seed))
            print(
                f"\n{name}, {share:.0%} of labels flipped, {options.seeds} seeds, false-discovery level {FDR:.0%}"
            )
            print(f"  {'score':32s} {'AP':>6s} {'recall':>7s} {'false':>6s} {'named':>6s}")
            for score in results[0][0]:
                mean = np.mean([r[0][score] for r in results], axis=0)
                cells = " ".join(f"{'-':>6s}" if np.isnan(v) else f"{v:6.2f}" for v in mean[1:3])
                named = "-" if np.isnan(mean[3]) else f"{mean[3]:.0f}"
                print(f"  {score:32s} {mean[0]:6.3f}  {cells} {named:>6s}")
            print(
                "  held-out accuracy: "
                + ", ".join(f"{arm} {np.mean([r[1][arm] for r in results]):.4f}" for arm in results[0][1])
            )


if __name__ == "__main__":
    main()
