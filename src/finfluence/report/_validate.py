"""What types cannot say: names that must match, edges that must grow, images that must be images."""

import math
from collections.abc import Mapping

from finfluence.errors import ConfigError, explain
from finfluence.report._build import build, wrong
from finfluence.report._schema import Cleaning, Distribution, ReportContent, RowEntry, Table

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def validated(content: ReportContent | Mapping[str, object]) -> ReportContent:
    """Return `content` as checked `ReportContent`.

    Returns
    -------
    ReportContent

    Raises
    ------
    ConfigError
        Something in the content contradicts the schema; the message names the place.
    """
    report = build(ReportContent, content, "content")
    if not 0 < report.level < 1:
        raise ConfigError(wrong("content.level", "between 0 and 1", report.level))
    if not report.verdict.strip():
        raise ConfigError(wrong("content.verdict", "one sentence", report.verdict))
    names = [query.name for query in report.queries]
    for i, query in enumerate(report.queries):
        if query.sign not in (-1, 1):
            raise ConfigError(
                wrong(
                    f"content.queries[{i}].sign", "+1 (larger is better) or -1 (larger is worse)", query.sign
                )
            )
        if query.name in names[:i]:
            raise ConfigError(wrong(f"content.queries[{i}].name", "named once only", query.name))
    for i, row in enumerate(report.rows):
        _known(f"content.rows[{i}].query", row.query, names, "queries")
        _check_preview(f"content.rows[{i}].preview", row)
    for i, distribution in enumerate(report.distributions):
        _known(f"content.distributions[{i}].query", distribution.query, names, "queries")
        _check_distribution(f"content.distributions[{i}]", distribution)
    if report.cleaning is not None:
        _check_cleaning("content.cleaning", report.cleaning)
    for i, table in enumerate(report.tables):
        _check_table(f"content.tables[{i}]", table)
    return report


def _known(where: str, name: str, names: list[str], of: str) -> None:
    if name not in names:
        raise ConfigError(
            explain(
                f"{where} to name one of the {of}: {', '.join(map(repr, names[:8])) or 'none are given'}",
                repr(name[:80]),
                f"a name was changed in one place only, or is missing in {of}",
                f"add it to {of} or correct the name",
            )
        )


def _check_preview(where: str, row: RowEntry) -> None:
    preview = row.preview
    if preview is None:
        return
    given = [name for name in ("cells", "image_png", "text") if (getattr(preview, name)) is not None]
    if len(given) != 1:
        raise ConfigError(wrong(where, "exactly one of cells, image_png, text", given))
    if preview.image_png is not None and not preview.image_png.startswith(PNG_MAGIC):
        raise ConfigError(
            wrong(
                f"{where}.image_png",
                "the bytes of a PNG file (see finfluence.report.thumbnail)",
                preview.image_png,
            )
        )


def _check_distribution(where: str, d: Distribution) -> None:
    if len(d.edges) != len(d.counts) + 1 or not d.counts:
        raise ConfigError(wrong(f"{where}.edges", f"one longer than counts ({len(d.counts)})", len(d.edges)))
    steps = zip(d.edges, d.edges[1:], strict=False)
    if not all(math.isfinite(e) for e in d.edges) or not all(a < b for a, b in steps):
        raise ConfigError(wrong(f"{where}.edges", "finite and increasing", d.edges))
    if not all(math.isfinite(c) and c >= 0 for c in d.counts):
        raise ConfigError(wrong(f"{where}.counts", "finite and not negative", d.counts))
    if len(d.null_x) != len(d.null_y):
        raise ConfigError(wrong(f"{where}.null_y", f"as long as null_x ({len(d.null_x)})", len(d.null_y)))


def _check_cleaning(where: str, cleaning: Cleaning) -> None:
    metrics = [metric.name for metric in cleaning.metrics]
    for i, arm in enumerate(cleaning.arms):
        for name in arm.values:
            _known(f"{where}.arms[{i}].values", name, metrics, "metrics")
    for i, difference in enumerate(cleaning.differences):
        _known(f"{where}.differences[{i}].metric", difference.metric, metrics, "metrics")


def _check_table(where: str, table: Table) -> None:
    for i, row in enumerate(table.rows):
        if len(row) != len(table.columns):
            raise ConfigError(wrong(f"{where}.rows[{i}]", f"as long as columns ({len(table.columns)})", row))
