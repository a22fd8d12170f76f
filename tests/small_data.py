"""Small files to scan, and options that keep a scan to a second or two."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

QUICK: dict[str, Any] = {"runs": 1, "epochs": 3, "proof": False}


def blobs(n: int = 240, wrong: int = 20, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Two separable classes with `wrong` swapped labels; returns the frame and the swapped rows."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 4)) + 3 * y[:, None]
    rows = np.sort(rng.choice(n, wrong, replace=False))
    y[rows] = 1 - y[rows]
    frame = pd.DataFrame(x.round(4), columns=list("abcd"))
    return frame.assign(label=np.where(y == 1, "cat", "dog")), rows


def blobs_csv(folder: Path, **options: Any) -> Path:
    """Write `blobs` as a CSV file."""
    path = folder / "train.csv"
    blobs(**options)[0].to_csv(path, index=False)
    return path


def mixed_csv(folder: Path, n: int = 150) -> Path:
    """Text, numbers, dates, missing values, a group column, and cells that hold markup, scripts and formulas."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, n)
    age = np.where(rng.random(n) < 0.1, np.nan, rng.normal(40 + 10 * y, 5)).round(1)
    words = np.array(["good kind", "great", "bad", "awful slow"])
    hostile = ["[red]x[/red]", "</script><b>y", "=cmd()|' /C calc'!A0", "esc \x1b[31m", "plain"]
    frame = pd.DataFrame(
        {
            "key": [f"r-{i}" for i in range(n)],
            "age": age,
            "joined": pd.to_datetime("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="D"),
            "note": [
                f"{words[2 * (1 - t) + k]} {rng.choice(hostile)}"
                for t, k in zip(y, rng.integers(0, 2, n), strict=True)
            ],
            "source": rng.choice(["web", "[b]phone"], n),
            "label": np.where(y == 1, "[yes]", "no</script>"),
        }
    )
    path = folder / "mixed.csv"
    frame.to_csv(path, index=False)
    return path


def regression_csv(folder: Path, n: int = 200) -> Path:
    """A linear law with a few targets far off."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, 3))
    price = 100 + x @ np.array([10.0, -5.0, 2.0]) + rng.normal(size=n)
    price[:10] += 200
    path = folder / "prices.csv"
    pd.DataFrame(x.round(4), columns=list("abc")).assign(price=price.round(3)).to_csv(path, index=False)
    return path


def image_folder(folder: Path, n: int = 24) -> Path:
    """Bright and dark 12 by 12 images in one folder per class."""
    rng = np.random.default_rng(3)
    for name, level in (("bright", 200), ("dark", 40)):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.clip(rng.normal(level, 20, (12, 12)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "images" / name / f"{i:02d}.png")
    return folder / "images"


def arrays_npz(folder: Path, n: int = 120) -> Path:
    """Features and integer classes as arrays."""
    frame, _ = blobs(n, 5)
    path = folder / "rows.npz"
    np.savez(path, x=frame[list("abcd")].to_numpy(), y=(frame["label"] == "cat").to_numpy().astype(np.int64))
    return path
