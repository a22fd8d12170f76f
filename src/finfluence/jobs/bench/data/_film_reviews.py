"""Sentences of film reviews, each rated by 15 people or more, from the source archive of vaderSentiment."""

import ast
import io
import os
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from torch import nn

from finfluence.errors import DataError, explain
from finfluence.ingest import TableEncoder
from finfluence.jobs.bench._problem import DataSet
from finfluence.jobs.bench.data._networks import mlp
from finfluence.runs import SGD

FOLDER = "FINFLUENCE_BENCHMARK_DATA"
"""Environment variable: the folder that archives were downloaded to."""
DEFAULT = "benchmark-data"
ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
INSTALL = f"pip download --no-deps --no-binary :all: -d {DEFAULT} vaderSentiment==3.3.2"
KEPT = 3000
"""Reviews that are used, drawn at random."""


def read() -> tuple[np.ndarray, np.ndarray]:
    """Return features of 3,000 sentences, and whether most of their raters find them positive.

    Returns
    -------
    tuple[np.ndarray, np.ndarray]

    Raises
    ------
    DataError
        The archive is not there, or is another one.
    """
    found = _features()
    return found.copy(), votes().argmax(1)


def votes() -> np.ndarray:
    """Return how many people rated each sentence negative and positive [3,000, 2]; neutral ratings are no vote."""
    return _reviews()[1].copy()


@cache
def _features() -> np.ndarray:
    encoded: np.ndarray = TableEncoder(0).fit_transform(pd.DataFrame({"text": _reviews()[0]}))
    return encoded.astype(np.float32)


@cache
def _reviews() -> tuple[list[str], np.ndarray]:
    texts, ratings = (
        dict(
            line.split("\t", 2)[::2] if kind == "GroundTruth" else line.split("\t", 3)[::3]
            for line in _lines(kind)
        )
        for kind in ("GroundTruth", "anonDataRatings")
    )
    counted = {name: np.array(ast.literal_eval(each)) for name, each in ratings.items() if name in texts}
    split = {name: np.array([(r < 0).sum(), (r > 0).sum()]) for name, r in counted.items()}
    clear = sorted((name for name, (no, yes) in split.items() if no != yes), key=int)
    chosen = np.random.default_rng(0).choice(clear, KEPT, replace=False)
    return [texts[name] for name in chosen], np.stack([split[name] for name in chosen])


def _lines(kind: str) -> list[str]:
    path = Path(os.environ.get(FOLDER, DEFAULT)) / ARCHIVE
    if not path.is_file():
        raise DataError(
            explain(
                f"the archive {ARCHIVE} in {path.parent} (or in the folder that {FOLDER} names)",
                f"no file {path}",
                "the reviews are in the source archive only, which an installation leaves out",
                INSTALL,
            )
        )
    name = f"hutto_ICWSM_2014/movieReviewSnippets_{kind}.txt"
    try:
        with tarfile.open(path) as outer, tarfile.open(fileobj=io.BytesIO(_member(outer, INNER))) as inner:
            return _member(inner, name).decode("utf-8-sig").splitlines()
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise DataError(
            explain(
                f"the film reviews in {path}",
                f"{type(error).__name__}: {error}",
                "the download was cut short, or the file is another archive",
                f"delete it, then {INSTALL}",
            )
        ) from error


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()


def model(seed: int) -> nn.Module:
    """Return the network of one hidden layer."""
    return mlp(_features().shape[1], 32, 2, seed=seed)


FILM_REVIEWS = DataSet(
    name="film-reviews",
    summary="sentences of film reviews, their words projected to 200 columns; MLP 200-32-2, SGD",
    install=INSTALL,
    read=read,
    model=model,
    optimizer=SGD(lr=0.05),
    batch_size=50,
    epochs=10,
    rows=1000,
    held_out=1000,
    votes=votes,
)
