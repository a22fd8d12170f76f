"""A bank of retrained models: the final parameters of many runs of one recipe, kept in a folder for all who ask."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from finfluence._files import atomic, digest, write_json
from finfluence._progress import Progress, silent
from finfluence.ensemble._executors import one_thread
from finfluence.ensemble._query_values import StackedQueries
from finfluence.ensemble._stacked import RunSpec, StackedRuns, not_stackable, same_frozen
from finfluence.ensemble._store import run_key, signature
from finfluence.ensemble._train_many import final_models
from finfluence.errors import NotSupportedError, StorageError, explain
from finfluence.grads import Layout
from finfluence.runs import AnyQuery, Recipe, initial_model, own_loss

TOGETHER = 64
"""Runs that are trained side by side and kept in one file: as many are lost at most when the work is stopped."""
OPEN = 4
"""Files whose models are held in memory."""


class ModelBank:
    """Final parameters of runs of one recipe, trained once and kept: a new query costs evaluations only.

    Parameters
    ----------
    recipe : Recipe
        What is trained. Kept are trained parameters: frozen ones and buffers, on which no training of a recipe may
        write, have to be the same for all initialisations.
    folder : path
        Of all banks. This one is the folder `<name>-<hash>` in it, the hash being of the recipe, its rows and its code
        as far as they can be hashed, so that another recipe has another bank.
    name : str
        How a person calls it. A bank of the same hash under another name is used as it is.
    max_bytes : int
        Memory for the copies trained at once.

    Raises
    ------
    NotSupportedError
        The model has frozen parameters or buffers that differ between initialisations.
    StorageError
        A file of the bank is damaged; nothing is changed.

    Notes
    -----
    Runs are trained in this process, to the bits that `train_many` comes to; `progress` is called as
    `progress("bank", done, total)`.

    Examples
    --------
    >>> import tempfile
    >>> from torch import nn
    >>> from finfluence.runs import SGD, Rows, mean_loss
    >>> x, y = np.ones((4, 1)), np.array([0.0, 0.0, 0.0, 4.0])
    >>> recipe = Recipe(data=Rows(x=x, y=y), model=nn.Linear(1, 1, bias=False), optimizer=SGD(lr=0.1),
    ...                 loss=lambda m, b: 0.5 * (m(b["x"])[:, 0] - b["y"]) ** 2, batch_size=2, epochs=40)
    >>> bank = ModelBank(recipe, tempfile.mkdtemp(), "example")
    >>> runs = [RunSpec(0, 0), RunSpec(0, 0, np.arange(3))]
    >>> bank.values(runs, [mean_loss(x, y)]).round(2).ravel().tolist()
    [1.5, 2.0]
    >>> bank.trained, ModelBank(recipe, bank.folder.parent, "example").missing(runs)
    (2, [])
    """

    def __init__(
        self, recipe: Recipe, folder: str | os.PathLike[str], name: str, max_bytes: int = 2**30
    ) -> None:
        self.recipe, self.name, self.max_bytes = recipe, name, max_bytes
        template = initial_model(recipe, 0)
        if not same_frozen([template, initial_model(recipe, 1)], Layout(template)):
            raise NotSupportedError(
                explain(
                    "frozen parameters and buffers that are the same for every initialisation, for a bank of models",
                    "some that differ between seeds",
                    "a part of the network is drawn at random and never trained; a bank keeps what is trained",
                    "draw that part with a seed of its own in the recipe's model",
                )
            )
        self.hash = signature(recipe, [own_loss([recipe.rows.ids[0]])])
        known = sorted(Path(folder).glob(f"*-{self.hash}"))
        self.folder = known[0] if known else Path(folder) / f"{name}-{self.hash}"
        self.trained = 0
        self._places: dict[str, tuple[Path, int]] = {}
        self._open: dict[Path, Tensor] = {}
        for path in sorted(self.folder.glob("models-*.safetensors")):
            self._places.update((key, (path, k)) for k, key in enumerate(_keys(path)))

    def __len__(self) -> int:
        return len(self._places)

    def missing(self, runs: Sequence[RunSpec]) -> list[RunSpec]:
        """Return the runs that are not in the bank yet, each once, in their order."""
        keyed = {self._key(run): run for run in runs}
        return [run for key, run in keyed.items() if key not in self._places]

    def parameters(self, runs: Sequence[RunSpec], progress: Progress = silent) -> Tensor:
        """Return the final parameters [runs, P], NaN of runs that diverged; what is missing is trained and kept."""
        self.train(runs, progress)
        return torch.stack([self._found(self._key(run)) for run in runs])

    def train(self, runs: Sequence[RunSpec], progress: Progress = silent) -> None:
        """Train and keep what is missing."""
        new = self.missing(runs)
        for first in range(0, len(new), TOGETHER):
            self._train(new[first : first + TOGETHER])
            progress("bank", min(first + TOGETHER, len(new)), len(new))

    def values(
        self, runs: Sequence[RunSpec], queries: Sequence[AnyQuery], progress: Progress = silent
    ) -> np.ndarray:
        """Return the values of all queries [runs, Q] at the end of each run, NaN of runs that diverged."""
        self.train(runs, progress)
        together = self.one_by_one is None and self._replicas > 1
        with one_thread():
            model = initial_model(self.recipe, runs[0].init_seed)
            measure = StackedQueries(self.recipe, model, queries, together=together)
            return np.concatenate([measure(part) for part in self._parts(runs)])

    @cached_property
    def one_by_one(self) -> str | None:
        """Why runs cannot be trained as one stack; None where they can."""
        with one_thread():
            return not_stackable(self.recipe, [0, 1])

    @cached_property
    def _replicas(self) -> int:
        return StackedRuns(self.recipe, initial_model(self.recipe, 0)).replicas(self.max_bytes)

    def _parts(self, runs: Sequence[RunSpec]) -> Iterator[Tensor]:
        for first in range(0, len(runs), TOGETHER):
            yield torch.stack([self._found(self._key(run)) for run in runs[first : first + TOGETHER]])

    @cached_property
    def _width(self) -> int:
        return Layout(initial_model(self.recipe, 0)).size

    def _key(self, run: RunSpec) -> str:
        return run_key(self.hash, self.recipe, run)

    def _train(self, runs: list[RunSpec]) -> None:
        if not self.folder.exists():
            made = {"name": self.name, "hash": self.hash, "recipe": self.recipe.describe()}
            write_json(self.folder / "bank.json", made)  # makes the folder
        keys = [self._key(run) for run in runs]
        models = final_models(self.recipe, runs, self.max_bytes)
        lost = torch.full((self._width,), torch.nan)
        theta = torch.stack([lost if m is None else Layout(m).theta(m).detach().cpu() for m in models])
        path = self.folder / f"models-{digest(*(key.encode() for key in keys))}.safetensors"
        with atomic(path) as part:
            save_file({"theta": theta}, part, metadata={"keys": " ".join(keys)})
        self._places.update((key, (path, k)) for k, key in enumerate(keys))
        self._hold(path, theta)
        self.trained += len(runs)

    def _found(self, key: str) -> Tensor:
        path, place = self._places[key]
        if path not in self._open:
            self._hold(path, load_file(path)["theta"])
        return self._open[path][place]

    def _hold(self, path: Path, theta: Tensor) -> None:
        while len(self._open) >= OPEN:
            del self._open[next(iter(self._open))]
        self._open[path] = theta


def _keys(path: Path) -> list[str]:
    try:
        with safe_open(path, framework="pt") as file:
            keys = (file.metadata() or {})["keys"].split()
            if len(keys) != file.get_slice("theta").get_shape()[0]:
                raise KeyError("as many keys as models")
    except (SafetensorError, OSError, KeyError) as error:
        raise StorageError(
            explain(
                f"a whole file of retrained models at {path}",
                str(error).splitlines()[0],
                "the file was cut short by a copy, or belongs to another program",
                "delete this one file: its models are trained again, all others are kept",
            )
        ) from error
    return keys
