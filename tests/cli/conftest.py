"""Scans by command ask small forests about labels."""

from collections.abc import Iterator

import pytest

from small_forests import make_small


@pytest.fixture(scope="module", autouse=True)
def _small_forests() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        yield
