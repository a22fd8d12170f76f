"""Rows as pictures or texts, side by side, for a notebook."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finfluence.errors import DataError, explain
from finfluence.report import fixed, thumbnail
from finfluence.result._html import NO_MATHEMATICS, escaped

SIDE = 96
_TEXT = 400


@dataclass(frozen=True)
class Grid:
    """Rows beside each other; a notebook shows it, `html` is the page's piece.

    Parameters
    ----------
    html : str
        The grid, self-contained and escaped.
    count : int
        Rows shown.
    """

    html: str
    count: int

    def __repr__(self) -> str:
        return f"Grid of {self.count} rows; a notebook shows it, .html is its text"

    def _repr_html_(self) -> str:
        return self.html


def grid(ids: Sequence[Any], values: Sequence[float], symbol: str, items: Sequence[Any]) -> Grid:
    """Return a grid of rows: what each looks like, its id and its μ (or score)."""
    cells = "".join(
        f'<figure style="margin:0;width:{SIDE + 24}px">{_look(item, name)}<figcaption style="overflow-wrap:anywhere">'
        f"{escaped(name, 80)}<br>{symbol} {fixed(float(value))}</figcaption></figure>"
        for name, value, item in zip(ids, values, items, strict=True)
    )
    style = "display:flex;flex-wrap:wrap;gap:1em;font:13px/1.35 system-ui,sans-serif"
    return Grid(f'<div class="{NO_MATHEMATICS}" style="{style}">{cells}</div>', len(ids))


def items_of(data: Any, ids: Sequence[Any], every: Sequence[Any]) -> list[Any]:
    """Return what the rows `ids` look like, from a mapping by id or from a sequence in the order of `every` row.

    Returns
    -------
    list[Any]

    Raises
    ------
    DataError
        There is no data, it has another length, or a row is not in it.
    """
    if isinstance(data, Mapping):
        missing = [i for i in ids if i not in data]
        if missing:
            raise DataError(_no_data(f"a mapping without row {missing[0]!r}"))
        return [data[i] for i in ids]
    if data is None or isinstance(data, str) or not hasattr(data, "__len__"):
        raise DataError(_no_data("none" if data is None else type(data).__name__))
    if len(data) != len(every):
        raise DataError(_no_data(f"{len(data):,} items for {len(every):,} rows"))
    at = {name: k for k, name in enumerate(every)}
    return [data[at[i]] for i in ids]


def _no_data(got: str) -> str:
    return explain(
        "data= to hold what each row looks like: an image or a text for each, in the order of the rows, or by id",
        got,
        "a result keeps the ids of the rows, not the rows",
        "pass data=images (or texts) of all rows in their order, or {id: image}",
    )


def _look(item: Any, name: Any) -> str:
    if isinstance(item, str):
        return f'<p style="margin:0;overflow-wrap:anywhere">{escaped(item, _TEXT)}</p>'
    png = base64.b64encode(thumbnail(_pixels(item), SIDE)).decode("ascii")
    return (
        f'<img alt="row {escaped(name, 80)}" style="width:{SIDE}px;image-rendering:pixelated" '
        f'src="data:image/png;base64,{png}">'
    )


def _pixels(item: Any) -> np.ndarray:
    """Return an image as uint8 [height, width, channels]: channels last, floats in [0, 1] scaled."""
    image = np.asarray(item)
    if image.ndim == 3 and image.shape[0] in (1, 3, 4) and image.shape[2] not in (1, 3, 4):
        image = np.moveaxis(image, 0, -1)
    if image.dtype.kind == "f" and image.size and np.nanmin(image) >= 0 and np.nanmax(image) <= 1:
        image = np.nan_to_num(image) * 255
        return np.round(image).astype(np.uint8)
    return image
