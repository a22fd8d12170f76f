"""Numbers in the spellings of the world: written in any of them and read back, they are the same numbers."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finfluence.ingest import TableEncoder, column_decisions, from_frame, read, split

N = 60


def grouped(text: str, mark: str) -> str:
    whole, _, fraction = text.lstrip("-").partition(".")
    parts = []
    while whole:
        parts.append(whole[-3:])
        whole = whole[:-3]
    sign = "-" if text.startswith("-") else ""
    return sign + mark.join(reversed(parts)) + (f".{fraction}" if fraction else "")


def comma(text: str) -> str:
    return text.translate(str.maketrans(".,", ",."))


def indian(text: str) -> str:
    whole, _, fraction = text.lstrip("-").partition(".")
    last, rest, parts = whole[-3:], whole[:-3], []
    while rest:
        parts.append(rest[-2:])
        rest = rest[:-2]
    return ("-" if text.startswith("-") else "") + ",".join([*reversed(parts), last]) + f".{fraction}"


def accounting(text: str) -> str:
    return f"({grouped(text[1:], ',')})" if text.startswith("-") else grouped(text, ",")


STYLES: dict[str, Callable[[str], str]] = {
    "plain": str,
    "US": lambda t: grouped(t, ","),
    "German": lambda t: comma(grouped(t, ",")),
    "French, narrow space": lambda t: grouped(t, "\u202f").replace(".", ","),
    "Swedish, no-break space": lambda t: grouped(t, "\u00a0").replace(".", ","),
    "Russian, space": lambda t: grouped(t, " ").replace(".", ","),
    "Swiss": lambda t: grouped(t, "'"),
    "Swiss, typographic": lambda t: grouped(t, "’"),
    "Indian": indian,
    "accounting": accounting,
    "trailing minus": lambda t: f"{t[1:]}-" if t.startswith("-") else t,
    "unicode minus": lambda t: t.replace("-", "−"),
    "dollar before": lambda t: t.replace("-", "-$") if t.startswith("-") else f"${t}",
    "euro after": lambda t: f"{comma(grouped(t, ','))} €",
    "code before": lambda t: f"EUR {comma(grouped(t, ','))}",
    "code after": lambda t: f"{grouped(t, ',')} USD",
    "per cent": lambda t: f"{t}%",
    "per cent, comma": lambda t: f"{comma(t)} %",
    "unit": lambda t: f"{t} kg",
    "scientific": lambda t: f"{float(t):.12e}",
    "scientific, comma": lambda t: f"{float(t):.12e}".replace(".", ","),
    "times ten": lambda t: f"{t}×10^0",
    "full width": lambda t: t.translate({ord(d): ord(d) + 0xFEE0 for d in "0123456789"}),
}

UNITLESS = [name for name, style in STYLES.items() if not set("$€%kEU") & set(style("-1234.50"))]


def cents(seed: int = 0, n: int = N, scale: float = 5_000) -> list[str]:
    return [f"{value:.2f}" for value in np.random.default_rng(seed).normal(0, scale, n)]


def encoded(cells: list[str]) -> np.ndarray:
    encoder = TableEncoder()
    x = encoder.fit_transform(pd.DataFrame({"a": cells}))
    assert encoder.features == ("a",), encoder.used
    return x


@pytest.mark.parametrize("style", STYLES)
def test_every_style_gives_the_same_numbers(style):
    plain = cents()
    np.testing.assert_allclose(encoded([STYLES[style](t) for t in plain]), encoded(plain), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    style=st.sampled_from([name for name in STYLES if name not in ("per cent", "per cent, comma")]),
    numbers=st.lists(st.integers(-(10**9), 10**9), min_size=30, max_size=60, unique=True),
)
def test_any_cents_survive_any_style(style, numbers):
    plain = [f"{'-' if v < 0 else ''}{abs(v) // 100}.{abs(v) % 100:02d}" for v in numbers]
    np.testing.assert_allclose(encoded([STYLES[style](t) for t in plain]), encoded(plain), atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(style=st.sampled_from(list(STYLES)), seed=st.integers(0, 10**6))
def test_the_order_of_rows_and_columns_decides_nothing(style, seed):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "a": [STYLES[style](t) for t in cents(seed)],
            "b": rng.choice(["2.155", "9.187", "979", "12"], N),
            "c": rng.choice(["ja", "nein", "true"], N),
            "d": pd.date_range("2020-01-01", periods=N, freq="9h").strftime("%d/%m/%Y"),
        }
    )
    first, other = TableEncoder(), TableEncoder()
    first.fit_transform(frame)
    other.fit_transform(frame.iloc[rng.permutation(N)][list(rng.permutation(frame.columns))])
    theirs = {column.name: column for column in other.columns}
    for column in first.columns:
        assert (column.kind, column.about, column.format, column.marks, column.unit, column.notes) == (
            (again := theirs[column.name]).kind, again.about, again.format, again.marks, again.unit, again.notes,
        )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(ours=st.sampled_from(list(STYLES)), theirs=st.sampled_from(UNITLESS), seed=st.integers(0, 10**6))
def test_a_hold_out_in_any_other_style_has_the_same_features(ours, theirs, seed):
    plain, labels = cents(seed), ["a", "b"] * (N // 2)
    train, held = split(
        from_frame(pd.DataFrame({"a": [STYLES[ours](t) for t in plain], "label": labels}), "label"),
        from_frame(
            pd.DataFrame({"a": [STYLES[theirs](t) for t in plain[:30]], "label": labels[:30]}), "label"
        ),
    )
    np.testing.assert_allclose(held.x, train.x[:30], atol=1e-5)


def table(write, cells, separator=",", other=None):
    other = [f"{(i * 7919) % 97}" for i in range(len(cells))] if other is None else other
    lines = [
        separator.join((f'"{c}"', f'"{o}"', "xy"[i % 2]))
        for i, (c, o) in enumerate(zip(cells, other, strict=True))
    ]
    return write("a.csv", separator.join(("a", "b", "label")) + "\n" + "\n".join(lines) + "\n")


def values_of(path, target=None):
    """Return column a as the target's numbers, in the order of the file."""
    train, held = split(read(path, target="a", task="regression"))
    found = dict(zip([*train.ids, *held.ids], [*train.labels, *held.labels], strict=True))
    return np.array([found[i] for i in range(len(found))]), train


@pytest.mark.parametrize(
    ("cells", "other", "separator", "expected"),
    [
        (["2.155", "19,47", "979"] * 20, None, ";", [2155, 19.47, 979]),
        (["9.187", "979", "85"] * 20, ["27,43", "1,5", "2,75"] * 20, ";", [9187, 979, 85]),
        (["9,187", "979", "85"] * 20, ["27.43", "1.5", "2.75"] * 20, ",", [9187, 979, 85]),
        (["9.187", "1.250", "2.500"] * 20, ["27.43", "1.5", "2.75"] * 20, ",", [9.187, 1.25, 2.5]),
        (["9.187", "979", "12.034"] * 20, None, ",", [9187, 979, 12034]),
        (["1.234.567", "2.155", "979"] * 20, None, "|", [1234567, 2155, 979]),
        (["1,23,456", "2,155", "12,34,567"] * 20, None, ",", [123456, 2155, 1234567]),
        (["0.125", "2.155", "9.187"] * 20, None, ";", [0.125, 2.155, 9.187]),
        (["0", "2.155", "9.187"] * 20, None, ",", [0, 2.155, 9.187]),
        (["0,125", "2,155", "9,187"] * 20, None, ";", [0.125, 2.155, 9.187]),
        (["1.5", "19,47", "19,48", "2,5"] * 15, None, ";", [1.5, 19.47, 19.48, 2.5]),
        (["1 234,5", "7,25", "12 000"] * 20, None, "\t", [1234.5, 7.25, 12000]),
        (["12.-", "13.50", "1'200.-"] * 20, None, ",", [12, 13.5, 1200]),
    ],
)
def test_marks_are_decided_by_all_evidence(write, cells, other, separator, expected):
    path = table(write, cells, separator, other)
    found, _ = values_of(path.rename(path.with_suffix(".tsv")) if separator == "\t" else path)
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-6 * max(expected))


def test_doubtful_thousands_are_said(write):
    path = table(write, ["9.187", "979", "12.034"] * 20)
    train, _ = split(read(path, target="label"))
    assert any(
        "cells such as 2.155 could be decimals or thousands: read as thousands" in w for w in train.warnings
    )
    _, train = values_of(path)
    assert any(w.startswith("target 'a'") and "could be decimals" in w for w in train.warnings)


def test_mixed_marks_are_said(write):
    train, _ = split(read(table(write, ["1.5", "19,47", "19,48", "2,5"] * 15, ";"), target="label"))
    assert any("15 cells write a decimal point, the others do not" in warning for warning in train.warnings)


def test_numbers_that_json_keeps_have_no_marks(write):
    records = [
        f'{{"a": {2.155 + i if i % 3 else chr(34) + f"{i},47" + chr(34)}, "label": "{"xy"[i % 2]}"}}'
        for i in range(60)
    ]
    train, _ = split(read(write("a.jsonl", "\n".join(records)), target="label"))
    values = np.array([i + 0.47 if i % 3 == 0 else 2.155 + i for i in range(60)])
    seen = values[train.ids]
    np.testing.assert_allclose(train.x[:, 0], (seen - seen.mean()) / seen.std(), rtol=1e-4)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1.2k", "950", "3.4M", "12k"], [1200, 950, 3_400_000, 12_000]),
        (["$1.2M", "$300k", "$5", "$7"], [1_200_000, 300_000, 5, 7]),
        (["500 g", "1.5 kg", "2 kg", "3 kg"], [0.5, 1.5, 2, 3]),
        (["90 min", "2 h", "3 h", "1 h"], [1.5, 2, 3, 1]),
        (["512 MB", "4 GB", "8 GB", "2 GB"], [0.512, 4, 8, 2]),
        (["12 %", "13 %", "0.14", "20 %"], [12, 13, 14, 20]),
        (["<5", "7", "8.5", "9"], [5, 7, 8.5, 9]),
    ],
)
def test_units_are_brought_together(cells, expected):
    x = encoded(cells * 15)[:4, 0]
    values = np.array(expected * 15, dtype=float)
    np.testing.assert_allclose(x, np.clip((values - values.mean()) / values.std(), -3, 3)[:4], atol=1e-5)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["500 g", "1.5 kg", "2 kg"], "cells in g converted to kg"),
        (["12", "14 kg", "13"], "cells without a unit: taken to be in kg, as"),
        (["$5", "€7", "$8"], "amounts in $ and € are read as they are, not converted"),
        (["<5", "7", "8.5"], "cells are bounds such as '<5', read as the number itself"),
        (["12 %", "13 %", "0.14"], "cells without % lie within 0 and 1"),
        (["-999", "12", "17", "9"] * 2, "cells hold -999, far from all others: leave them empty"),
    ],
)
def test_what_a_reader_must_know_of_units_is_said(write, cells, words):
    train, _ = split(read(table(write, cells * 20), target="label"))
    assert any(words in warning for warning in train.warnings), train.warnings


@pytest.mark.parametrize("cells", [["A12", "B7", "C9"], ["row-1", "row-2", "row-3"], ["192.168.1.1", "10.0.0.1", "8.8.8.8"],
                                   ["3 doors", "5 doors", "4 doors"], ["1.2.3", "1.10.0", "2.0.1"], ["007", "012", "900"]])  # fmt: skip
def test_codes_stay_words(cells):
    encoder = TableEncoder()
    encoder.fit_transform(pd.DataFrame({"a": cells * 20}))
    assert encoder.columns[0].kind == "category"


@pytest.mark.parametrize(
    "mark",
    [
        "NA",
        "n/a",
        "-",
        "?",
        "null",
        "None",
        "blank",
        "#N/A",
        "#DIV/0!",
        "",
        " ",
        "NaN",
        ".",
        "—",
        "\u00a0",
        "\ufeff",
    ],
)
def test_missing_marks(write, mark):
    cells = [mark if i % 5 == 0 else f"{i * i % 89}.5" for i in range(100)]
    line = column_decisions(table(write, cells), "label").set_index("column").loc["a"]
    assert (line["read_as"], line["unreadable"], round(line["missing"], 1)) == ("number", 0, 0.2)


def test_case_of_the_largest_values(write):
    values = [1000.0 + i if i % 20 == 0 else float(i % 37) for i in range(200)]
    train, _ = split(read(table(write, [f"{v:,.1f}" for v in values]), target="label"))
    seen = np.array(values)[train.ids]
    z = (seen - seen.mean()) / seen.std()
    np.testing.assert_allclose(train.x[:, train.features.index("a")], np.clip(z, -3, 3), atol=1e-5)
    assert any(
        w.startswith("numbers beyond 3 standard deviations were cut there: 'a'") for w in train.warnings
    )
