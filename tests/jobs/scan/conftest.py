"""Scans in tests about other things than the verdict on labels ask smaller forests about them."""

from collections.abc import Iterator

import pytest

from small_forests import make_small


@pytest.fixture(scope="module", autouse=True)
def _small_forests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small forests, unless the module says WHOLE_FORESTS = True."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "WHOLE_FORESTS", False):
            make_small(patch)
        yield
