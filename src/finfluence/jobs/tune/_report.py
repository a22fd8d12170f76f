"""The page of a tuning: texts escaped and folded by the report, tables in the order in which one asks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import isnan
from typing import Any

from finfluence import report
from finfluence.jobs.scan import Chapter, decision_chapter
from finfluence.jobs.tune._decide import Decided
from finfluence.jobs.tune._estimate import Estimate
from finfluence.jobs.tune._folder import CHECK, DECISION, REPORT, TEXTS, TuneFolder
from finfluence.jobs.tune._retune import ALL, RANDOM, WITHOUT
from finfluence.jobs.tune._texts import row_text
from finfluence.jobs.tune._words import RANKING_SAID, predicted_share, with_measured
from finfluence.report import Origin, Preview, QueryInfo, ReportContent, RowEntry, Table, finding
from finfluence.result import covers_sentence, sign_sentence

ROWS = 200
NUMBERS = ("mu", "lower", "upper", "se", "effect", "spread", "p_value", "q_value")
_CUT = 600


def page(
    rows: Sequence[Any],
    estimate: Estimate,
    decided: Decided,
    summary: Mapping[str, Any],
    run: Mapping[str, Any],
    chapters: Sequence[Chapter] = (),
) -> ReportContent:
    """Return the content of `report.html`; `rows`: the texts that were tuned on."""
    texts, check = summary["texts"], summary["check"]
    data = estimate.influence.data
    queries = zip(
        estimate.influence.queries, data["sign"].values.tolist(), data["unit"].values.tolist(), strict=True
    )
    infos = tuple(QueryInfo(name=name, sign=int(sign), unit=unit) for name, sign, unit in queries)
    first = infos[0]
    meaning = (
        RANKING_SAID,
        f"{sign_sentence(first.name, first.unit, first.sign)}.",
        f"{covers_sentence(estimate.influence.provenance).capitalize()}.",
        *summary["proof"],
    )
    tables = [
        *(table for chapter in chapters for table in chapter.tables),
        *_counterfactual(check),
        *_sources(decided),
        *_answers(texts),
        *_tokens(texts),
        *_duplicates(texts),
    ]
    facts: dict[str, Any] = {"model": run["options"]["model"], "rows": len(data["subset"]), **{
        k: run["data"][k] for k in ("tokens", "trained", "frozen_layers", "recipe_digest")
    }}  # fmt: skip
    return ReportContent(
        title=str(run["options"]["data"]),
        verdict=summary["verdict"],
        queries=infos,
        rows=tuple(_rows(rows, estimate, decided)),
        findings=tuple(
            finding(code, text)
            for code, text in (*summary["findings"], *(f for chapter in chapters for f in chapter.findings))
        ),
        meaning=meaning,
        tables=tuple(tables),
        origin=Origin(facts=facts, command=run["command"]),
    )


def write(content: ReportContent, path: Any) -> None:
    """Write the page."""
    report.write_report(content, path)


def decision(folder: TuneFolder) -> Chapter | None:
    """Return what `decide` found, if it was asked.

    Returns
    -------
    Chapter or None

    Raises
    ------
    StorageError
        The file is damaged.
    """
    if not (folder / DECISION).exists():
        return None
    values = folder.read_json(DECISION)
    with folder.reading(DECISION):
        return decision_chapter(values)


def rewrite_page(
    folder: TuneFolder, rows: Sequence[Any], estimate: Estimate, decided: Decided, run: Mapping[str, Any]
) -> None:
    """Write the page of a finished tuning again, with what was decided."""
    check = folder.read_json(CHECK) if (folder / CHECK).exists() else None
    if not decided.groups.empty:
        decided = replace(decided, groups=with_measured(decided.groups, check))
    summary = {**folder.read_summary(), "texts": folder.read_json(TEXTS), "check": check}
    found = decision(folder)
    chapters = [] if found is None else [found]
    write(page(rows, estimate, decided, summary, run, chapters), folder / REPORT)


def _rows(texts: Sequence[Any], estimate: Estimate, decided: Decided) -> list[RowEntry]:
    place = {row: k for k, row in enumerate(estimate.influence.subsets.tolist())}
    shown = decided.lines[decided.lines["rank"] <= ROWS].sort_values(["query", "rank"], kind="stable")
    entries = []
    for line in shown.to_dict("records"):
        numbers: dict[str, Any] = {k: float(line[k]) for k in NUMBERS}
        text = row_text(texts[place[line["row_id"]]])
        entries.append(
            RowEntry(
                row_id=str(line["row_id"]), query=str(line["query"]), rank=int(line["rank"]), group=str(line["group"]),
                action="drop" if line["flagged"] else "keep", reason="influence" if line["flagged"] else "",
                flagged=bool(line["flagged"]), preview=Preview(text=text),
                **numbers,
                own_loss=float(line["own_loss"]),
            )
        )  # fmt: skip
    return entries


def _counterfactual(check: Mapping[str, Any] | None) -> list[Table]:
    if check is None or check["runs"] < 2:
        return []
    rows = [
        (
            line["query"], line["unit"], _number(line["before"]), _number(line["arms"][ALL]["value"]),
            _interval(line["predicted"], line["arms"][ALL]["value"]) + _first_order(line),
            _interval(line["arms"][WITHOUT]), _interval(line["arms"][RANDOM]),
        )
        for line in check["lines"]
    ]  # fmt: skip
    note = (
        f"{check['rows']:,} rows were taken out ({check['why']}); {check['runs']} trainings of each kind, with the "
        "same batch orders. Intervals at 95 %."
    )
    columns = (
        "behaviour",
        "unit",
        "before tuning",
        "after",
        "predicted without",
        "measured without",
        "without random",
    )
    return [Table(title="Without these rows", columns=columns, rows=tuple(rows), note=note)]


def _first_order(line: Mapping[str, Any]) -> str:
    return "" if predicted_share(line) is None else " (first order; understates groups of near-duplicates)"


def _sources(decided: Decided) -> list[Table]:
    if decided.groups.empty:
        return []
    rows = [
        (
            str(line["group"]), str(line["query"]), int(line["rows"]),
            _interval({"value": line["effect"], "lower": line["effect"] - 1.96 * line["effect_se"],
                       "upper": line["effect"] + 1.96 * line["effect_se"]}),
            "" if isnan(line["measured"]) else _interval(
                {"value": line["measured"], "lower": line["measured_lower"], "upper": line["measured_upper"]}
            ),
            _number(line["mu"]), _number(line["q_value"]), "yes" if line["flagged"] else "",
        )
        for line in decided.groups.sort_values("q_value", kind="stable").head(ROWS).to_dict("records")
    ]  # fmt: skip
    columns = ("source", "behaviour", "rows", "effect of removal, first order", "measured", "μ", "q", "named")
    return [Table(title="Sources", columns=columns, rows=tuple(rows))]


def _answers(texts: Mapping[str, Any]) -> list[Table]:
    rows = [
        (behaviour, prompt[:_CUT], before[2][:_CUT], after[:_CUT])
        for before, (behaviour, prompt, after) in zip(texts["before"], texts["after"], strict=True)
    ]
    columns = ("behaviour", "prompt", "before tuning", "after")
    return [Table(title="Answers before and after", columns=columns, rows=tuple(rows))] if rows else []


def _tokens(texts: Mapping[str, Any]) -> list[Table]:
    rows = [
        (name, str(row), ", ".join(f"{token!r} {share:+.2f}" for token, share in tokens))
        for name, listed in texts["tokens"].items()
        for row, tokens in listed
    ]
    note = "Shares of what the row's tokens gain, at the end of training, where the behaviour grows."
    columns = ("behaviour", "row", "tokens that carry its slope")
    return [Table(title="Tokens", columns=columns, rows=tuple(rows), note=note)] if rows else []


def _duplicates(texts: Mapping[str, Any]) -> list[Table]:
    rows = [
        (str(row), len(found), ", ".join(map(str, found[:10])) + (" …" if len(found) > 10 else ""))
        for row, found in texts["duplicates"]
        if found
    ]
    note = "Responses that share half of their runs of three tokens."
    columns = ("row", "near-duplicates", "their ids")
    return [Table(title="Near-duplicates", columns=columns, rows=tuple(rows), note=note)] if rows else []


def _number(value: float) -> str:
    return f"{value:.3g}"


def _interval(found: Mapping[str, float], base: float = 0.0) -> str:
    value, lower, upper = (found[k] + base for k in ("value", "lower", "upper"))
    return f"{value:.3g} [{lower:.3g}, {upper:.3g}]"
