"""Scans in tests about other things than the verdict on labels ask smaller forests about them."""

from collections.abc import Iterator

import pytest

SMALL = 15


@pytest.fixture(scope="module", autouse=True)
def _small_forests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fifteen trees in place of a hundred, in this process, unless the module says WHOLE_FORESTS = True."""
    if getattr(request.module, "WHOLE_FORESTS", False):
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finfluence.labels._candidates.TREES", SMALL)
        yield
