"""What may stand beside a number: currencies, per cent, units of measure, and what converts into what."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

CURRENCY_SIGNS = "$¢£¤¥฿₠₡₢₣₤₥₦₧₨₩₪₫€₭₮₱₲₴₵₸₹₺₼₽₾₿＄￡￥￦"
_SAME_CURRENCY = {
    "US$": "$", "USD": "$", "＄": "$", "EUR": "€", "Euro": "€", "euro": "€", "GBP": "£", "￡": "£", "JPY": "¥",
    "CNY": "¥", "RMB": "¥", "￥": "¥", "INR": "₹", "Rs": "₹", "RUB": "₽", "KRW": "₩", "￦": "₩", "Fr": "CHF",
    "SFr": "CHF", "TRY": "₺", "TL": "₺", "PLN": "zł", "CZK": "Kč", "HUF": "Ft", "ILS": "₪", "BRL": "R$",
    "UAH": "₴", "руб": "₽", "AU$": "A$", "CA$": "C$", "円": "¥", "元": "¥", "원": "₩", "dollar": "$", "dollars": "$",
    "Dollar": "$", "euros": "€", "Euros": "€",
}  # fmt: skip
_OTHER_CURRENCIES = (
    "R$", "A$", "C$", "HK$", "NT$", "S$", "NZ$", "CHF", "SEK", "NOK", "DKK", "ISK", "kr", "zł", "Kč", "Ft", "лв",
    "AUD", "CAD", "NZD", "HKD", "TWD", "SGD", "MXN", "ZAR", "THB", "IDR", "MYR", "RM", "PHP", "VND", "AED", "SAR",
    "EGP", "NGN", "RON", "BGN", "ARS", "CLP", "COP", "BTC",
)  # fmt: skip
_WORDS = sorted({*_SAME_CURRENCY, *_OTHER_CURRENCIES}, key=len, reverse=True)
CURRENCY = rf"(?:{'|'.join(map(re.escape, _WORDS))}|[{CURRENCY_SIGNS}])"
_IS_CURRENCY = re.compile(rf"{CURRENCY}\.?")

MAGNITUDES = {
    "k": 3, "K": 3, "Tsd": 3, "thousand": 3, "тыс": 3, "千": 3, "천": 3, "万": 4, "萬": 4, "만": 4, "lakh": 5, "M": 6,
    "Mio": 6, "mio": 6, "Mn": 6, "mn": 6, "mln": 6, "млн": 6, "million": 6, "Million": 6, "millions": 6, "Millionen": 6,
    "millones": 6, "crore": 7, "億": 8, "亿": 8, "억": 8, "B": 9, "bn": 9, "Mrd": 9, "млрд": 9, "billion": 9,
    "Billion": 9, "billions": 9, "Milliarden": 9, "milliards": 9, "T": 12, "tn": 12, "trillion": 12, "Bio": 12,
}  # fmt: skip
"""Suffix -> power of ten."""
_OF_MONEY = {"m": 6, "mm": 6, "MM": 6, "L": 5, "lac": 5, "Cr": 7, "cr": 7}
"""Suffixes that are powers of ten beside a currency alone: metres, litres and credit elsewhere."""
_POWERS = MAGNITUDES | _OF_MONEY

_SIDES = {"N": "S", "E": "W", "°N": "°S", "°E": "°W", "CR": "DR", "Cr": "Dr"}
"""North and south, east and west, credit and debit: side that counts as positive -> the negative one."""
_CELSIUS = {"°C": (1.0, 0.0), "°F": (5 / 9, -160 / 9)}

_FAMILIES: tuple[dict[str, float], ...] = (
    {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3,
     "TiB": 1024**4},
    {"mg": 1e-3, "g": 1, "kg": 1e3, "t": 1e6, "oz": 28.349523125, "lb": 453.59237},
    {"mm": 1e-3, "cm": 1e-2, "m": 1, "km": 1e3, "in": 0.0254, "ft": 0.3048, "yd": 0.9144, "mi": 1609.344},
    {"ml": 1e-3, "cl": 1e-2, "dl": 0.1, "l": 1},
    {"ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400, "days": 86400, "weeks": 604800, "months": 2629800,
     "years": 31557600},
    {"mm²": 1e-6, "cm²": 1e-4, "m²": 1, "m2": 1, "sqm": 1, "sq m": 1, "km²": 1e6, "km2": 1e6, "ha": 1e4,
     "sqft": 0.09290304, "sq ft": 0.09290304, "ft²": 0.09290304},
    {"m/s": 1, "km/h": 1 / 3.6, "kmh": 1 / 3.6, "kph": 1 / 3.6, "mph": 0.44704},
    {"W": 1, "kW": 1e3, "MW": 1e6, "GW": 1e9},
    {"Wh": 1, "kWh": 1e3, "MWh": 1e6, "GWh": 1e9},
    {"%": 1, "‰": 0.1, "bp": 0.01},
    {"Hz": 1, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
    {"mV": 1e-3, "V": 1, "kV": 1e3},
    {"mA": 1e-3, "A": 1},
    {"Pa": 1, "hPa": 100, "mbar": 100, "kPa": 1e3, "bar": 1e5},
    {"J": 1, "kJ": 1e3, "MJ": 1e6, "cal": 4.184, "kcal": 4184},
    {unit: 10.0**power for unit, power in MAGNITUDES.items()},
)  # fmt: skip
_SAME_UNIT = {
    spelling: unit
    for unit, spellings in {
        "kg": "Kg KG kgs Kgs kilo kilos kilogram kilograms", "g": "gram grams Gramm gr", "lb": "lbs",
        "mi": "mile miles",
        "m": "metre metres meter meters Meter", "km": "KM Km kms kilometers kilometres", "cm": "CM", "ft": "foot feet",
        "in": "inch inches Zoll", "l": "L liter liters litre litres Liter ltr", "ml": "mL ML", "kB": "KB kb",
        "MB": "mb Mb", "GB": "gb Gb", "TB": "tb Tb", "s": "sec secs second seconds Sek Sekunden",
        "min": "mins minute minutes Min Minute Minuten", "h": "hr hrs hour hours Std Stunde Stunden",
        "days": "day Tag Tage", "weeks": "week wk wks Woche Wochen", "months": "month mos Monat Monate mois",
        "years": "year yr yrs Jahr Jahre ans años anni", "%": "percent pct Prozent pourcent", "bp": "bps",
    }.items()
    for spelling in spellings.split()
}  # fmt: skip
_ALONE = frozenset(
    {"°", "°C", "°F", "cc", "CC", "bhp", "hp", "HP", "PS", "rpm", "Nm", "kmpl", "km/kg", "mpg",
     "px", "dB", "bpm", "kg/m²", "mg/dl", "mg/dL", "mmol/l", "mmHg", "pcs", "g/l", "µg", "µm", "nm", "years old",
     "year old", "Jahre alt", "m³", *_SIDES, *_SIDES.values()}
)  # fmt: skip
PERCENT = "%"


@dataclass(frozen=True)
class Conversion:
    """By how much cells with each unit are multiplied; None: they cannot be compared with the others.

    `shifts` is added afterwards: between degrees Celsius and Fahrenheit.
    """

    factors: Mapping[str, float | None]
    unit: str
    note: str = ""
    shifts: Mapping[str, float] = field(default_factory=dict)


def canonical_unit(text: str) -> str:
    """Return one name for the spellings of a currency, and other units as they are, without a full stop.

    Returns
    -------
    str

    Examples
    --------
    >>> canonical_unit("EUR"), canonical_unit("Rs."), canonical_unit("kg"), canonical_unit("m^2")
    ('€', '₹', 'kg', 'm²')
    """
    bare = (
        text.strip()
        .rstrip(".")
        .replace("° ", "°")
        .replace("sq. ", "sq ")
        .replace("^2", "²")
        .replace("^3", "³")
    )
    if bare == "per cent":
        return PERCENT
    return _SAME_UNIT.get(bare) or _SAME_CURRENCY.get(bare, bare)


def of_money(unit: str, currency: str) -> tuple[int, str]:
    """Return the power of ten that an amount's unit says, and the currency; (0, "") where it is another unit.

    Parameters
    ----------
    unit
        What stands behind the digits.
    currency
        What stands before them, "" for nothing.

    Returns
    -------
    tuple of (int, str)

    Examples
    --------
    >>> of_money("m", "$"), of_money("Mio. €", ""), of_money("million dollars", ""), of_money("m", "")
    ((6, '$'), (6, '€'), (6, '$'), (0, ''))
    """
    if currency:
        return (_POWERS[unit], currency) if unit in _POWERS else (0, "")
    size, _, behind = unit.rpartition(" ")
    if not size and unit[-1:] and is_currency(unit[-1]):
        size, behind = unit[:-1], unit[-1]
    money = canonical_unit(behind)
    power = _POWERS.get(size.strip(" ."), 0)
    return (power, money) if power and is_currency(money) else (0, "")


def is_currency(unit: str) -> bool:
    """Tell whether a unit is a currency."""
    return bool(_IS_CURRENCY.fullmatch(unit))


def is_known(unit: str) -> bool:
    """Tell whether a unit needs no further evidence to count as one."""
    return not unit or unit in _ALONE or is_currency(unit) or any(unit in family for family in _FAMILIES)


def conversion(counts: Mapping[str, int], into: str | None = None) -> Conversion:
    """Return what brings all cells of a column to one unit.

    Parameters
    ----------
    counts
        Cells by unit; "" for cells without one, which are taken to be in the column's unit.
    into
        Unit to convert to; None takes the most frequent one. "" converts magnitudes (k, M) alone.

    Returns
    -------
    Conversion
    """
    named = sorted((unit for unit in counts if unit), key=lambda unit: (-counts[unit], unit))
    if not named:
        return Conversion({"": 1.0}, into or "")
    if all(unit in MAGNITUDES for unit in named) and (into or "") in ("", *MAGNITUDES):
        return Conversion({"": 1.0, **{unit: 10.0 ** MAGNITUDES[unit] for unit in named}}, "")
    unit = into or named[0]
    both = {unit, *named}
    for positive, negative in _SIDES.items():
        if both == {positive, negative}:
            note = f"cells in {negative} are read as negative, those in {positive} as positive"
            return Conversion({"": 1.0, positive: 1.0, negative: -1.0}, positive, note)
    if both == set(_CELSIUS):
        factor, shift = _CELSIUS[unit]
        factors = {name: of / factor for name, (of, _) in _CELSIUS.items()}
        shifts = {name: (by - shift) / factor for name, (_, by) in _CELSIUS.items()}
        other = next(name for name in _CELSIUS if name != unit)
        return Conversion({"": 1.0, **factors}, unit, f"cells in {other} converted to {unit}", shifts)
    for family in _FAMILIES:
        if unit in family and all(other in family for other in named):
            factors = {other: family[other] / family[unit] for other in named}
            others = [other for other in named if other != unit]
            note = f"cells in {' and '.join(others)} converted to {unit}" if others else ""
            return Conversion({"": 1.0, **factors}, unit, note)
    if is_currency(unit) and all(is_currency(other) for other in named):
        several = named if unit in named else [unit, *named]
        note = (
            f"amounts in {' and '.join(several)} are read as they are, not converted" if several[1:] else ""
        )
        return Conversion(dict.fromkeys(["", *named], 1.0), unit, note)
    others = [other for other in named if other != unit]
    note = f"cells in {' and '.join(others[:3])} cannot be compared with those in {unit}" if others else ""
    return Conversion({"": 1.0, unit: 1.0, **dict.fromkeys(others)}, unit, note)
