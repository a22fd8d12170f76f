"""One tuning for all tests of its folder: they copy it before they change it."""

import pytest
from tiny_tuning import SMALL, write

from finfluence.jobs.tune import TuneOptions, run_tune


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    pytest.importorskip("peft")
    return write(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="session")
def result(files, tmp_path_factory):
    return run_tune(TuneOptions(**files, **SMALL, out=tmp_path_factory.mktemp("tuned") / "out"))
