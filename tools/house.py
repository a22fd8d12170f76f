"""Draw the house: every package, on the layer that the import contract gives it, and who imports whom.

    python -m tools.house            # writes docs/house.svg
    python -m tools.house --check    # says whether it is up to date

Layers are those of `pyproject.toml`; imports are read from the sources, type-checking ones included. An arrow that
follows from others is left out, and so are the packages that nearly everybody imports.
"""

import argparse
import ast
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PICTURE = ROOT / "docs/house.svg"
WIDTH, BOX, HEIGHT, GAP, MARGIN = 1120, 290, 84, 40, 20


def layers() -> list[list[str]]:
    """Return the packages of each layer, top first."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    (rows,) = [
        c["layers"]
        for c in tools["importlinter"]["contracts"]
        if c["type"] == "layers" and "containers" not in c
    ]
    return [[name.strip().removeprefix("finfluence.") for name in row.split("|")] for row in rows]


def everywhere(name: str) -> bool:
    """Return whether a module is one of those that nearly everybody imports."""
    return name.startswith("_") or name == "errors"


def sources(package: str) -> list[Path]:
    """Return the files of a package, or the one file of a module."""
    folder = SOURCE / "finfluence" / package
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imported(path: Path) -> Iterator[str]:
    """Return the packages of this project that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = (
                [node.module] if node.module != "finfluence" else [f"finfluence.{a.name}" for a in node.names]
            )
        elif isinstance(node, ast.Import):
            modules = [a.name for a in node.names]
        else:
            continue
        for module in modules:
            if module.startswith("finfluence."):
                yield module.split(".")[1]


def arrows(packages: list[str]) -> list[tuple[str, str]]:
    """Return who imports whom, without what follows from other arrows."""
    direct = {p: {n for f in sources(p) for n in imported(f) if n in packages and n != p} for p in packages}

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = list(direct[start])
        while waiting:
            if (name := waiting.pop()) not in found:
                found.add(name)
                waiting += direct[name]
        return found

    below = {p: reached(p) for p in packages}
    return sorted((p, n) for p in packages for n in direct[p] if not any(n in below[m] for m in direct[p]))


def said(package: str) -> str:
    """Return the first sentence of a package's docstring."""
    folder = SOURCE / "finfluence" / package
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).rstrip(".").replace("`", "")


def rooms(package: str) -> str:
    """Return the names of the packages inside a package."""
    folder = SOURCE / "finfluence" / package
    return " · ".join(sorted(p.parent.name for p in folder.glob("*/__init__.py")))


def _box(name: str, x: float, y: float) -> list[str]:
    inside = rooms(name)
    lines = textwrap.wrap(said(name), 46)[: 2 if inside else 3]
    parts = [
        f'<rect x="{x:g}" y="{y:g}" width="{BOX}" height="{HEIGHT}" rx="6" class="box"/>',
        f'<text x="{x + 10:g}" y="{y + 19:g}" class="name">{escape(name)}</text>',
    ]
    parts += [f'<text x="{x + 10:g}" y="{y + 36 + 14 * i:g}">{escape(t)}</text>' for i, t in enumerate(lines)]
    if inside:
        shown = textwrap.shorten(inside, 50, placeholder=" …")
        parts.append(f'<text x="{x + 10:g}" y="{y + HEIGHT - 9:g}" class="room">{escape(shown)}</text>')
    return parts


def draw() -> str:
    """Return the picture as SVG; the same sources give the same bytes."""
    rows = [[p for p in row if not everywhere(p)] for row in layers()]
    rows = [row for row in rows if row]
    places: dict[str, tuple[float, float]] = {}
    for i, row in enumerate(rows):
        left = (WIDTH - len(row) * BOX - (len(row) - 1) * GAP) / 2
        for j, name in enumerate(row):
            places[name] = (left + j * (BOX + GAP), MARGIN + i * (HEIGHT + GAP))
    bottom = MARGIN + len(rows) * (HEIGHT + GAP)
    body: list[str] = []
    level = {name: i for i, row in enumerate(rows) for name in row}
    for above, below in arrows(list(places)):
        (x1, y1), (x2, y2) = places[above], places[below]
        x1, y1, x2 = x1 + BOX / 2, y1 + HEIGHT, x2 + BOX / 2
        span = level[below] - level[above]
        side = (
            0.0 if span == 1 else (BOX / 2 + 30 + 14 * span) * (1 if x2 >= x1 else -1)
        )  # around what lies between
        bend = f"C{x1 + side:g},{y1 + 30:g} {x2 + side:g},{y2 - 30:g} {x2:g},{y2:g}"
        body.append(
            f'<path class="arrow" d="M{x1:g},{y1:g} {bend}"><title>{above} imports {below}</title></path>'
        )
    for name, (x, y) in places.items():
        body += _box(name, x, y)
    common = ", ".join(sorted(p for row in layers() for p in row if everywhere(p)))
    note = f"Everybody may import {common}. Arrows that follow from others are left out."
    body.append(f'<text x="{WIDTH / 2:g}" y="{bottom:g}" text-anchor="middle">{note}</text>')
    style = (
        "text{font:11px sans-serif;fill:#333}.name{font-weight:bold;font-size:14px}.room{fill:#777}"
        ".box{fill:#f4f6f8;stroke:#90a4ae}.arrow{fill:none;stroke:#607d8b;marker-end:url(#tip)}"
    )
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + MARGIN:g}" role="img">',
            f"<title>Packages of finfluence and who imports whom</title><style>{style}</style>",
            f'<defs>{tip}<path d="M0,0 L8,4 L0,8 z" fill="#607d8b"/></marker></defs>',
            '<rect width="100%" height="100%" fill="white"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def main() -> None:
    """Write the picture, or say whether it is up to date."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if docs/house.svg is out of date"
    )
    if parser.parse_args().check:
        sys.exit(0 if PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == draw() else 1)
    PICTURE.write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    main()
