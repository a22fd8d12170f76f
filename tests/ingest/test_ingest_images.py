import os

import numpy as np
import pytest
from PIL import Image

from finfluence.errors import ConfigError, DataError
from finfluence.ingest import read, reread, split


@pytest.fixture
def folder(tmp_path):
    """Two classes of six 20x12 grey images; class b is brighter."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for name, level in (("ant", 60), ("bée", 180)):
        (root / name / "more").mkdir(parents=True)
        for i in range(6):
            pixels = np.clip(rng.normal(level, 20, (12, 20)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / ("more" if i == 5 else "") / f"{i}.png")
    return root


def test_a_folder_of_grey_images(folder):
    raw = read(folder)
    train, held = split(raw)
    assert raw.pixels.shape == (12, 12, 12, 1)
    assert raw.ids.tolist()[:2] == ["ant/0.png", "ant/1.png"] and "bée/more/5.png" in raw.ids
    assert train.target.classes == ("ant", "bée") and train.kind == "images" and train.frame is None
    assert train.x.shape == (10, 1, 12, 12) and held.x.shape == (2, 1, 12, 12)
    np.testing.assert_allclose([train.x.mean(), train.x.std()], [0, 1], atol=1e-5)
    assert "images are 12x12 grey: central square, resized" in train.notes
    shown = train.preview(0)["image"]
    assert shown.dtype == np.uint8 and shown.shape == (12, 12)
    with Image.open(folder / str(train.ids[0])) as image:
        np.testing.assert_array_equal(shown, np.asarray(image)[:, 4:16])


def test_one_coloured_image_makes_all_rgb(folder):
    Image.new("RGB", (30, 30), (255, 0, 0)).save(folder / "ant" / "red.jpg")
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(folder / "ant" / "see-through.png")
    Image.new("P", (30, 30)).save(folder / "ant" / "palette.gif")
    raw = read(folder)
    assert raw.pixels.shape[1:] == (12, 12, 3)
    index = raw.ids.tolist().index("ant/see-through.png")
    assert (raw.pixels[index] == 255).all()
    train, _ = split(raw)
    assert train.x.shape[1:] == (3, 12, 12) and train.preview(0)["image"].shape == (12, 12, 3)


def test_sixteen_bits_are_not_cut_off(folder):
    Image.fromarray(np.full((12, 12), 32768, dtype=np.uint16)).save(folder / "ant" / "deep.png")
    raw = read(folder)
    assert raw.pixels.shape[-1] == 1
    assert (raw.pixels[raw.ids.tolist().index("ant/deep.png")] == 127).all()


def test_size_and_mode_can_be_given_and_are_read_again(folder):
    raw = read(folder, image_size=9, image_mode="rgb")
    assert raw.pixels.shape == (12, 9, 9, 3)
    assert reread(raw.source).pixels.shape == (12, 9, 9, 3)


def test_photos_are_reduced_to_64(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("L", (300, 200), 40 * i).save(tmp_path / name / f"{i}.png")
    assert read(tmp_path).pixels.shape == (6, 64, 64, 1)


def test_other_files_are_left_out_and_counted(folder):
    (folder / "ant" / "notes.txt").write_text("x")
    (folder / "ant" / ".hidden.png").write_text("x")
    raw = read(folder)
    assert len(raw) == 12
    assert "1 files in the class folders are no images and were left out" in raw.notes


def test_link_loops_end(folder):
    os.symlink(folder, folder / "loop")
    os.symlink(folder / "ant", folder / "ant" / "more" / "again")
    assert len(read(folder)) == 12


def test_corrupt_image_is_named(folder, refused):
    whole = (folder / "ant" / "0.png").read_bytes()
    (folder / "ant" / "0.png").write_bytes(whole[:80])
    with refused(DataError, "an image", "ant/0.png cannot be decoded", "did not finish", "replace or remove"):
        read(folder)
    (folder / "ant" / "0.png").write_bytes(b"not an image")
    with refused(
        DataError, "an image", "0.png cannot be decoded: cannot identify", "another file", "that file"
    ):
        read(folder)


def test_broken_link_is_named(folder, refused):
    os.symlink(folder / "nowhere.png", folder / "ant" / "gone.png")
    with refused(DataError, "an image", "gone.png cannot be decoded", "a broken link", "remove that file"):
        read(folder)


def test_decompression_bomb_is_refused(folder, refused, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with refused(DataError, "an image", "decompression bomb", "another file", "that file"):
        read(folder)


def test_no_class_folders(tmp_path, refused):
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with refused(
        DataError, "a sub-folder per class", "no sub-folder, 1 images", "one folder", "sort the images"
    ):
        read(tmp_path)
    (tmp_path / "c").mkdir()
    with refused(
        DataError, "images ('.bmp'", "1 folders ('c') without an image", "another folder", "sub-folders"
    ):
        read(tmp_path)


def test_parts_instead_of_classes(folder, refused):
    root = folder.parent / "parts"
    for part in ("test", "train"):
        (root / part).mkdir(parents=True)
    with refused(
        DataError, "class names", "'test', 'train'", "one folder too high", f"scan {root / 'train'}"
    ):
        read(root)


def test_one_class(folder, refused):
    for path in sorted((folder / "ant").rglob("*.png")):
        path.unlink()
    with refused(
        DataError,
        "two different values of the target 'folder name'",
        "one: 'bée'",
        "filtered",
        "other classes",
    ):
        read(folder)


def test_columns_do_not_go_with_images(folder, refused):
    with refused(
        ConfigError, "which has no columns", "'--target species', '--id key'", "a table", "leave them out"
    ):
        read(folder, target="species", id_column="key")


def test_hold_out_folder_takes_the_training_size(folder, tmp_path):
    for name in ("ant", "bée"):
        (tmp_path / "val" / name).mkdir(parents=True)
    Image.new("L", (50, 70), 30).save(tmp_path / "val" / "ant" / "z.png")
    train, held = split(read(folder), tmp_path / "val")
    assert (len(train), held.x.shape) == (12, (1, 1, 12, 12))
    assert held.y.tolist() == [0]
