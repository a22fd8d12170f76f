"""How a scan trains: losses, and batch size, epochs and learning rate by the number of rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from finfluence._seeds import torch_seed
from finfluence.errors import ConfigError, DataError, explain
from finfluence.ingest import Table
from finfluence.jobs.scan._models import SeededModel, choose_model
from finfluence.jobs.scan._options import ScanOptions
from finfluence.runs import SGD, AdamW, Optimizer, Recipe, Rows, initial_model

STEPS = 450
LEAST_EPOCHS = 5
RATES = {"linear": 5e-3, "mlp-small": 2e-3}


@dataclass(frozen=True, eq=False)
class Training:
    """A recipe for the training rows, and the seed of every run."""

    recipe: Recipe
    model: SeededModel
    seeds: list[int]
    unit: str

    def described(self) -> dict[str, Any]:
        """Return what was chosen, as plain values."""
        recipe = self.recipe
        count = sum(p.numel() for p in initial_model(recipe, self.seeds[0]).parameters())
        return {
            "model": self.model.name,
            "input_shape": list(self.model.input_shape),
            "outputs": self.model.n_outputs,
            "parameters": count,
            "loss": self.unit,
            "optimizer": recipe.optimizer.describe(),
            "batch_size": recipe.batch_size,
            "epochs": recipe.epochs,
            "steps": recipe.steps,
            "initialisation": "each run draws its own"
            if recipe.random_initialisation
            else "the same in every run",
            "seeds": self.seeds,
        }


def row_cross_entropy(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return −log p(y|x) of each row, in nats."""
    return cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def row_squared_error(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Return half the squared error of each row on the standardised target."""
    return 0.5 * (model(batch["x"])[:, 0] - batch["y"]) ** 2


def plan_training(options: ScanOptions, train: Table) -> Training:
    """Return the recipe for the training rows.

    Where the options leave it open, about 450 steps are made, by batches of n/40 rows (a power of two between 8 and
    256) and at least 5 epochs; `choose` stops earlier where rows outside the training are then predicted better.

    Returns
    -------
    Training

    Raises
    ------
    DataError
        Fewer rows than a batch.
    ConfigError
        The model does not fit the data.
    """
    n = len(train)
    classes = train.target.classes
    n_outputs = 1 if classes is None else len(classes)
    model = choose_model(options.model, tuple(train.x.shape[1:]), n_outputs)
    batch_size = options.batch_size or automatic_batch(n)
    if batch_size > n:
        raise DataError(
            explain(
                f"at least {batch_size} training rows, one batch",
                f"{n} training rows",
                "--batch-size is larger than the data, or the file is a sample",
                f"leave --batch-size out, or lower it to {max(1, n // 4)}",
            )
        )
    epochs = options.epochs or max(LEAST_EPOCHS, round(STEPS * batch_size / n))
    seeds = [torch_seed(options.seed, "scan run", run) % 2**31 for run in range(options.n_runs)]
    fixed: Any = model
    if options.n_runs == 1:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(seeds[0], "init"))  # noqa: TID251 - forked, restored on exit
            fixed = model(seeds[0])
    recipe = Recipe(
        data=Rows(x=train.x, y=train.y, ids=train.ids.tolist()),
        model=fixed,
        loss=row_squared_error if classes is None else row_cross_entropy,
        optimizer=_optimizer(options, model.name),
        batch_size=batch_size,
        epochs=epochs,
    )
    unit = "nats" if classes is not None else "half squared standard deviations"
    training = Training(recipe, model, seeds, unit)
    _try_model(training)
    return training


def automatic_batch(n: int) -> int:
    """Return the power of two nearest below n/28, between 8 and 256: n/40 in the middle.

    Returns
    -------
    int

    Examples
    --------
    >>> [automatic_batch(n) for n in (50, 1437, 5000, 50_000)]
    [8, 32, 128, 256]
    """
    return max(8, min(256, 2 ** ((max(1, n // 28)).bit_length() - 1))) if n >= 8 else max(1, n // 2)


def predictions(model: nn.Module, x: Tensor, classes: bool, rows_at_once: int = 1024) -> Tensor:
    """Return class probabilities [n, K], or predicted standardised targets [n, 1], as float64."""
    model.eval()
    with torch.no_grad():
        outputs = torch.cat([model(part) for part in x.split(rows_at_once)]).double()
    return outputs.softmax(1) if classes else outputs


def as_trained(options: ScanOptions, run: Mapping[str, Any]) -> ScanOptions:
    """Return the options of a scan with the model and the training that run.yaml says were chosen."""
    training = run["training"]
    optimizer = training["optimizer"]
    return replace(
        options,
        model=training["model"],
        epochs=training["epochs"],
        batch_size=training["batch_size"],
        lr=optimizer["lr"],
        weight_decay=optimizer["weight_decay"],
    )


def _optimizer(options: ScanOptions, model: str) -> Optimizer:
    decay = options.weight_decay
    if options.optimizer == "sgd":
        return SGD(lr=options.lr or 0.05, weight_decay=decay or 0.0)
    lr = options.lr or RATES.get(model, 1e-3)
    return AdamW(lr=lr) if decay is None else AdamW(lr=lr, weight_decay=decay)


def _try_model(training: Training) -> None:
    """Raise unless a first batch gives one output row for each input row, of the right width."""
    recipe = training.recipe
    model = initial_model(recipe, training.seeds[0])
    x = recipe.rows.batch(torch.arange(min(2, len(recipe.rows))))["x"]
    want = (len(x), training.model.n_outputs)
    try:
        with torch.no_grad():
            got: Any = tuple(model(x).shape)
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
    if got != want:
        raise ConfigError(
            explain(
                f"--model {training.model.name} to map inputs {tuple(x.shape)} to outputs {want}",
                str(got),
                "the factory ignores input_shape or n_outputs",
                "build the first layer from input_shape and the last from n_outputs",
            )
        )
