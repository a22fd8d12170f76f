"""What must be true of every method; a new one must pass all of this to exist."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import pytest
import xarray as xr

import finfluence as fi
from conformance.problems import BATCH, OPTIONS, OUTPUTS, ROWS, STEPS, Problem
from finfluence.errors import ConfigError, NotSupportedError
from finfluence.estimators import Source, method_class, methods_table, option_docs

IN_WORDS = r"(?s)expected .*got: .*likely cause: .*next step: "
KNOBS: dict[str, tuple[int, ...]] = {"rows_at_once": (1, 5), "memory_bytes": (2**22,), "max_bytes": (1,)}


def check_rows_may_stand_elsewhere(method: str, problem: Problem) -> None:
    """Permuting the rows permutes the result."""
    before = problem.found(method)
    after = problem.estimator(method).estimate(problem.turned(method), problem.queries)
    assert after.subsets.tolist() != before.subsets.tolist()
    assert_alike(before.data, after.data.sel(subset=before.subsets))


def check_ids_survive(method: str, problem: Problem) -> None:
    assert problem.found(method).subsets.tolist() == problem.ids
    named = problem.estimate(method, {"one": ["row 3"], "another": ["row 7"]})
    assert named.subsets.tolist() == ["one", "another"]
    assert named.to_frame()["row_id"].tolist() == ["one", "another"] * len(named.queries)
    alone = problem.estimate(method, ["row 3", "row 7"])
    assert_alike(alone.data, named.data.assign_coords(subset=["row 3", "row 7"]))


def check_order_of_queries_is_free(method: str, problem: Problem) -> None:
    forwards = problem.found(method)
    backwards = problem.estimator(method).estimate(problem.source(method), problem.queries[::-1])
    assert backwards.queries == forwards.queries[::-1]
    assert_alike(forwards.data, backwards.data.sel(query=forwards.queries))


def check_rows_at_once_are_free(method: str, problem: Problem) -> None:
    """How much is evaluated together changes nothing; a method without such an option has nothing to show."""
    known = {f.name for f in fields(method_class(method).Options)}
    whole = problem.found(method)
    for name, values in KNOBS.items():
        for value in values if name in known else ():
            assert_alike(whole.data, problem.estimate(method, **{name: value}).data, rtol=1e-6)


def check_sign_and_unit_are_said(method: str, problem: Problem) -> None:
    found = problem.found(method)
    said = repr(found)
    assert found.has_mu == (method_class(method).yields == "mu")
    assert ("mu" in found.data, "score" in found.data) == (found.has_mu, not found.has_mu)
    assert f"method: {found.data.attrs['method']}" in said
    if found.has_mu:
        assert "mu > 0: removing the rows raises 'held-out' [nats], so the rows help" in said
        assert "mu > 0: removing the rows raises 'confidence' [probability], so the rows harm" in said
    else:
        assert "no unit" in said
        for name in found.queries:
            assert f"score of '{name}': larger is more harmful or more suspect" in said


def check_a_score_says_why_it_is_none_of_mu(method: str, problem: Problem) -> None:
    found = problem.found(method)
    why = [said for said in found.provenance.findings if said.startswith("a score, without an error: ")]
    assert len(why) == (not found.has_mu), found.provenance.findings


def check_an_empty_subset_is_zero(method: str, problem: Problem) -> None:
    data = problem.estimate(method, {"nothing": [], "row 3": ["row 3"], "row 7": ["row 7"]}).data
    nothing = data.sel(subset="nothing")
    for name in ("effect", "effect_se", "mu", "se", "lower", "upper", "score"):
        if name in data:
            assert (nothing[name].values == 0).all(), name
    if "p_value" in data:
        assert (nothing["p_value"].values == 1).all()
        assert (nothing["spread"].values > 0).all()
    assert nothing["size"].item() == 0 and np.isnan(nothing["own_loss"].item())
    others = ["row 3", "row 7"]
    assert_alike(problem.estimate(method, others).data, data.sel(subset=others))


def check_same_seed_same_bytes(method: str, problem: Problem) -> None:
    first, second = problem.found(method).data, problem.estimate(method).data
    for name in first.data_vars:
        assert first[name].values.tobytes() == second[name].values.tobytes(), name


def check_another_seed_other_numbers(method: str, problem: Problem) -> None:
    if "seed" not in {f.name for f in fields(method_class(method).Options)}:
        return
    rows = ["row 3", "row 7"]
    assert any(_differs(method, one, rows) for one in (problem.larger, problem.adaptive))


def _differs(method: str, problem: Problem, rows: list[str]) -> bool:
    if not problem.estimator(method).supports(problem.source(method)):
        return False
    first, second = (problem.estimate(method, rows, seed=seed).data for seed in (1, 2))
    return any((first[name].values != second[name].values).any() for name in numbers(first))


def check_support_is_what_happens(method: str, problem: Problem) -> None:
    estimator, wrong = problem.estimator(method), problem.wrong(method)
    assert (
        estimator.supports(problem.source(method)) and not estimator.supports(problem.source(method)).reason
    )
    support = estimator.supports(wrong)
    assert not support and support.reason.startswith("expected a ") and "next step: " in support.reason
    calls: list[Callable[[Source, Any], Any]] = [estimator.estimate, estimator.cost]
    for call in calls:
        with pytest.raises(NotSupportedError) as caught:
            call(wrong, problem.queries)
        assert str(caught.value) == support.reason
    with pytest.raises(NotSupportedError) as caught:
        fi.estimate(wrong, problem.queries, method)
    assert str(caught.value).startswith(f"{support.reason}; on this source work: '")
    assert f"'{method}'" not in str(caught.value).removeprefix(support.reason)


def check_cost_is_what_happens(method: str, problem: Problem) -> None:
    """Evaluations of rows are counted, by the loss itself."""
    source, loss = problem.counted(method)
    estimator, subsets = problem.estimator(method), ["row 3", "row 7", "row 12"]
    cost = estimator.cost(source, problem.queries, subsets)
    loss.evaluations = 0
    estimator.estimate(source, problem.queries, subsets)
    measured = (loss.evaluations + ROWS * OUTPUTS.get(method, 0)) / (STEPS * BATCH)
    known_again = 2 / STEPS  # two batches tell whether the loss still is what it was; no method counts them
    assert measured / 2 <= cost.trainings + known_again, (cost, measured)
    assert cost.trainings <= measured * 2, (cost, measured)
    assert 0 < cost.memory_bytes < 2**30 and "training runs" in str(cost)


def check_options_are_checked(method: str, problem: Problem) -> None:
    options = method_class(method).Options
    docs = option_docs(options)
    assert all(docs.values()), docs
    with pytest.raises(ConfigError) as caught:
        fi.estimate(problem.source(method), problem.queries, method, no_such_option=1)
    assert "'no_such_option'" in str(caught.value)
    for name, text in docs.items():
        assert f"{name} ({text})" in str(caught.value)
    for entry in fields(options):
        assert entry.default is not MISSING or entry.default_factory is not MISSING
        for value in impossible(entry.default):
            given = {**OPTIONS.get(method, {}), entry.name: value}
            with pytest.raises(ConfigError, match=IN_WORDS) as caught:
                fi.estimate(problem.source(method), problem.queries, method, **given)
            assert entry.name in str(caught.value) and repr(value) in str(caught.value)


def check_numbers_are_finite(method: str, problem: Problem) -> None:
    data = problem.found(method).data
    for name in (*numbers(data), "own_loss"):
        assert np.isfinite(data[name].values).all(), name


def check_candidates_are_taken_or_refused(method: str, problem: Problem) -> None:
    rows = fi.Rows(**{k: v[:2] for k, v in problem.recipe.rows.fields.items()}, ids=["a", "b"])  # type: ignore[attr-defined]
    estimator = problem.estimator(method)
    if method_class(method).takes_candidates():
        added = estimator.estimate(problem.source(method), problem.queries, candidates=rows)
        assert added.subsets.tolist() == ["a", "b"] and "adding the rows" in repr(added)
        return
    with pytest.raises(NotSupportedError, match="estimates removal only"):
        estimator.estimate(problem.source(method), problem.queries, candidates=rows)


def check_it_is_listed(method: str, problem: Problem) -> None:
    made = method_class(method)
    assert made.name == method and made.paper and made.family
    known = next(m for m in fi.methods() if m.name == method)
    assert known.summary and f"| `{method}` | {known.summary} |" in methods_table()
    with pytest.raises(ConfigError, match="expected a method among") as caught:
        fi.estimate(problem.source(method), problem.queries, "no such method")
    assert repr(method) in str(caught.value)


CHECKS = [check for name, check in sorted(globals().items()) if name.startswith("check_")]


def numbers(data: xr.Dataset) -> list[str]:
    """Return the variables with a number for each subset and query."""
    return [str(name) for name in data.data_vars if set(data[name].dims) == {"subset", "query"}]


def assert_alike(a: xr.Dataset, b: xr.Dataset, rtol: float = 1e-9) -> None:
    assert numbers(a) == numbers(b)
    for name in (*numbers(a), "own_loss"):
        np.testing.assert_allclose(
            b[name].transpose(*a[name].dims).values, a[name].values, rtol=rtol, atol=1e-12, err_msg=name
        )


def impossible(default: object) -> list[object]:
    """Return values that an option with this default cannot have."""
    if isinstance(default, bool):
        return []
    if isinstance(default, (int, float)):
        return [-1, "many"]
    return ["no such word"] if isinstance(default, str) else []
