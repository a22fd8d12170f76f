"""A result written while it is computed: columns of queries go straight to chunked Zarr, and are read where used."""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finfluence.errors import ConfigError, explain
from finfluence.result._influence import Influence
from finfluence.result._io import BLOCK_BYTES, check_place, header_of, name_folder, writing
from finfluence.result._load import load
from finfluence.result._provenance import Provenance
from finfluence.result._schema import ESTIMATES, TWIN
from finfluence.result._twin import with_twin


class Held:
    """The same in memory: estimates of some queries after the other.

    labels : `subsets`, `queries`, `units`, `signs`, `sizes` and `own_loss` of `Influence.build`.
    """

    def __init__(self, labels: Mapping[str, Any]) -> None:
        self._labels = labels
        self._shape = (len(labels["subsets"]), len(labels["queries"]))
        self._held: dict[str, np.ndarray] = {}

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        self._held = {}

    def write(self, columns: range, values: Mapping[str, np.ndarray]) -> None:
        """Take the estimates [S, q] of the queries in `columns`."""
        for name, value in values.items():
            self._held.setdefault(name, np.empty(self._shape))[:, columns.start : columns.stop] = value

    def finish(self, provenance: Provenance) -> Influence:
        """Return the result."""
        named = {k: v for k, v in self._held.items() if k in (*ESTIMATES, "score")}
        given: dict[str, Any] = {**self._labels, **named}
        twin = {k: self._held[k] for k in TWIN if k in self._held}
        extra = {k: v for k, v in self._held.items() if k not in (*named, *TWIN)}
        return Influence.build(provenance=provenance, twin=twin, extra=extra, **given)


class Stream:
    """Write estimates [S, q] of some queries after the other; `finish` gives the folder its name.

    Memory holds one call's columns. A chunk of the store is at most 4 MiB and holds whole columns of one call, so that
    no chunk is written twice.

    Parameters
    ----------
    path : path
        The result's folder; it appears when all is written.
    subsets, queries, units, signs, sizes, own_loss : as in `Influence.build`.

    Raises
    ------
    StorageError
        Something else is at `path`, or the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> columns = {name: np.ones((2, 1)) for name in ESTIMATES}
    >>> with Stream(folder + "/r.zarr", subsets=["a", "b"], queries=["q"], units=["nats"], signs=[-1]) as stream:
    ...     stream.write(range(0, 1), columns)
    ...     found = stream.finish(Provenance(method="example", runs=1, covers=(), n_rows=2))
    >>> found.data.mu.values.tolist()
    [[1.0], [1.0]]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        subsets: Sequence[Any] | np.ndarray,
        queries: Sequence[str],
        units: Sequence[str],
        signs: Sequence[int],
        sizes: Sequence[int] | np.ndarray | None = None,
        own_loss: Any = None,
    ) -> None:
        self._target = Path(path)
        count = len(subsets)
        self._labels = {
            "subset": np.asarray(subsets).tolist(),
            "query": list(queries),
            "unit": list(units),
            "sign": [int(s) for s in signs],
            "size": [1] * count if sizes is None else np.asarray(sizes).tolist(),
        }
        import zarr  # slow to import, and only files need it

        self._shape = (count, len(self._labels["query"]))
        self._own = np.full(count, np.nan) if own_loss is None else np.asarray(own_loss, dtype=np.float64)
        self._written = np.zeros(self._shape[1], dtype=bool)
        check_place(self._target)
        with writing(self._target):
            self._target.parent.mkdir(parents=True, exist_ok=True)
            prefix = f".{self._target.name}."
            self._part = Path(tempfile.mkdtemp(prefix=prefix, suffix=".part", dir=self._target.parent))
            self._group = zarr.open_group(str(self._part), mode="w")

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._part, ignore_errors=True)

    def write(self, columns: range, values: Mapping[str, np.ndarray]) -> None:
        """Write the estimates [S, q] of the queries in `columns`."""
        with writing(self._target):
            for name, value in with_twin(values).items():
                if name not in self._group:
                    self._create(name, len(columns))
                array: Any = self._group[name]
                array[:, columns.start : columns.stop] = np.asarray(value, dtype=np.float64)
        self._written[columns.start : columns.stop] = True

    def finish(self, provenance: Provenance) -> Influence:
        """Write labels and provenance, give the folder its name, and return the result, read where it is used.

        Returns
        -------
        Influence

        Raises
        ------
        ConfigError
            Columns of some queries were never written.
        """
        if not self._written.all():
            missing = self._labels["query"][int(np.argmin(self._written))]
            raise ConfigError(
                explain(
                    "columns of all queries before the end",
                    f"none of '{missing}'",
                    "writing was broken off",
                    "write the columns of every query, then finish",
                )
            )
        with writing(self._target):
            self._array("own_loss", self._own.shape, self._own.shape, ("subset",))[:] = self._own
            self._group.attrs["finfluence"] = header_of(self._group, self._labels, provenance.to_dict())
            name_folder(self._part, self._target)
        return load(self._target, lazy=True)

    def _create(self, name: str, width: int) -> None:
        rows, count = max(1, self._shape[0]), self._shape[1]
        width = min(width, count)
        tall = max(1, min(rows, BLOCK_BYTES // (8 * width)))
        self._array(name, self._shape, (tall, width), ("subset", "query"))

    def _array(
        self, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dims: tuple[str, ...]
    ) -> Any:
        return self._group.create_array(
            name, shape=shape, chunks=chunks, dtype="float64", fill_value=float("nan"), dimension_names=dims
        )
