import numpy as np
import pytest

from finfluence.errors import DataError
from finfluence.ingest import read, split

RNG = np.random.default_rng(0)
Y = np.arange(40) % 3


def save(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


def test_rows_of_features(tmp_path):
    x = RNG.normal(5, 3, (40, 4))
    x[:, 2] = 1.0
    raw = read(
        save(tmp_path, x=x, y=Y, name=np.arange(100, 140), who=np.array(["a", "b"] * 20)), None, "name", "who"
    )
    train, held = split(raw)
    assert train.kind == "arrays" and train.frame is None and train.features == ("x0", "x1", "x3")
    assert train.dropped == {"x2": "constant"}
    at = train.ids - 100
    expected = (x[at] - x[at].mean(axis=0))[:, [0, 1, 3]] / x[at].std(axis=0)[[0, 1, 3]]
    np.testing.assert_allclose(train.x, expected, rtol=1e-4, atol=1e-6)
    assert train.groups.tolist() == [["a", "b"][i % 2] for i in at]
    assert list(train.preview(0)["cells"]) == ["y", "x0", "x1", "x3"]
    np.testing.assert_array_equal(held.y, Y[held.ids - 100])


@pytest.mark.parametrize("shape", [(40, 6, 5), (40, 6, 5, 3), (40, 3, 6, 5), (40, 1, 6, 5)])
def test_images_of_any_layout(tmp_path, shape):
    train, _ = split(read(save(tmp_path, x=RNG.integers(0, 256, shape).astype(np.uint8), y=Y)))
    channels = 3 if 3 in shape else 1
    assert train.kind == "images" and train.x.shape[1:] == (channels, 6, 5)
    np.testing.assert_allclose(train.x.std(axis=(0, 2, 3)), 1, atol=1e-5)
    assert train.preview(0)["image"].shape == ((6, 5, 3) if channels == 3 else (6, 5))


def test_float_images_can_be_looked_at(tmp_path):
    x = RNG.normal(size=(40, 4, 4))
    train, _ = split(read(save(tmp_path, x=x, y=Y)))
    assert train.pictures.dtype == np.uint8 and (train.pictures.min(), train.pictures.max()) == (0, 255)


def test_missing_arrays(tmp_path, refused):
    with refused(
        DataError, "an array 'x' (features)", "arrays 'X', 'y'; did you mean 'X'?", "names", "numpy.savez"
    ):
        read(save(tmp_path, X=np.ones((3, 2)), y=Y[:3]))
    with refused(DataError, "an array 'y' (target)", "arrays 'x'", "under others", "y=targets"):
        read(save(tmp_path, x=np.ones((3, 2))))


def test_lengths_and_shapes(tmp_path, refused):
    with refused(
        DataError, "'x' of shape [rows, features]", "x [3, 2] and y [4]", "one-hot", "one row per sample"
    ):
        read(save(tmp_path, x=np.ones((3, 2)), y=Y[:4]))
    with refused(DataError, "and 'y' of shape [rows]", "y [3, 2]", "one-hot targets", "class indices"):
        read(save(tmp_path, x=np.ones((3, 2)), y=np.eye(3)[:, :2]))
    with refused(
        DataError, "one entry for each of the 3 rows", "shape [2]", "different data sets", "one and the same"
    ):
        read(save(tmp_path, x=np.ones((3, 2)), y=Y[:3], i=np.arange(2)), id_column="i")
    with refused(DataError, "1, 3 or 4 channels", "x of shape [3, 5, 6, 7]", "volumes", "flatten"):
        read(save(tmp_path, x=np.ones((3, 5, 6, 7)), y=Y[:3]))
    with refused(DataError, "numbers in 'x'", "type <U1", "texts", "CSV or Parquet"):
        read(save(tmp_path, x=np.array([["a"]] * 3), y=Y[:3]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path, refused, value):
    x = np.ones((40, 3))
    x[7, 2] = value
    with refused(
        DataError, "finite numbers in 'x'", f"{value} at position [7, 2], 1 such", "overflow", "leave out"
    ):
        read(save(tmp_path, x=x, y=Y))


def test_pickled_objects_are_refused(tmp_path, refused):
    x = np.array([[1], [1, 2], [3]], dtype=object)
    with refused(DataError, "arrays of numbers or texts", "Python objects in 'x'", "pickle", "dtype=str"):
        read(save(tmp_path, x=x, y=Y[:3]))


def test_damaged_file(write, refused):
    with refused(DataError, "an .npz file of numpy", "cannot be read", "did not finish", "numpy.savez"):
        read(write("a.npz", b"PK\x03\x04 cut"))
    with refused(
        DataError, "an .npz file of numpy", "cannot be read", "another format", "write the file again"
    ):
        read(write("b.npz", b""))


def test_constant_features(tmp_path, refused):
    with refused(DataError, "features that differ between rows", "2 constant columns", "one value", "in 'x'"):
        split(read(save(tmp_path, x=np.ones((40, 2)), y=Y)))
