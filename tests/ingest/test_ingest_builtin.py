import gzip
import inspect
import struct

import numpy as np
import pytest

from finfluence.errors import DataError
from finfluence.ingest import BUILTIN_NAMES, digits_frame, read, reread, split

builtin = inspect.getmodule(digits_frame)
HAVE_FASHION = (builtin.FASHION_FOLDER / "train-images-idx3-ubyte.gz").is_file()


def test_digits():
    train, held = split(read("digits"))
    assert (len(train) + len(held), train.x.shape[1:]) == (1797, (1, 8, 8))
    assert train.target.classes == tuple(range(10))
    assert abs(len(held) - 359) <= 1 and set(held.y) == set(range(10))
    assert reread(train.source).source.digest == train.source.digest


def test_digits_as_a_table_hold_the_same_numbers(tmp_path):
    frame = digits_frame()
    frame.to_csv(tmp_path / "digits.csv", index=False)
    raw, images = read(tmp_path / "digits.csv", target="label"), read("digits")
    assert raw.task == "classification"
    assert [int(value) for value in raw.labels] == images.labels.tolist()
    pixels = raw.frame.drop(columns="label").to_numpy(dtype=np.float64).reshape(-1, 8, 8)
    np.testing.assert_array_equal(np.round(pixels * (255 / 16)), images.pixels[..., 0])


@pytest.mark.skipif(not HAVE_FASHION, reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist_comes_with_its_hold_out():
    raw = read("fashion-mnist")
    assert (len(raw), len(raw.official)) == (60_000, 10_000)
    train, held = split(raw.take(range(500)))
    assert (train.x.shape, held.x.shape) == ((500, 1, 28, 28), (10_000, 1, 28, 28))
    assert np.bincount(held.y).tolist() == [1000] * 10
    assert train.labels[:3].tolist() == ["Ankle boot", "T-shirt/top", "T-shirt/top"]
    assert reread(held.source).labels.tolist() == held.labels.tolist()
    fraction, rest = split(raw.take(range(500)), holdout_fraction=0.2)
    assert len(fraction) + len(rest) == 500


def test_fashion_mnist_absent(tmp_path, monkeypatch, refused):
    monkeypatch.setattr(builtin, "FASHION_FOLDER", tmp_path)
    monkeypatch.setattr(builtin, "_package_files", list)
    with refused(
        DataError, "train-images", "it is not in", "not installed", "apt-get install dataset-fashion-mnist"
    ):
        read("fashion-mnist")


def test_fashion_mnist_elsewhere(tmp_path, monkeypatch):
    for stem, n in (("train", 20), ("t10k", 10)):
        images = struct.pack(">HBBIII", 0, 8, 3, n, 28, 28) + bytes(n * 784)
        labels = struct.pack(">HBBI", 0, 8, 1, n) + bytes(i % 10 for i in range(n))
        (tmp_path / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{stem}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    monkeypatch.setattr(builtin, "FASHION_FOLDER", tmp_path / "nowhere")
    monkeypatch.setattr(builtin, "_package_files", lambda: [str(path) for path in tmp_path.iterdir()])
    raw = read("fashion-mnist")
    assert (len(raw), len(raw.official), raw.labels[9]) == (20, 10, "Ankle boot")


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b"\1\2\3\4"), gzip.compress(b"\0\0\x08\x01\0\0\0\x09ab")],
    ids=["no gzip", "no header", "cut short"],
)
def test_damaged_idx_file(write, refused, content):
    with refused(DataError, "a gzipped IDX file", "a.gz cannot be read", "did not finish", "--reinstall"):
        builtin.read_idx(write("a.gz", content))


def test_names():
    assert BUILTIN_NAMES == ("digits", "fashion-mnist")
