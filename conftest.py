"""Long tables of cases: a few of each run with every test run, all of them with `make slow`."""

from collections import defaultdict

import pytest

collect_ignore_glob = ["*/conftest.py"]  # they have no doctests, and one name between them


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all but some cases of a test with `@pytest.mark.quick(n)` as slow: n of them, evenly spread, stay."""
    tables = defaultdict(list)
    for item in items:
        if item.get_closest_marker("quick") is not None and item.get_closest_marker("slow") is None:
            tables[item.parent, item.originalname].append(item)  # type: ignore[attr-defined]
    for cases in tables.values():
        (count,) = cases[0].get_closest_marker("quick").args
        stay = {i * len(cases) // count for i in range(count)}
        for i, case in enumerate(cases):
            if i not in stay:
                case.add_marker(pytest.mark.slow)
