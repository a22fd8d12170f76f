"""Small forests for scans in tests about other things than the verdict on labels."""

from collections.abc import Iterator
from functools import partial

import pytest
from sklearn import ensemble

SMALL = 15
FORESTS = ("ExtraTreesClassifier", "ExtraTreesRegressor")


def make_small(patch: pytest.MonkeyPatch) -> None:
    """Fifteen trees, whatever number is asked for, in this process."""
    for name in FORESTS:
        whole = getattr(ensemble, name)
        patch.setattr(ensemble, name, partial(_small, whole))


def _small(whole: type, *number: int, **options: object) -> object:
    return whole(**{**options, "n_estimators": SMALL})


@pytest.fixture(scope="module", autouse=True)
def small_forests(request: pytest.FixtureRequest) -> Iterator[None]:
    """Small forests, unless the module says WHOLE_FORESTS = True."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "WHOLE_FORESTS", False):
            make_small(patch)
        yield
