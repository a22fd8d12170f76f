"""The labelled result: figures, selection, words, files."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from finfluence.errors import ConfigError, DataError, StorageError
from finfluence.result import Influence, load, ratio_interval

ATTRS: dict[str, Any] = {"method": "online", "runs": 1, "covers": ["batch order"], "n_rows": 4}


def result(ids: list[Any] | None = None, **changes: Any) -> Influence:
    arguments: dict[str, Any] = {
        "effect": [[0.2, 1.0], [-0.1, -2.0], [0.0, 0.5], [-0.4, 0.0]],
        "spread": [[0.1, 1.0]] * 4,
        "se": [[0.3, 0.3]] * 4,
        "p_value": [[0.01, 0.5]] * 4,
        "subsets": ids or ["a", "b", "ü", "d"],
        "queries": ["held-out", "accuracy"],
        "units": ["nats", "share"],
        "signs": [-1, 1],
        "own_loss": [0.1, 3.0, 0.2, 2.0],
        "provenance": ATTRS,
        **changes,
    }
    return Influence.build(**arguments)


def test_mu_is_effect_over_spread_and_the_interval_its_level() -> None:
    data = result(provenance={**ATTRS, "level": 0.9}).data
    np.testing.assert_allclose(data.mu.values[:, 0], [2.0, -1.0, 0.0, -4.0])
    np.testing.assert_allclose(data.upper.values - data.mu.values, 1.6448536 * 0.3, rtol=1e-6)
    assert data.attrs["level"] == 0.9 and result().provenance.level == 0.95


def test_harmful_follows_the_sign_of_the_query() -> None:
    influence = result()
    assert influence.top(1, "held-out").row_id.tolist() == ["d"]
    assert influence.top(1, "accuracy").row_id.tolist() == ["a"]
    assert influence.top(1, "held-out", "helpful").row_id.tolist() == ["a"]
    assert influence.top(2, "held-out", "both").row_id.tolist() == ["d", "a"]
    np.testing.assert_allclose(influence.harm("accuracy"), [1.0, -2.0, 0.5, 0.0])


def test_power_and_tradeoff_are_those_of_the_gaussian_curve() -> None:
    influence = result(mu=np.ones((4, 2)))
    assert float(influence.power(0.05)[0, 0]) == pytest.approx(0.259511, abs=1e-6)
    assert influence.tradeoff("a")(0.05) == pytest.approx(0.740489, abs=1e-6)


def test_selecting_finds_planted_rows_and_permuting_rows_permutes_the_result() -> None:
    rng = np.random.default_rng(0)
    effect = np.r_[rng.normal(size=450), rng.normal(-7, 1, size=50)]
    order = rng.permutation(500)

    def selected(which: np.ndarray) -> list[int]:
        column = effect[which][:, None]
        ones = np.ones_like(column)
        built = Influence.build(
            effect=column, spread=ones, se=ones, p_value=ones, subsets=which, queries=["q"], provenance=ATTRS
        )
        return built.select(fdr=0.1).row_id.tolist()

    found = selected(np.arange(500))
    assert len(set(found) & set(range(450, 500))) >= 48
    assert len(set(found) - set(range(450, 500))) <= 10
    assert selected(order) == found


def test_the_printout_says_sign_unit_runs_and_covered_randomness() -> None:
    text = repr(result())
    for words in (
        "4 rows on 2 queries",
        "spread over batch order, from 1 training run (method: online)",
        "mu > 0: removing the rows raises 'held-out' [nats], so the rows help",
        "mu > 0: removing the rows raises 'accuracy' [share], so the rows harm",
        "next: .top(10), .select(fdr=0.1)",
    ):
        assert words in text


def test_frame_has_one_line_for_each_pair() -> None:
    frame = result().to_frame()
    assert frame.shape[0] == 8
    assert frame.columns[:4].tolist() == ["row_id", "query", "effect", "effect_se"]
    assert frame.own_loss.tolist() == [0.1, 3.0, 0.2, 2.0] * 2


@pytest.mark.parametrize("ids", [["a", "b", "ü</script>", "d"], [10, 20, 30, 40]])
def test_save_and_load_give_the_same_result(tmp_path: Path, ids: list[Any]) -> None:
    influence = result(ids)
    influence.save(tmp_path / "i.zarr")
    influence.save(tmp_path / "i.zarr")
    assert load(tmp_path / "i.zarr").data.identical(influence.data)
    assert [p.name for p in tmp_path.iterdir()] == ["i.zarr"]


def test_loading_something_else_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as missing:
        load(tmp_path / "none.zarr")
    for words in (
        "expected a result of finfluence at",
        "got: no such folder",
        "likely cause",
        "next step: check the path",
    ):
        assert words in str(missing.value)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.txt").write_text("x")
    with pytest.raises(StorageError, match="a file or folder of another program"):
        load(tmp_path / "other")


def test_saving_never_replaces_a_folder_of_another_program(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError):
        result().save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_damaged_arrays_are_told(tmp_path: Path) -> None:
    result().save(tmp_path / "i.zarr")
    chunks = [p for p in (tmp_path / "i.zarr" / "mu").rglob("*") if p.is_file() and p.name != "zarr.json"]
    assert chunks
    for chunk in chunks:
        chunk.write_bytes(b"\x00\x01")
    with pytest.raises(StorageError, match="damaged"):
        load(tmp_path / "i.zarr")


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError) as error:
        result().top(query="held out")
    assert "expected a query among 'held-out', 'accuracy'" in str(error.value)
    assert "did you mean 'held-out'?" in str(error.value)
    with pytest.raises(ConfigError, match=r"did you mean 'harmful'"):
        result().top(direction="harmfull")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"write 0\.1 for 10 %"):
        result().select(fdr=10)


def test_building_from_mismatched_parts_is_refused() -> None:
    with pytest.raises(DataError, match=r"arrays of shape \(4, 2\)"):
        result(effect=[[1.0, 2.0]])
    with pytest.raises(DataError, match="missing runs"):
        result(provenance={"method": "x", "covers": [], "n_rows": 4})


def test_the_report_is_one_page_about_the_query(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    effect = rng.normal(size=(60, 1))
    ones = np.ones_like(effect)
    built = Influence.build(
        effect=effect,
        spread=ones,
        se=ones,
        p_value=ones,
        subsets=range(60),
        queries=["held-out"],
        provenance=ATTRS,
    )
    built.report(tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "held-out" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")


def test_an_uncertain_spread_does_not_make_a_certain_sign_uncertain() -> None:
    one = np.ones(1)
    se, lower, upper = ratio_interval(-2 * one, 0.01 * one, one, one)
    assert upper[0] < 0
    assert lower[0] < -2
    assert se[0] == pytest.approx(math.hypot(0.01, 2.0))


def test_a_ratio_with_a_known_spread_has_the_plain_interval() -> None:
    one = np.ones(1)
    _, lower, upper = ratio_interval(one, 0.5 * one, 2 * one, 0 * one)
    assert lower[0] == pytest.approx(0.5 - 1.959964 * 0.25, abs=1e-6)
    assert upper[0] == pytest.approx(0.5 + 1.959964 * 0.25, abs=1e-6)
