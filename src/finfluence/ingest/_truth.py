"""Words for true and false, in several languages."""

from collections.abc import Iterable

_TRUE = frozenset(
    {"true", "t", "yes", "y", "ja", "j", "oui", "si", "sí", "sì", "sim", "da", "да", "tak", "ano", "igen", "kyllä",
     "evet", "wahr", "vrai", "verdadero", "vero", "verdadeiro", "on", "1", "1.0",
     "✓", "✔", "☑", "✅", "是", "はい", "예"}
)  # fmt: skip
_FALSE = frozenset(
    {"false", "f", "no", "n", "nein", "non", "nee", "nej", "nei", "não", "nao", "net", "нет", "nie", "ne", "nem", "ei",
     "hayır", "falsch", "faux", "falso", "off", "0", "0.0", "✗", "✘", "☐", "❌", "否", "いいえ", "아니요"}
)  # fmt: skip
_NUMERIC = frozenset({"0", "0.0", "1", "1.0"})


def truth(word: object) -> bool | None:
    """Return what a word says: True, False, or None where it is no word for either.

    Returns
    -------
    bool | None

    Examples
    --------
    >>> truth("Ja"), truth("0"), truth("maybe")
    (True, False, None)
    """
    text = str(word).strip().casefold().removesuffix("\ufe0f")
    return True if text in _TRUE else False if text in _FALSE else None


def truth_levels(levels: Iterable[str]) -> dict[str, bool] | None:
    """Return level -> truth where all are words for true or false and both occur; else None."""
    said = {level: truth(level) for level in levels}
    if None in said.values() or len(set(said.values())) < 2:
        return None
    return {level: bool(value) for level, value in said.items()}


def in_words(levels: Iterable[str]) -> bool:
    """Tell whether some level says its truth in a word, not as 0 or 1."""
    return any(level.strip().casefold() not in _NUMERIC for level in levels)
