"""Columns read as words that a person may take for something else, and levels that may be one."""

import re
from collections import Counter

from finfluence.ingest._messages import counted
from finfluence.ingest._values import look, looks_like_code

_FEW_NUMBERS = 20
_DIGITS = re.compile(r"\d+")
_LETTER = re.compile(r"[^\W\d_]")
_TWO_PARTS = re.compile(r"v?(\d{1,3})\.(\d{1,3})")
_MOST_LEVELS = 200
_MOST_FORMS = 3


def are_versions(counts: Counter[str]) -> bool:
    """Tell whether texts count in two parts, as versions and sections do: 1.9, 1.10, 1.11 beside 1.1.

    As numbers 1.1 and 1.10 would be one; decimals that are written with the last zeros would hold 1.05, too.

    Returns
    -------
    bool

    Examples
    --------
    >>> are_versions(Counter(["1.1", "1.9", "1.10"])), are_versions(Counter(["1.1", "1.25", "1.10"]))
    (True, False)
    """
    if len(counts) > _MOST_LEVELS:
        return False
    parts: dict[str, set[str]] = {}
    for text in counts:
        match = _TWO_PARTS.fullmatch(text)
        if match is None or (len(match[2]) > 1 and match[2].startswith("0")):
            return False
        parts.setdefault(match[1], set()).add(match[2])
    return any("10" in minor and "1" in minor and minor & {"9", "11"} for minor in parts.values())


def doubts_of_words(
    counts: Counter[str], numbers: list[bool], kind: str, what: str = "numbers"
) -> tuple[str, ...]:
    """Return what a reader must know of a column of words.

    Parameters
    ----------
    counts
        Its cells.
    numbers
        For each different cell, whether alone it could be read as one of `what`.
    kind
        "category" or "text".
    what
        "numbers" or "dates".

    Returns
    -------
    tuple[str, ...]

    Examples
    --------
    >>> doubts_of_words(Counter(["Berlin", "BERLIN", "Paris"]), [False] * 3, "category")
    ("3 levels, of which 'BERLIN' and 'Berlin' look alike: they are levels of their own",)
    """
    total, could = (
        counts.total(),
        sum(count for count, one in zip(counts.values(), numbers, strict=True) if one),
    )
    if (
        sum(numbers) > _FEW_NUMBERS
        and 2 * could >= total
        and (what == "dates" or not looks_like_code(counts))
    ):
        odd = min((text for text, one in zip(counts, numbers, strict=True) if not one), default="")
        if could == total:
            return (
                f"all cells could be {what}, but not of one kind, such as {min(counts)!r}: read as {_PLURAL[kind]}",
            )
        others = counted(total - could, "cell", "is are")
        return (
            f"{could} of {total} cells could be {what}, but {others} none, such as {odd!r}: read as {_PLURAL[kind]}",
        )
    if kind == "category":
        return _alike(counts)
    forms = Counter(_DIGITS.sub("0", text) for text in counts)
    if (
        len(forms) <= _MOST_FORMS
        and all("0" in form for form in forms)
        and any(form.strip("0") for form in forms)
    ):
        return (
            f"cells such as {min(counts)!r} differ in their digits alone: read as text; if they are numbers or dates, "
            "write them plainly",
        )
    return ()


_PLURAL = {"category": "levels", "text": "text"}


def _alike(counts: Counter[str]) -> tuple[str, ...]:
    folded: dict[str, list[str]] = {}
    for text in sorted(counts):
        folded.setdefault(look(text), []).append(text)
    alike = [texts for texts in folded.values() if len(texts) > 1 and any(map(_LETTER.search, texts))]
    if not alike:
        return ()
    more = f", and {len(alike) - 1} more such" if len(alike) > 1 else ""
    pair = " and ".join(map(ascii if len(set(map(str.casefold, alike[0]))) > 1 else repr, alike[0][:3]))
    return (f"{len(counts)} levels, of which {pair} look alike{more}: they are levels of their own",)
