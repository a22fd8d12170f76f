"""Values as people read them: numbers with sensible digits, text in which nothing hides."""

import math
import unicodedata
from collections.abc import Iterable, Sequence

MISSING = "not available"
MINUS = "\u2212"
_HARMLESS_FORMAT = frozenset("\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2")
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


def visible(text: str, limit: int = 20_000) -> str:
    r"""Return `text` with characters that hide or reorder others shown by code point, and cut to `limit`.

    Returns
    -------
    str

    Examples
    --------
    >>> visible("a\u202eb\x00")
    'a⟨U+202E⟩b⟨U+0000⟩'
    >>> visible("x" * 9, limit=4)
    'xxxx… (9 characters)'
    """
    kept = text[:limit]
    if not kept.isprintable():
        kept = "".join(_shown(c) for c in kept.replace("\r\n", "\n"))
    return kept if len(text) <= limit else f"{kept}… ({len(text):,} characters)"


def number(value: float, digits: int = 3) -> str:
    """Return `value` with `digits` significant digits and a true minus sign.

    Returns
    -------
    str

    Examples
    --------
    >>> number(-0.0123456), number(1234.5), number(2.5e-7), number(float("nan"))
    ('−0.0123', '1,234', '2.50e−7', 'not available')
    """
    if not math.isfinite(value):
        return MISSING
    if value == 0:
        return "0"
    exponent = int(f"{abs(value):.{digits - 1}e}".partition("e")[2])
    if exponent < -4 or exponent > 8:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(power)}".replace("-", MINUS)
    return f"{value:,.{max(0, digits - 1 - exponent)}f}".replace("-", MINUS)


def tick(value: float) -> str:
    """Return a round number for an axis, as short as it can be written."""
    return f"{value:,.10g}".replace("-", MINUS)


def fixed(value: float, decimals: int = 2) -> str:
    """Return `value` with fixed decimals, so that columns line up; very large ones as `number` does."""
    if not math.isfinite(value):
        return MISSING
    if abs(value) >= 1e5:
        return number(value)
    text = f"{value:,.{decimals}f}"
    return text.replace("-", "" if not text.strip("-0.,") else MINUS)


def probability(value: float) -> str:
    r"""Return a probability for a table: two significant digits, and never a bare 0.

    Returns
    -------
    str

    Examples
    --------
    >>> probability(0.0312), probability(1e-9), probability(0.5)
    ('0.031', '<\xa00.001', '0.50')
    """
    if not math.isfinite(value):
        return MISSING
    return "<\u00a00.001" if value < 0.001 else number(value, 2) if value < 1 else "1"


def percent(value: float) -> str:
    """Return a level as a percentage: 0.95 is `95 %`, with a space that does not break."""
    return f"{value * 100:.10g}\u00a0%"


def interval(lower: float, upper: float, decimals: int = 2) -> str:
    """Return `lower to upper` with fixed decimals, or that it is not available."""
    if math.isnan(lower) or math.isnan(upper):
        return MISSING
    return f"{_bound(lower, decimals)} to {_bound(upper, decimals)}"


def measure(value: float, lower: float, upper: float, unit: str = "") -> str:
    """Return `value (lower to upper) unit`, all with the decimals that the width of the interval supports."""
    if not math.isfinite(value):
        return MISSING
    width = upper - lower
    if not (math.isfinite(width) and width > 0):
        text = number(value)
    else:
        decimals = min(8, max(0, round(1 - math.log10(width))))
        text = f"{fixed(value, decimals)} ({fixed(lower, decimals)} to {fixed(upper, decimals)})"
    return f"{text} {unit}".rstrip()


def column(values: Sequence[str | int | float | bool | None]) -> tuple[list[str], bool]:
    """Return the cells of one column as text, and whether they are numbers; numbers share their decimals."""
    known = [v for v in values if v is not None]
    if not known or any(isinstance(v, str | bool) for v in known):
        words = {None: MISSING, True: "yes", False: "no"}
        return [words[v] if v is None or isinstance(v, bool) else str(v) for v in values], False
    fractions = [f"{v:.4g}".partition(".")[2] for v in known if isinstance(v, float) and math.isfinite(v)]
    if any("e" in fraction for fraction in fractions):
        return [MISSING if v is None else number(float(v)) for v in values], True
    decimals = max(map(len, fractions), default=0)
    return [MISSING if v is None else fixed(float(v), decimals) for v in values], True


def aligned(values: Iterable[float], digits: int = 3) -> int | None:
    """Return the decimals that give the largest of `values` `digits` significant digits; None if too many."""
    largest = max((abs(v) for v in values if math.isfinite(v)), default=0.0)
    if largest == 0:
        return 0
    decimals = digits - 1 - math.floor(math.log10(largest))
    return max(0, decimals) if decimals <= 7 else None


def datum(value: str | int | float | bool | None) -> str:
    """Return a cell of the user's own data as it stands there, without regrouping its digits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _bound(value: float, decimals: int) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    return fixed(value, decimals)


def _shown(char: str) -> str:
    if char in "\n\t" or char in _HARMLESS_FORMAT:
        return char
    hidden = unicodedata.category(char) in _HIDDEN or (ord(char) & 0xFFFE) == 0xFFFE
    return f"⟨U+{ord(char):04X}⟩" if hidden else char
