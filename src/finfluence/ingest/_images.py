"""A folder of images: one sub-folder per class, all images brought to one size and one colour mode."""

import hashlib
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from finfluence.errors import DataError, explain
from finfluence.ingest._messages import listed, require

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
SMALLEST, LARGEST = 8, 64
SPLIT_NAMES = frozenset(
    {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "holdout"}
)
_GREY_MODES = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True, eq=False)
class Pictures:
    """The images of a folder, decoded."""

    pixels: np.ndarray
    """uint8 `[n, size, size, 1 or 3]`."""
    labels: np.ndarray
    ids: np.ndarray
    digest: str
    size: int
    mode: str
    notes: list[str] = field(default_factory=list)


def read_folder(
    root: Path, size: int | None = None, mode: str | None = None, labelled: bool = True
) -> Pictures:
    """Read all images under `root/<class>/`, each cropped to its central square and resized to `size`.

    Parameters
    ----------
    root
        The folder; the names of its sub-folders are the classes. Folders inside them belong to the class.
    size
        Side in pixels; None takes the median of the shorter sides, within 8 and 64.
    mode
        `"grey"` or `"rgb"`; None takes grey only if every image is grey.
    labelled
        Whether sub-folders are classes; else all images below `root` are taken, and every label is "".

    Returns
    -------
    Pictures

    Raises
    ------
    DataError
        There are no class folders or no images, or an image cannot be decoded.
    """
    classes = _class_folders(root) if labelled else [("", root)]
    files = [(name, path) for name, folder in classes for path in _walk(folder)]
    found = [(name, path) for name, path in files if path.suffix.lower() in EXTENSIONS]
    if not found:
        raise DataError(
            explain(
                f"images ({listed(sorted(EXTENSIONS), 20)}) in the class folders of {root}",
                f"{len(classes)} folders ({listed(name for name, _ in classes)}) without an image",
                "another folder than intended",
                "name the folder whose sub-folders hold the images",
            )
        )
    outlines = [_outline(path) for _, path in found]
    grey = all(outline[1] for outline in outlines)
    mode = mode or ("grey" if grey else "rgb")
    size = size or int(
        np.clip(round(float(np.median([outline[0] for outline in outlines]))), SMALLEST, LARGEST)
    )
    state = hashlib.sha256()
    pixels = np.empty((len(found), size, size, 1 if mode == "grey" else 3), dtype=np.uint8)
    ids = []
    for row, (_, path) in enumerate(found):
        identity = path.relative_to(root).as_posix().encode("utf-8", "backslashreplace")
        ids.append(identity.decode("utf-8"))
        data = path.read_bytes()
        state.update(len(identity).to_bytes(8, "big") + identity + hashlib.sha256(data).digest())
        pixels[row] = _decoded(path, size, mode)
    notes = [f"images are {size}x{size} {mode}: central square, resized"]
    others = len(files) - len(found)
    if others:
        notes.append(f"{others} files in the class folders are no images and were left out")
    labels = np.empty(len(found), dtype=object)
    labels[:] = [name for name, _ in found]
    return Pictures(pixels, labels, np.array(ids), state.hexdigest(), size, mode, notes)


def _class_folders(root: Path) -> list[tuple[str, Path]]:
    entries = [entry for entry in sorted(root.iterdir()) if not entry.name.startswith(".")]
    folders = [(entry.name, entry) for entry in entries if entry.is_dir() and not _loops(entry, root)]
    if not folders:
        images = sum(entry.suffix.lower() in EXTENSIONS for entry in entries)
        raise DataError(
            explain(
                f"a sub-folder per class in {root}, each holding that class's images",
                f"no sub-folder, {images} images and {len(entries) - images} other files",
                "all images in one folder, or one folder too deep",
                "sort the images into one folder per class, or name the folder above",
            )
        )
    if {name.casefold() for name, _ in folders} <= SPLIT_NAMES:
        names = [name for name, _ in folders]
        first = next((name for name in names if name.casefold().startswith("train")), names[0])
        raise DataError(
            explain(
                f"class names as sub-folders of {root}",
                f"the parts of a data set: {listed(names)}",
                "one folder too high",
                f"scan {root / first} and give another part by --holdout",
            )
        )
    return folders


def _loops(entry: Path, root: Path) -> bool:
    """Tell whether a linked folder leads back to a folder that contains it."""
    return entry.is_symlink() and Path(os.path.realpath(root)).is_relative_to(os.path.realpath(entry))


def _walk(folder: Path) -> list[Path]:
    found = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name in ("Thumbs.db", "desktop.ini"):
            continue
        if entry.is_dir():
            found += [] if _loops(entry, folder) else _walk(entry)
        else:
            found.append(entry)
    return found


def _outline(path: Path) -> tuple[int, bool]:
    image = _opened(path)
    with image:
        return min(image.size), image.mode in _GREY_MODES


def _opened(path: Path) -> Any:
    pillow = require("PIL.Image", "decodes images")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            return pillow.open(path)
    except (
        OSError,
        ValueError,
        SyntaxError,
        pillow.DecompressionBombWarning,
        pillow.DecompressionBombError,
    ) as error:
        raise _unreadable(path, error) from error


def _decoded(path: Path, size: int, mode: str) -> np.ndarray:
    pillow, ops = require("PIL.Image", "decodes images"), require("PIL.ImageOps", "turns images upright")
    with _opened(path) as image:
        try:
            image = _eight_bits(ops.exif_transpose(image))
            if "A" in image.getbands() or "transparency" in image.info:
                image = image.convert("RGBA")
                image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
            image = image.convert("L" if mode == "grey" else "RGB")
            image = ops.fit(image, (size, size), method=pillow.Resampling.BICUBIC)
        except (OSError, ValueError, SyntaxError, ZeroDivisionError) as error:
            raise _unreadable(path, error) from error
        array = np.asarray(image, dtype=np.uint8)
    return array[..., None] if array.ndim == 2 else array


def _eight_bits(image: Any) -> Any:
    """Bring 16-bit, 32-bit and float greys to 8 bits; Pillow would cut them off at 255."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image, dtype=np.float64)
    top = 65535.0 if image.mode.startswith("I") else 1.0
    top = max(top, float(values.max()))
    return require("PIL.Image", "decodes images").fromarray(
        np.clip(values * (255.0 / top), 0, 255).astype(np.uint8)
    )


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        explain(
            "an image",
            f"{path} cannot be decoded: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            "a copy that did not finish, a broken link, or another file under an image's extension",
            "replace or remove that file",
        )
    )
