"""The questions after a verdict on real data: 569 tumours, a tenth of the training labels flipped.

Run: python examples/after_the_verdict.py. A logistic regression is trained many times on random halves of 120 rows.
"""

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

import finfluence as fi

ROWS, RUNS, TAPES = 120, 400, 40


def zeros(size: int) -> nn.Linear:
    """Return a linear model that starts at zero."""
    model = nn.Linear(size, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


def main() -> None:
    """Print one answer a question."""
    rng = np.random.default_rng(0)
    x, y = load_breast_cancer(return_X_y=True)
    order = rng.permutation(len(y))
    train, held, new = order[:ROWS], order[ROWS:320], order[320:]
    x = StandardScaler().fit(x[train]).transform(x)
    wrong = rng.random(ROWS) < 0.1
    noisy = np.where(wrong, 1 - y[train], y[train])

    def model(kept: np.ndarray) -> LogisticRegression:
        return LogisticRegression(C=0.1, max_iter=500).fit(x[train][kept], noisy[kept])

    def loss(fitted: LogisticRegression) -> float:
        p = fitted.predict_proba(x[held])[np.arange(len(held)), y[held]]
        return float(-np.log(p).mean())

    before, after = model(np.ones(ROWS, bool)), model(~wrong)
    print("How right where there are no labels, before and after the wrong rows are dropped?")
    chances = [(m.predict_proba(x[held]), m.predict_proba(x[new])) for m in (before, after)]
    print(fi.assess.accuracy_change(*chances, y[held]))
    print(f"(truth: {before.score(x[new], y[new]):.1%} and {after.score(x[new], y[new]):.1%})\n")

    print("What does each row do, by trainings on random halves?")
    included = rng.random((RUNS, ROWS)) < 0.5
    outcome = np.array([loss(model(kept)) for kept in included])
    effects = fi.assess.inclusion(included, outcome)
    print(effects)
    worst = np.argsort(effects.effect)[: wrong.sum()]
    print(f"(of the {len(worst)} rows whose removal helps most {wrong[worst].sum()} have a wrong label)\n")

    print("How large is the effect of a group that was chosen for its estimate?")
    groups = [rng.choice(ROWS, 6, replace=False) for _ in range(120)]
    estimate = np.array([effects.effect[g].sum() for g in groups])
    estimate /= estimate.std()
    whole = loss(before)
    drawn = rng.integers(len(groups), size=30)
    gain = np.array([100 * (whole - loss(model(~np.isin(np.arange(ROWS), groups[g])))) for g in drawn])
    law = fi.assess.DesignLaw(-estimate[:, None], strength=1.0)
    chosen = int(np.argsort(estimate)[len(groups) // 10])
    grid = np.linspace(-5, 10, 301)
    found = fi.assess.feedback_interval(
        -estimate[drawn, None], gain, -estimate[[chosen]], law, grid, level=0.8
    )
    truth = 100 * (whole - loss(model(~np.isin(np.arange(ROWS), groups[chosen]))))
    print(f"gain in hundredths of a nat: {found} (truth: {truth:.2f})\n")

    print("What does inclusion by a policy do: larger runs took the wrong rows more often?")
    share = rng.random(RUNS)  # what the policy looked at: how many other rows a run has
    policy = rng.random(RUNS) < 1 / (1 + np.exp(-4 * (share - 0.5)))
    kept = [rng.permutation(ROWS)[: 60 + int(30 * s)] for s in share]
    special = np.flatnonzero(wrong)
    runs = [
        np.union1d(k, special) if p else np.setdiff1d(k, special) for k, p in zip(kept, policy, strict=True)
    ]
    results = np.array([loss(model(np.isin(np.arange(ROWS), r))) for r in runs])
    print(fi.assess.policy_effect(policy, results, share[:, None]))
    print()

    print("Does seeing a wrong row early hold back that held-out tumours are answered right?")
    recipe = fi.Recipe(
        data=fi.Rows(x=x[train], y=noisy.astype(float)),
        model=zeros(x.shape[1]),
        loss=lambda net, batch: functional.binary_cross_entropy_with_logits(
            net(batch["x"])[:, 0], batch["y"], reduction="none"
        ),
        optimizer=fi.SGD(lr=0.02),
        batch_size=4,
        epochs=1,
    )
    tapes = [fi.train(recipe, order_seed=seed) for seed in range(TAPES)]
    asked, right = torch.from_numpy(x[held][:40]).float(), torch.from_numpy(y[held][:40])
    print(
        fi.assess.exposure(
            tapes,
            rows=np.flatnonzero(wrong).tolist(),
            event=lambda net: (net(asked)[:, 0] > 0) == (right == 1),
            classes=noisy,
        )
    )
    print()

    print("Which head on features that are kept as they are?")
    names = np.array(["malignant", "benign"])
    print(fi.mitigate.compare_heads((x[train], names[noisy]), (x[held], names[y[held]]), seeds=(0, 1, 2)))


if __name__ == "__main__":
    main()
