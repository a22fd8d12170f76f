"""Finished runs in a folder: append-only, keyed by what they depend on, whole after any interruption."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from finfluence._files import atomic, digest
from finfluence._seeds import stream
from finfluence.ensemble._executors import one_thread
from finfluence.ensemble._query_values import query_values
from finfluence.ensemble._stacked import RunSpec
from finfluence.errors import StorageError, explain
from finfluence.grads import Layout, without_graph
from finfluence.runs import AnyQuery, Recipe, initial_model, seeded

_FORMAT = b"finfluence-runs-1"
_PROBE_ROWS = 64


class RunStore:
    """Query values of finished runs, one Parquet file per batch of runs; nothing is ever rewritten.

    Parameters
    ----------
    folder : path, optional
        Where the files are; None keeps the values in memory only.

    Raises
    ------
    StorageError
        A file is truncated or of another program; nothing is changed.

    Examples
    --------
    >>> store = RunStore(None)
    >>> store.add(["a"], np.array([[1.0, 2.0]]))
    >>> store.get("a"), store.get("b")
    (array([1., 2.]), None)
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._values: dict[str, np.ndarray] = {}
        if self.folder is not None:
            for path in sorted(self.folder.glob("runs-*.parquet")):
                self._values.update(_read(path))

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> np.ndarray | None:
        """Return the values of the run with this key, or None."""
        return self._values.get(key)

    def add(self, keys: Sequence[str], values: np.ndarray) -> None:
        """Append runs: one row of `values` per key."""
        self._values.update(zip(keys, values, strict=True))
        if self.folder is None or not keys:
            return
        width = values.shape[1]
        flat = pa.array(np.ascontiguousarray(values, dtype=np.float64).reshape(-1))
        table = pa.table({"key": list(keys), "values": pa.FixedSizeListArray.from_arrays(flat, width)})
        table = table.replace_schema_metadata({"format": _FORMAT})
        name = digest(*(key.encode() for key in keys))
        with atomic(self.folder / f"runs-{name}.parquet") as part:
            pq.write_table(table, part)


def signature(recipe: Recipe, queries: Sequence[AnyQuery]) -> str:
    """Return a hash of everything but seeds and rows that the queried value of a run depends on.

    Code cannot be hashed faithfully, so loss and queries enter by their names and by what they say at two
    parameter vectors: the initial one of seed 0 and one beside it.

    Returns
    -------
    str
    """
    with one_thread():
        model = initial_model(recipe, 0)
        layout = Layout(model)
        start = layout.theta(model)
        noise = torch.from_numpy(stream(0, "signature").normal(size=layout.size)).to(start)
        rows = torch.arange(min(len(recipe.rows), _PROBE_ROWS))
        batch = {k: v.to(layout.device) for k, v in recipe.rows.batch(rows).items()}
        said: list[np.ndarray] = []
        for theta in (start, start + 0.1 * noise):
            layout.assign(model, theta)
            with seeded(0):
                said += [
                    without_graph(lambda: recipe.loss(model, batch)).double().cpu().numpy(),
                    query_values(recipe, model, queries),
                ]
    rates = [recipe.rate(t) for t in range(recipe.steps)]
    names = [(name, q.unit, q.sign) for q in queries for name in q.names]
    parts = [sorted(recipe.describe().items()), names, rates, layout.names, [list(s) for s in layout.shapes]]
    probes = [f"{value:.4e}" for array in said for value in array]
    return digest(
        repr(parts).encode(),
        repr(probes).encode(),
        start.cpu().contiguous().view(torch.uint8).numpy().tobytes(),
    )


def run_key(base: str, recipe: Recipe, run: RunSpec) -> str:
    """Return the key of one run under the signature `base`."""
    init = run.init_seed if recipe.random_initialisation else "fixed"
    keep = b"all" if run.keep is None else np.ascontiguousarray(run.keep, dtype=np.int64).tobytes()
    paired = [b"paired"] if run.paired and run.keep is not None else []
    return digest(base.encode(), repr((init, run.order_seed)).encode(), keep, *paired)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        table = pq.read_table(path)
        if (table.schema.metadata or {}).get(b"format") != _FORMAT:
            raise pa.ArrowInvalid("a Parquet file of another program or version")
        keys = table["key"].to_pylist()
        values = table["values"].combine_chunks()
        rows = values.flatten().to_numpy(zero_copy_only=False).reshape(len(keys), -1)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise StorageError(
            explain(
                f"a whole file of finished runs at {path}",
                str(error).splitlines()[0],
                "the file was cut short by a copy, or belongs to another program",
                "delete this one file: its runs are trained again, all others are kept",
            )
        ) from error
    return dict(zip(keys, rows, strict=True))
