"""Dates in the words, scripts and logs of the world, rewritten in the few forms that are read."""

import contextlib
import re
from datetime import date

MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "jan january januar janvier janv enero ene gennaio gen janeiro jän jänner januari stycznia sty января янв "
            "ledna ocak",
            "feb february februar février fevrier févr febrero febbraio fevereiro fev februari lutego lut февраля фев "
            "února şubat",
            "mar march märz mär mrz mars marzo março maart mrt marca марта мар března mart",
            "apr april avril avr abril abr aprile kwietnia kwi апреля апр dubna nisan",
            "may mai mayo maggio mag maio mei maj maja мая května mayıs",
            "jun june juni juin junio giugno giu junho czerwca cze июня июн června haziran",
            "jul july juli juillet juil julio luglio lug julho lipca lip июля июл července temmuz",
            "aug august août aout agosto ago augustus augusti sierpnia sie августа авг srpna ağustos",
            "sep sept september septembre septiembre settembre set setembro września wrz сентября сен сент září eylül",
            "oct october oktober okt octobre octubre ottobre ott outubro out października paź октября окт října ekim",
            "nov november novembre noviembre novembro listopada lis ноября ноя нояб listopadu kasım",
            "dec december dezember dez décembre déc diciembre dic dicembre dezembro desember des grudnia gru декабря "
            "дек prosince aralık",
        ),
        start=1,
    )
    for name in names.split()
}
"""Names of months, case-folded -> 1 to 12."""

_FORMS = str.maketrans("／．：－\u00a0\u202f\u2009\u3000", "/.:-    ")
_NAMED_ZONE = re.compile(r"\[[A-Za-z_/+-]+\d*\]$")
_LAST_WORDS = re.compile(r"\s*(?:Uhr|г\.?|hrs?\.?)$")
_BEFORE_TIME = re.compile(r"(?<=\d)\s+(?:um|at|à|om|kl\.?|alle|a las)\s+(?=\d{1,2}[:.h]\d\d)")
_WEEKDAY = re.compile(r"^[^\W\d]{2,10}\.?,?\s+(?=\d{1,4}[./-]\s?\d)|(?<=\d{4})\s*\([^\W\d]{2,10}\.?\)$")
_ZONE_OF_LONDON = re.compile(
    r"(?<=\d)\s?(?:UTC|GMT)(?P<sign>[+-])(?P<h>\d{1,2}?):?(?P<m>\d\d)?(?:\s\([\w\s]+\))?$"
)
_TIME_IN_POINTS = re.compile(r"(?<=\s)(\d\d)\.(\d\d)\.(\d\d)(?:\.\d+)?(?=\s?[AaPp][Mm]$)")
_TIME_IN_DIGITS = re.compile(r"(?<=\d)T(\d\d)(\d\d)(?=(?:\d\d)?Z?$)")
_WEEK = re.compile(r"(?P<year>(?:19|20)\d\d)-?W(?P<week>\d\d)(?:-?(?P<day>[1-7]))?")
_QUARTER = re.compile(r"(?P<y>(?:19|20)\d\d)[-/ ]?Q(?P<q>[1-4])|Q(?P<q2>[1-4])[-/ ]?(?P<y2>(?:19|20)\d\d)")
_FILLERS = re.compile(r"(?<=[\s\d])(?:de|del|of)\s+")
_FIRST = re.compile(r"\b1(?:er|º|°)(?=\s)")
_EAST_ASIAN = re.compile(
    r"(?P<y>\d{4})\s*[年년]\s*(?P<m>\d{1,2})\s*[月월](?:\s*(?P<d>\d{1,2})\s*[日일])?(?P<rest>.*)"
)
_IN_ORDER_OF_C = re.compile(
    r"[A-Za-z]{3} (?P<month>[A-Za-z]{3}) +(?P<day>\d{1,2}) (?:(?P<before>\d{4}) )?(?P<time>\d\d:\d\d:\d\d)"
    r"(?P<zone> [A-Z]{1,5}| [+-]\d{4}|[+-]\d\d:\d\d)?"
    r"(?: (?P<after>\d{4}))?"
)
_OF_LOG = re.compile(
    r"(?P<day>\d{1,2})/(?P<month>[A-Za-z]{3})/(?P<year>\d{4}):(?P<time>\d\d:\d\d:\d\d)(?P<zone> [+-]\d{4})?"
)
_TIME_FIRST = re.compile(r"(?P<time>\d{1,2}:\d{2}(?::\d{2})?),?\s+(?P<date>\S.*\d{4})")
_DIGITS_ALONE = re.compile(r"(?P<date>(?:19|20)\d{6})T?(?P<h>\d{2})(?P<m>\d{2})(?P<s>\d{2})?(?P<zone>Z?)")
_MONTH_AND_YEAR = re.compile(
    r"(?P<first>(?:19|20)\d{2})-(?P<of_year>0[1-9]|1[0-2])|(?P<month>(?:0?[1-9]|1[0-2])[/.](?=\d{4})|[^\W\d]{3,}\.?,?[\s-]+(?=\d{4})|[^\W\d]{3,}\s?['’-](?=\d{2}$))"
    r"(?P<year>(?:(?:19|20)\d{2}|\d{2}))"
)


def rewritten(text: str) -> str:
    """Return a date in a form that needs no language and no script; any other text nearly as it is.

    Returns
    -------
    str

    Examples
    --------
    >>> rewritten("2021年3月5日"), rewritten("14:30 05.03.2021"), rewritten("5 de marzo de 2021"), rewritten("Mai 2021")
    ('2021-3-5', '05.03.2021 14:30', '5 marzo 2021', '1 Mai 2021')
    >>> rewritten("Fri Mar 05 14:30:00 UTC 2021"), rewritten("20210305T143000Z")
    ('05 Mar 2021 14:30:00 UTC', '20210305 14:30:00Z')
    """
    if not text.isascii():
        text = "".join(str(int(one)) if one.isdecimal() else one for one in text.translate(_FORMS))
    text = _LAST_WORDS.sub("", _NAMED_ZONE.sub("", text))
    text = _FIRST.sub("1", _FILLERS.sub("", _WEEKDAY.sub("", _BEFORE_TIME.sub(" ", text))))
    text = _TIME_IN_POINTS.sub(r"\1:\2:\3", _ZONE_OF_LONDON.sub(_offset, text))
    match = _EAST_ASIAN.fullmatch(text)
    if match:
        return f"{match['y']}-{match['m']}-{match['d'] or 1}{match['rest']}"
    match = _IN_ORDER_OF_C.fullmatch(text)
    if match and bool(match["before"]) != bool(match["after"]):
        year = match["before"] or match["after"]
        return f"{match['day']} {match['month']} {year} {match['time']}{match['zone'] or ''}"
    match = _OF_LOG.fullmatch(text)
    if match:
        return f"{match['day']} {match['month']} {match['year']} {match['time']}{match['zone'] or ''}"
    match = _TIME_FIRST.fullmatch(text)
    if match:
        return f"{match['date']} {match['time']}"
    match = _DIGITS_ALONE.fullmatch(text)
    if match:
        return f"{match['date']} {match['h']}:{match['m']}:{match['s'] or '00'}{match['zone']}"
    match = _WEEK.fullmatch(text)
    if match:
        with contextlib.suppress(ValueError):  # week 53 of a year that has 52
            return f"{date.fromisocalendar(int(match['year']), int(match['week']), int(match['day'] or 1))}"
    match = _QUARTER.fullmatch(text)
    if match:
        return f"{match['y'] or match['y2']}-{3 * int(match['q'] or match['q2']) - 2}-1"
    match = _MONTH_AND_YEAR.fullmatch(text)
    if match:
        if match["first"]:
            return f"{match['first']}-{match['of_year']}-1"
        month = match["month"]
        if month[0].isdigit():
            return f"{match['year']}-{month[:-1]}-1"
        name = month.strip(" -,'’")
        return f"1 {name} {match['year']}"
    return _TIME_IN_DIGITS.sub(r" \1:\2", text)


def _offset(match: re.Match[str]) -> str:
    return f"{match['sign']}{int(match['h']):02d}:{match['m'] or '00'}"
