"""Small data sets, and one way to check all four parts of a message."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from finfluence.errors import FinfluenceError

Refused = Callable[..., contextlib.AbstractContextManager[None]]


@pytest.fixture
def refused() -> Refused:
    """`with refused(DataError, expected, got, cause, next_step):` each must be a part of its line."""

    @contextlib.contextmanager
    def check(
        kind: type[FinfluenceError], expected: str, got: str, cause: str, next_step: str
    ) -> Iterator[None]:
        with pytest.raises(kind) as caught:
            yield
        text = str(caught.value)
        first, _, rest = text.partition("\n  got: ")
        second, _, rest = rest.partition("\n  likely cause: ")
        third, _, fourth = rest.partition("\n  next step: ")
        assert first.startswith("expected ")
        for part, line in ((expected, first), (got, second), (cause, third), (next_step, fourth)):
            assert part in line, text

    return check


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file and return its path."""

    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def mixed() -> pd.DataFrame:
    """120 rows of numbers, words, dates, prose, gaps and oddities, with two classes."""
    rng = np.random.default_rng(7)
    n = 120
    words = np.array(["good", "bad", "slow", "fast", "screen", "battery", "price", "box", "late", "smooth"])
    frame = pd.DataFrame(
        {
            "key": [f"row-{i:03d}" for i in range(n)],
            "age": rng.integers(18, 80, n).astype(str),
            "income": [f"{value:.2f}" if value > 20 else "" for value in rng.normal(50, 25, n)],
            "city": rng.choice(["Köln", "São Paulo", "東京", "NA"], n),
            "member": rng.choice(["true", "false"], n),
            "joined": pd.date_range("2021-03-01", periods=n, freq="9h").strftime("%Y-%m-%d %H:%M"),
            "review": [" ".join(rng.choice(words, 6)) for _ in range(n)],
            "empty": "",
            "same": "x",
            "zip": [f"0{value}" for value in rng.integers(1000, 1010, n)],
            "annotator": rng.choice(["ann", "bob", ""], n),
            "label": rng.choice(["yes", "no"], n),
        }
    )
    frame.loc[5, "joined"] = ""
    frame.loc[7, "age"] = "unknown"
    return frame
