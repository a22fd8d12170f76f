"""How a result was made: typed, written as plain values, read back from every version."""

import json
import zipfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from results import MADE, effects, mu_alone, scores

from finfluence.errors import ConfigError, DataError, StorageError
from finfluence.result import Influence, Provenance, load, pool
from four_parts import assert_parts

FIRST = Path(__file__).parent / "data" / "version-0.1.0.zip"


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results that version 0.1.0 wrote."""
    folder = tmp_path_factory.mktemp("first")
    with zipfile.ZipFile(FIRST) as archive:
        archive.extractall(folder)
    return folder


def test_it_goes_through_json_unchanged() -> None:
    whole = replace(
        MADE, seeds=({"init": 1, "order": 2},), findings=("a", "b"), horizon=(3, 4), query_values=((0.5, 1.0),),
        unreached=(("a", "q"),), verification={"verdict": "passed", "sentence": "Good."}, level=0.9, contrast="add",
    )  # fmt: skip
    assert Provenance.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole
    assert "horizon" not in MADE.to_dict()


def test_keys_of_another_version_are_kept() -> None:
    made = Provenance.from_dict({**MADE.to_dict(), "weather": ["fair"]})
    assert made.details == {"weather": ["fair"]} and made.to_dict()["weather"] == ["fair"]
    assert replace(made, runs=2).to_dict()["weather"] == ["fair"]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(DataError) as caught:
        Provenance.from_dict({"method": "x", "covers": []})
    assert_parts(
        caught.value, "how it was made: method, runs, covers, n_rows", "missing runs, n_rows", "mismatched parts",
        "pass provenance=Provenance(…)",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="a contrast among 'remove', 'add'"):
        replace(MADE, contrast="subtract")  # type: ignore[arg-type]


def test_results_of_the_first_version_are_read(first: Path) -> None:
    online, fine, retrain = (load(first / f"{kind}.zarr") for kind in ("online", "fine", "retrain"))
    assert (online.has_effect, fine.has_effect, fine.has_mu, retrain.has_effect) == (True, False, True, True)
    assert np.isfinite(fine.data["mu"]).all() and np.isfinite(online.data["effect"]).all()
    for one in (online, fine, retrain):
        assert one.provenance.details == {} and one.provenance.contrast == "remove"
    assert online.provenance.horizon == (3, 3) and online.provenance.seeds == ({"init": 0, "order": 0},)
    assert retrain.provenance.design == "leave-out" and retrain.provenance.runs_with == 10
    assert "spread over batch order, from 1 training run (method: fine)" in repr(fine)


def test_effects_are_written_so_that_the_first_version_reads_them(first: Path, tmp_path: Path) -> None:
    def header(path: Path) -> dict[str, object]:
        return dict(json.loads((path / "zarr.json").read_text())["attributes"]["finfluence"])

    load(first / "online.zarr").save(tmp_path / "r.zarr")
    then, now = header(first / "online.zarr"), header(tmp_path / "r.zarr")
    assert (
        then["version"] == now["version"] == 1
    )  # which reads further arrays, too: here the shrunken effects
    for n, other in enumerate((scores(), mu_alone(), effects(provenance=replace(MADE, contrast="add")))):
        other.save(tmp_path / f"{n}.zarr")
        assert header(tmp_path / f"{n}.zarr")["version"] == 2


def test_a_result_without_a_word_on_its_making_is_damaged(tmp_path: Path) -> None:
    effects().save(tmp_path / "r.zarr")
    path = tmp_path / "r.zarr" / "zarr.json"
    head = json.loads(path.read_text())
    del head["attributes"]["finfluence"]["attrs"]["method"]
    path.write_text(json.dumps(head))
    with pytest.raises(StorageError, match=r"damaged arrays \(DataError: [\s\S]*missing method"):
        load(tmp_path / "r.zarr")


def test_the_result_and_its_attributes_say_the_same() -> None:
    influence = effects()
    assert influence.provenance == MADE and influence.data.attrs == MADE.to_dict()
    other = influence.with_provenance(replace(MADE, runs=3))
    assert other.provenance.runs == 3 and influence.provenance.runs == 1
    assert isinstance(other, Influence) and other.data.equals(influence.data)


def test_pooling_keeps_only_what_is_true_of_all_runs() -> None:
    runs = [
        effects(
            provenance=replace(
                MADE, seeds=({"order": k},), query_values=((1.0, 2.0),), uncovered=("dropout",), findings=("same", "pool!"),
                spread_profile=((1.0,),), verification={"verdict": "passed", "sentence": "Good."},
            )
        )
        for k in range(2)
    ]  # fmt: skip
    made = pool(runs).provenance
    assert made.runs == 2 and made.seeds == ({"order": 0}, {"order": 1}) and made.findings == ("same",)
    assert made.covers == ("batch order", "dropout") and made.uncovered == ()
    assert made.spread_profile is None and made.verification is None


def test_every_field_is_documented() -> None:
    assert Provenance.__doc__ is not None
    for one in fields(Provenance):
        assert one.name in Provenance.__doc__
