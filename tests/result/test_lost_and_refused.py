"""What must not pass silently: a lost chunk of a saved result, results that do not pool, caveats that would vanish."""

from pathlib import Path

import numpy as np
import pytest
import torch

import finfluence as fi
import plain_training as pt
from finfluence.errors import DataError, StorageError
from finfluence.result import Influence, pool
from four_parts import assert_parts


@pytest.fixture(scope="module")
def runs() -> list[Influence]:
    described = pt.recipe()
    return [fi.replay(fi.train(described, seed=s), fi.own_loss([0, 1])) for s in range(3)]


def test_a_lost_chunk_is_not_read_as_missing_values(tmp_path: Path, runs: list[Influence]) -> None:
    path = tmp_path / "result.zarr"
    runs[0].save(path)
    assert fi.load(path).data.equals(runs[0].data)
    chunk = next(p for p in (path / "mu").rglob("*") if p.is_file() and p.name != "zarr.json")
    chunk.unlink()
    with pytest.raises(StorageError) as caught:
        fi.load(path)
    assert_parts(
        caught.value, f"a result of finfluence at {path}", "other numbers than were saved", "cut short",
        "make the result again",
    )  # fmt: skip


def test_a_replay_survives_saving_whole(tmp_path: Path, runs: list[Influence]) -> None:
    described = pt.recipe(data=fi.Rows(**pt.table().fields, ids=[f"zeile ü{i} 行" for i in range(12)]))
    for k, result in enumerate(
        [fi.replay(fi.train(described), fi.own_loss(["zeile ü0 行"])), runs[0], pool(runs)]
    ):
        result.save(tmp_path / f"{k}.zarr")
        loaded = fi.load(tmp_path / f"{k}.zarr")
        assert loaded.data.identical(result.data) or repr(loaded.data.attrs) == repr(result.data.attrs)
        assert loaded.data.equals(result.data) and repr(loaded) == repr(result)
        assert loaded.subsets.dtype == result.subsets.dtype


def refused(results: list[Influence], got: str) -> None:
    with pytest.raises(DataError) as caught:
        pool(results)
    assert_parts(
        caught.value, "replayed results of one recipe, the same subsets and queries", got, "different experiments",
        "train each with its own seed",
    )  # fmt: skip


def test_what_does_not_pool(runs: list[Influence]) -> None:
    tape = fi.train(pt.recipe(), seed=9)
    refused([], "no result")
    refused([runs[0], runs[0]], "one run more than once")
    refused([pool(runs[:2]), runs[2]], "a result that is pooled already")
    refused([runs[0], fi.replay(tape, fi.own_loss([0, 1]), method="full")], "results of different methods")
    refused([runs[0], fi.replay(tape, fi.own_loss([0, 2]))], "results over different query axes")
    refused(
        [runs[0], fi.replay(tape, fi.own_loss([0, 1]), subsets=[0, 1])], "results over different subset axes"
    )
    other = fi.replay(fi.train(pt.recipe(epochs=4), seed=9), fi.own_loss([0, 1]))
    refused([runs[0], other], "results of different recipes")
    fine = [fi.estimate(t, fi.own_loss([0]), "fine") for t in (tape, fi.train(pt.recipe(), seed=8))]
    refused(fine, "method 'fine', which has no effects to average")


@pytest.mark.parametrize(
    ("field", "got"),
    [("size", "other numbers of rows"), ("sign", "with another sign"), ("unit", "in another unit")],
)
def test_namesakes_do_not_pool(runs: list[Influence], field: str, got: str) -> None:
    values = runs[1].data[field].values
    other = np.char.add(values, " of another") if field == "unit" else 1 - 2 * values
    dimension = runs[1].data[field].dims
    refused([runs[0], Influence(runs[1].data.assign_coords({field: (dimension, other)}))], got)


def test_pooled_effects_are_means(runs: list[Influence]) -> None:
    pooled = pool(runs).data
    np.testing.assert_allclose(pooled.effect, np.mean([r.data.effect for r in runs], 0), rtol=1e-12)
    np.testing.assert_allclose(pooled.spread**2, np.mean([r.data.spread**2 for r in runs], 0), rtol=1e-12)
    assert pooled.attrs["runs"] == 3 and pooled.attrs["covers"] == ["batch order"]
    assert pooled.attrs["seeds"] == [{"init": s, "order": s} for s in range(3)]


def test_dropout_is_covered_by_pooling_and_said() -> None:
    def dropping() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Dropout(0.5), torch.nn.Linear(6, 3))

    described = pt.recipe(model=pt.made(dropping))
    found = [fi.replay(fi.train(described, seed=s), fi.own_loss([0])) for s in range(4)]
    assert "dropout" in repr(found[0]) and found[0].data.attrs["covers"] == ["batch order"]
    pooled = pool(found).data
    assert pooled.attrs["covers"] == ["batch order", "dropout"] and pooled.attrs["uncovered"] == []
    values = np.array([f.data.attrs["query_values"][0][0] for f in found])
    within = np.mean([f.data.spread.values[0, 0] ** 2 for f in found])
    assert pooled.spread.values[0, 0] ** 2 == pytest.approx(max(values.var(ddof=1), within))


def test_power_of_one() -> None:
    found = Influence.build(
        effect=[[1.0], [-1.0]], spread=[[1.0], [1.0]], se=[[0.1], [0.1]], p_value=[[0.5], [0.5]],
        subsets=["a", "b"], queries=["q"], provenance={"method": "x", "runs": 1, "covers": [], "n_rows": 2},
    )  # fmt: skip
    np.testing.assert_allclose(found.power(0.05).values[:, 0], 0.259511, atol=5e-7)
