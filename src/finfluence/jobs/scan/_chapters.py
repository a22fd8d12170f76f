"""What was asked after the verdict (decide, assess, mitigate), as chapters of the page and of the terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finfluence.jobs._words import counted, signed
from finfluence.jobs.scan._folder import ASSESSMENT, DECISION, MITIGATION, ScanFolder
from finfluence.report import Table
from finfluence.report import finding as _registered

MOST_CLASSES = 50
_ESTIMATED = "accuracy without labels, estimated"
_HIGHER = ("accuracy", "balanced accuracy", _ESTIMATED)


@dataclass(frozen=True)
class Chapter:
    """One question after the verdict.

    Attributes
    ----------
    title
        Of the chapter.
    sentence
        The answer.
    tables
        What was measured; the first belongs to the sentence.
    findings
        (code, text) of what qualifies it.
    """

    title: str
    sentence: str
    tables: tuple[Table, ...]
    findings: tuple[tuple[str, str], ...] = ()


def chapters(folder: ScanFolder) -> list[Chapter]:
    """Return the chapters of the commands that were run on a finished scan.

    Returns
    -------
    list of Chapter

    Raises
    ------
    StorageError
        A file of theirs is damaged.
    """
    found = []
    made_by = {DECISION: decision_chapter, ASSESSMENT: assessment_chapter, MITIGATION: mitigation_chapter}
    for name, made in made_by.items():
        if (folder / name).exists():
            values = folder.read_json(name)
            with folder.reading(name):
                chapter = made(values)
                for code, text in chapter.findings:
                    _registered(code, text)
                found.append(chapter)
    return found


def decision_chapter(found: Mapping[str, Any]) -> Chapter:
    """Return the chapter of `decide`, from the content of `decision.json`."""
    rows: list[tuple[Any, ...]] = []
    unlabelled = found.get("unlabelled") or {}
    estimated = {v["name"]: v["difference"] for v in unlabelled.get("versions", ())}
    for tried in found["tried"]:
        lines = [(_short(d), d) for d in tried["differences"]]
        if tried["action"] in estimated:
            by_method = estimated[tried["action"]]
            lines.append((_ESTIMATED, by_method[unlabelled["methods"][0]]))
        control = tried.get("control", {}).get("differences", ())
        lines += [(f"{_short(d)}, beside the same head on all rows", d) for d in control]
        for name, d in lines:
            share = name.split(",")[0] in _HIGHER or name == _ESTIMATED
            higher = d.get("wanted", share)
            said = _points(d) if share else f"{signed(d)} {d.get('unit', '')}".rstrip()
            moved = tried.get("mu", {}).get(d.get("metric")) if d in tried["differences"] else None
            rows.append(
                (
                    f"{tried['action']} ({tried['rows']:,})",
                    name,
                    said,
                    "" if moved is None else f"{moved:+.1f}",
                    _says(d, higher),
                )
            )
    left = "; ".join(f"{action}: {why}" for action, why in found["left_out"].items())
    table = Table(
        title="Decision",
        columns=("action", "measured by", "beside keeping", "μ", "verdict"),
        rows=tuple(rows),
        lead=found["sentence"],
        note="In brackets: rows that the action touches. "
        f"Every action is trained under the seeds of keeping the file as it is. Measured on "
        f"{found.get('judged', 'held-out rows that took no part')}; intervals hold for all actions together. μ: the "
        "same in standard deviations over trainings." + (f" Not tried: {left}." if left else ""),
        early=True,
    )
    findings = _findings((*unlabelled.get("findings", ()), *found.get("findings", ())))
    return Chapter("Decision", found["sentence"], (table,), findings)


def assessment_chapter(values: Mapping[str, Any]) -> Chapter:
    """Return the chapter of `assess`, from the content of `assessment.json`."""
    found = values["found"]
    versions, predicted = found["versions"], found["predicted_rows"]
    columns = ("method", "original") + (
        ("cleaned", "cleaned − original", "verdict") if len(versions) > 1 else ()
    )
    rows = []
    for method in found["methods"]:
        line = [_percent(v["accuracy"][method]) for v in versions]
        if len(versions) > 1:
            d = versions[1]["difference"][method]
            line += [_points(d), _says(d, True)]
        rows.append((method, *line))
    table = Table(
        title="Without labels",
        columns=columns,
        rows=tuple(rows),
        lead=values["sentence"],
        note=f"Accuracy on {counted(found['unlabelled_rows'], 'row')} of "
        + str(found["source"]["name"]).rsplit("/", 1)[-1]
        + (f" ({predicted:,} of them predicted)" if predicted < found["unlabelled_rows"] else "")
        + f", by {found['labelled_rows']:,} held-out rows with labels and {found['runs']} trainings of each version; "
        f"{100 * found['level']:.0f} % bootstrap over rows and trainings. The first line is the estimate, the others "
        "are simple ones beside it; the last is the accuracy on the labelled rows, nothing corrected.",
        early=True,
    )
    classes = Table(
        title="Classes with and without labels",
        columns=("class", "of the labels", "of the predictions on labelled rows", "on rows without labels"),
        rows=tuple(
            (c["class"], *(f"{100 * c[k]:.1f} %" for k in ("labelled", "predicted", "predicted_unlabelled")))
            for c in found["classes"][:MOST_CLASSES]
        ),
        note="Shares of the model that was trained on the rows as they are."
        + (f" The first {MOST_CLASSES} classes." if len(found["classes"]) > MOST_CLASSES else ""),
        early=True,
    )
    return Chapter("Without labels", values["sentence"], (table, classes), _findings(found["findings"]))


def mitigation_chapter(values: Mapping[str, Any]) -> Chapter:
    """Return the chapter of `mitigate`, from the content of `mitigation.json`."""
    found = values["found"]
    rows = []
    if found["as_trained"] is not None:
        rows.append(("the network as it was trained", f"{100 * found['as_trained']:.1f} %", "", ""))
    for head in found["heads"]:
        gain = head["gain"]
        said = ("", "") if gain is None else (_points(gain), _says(gain, True))
        rows.append((head["name"], _percent(head["accuracy"]), *said))
    of_named = f", without the {found['named_rows']:,} named ones" if found["named_rows"] else ""
    heads = Table(
        title="Mitigation",
        columns=("head", "held-out accuracy", "beside the linear probe", "verdict"),
        rows=tuple(rows),
        lead=values["sentence"],
        note=f"Heads on {found['dimensions']:,} frozen features: {found['features']}. Trained on "
        f"{found['training_rows']:,} rows{of_named}, {found['seeds']} times each; "
        f"{100 * found['level']:.0f} % intervals over rows and trainings." + _moved(found.get("mu")),
        early=True,
    )
    spectra = Table(
        title="Singular values of the features",
        columns=("of", "entropy", "dominance"),
        rows=tuple((s["of"], round(s["entropy"], 3), round(s["dominance"], 3)) for s in found["spectra"]),
        note="Entropy −Σ p log p of the singular values' shares p, and dominance −log of the largest share, in nats: "
        "noise of the pre-training raises both.",
        early=True,
    )
    return Chapter("Mitigation", values["sentence"], (heads, spectra))


def _findings(found: Sequence[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((str(code), str(text)) for code, text in found)


def _moved(mu: float | None) -> str:
    if mu is None:
        return ""
    return f" The mitigation effect: NMTune moves the accuracy by {mu:+.1f} standard deviations of the linear probe's."


def _short(d: Mapping[str, Any]) -> str:
    return str(d["metric"]).removeprefix("held-out ")


def _says(d: Mapping[str, float], higher: bool) -> str:
    if not d["lower"] * d["upper"] > 0:
        return "not told apart"
    return "better" if (d["value"] > 0) == higher else "worse"


def _percent(a: Mapping[str, float]) -> str:
    return f"{100 * a['value']:.1f} % [{100 * a['lower']:.1f}, {100 * a['upper']:.1f}]"


def _points(d: Mapping[str, float]) -> str:
    return f"{signed({k: 100 * d[k] for k in ('value', 'lower', 'upper')})} points"
