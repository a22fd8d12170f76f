"""Pages that are written from the code at each build: the reference of functions and commands, the table of methods."""

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "src"))

GROUPS = {
    "Describe a training": (
        "Recipe", "Rows", "SGD", "Adam", "AdamW", "Query", "mean_loss", "each_loss", "own_loss",
    ),
    "Train and record": ("train", "Tape", "InRun"),
    "Estimate": ("estimate", "methods", "replay", "plan", "retrain", "se", "scan"),
    "Results": ("Influence", "load", "pool"),
    "Verify": ("verify", "Verification"),
    "Trade-off functions": ("TradeOff", "Gaussian", "PiecewiseLinear"),
}  # fmt: skip
BESIDE = (
    "finfluence.runs.TapeRecorder", "finfluence.jobs.scan.ScanResult", "finfluence.estimators.replay.ReplayOptions",
    "finfluence.estimators.retrain.RetrainOptions", "finfluence.estimators.resampling.TurnOver",
    "finfluence.estimators.first_order.InRunOptions", "finfluence.result.Provenance",
)  # fmt: skip


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages to those that were found."""
    for path, content in pages().items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Put the table of methods where a page asks for it."""
    return markdown.replace("<!-- methods -->", methods()) if "<!-- methods -->" in markdown else markdown


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that loads anything from elsewhere: the site is read without a network."""
    for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", output):
        if re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag) and "canonical" not in tag:
            raise PluginError(f"{page.file.src_uri} loads something from a network: {tag}")
    return output


def methods() -> str:
    """Return the table of all estimators, from the one table in which they are looked up."""
    from finfluence.estimators import methods_table

    return methods_table()


def pages() -> dict[str, str]:
    """Return {path below docs: text} of every generated page."""
    return {
        "reference/finfluence.md": top_level(),
        "reference/tradeoff.md": package("finfluence.tradeoff", "explanation/tradeoff.md"),
        "reference/stats.md": package("finfluence.stats", "explanation/statistics.md"),
        "reference/labels.md": package("finfluence.labels", "explanation/labels.md"),
        "reference/assess.md": package("finfluence.assess", "explanation/after-the-verdict.md"),
        "reference/mitigate.md": package("finfluence.mitigate", "explanation/after-the-verdict.md"),
        "reference/language.md": package("finfluence.language", "explanation/language.md"),
        "reference/cli.md": commands(),
    }


def top_level() -> str:
    """Return every public name of the package, in the order in which a reader meets them."""
    import finfluence

    known = {name for names in GROUPS.values() for name in names}
    groups = {title: [n for n in names if n in finfluence.__all__] for title, names in GROUPS.items()}
    groups["Further"] = sorted(set(finfluence.__all__) - known)
    parts = ["# finfluence", "", "Everything here is `import finfluence as fi`, then `fi.name`."]
    for title, names in groups.items():
        if names:
            parts += ["", f"## {title}", ""]
            parts += [_entry(f"finfluence.{name}", level=3) for name in names]
    parts += ["", "## What these return and take", ""]
    parts += [_entry(path, level=3) for path in BESIDE]
    return "\n".join(parts) + "\n"


def package(name: str, explained: str) -> str:
    """Return every public name of one package."""
    module = import_module(name)
    said = (module.__doc__ or "").strip()
    worth = f"What to use when, and what it is worth: [explanation](../{explained})."
    entries = [_entry(f"{name}.{n}", level=2) for n in module.__all__ if _documented(module, n)]
    return "\n".join([f"# {name}", "", said, "", worth, "", *entries])


def _documented(module: Any, name: str) -> bool:
    """Return whether a public name is a class or a function; constants and aliases of types stand in signatures."""
    value = getattr(module, name)
    return isinstance(value, type) or (callable(value) and hasattr(value, "__code__"))


def _entry(path: str, level: int) -> str:
    return f"::: {path}\n    options:\n      heading_level: {level}\n"


def commands() -> str:
    """Return the commands with their arguments and options, from the help that `--help` prints."""
    from typer.main import get_command

    from finfluence.cli import app

    group: Any = get_command(app)
    parts = ["# Command line", "", f"{group.help}", ""]
    for name, command in group.commands.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [
            p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)
        ]
        usage = " ".join(["finfluence", name, *(a.name.upper() for a in arguments), "[OPTIONS]"])
        parts += [f"## finfluence {name}", "", command.help or "", "", "```sh", usage, "```", ""]
        parts += [f"- `{a.name.upper()}`: {_cell(a.help)}" for a in arguments] + [""]
        parts += ["| option | | default |", "|---|---|---|"]
        parts += [f"| {_names(o)} | {_cell(o.help)} | {_default(o)} |" for o in options] + [""]
    return "\n".join(parts)


def _names(option: Any) -> str:
    return ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if isinstance(option.show_default, str):
        return _cell(option.show_default)
    if option.default is None or callable(option.default) or option.is_flag:
        return "" if not option.is_flag or option.default in (None, False) else f"`{option.opts[0]}`"
    return f"`{option.default}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")
