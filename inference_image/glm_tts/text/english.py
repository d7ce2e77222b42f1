"""English sentences in words: each rule rewrites what it understands, in order.

As in Chinese: special forms first (accounts, phones, dates, times, money, units), plain numbers
last, and no digit is left behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from glm_tts.text.numerals import (
    NUMBER,
    SIGN,
    SIGNED,
    START,
    cardinal_en,
    digits_en,
    fraction_en,
    number_en,
    ordinal_en,
    year_en,
)
from glm_tts.text.tables import (
    ABBREVIATIONS_EN,
    CURRENCIES_EN,
    MONTHS_EN,
    SYMBOLS_EN,
    UNITS_EN,
)

Match = re.Match[str]


def in_words(sentence: str) -> str:
    """An English sentence with its numbers and symbols in words; punctuation is left."""
    for pattern, replacement in _RULES:
        sentence = pattern.sub(replacement, sentence)
    return sentence


def address_in_words(address: str) -> str:
    """A web or mail address: a.b@c.com as a dot b at c dot com, digits one by one."""
    pieces: list[str] = re.findall(r"\d|[^\W\d_]+|.", address)
    return " ".join(
        digits_en(piece) if piece.isdigit() else _ADDRESS_MARKS.get(piece, piece)
        for piece in pieces
    )


_ADDRESS_MARKS = {
    ".": "dot",
    "@": "at",
    "/": "slash",
    "-": "dash",
    "_": "underscore",
    ":": "colon",
    "~": "tilde",
    "+": "plus",
}
_MAGNITUDES = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion", "mn": "million"}
_ROMAN = {
    "I": 1,
    "II": 2,
    "III": 3,
    "IV": 4,
    "V": 5,
    "VI": 6,
    "VII": 7,
    "VIII": 8,
    "IX": 9,
    "X": 10,
}


def _spaced(words: str) -> str:
    """Words stand apart from what they replace a part of: H100 as H one hundred."""
    return f" {words} "


def _digits(match: Match) -> str:
    return _spaced(digits_en(match.group()))


def _named_number(match: Match) -> str:
    return match[1] + _spaced(digits_en(match[2]))


def _internet_address(match: Match) -> str:
    return _spaced(" dot ".join(digits_en(part) for part in match.group().split(".")))


def _phone(match: Match) -> str:
    """Groups of digits with a pause between; a plus is said."""
    groups = [digits_en(group) for group in re.findall(r"\d+", match.group())]
    return ("plus " if match.group().startswith("+") else "") + ", ".join(groups)


def _date(match: Match) -> str:
    return _spoken_date(match, match["y"], match["m"], match["d"])


def _date_year_last(match: Match) -> str:
    """Month first, as in the United States, unless the first number is no month."""
    month, day = match["m"], match["d"]
    if int(month) > 12:
        month, day = day, month
    return _spoken_date(match, match["y"], month, day)


def _spoken_date(match: Match, year: str, month: str, day: str) -> str:
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31 and 1000 <= int(year) < 3000):
        return match.group()
    return f"{MONTHS_EN[int(month) - 1]} {ordinal_en(int(day))}, {year_en(int(year))}"


def _month_day_year(match: Match) -> str:
    """May 1, 2024 as may first, twenty twenty four."""
    if not 1 <= int(match["d"]) <= 31:
        return match.group()
    month, day = _month(match["month"]), ordinal_en(int(match["d"]))
    spoken = f"{day} of {month}" if match.groupdict().get("of") else f"{month} {day}"
    return f"{spoken}, {year_en(int(match['y']))}" if match["y"] else spoken


def _month_year(match: Match) -> str:
    return f"{_month(match[1])} {year_en(int(match[2]))}"


def _month(name: str) -> str:
    return next(month for month in MONTHS_EN if month.startswith(name[:3].lower()))


def _years(match: Match) -> str:
    return f"{year_en(int(match[1]))} to {year_en(int(match[2]))}"


def _year(match: Match) -> str:
    return year_en(int(match.group()))


def _decade(match: Match) -> str:
    """1990s as nineteen nineties, '90s as nineties."""
    words = year_en(int(match[1])) if len(match[1]) == 4 else cardinal_en(int(match[1]))
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"


def _time(match: Match) -> str:
    """3:05 pm as three oh five pm, 14:00 as fourteen hundred, 2:00 as two o'clock."""
    hour, minute, second = int(match["h"]), match["m"], match["s"]
    if hour > 24:
        return match.group()
    half = f" {match['half'].lower()}m" if match["half"] else ""
    spoken = cardinal_en(hour)
    if minute != "00":
        spoken += f" {'oh ' if minute[0] == '0' else ''}{cardinal_en(int(minute))}"
    elif not half:
        spoken += " hundred" if hour > 12 or hour == 0 else " o'clock"
    if second:
        spoken += f" and {_counted(str(int(second)), ('second', 'seconds'))}"
    return spoken + half


def _hour_of_half(match: Match) -> str:
    return f"{cardinal_en(int(match[1]))} {match[2].lower()}m"


def _ratio(match: Match) -> str:
    return f"{number_en(match[1])} to {number_en(match[2])}"


def _money(match: Match) -> str:
    one, many, hundredth, hundredths = CURRENCIES_EN[match["currency"]]
    size = (match["size"] or "").lower()
    number, upper = match["n"], match["to"]
    minus = "minus " if match["sign"] or match["inner"] else ""
    if upper or size:
        span = f"{number_en(number)} to {number_en(upper)}" if upper else number_en(number)
        return f"{minus}{span} {_MAGNITUDES.get(size, size)} {many}".replace("  ", " ")
    whole, _, cents = number.partition(".")
    if len(cents) != 2:
        return f"{minus}{_counted(number, (one, many))}"
    parts = [_counted(whole, (one, many))] if whole.strip("0,") else []
    if int(cents):
        parts.append(_counted(str(int(cents)), (hundredth, hundredths)))
    return minus + (" and ".join(parts) or f"zero {many}")


def _money_after(match: Match) -> str:
    one, many, *_ = CURRENCIES_EN[match[2]]
    return _counted(match[1], (one, many))


def _counted(number: str, unit: tuple[str, str]) -> str:
    singular, plural = unit
    return f"{number_en(number)} {singular if number in ('1', '-1') else plural}"


def _quantity(match: Match) -> str:
    unit = UNITS_EN[match["unit"]]
    if match["to"] is not None:
        return f"{number_en(match['n'])} to {_counted(match['to'], unit)}"
    return _counted(match["n"], unit)


def _feet_and_inches(match: Match) -> str:
    feet = _counted(match[1], ("foot", "feet"))
    return f"{feet} {_counted(match[2], ('inch', 'inches'))}"


def _percent(match: Match) -> str:
    spoken = number_en(match["n"])
    if match["to"] is not None:
        spoken += f" to {number_en(match['to'])}"
    return f"{spoken} percent"


def _exponential(match: Match) -> str:
    power = number_en(match[2].lstrip("+"))
    return f"{number_en(match[1])} times ten to the power of {power}{_unit_after(match)}"


def _superscript(match: Match) -> str:
    return f"{match[1]}^{match[2].translate(_SUPERSCRIPTS)}"


def _power(match: Match) -> str:
    base = number_en(match[1]) if match[1][-1].isdigit() else match[1]
    exponent = match[2].strip("()")
    named = {"2": "squared", "3": "cubed"}.get(exponent)
    if named:
        return f"{base} {named}{_unit_after(match)}"
    said = number_en(exponent) if exponent[-1].isdigit() else exponent
    return f"{base} to the power of {said}{_unit_after(match)}"


def _unit_after(match: Match) -> str:
    return f" {UNITS_EN[match['unit']][1]}" if match["unit"] else ""


def _sum(match: Match) -> str:
    """An expression before an equals sign, where - is minus, and / is divided by unless it makes
    fractions of a sum."""
    expression = match.group().replace(" / ", " divided by ")
    if not re.search(r"[-+]", expression):
        expression = expression.replace("/", " divided by ")
    return expression.replace("-", " minus ")


def _fraction(match: Match) -> str:
    numerator, denominator = int(match["a"]), int(match["b"])
    if denominator < 2:
        return f"{cardinal_en(numerator)} over {cardinal_en(denominator)}"
    whole = f"{number_en(match['w'])} and " if match["w"] else ""
    return whole + fraction_en(numerator, denominator)


def _range(match: Match) -> str:
    first, mark, second = match[1], match[2], match[3]
    falls = float(first.replace(",", "")) >= float(second.replace(",", ""))
    word = "minus" if mark == "-" and falls else "to"
    return f"{number_en(first)} {word} {number_en(second)}"


def _score(match: Match) -> str:
    return f"{match[1]}{number_en(match[2])} to {number_en(match[3])}"


def _version(match: Match) -> str:
    spoken = " point ".join(number_en(part) for part in match[2].split("."))
    return f"version {spoken}" if match[1] else _spaced(spoken)


def _ordinal(match: Match) -> str:
    return ordinal_en(int(match[1].replace(",", "")))


def _roman(match: Match) -> str:
    return f"{match[1]} {cardinal_en(_ROMAN[match[2]])}"


def _number(match: Match) -> str:
    return _spaced(number_en(match.group()))


def _abbreviation(match: Match) -> str:
    return ABBREVIATIONS_EN[match.group().lower()]


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS_EN, key=len, reverse=True))
_CURRENCY = "|".join(re.escape(name) for name in sorted(CURRENCIES_EN, key=len, reverse=True))
_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?"
    r"|Sept?(?:ember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
)
_ABBREVIATION = "|".join(
    re.escape(name) for name in sorted(ABBREVIATIONS_EN, key=len, reverse=True)
)
_RANGE_TO = rf"(?:\s?(?:[-~]|to)\s?(?P<to>-?{NUMBER}))?"
_YEAR = r"(?:1[1-9]|20)\d\d"
_Rule = tuple[str, Callable[[Match], str] | str]

_WORDS: list[_Rule] = [
    (rf"(?<![A-Za-z.])(?i:{_ABBREVIATION})(?![A-Za-z])", _abbreviation),
    (r"(?<![A-Za-z])(?i:nos?)\.\s?(?=\d)|#(?=\d)", "number "),
    (
        rf"(?<![A-Za-z])(War|Part|Chapter|Volume|Act|Phase|Title|Book) ({'|'.join(_ROMAN)})(?!\w)",
        _roman,
    ),
    (r"(?<![A-Za-z])(?i:fig)\.\s?(?=\d)", "figure "),
    (r"(?<![A-Za-z])pp?\.\s?(?=\d)", lambda m: "pages " if m[0][1] == "p" else "page "),
    (r"(?<![A-Za-z])(?:[A-Za-z]\.){2,8}", lambda m: m[0].replace(".", " ")),
    (r"(?<![A-Za-z])St\.(?= [A-Z])", "saint"),
    (r"(?<=\w )St\.(?![A-Za-z])", "street"),
    (r"(?<![A-Za-z])C\+\+", "C plus plus"),
    (r"(?<![A-Za-z])([CF])#", r"\1 sharp"),
]
_ACCOUNTS_AND_PHONES: list[_Rule] = [
    (rf"{START}\d{{4}}(?:[ -]\d{{4}}){{3}}(?!\d)", _phone),
    (rf"{START}\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?!\.?\d)", _internet_address),
    (r"\+\d{1,3}(?:[-. ]\(?\d{2,5}\)?){2,5}(?!\d)", _phone),
    (rf"{START}(?:1[-. ])?(?:\(\d{{3}}\)\s?|\d{{3}}[-. ])\d{{3}}[-. ]\d{{4}}(?!\.?\d)", _phone),
    (r"\(\d{3}\)\s?\d{3}[-. ]\d{4}(?!\d)", _phone),
    (rf"{START}\d{{3}}-\d{{2}}-\d{{4}}(?!\d)|{START}\d{{3}}-\d{{4}}(?![\d-])", _phone),
    (
        r"((?<![A-Za-z])(?i:pin|code|zip|extension|ext\.?|account|password|id|call|dial"
        r"|room|suite|flight)(?: (?:number|is|code))?[: ]{1,2}[A-Z]{0,2})(\d{3,12})(?!\d|[.,]\d)",
        _named_number,
    ),
    (rf"{START}\d{{13,}}(?!\.?\d)", _digits),
]
_DATES: list[_Rule] = [
    (rf"(?<=\d) ?[-~] ?(?={_MONTH}\.? \d)", " to "),
    (
        rf"{START}(?P<y>\d{{4}})([-/.])(?P<m>\d{{1,2}})\2(?P<d>\d{{1,2}})(?!\d|[-/.]\d)(?:T(?=\d))?",
        _date,
    ),
    (
        rf"{START}(?P<m>\d{{1,2}})([-/.])(?P<d>\d{{1,2}})\2(?P<y>\d{{4}})(?!\d|[-/.]\d)",
        _date_year_last,
    ),
    (
        rf"(?<![A-Za-z])(?P<month>{_MONTH})\.? (?P<d>\d{{1,2}})(?:st|nd|rd|th)?"
        rf"(?:,? (?P<y>{_YEAR}))?(?![\w:%]|[.,]\d)",
        _month_day_year,
    ),
    (
        rf"{START}(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?P<of> of)? (?P<month>{_MONTH})(?![A-Za-z])\.?"
        rf"(?:,? (?P<y>{_YEAR}))?(?![\w:%]|[.,]\d)",
        _month_day_year,
    ),
    (rf"(?<![A-Za-z])({_MONTH})\.?,? ({_YEAR})(?![\w:%]|[.,]\d)", _month_year),
    (rf"{START}({_YEAR})\s?[-~]\s?({_YEAR})(?![\w%]|[.,]\d)", _years),
    (rf"(?<![\w.])'?({_YEAR}|[1-9]0)'?s(?!\w)", _decade),
]
_TIMES: list[_Rule] = [
    (rf"{START}\d{{1,12}}(?:-\d{{1,12}}){{2,9}}(?![\d-])", _phone),
    (r"(\d{1,2}:\d\d)\s?[-~]\s?(?=\d{1,2}:\d\d)", r"\1 to "),
    (
        r"(?<![\d.:])(?P<h>\d{1,2}):(?P<m>[0-5]\d)(?::(?P<s>[0-5]\d))?(?![\d:])"
        r"(?:\s?(?P<half>[aApP])\.?[mM](?![A-Za-z])\.?)?",
        _time,
    ),
    (r"(?<![\d.:])(1[0-2]|[1-9])\s?([aApP])\.?[mM](?![A-Za-z])\.?", _hour_of_half),
    (r"(?<![\d.:])(\d{1,4}):(\d{1,4})(?![\d:])", _ratio),
]
_QUANTITIES: list[_Rule] = [
    (
        rf"({SIGNED})[eE]([-+]?\d{{1,3}})(?!\d)(?:\s?(?P<unit>{_UNIT}))?(?![\dA-Za-z])",
        _exponential,
    ),
    (
        rf"(?P<sign>{SIGN})(?<![A-Za-z])(?P<currency>{_CURRENCY})\s?(?P<inner>-?)(?P<n>{NUMBER})"
        rf"{_RANGE_TO}(?:\s?(?P<size>(?i:thousand|million|billion|trillion|bn|mn|[kmb]))(?![A-Za-z]))?",
        _money,
    ),
    (rf"({SIGNED})\s?([€£¥$]|(?:USD|EUR|GBP|RMB|CNY|JPY)(?![A-Za-z]))", _money_after),
    (rf"{START}(\d{{1,2}})['’](\d{{1,2}})[\"”](?!\w)", _feet_and_inches),
    (
        rf"({START}{NUMBER})/({NUMBER})\s?mmHg(?![A-Za-z])",
        lambda m: f"{number_en(m[1])} over {number_en(m[2])} millimeters of mercury",
    ),
    (
        rf"({START}(?!1/){NUMBER})/(10|100)(?![\d/]|\.\d)",
        lambda m: f"{number_en(m[1])} out of {number_en(m[2])}",
    ),
    (
        rf"({START}{NUMBER}\s?(?:[kcm]?m|ft))([23])(?![\dA-Za-z])",
        lambda m: m[1] + ("²" if m[2] == "2" else "³"),
    ),
    (rf"(?P<n>{SIGNED}){_RANGE_TO}[\s-]?(?P<unit>{_UNIT})(?![A-Za-z²³'’])", _quantity),
    (rf"(?P<n>{SIGNED})%?{_RANGE_TO}\s?%", _percent),
]
_MATHEMATICS: list[_Rule] = [
    (r"([A-Za-z\d)])([⁺⁻]?[⁰¹²³⁴-⁹]{1,9})", _superscript),
    (
        rf"({START}{NUMBER}|[A-Za-z)])\s?\^\s?(\(-?\d{{1,6}}\)|-?\d{{1,6}}(?!\d)|[A-Za-z])"
        rf"(?:\s?(?P<unit>{_UNIT})(?![A-Za-z]))?",
        _power,
    ),
    (
        rf"(?<![\d.+\-*/×÷]){NUMBER}(?:\s?[-+*/×÷]\s?{NUMBER}){{1,20}}\s?(?==|≈)",
        _sum,
    ),
    (
        r"(?<![A-Za-z\d])([A-Za-z]|\d{1,9})\s?-\s?(?=(?:[A-Za-z]|\d{1,9})\s?[=<>≤≥≠])",
        r"\1 minus ",
    ),
    (r"(?<![\d./])(?:24/7|9/11|20/20)(?![\d/])", lambda m: m[0].replace("/", " ")),
    (
        r"(?<![\d./])(?:(?P<w>\d{1,4}) )?(?P<a>\d{1,5})\s?/\s?(?P<b>\d{1,5})"
        r"(?:th|rd)?(?!\d|[/.]\d)",
        _fraction,
    ),
    (
        rf"((?i:won|wins|lost|scored?|beat|leads?|led|tied)[^\d.]{{0,12}}){START}"
        r"(\d{1,3})-(\d{1,3})(?![\d-])",
        _score,
    ),
    (rf"({SIGNED})\s?([-~])\s?(-?{NUMBER})", _range),
    (r"(?<![\w~])~\s?(?=\d)", "about "),
    (r"(?<![\w.])([vV]?)(\d+(?:\.\d+){2,})", _version),
    (r"(?<![\w.])[vV](?=\d)", "version "),
]
_NUMBERS: list[_Rule] = [
    (r"(?<![\d.])(\d{1,3}(?:,\d{3}){1,3}|\d{1,12})(?:st|nd|rd|th)(?!\w)", _ordinal),
    (rf"(?<![\w.,$-]){_YEAR}(?![\w%]|[.,]\d)", _year),
    (rf"(?<=[A-Z][A-Z] ){START}\d{{5}}(?![\d,-])", _digits),
    (rf"({SIGNED})[x×](?!\w)", lambda m: f"{number_en(m[1])} times"),
    (SIGNED, _number),
    (r"\d+", _digits),
]
# Signs that mean something only between operands.
_SIGNS: list[_Rule] = [
    (" {2,}", " "),
    (r"(?i)(?<![a-z])and/or(?![a-z])", "and or"),
    (r"(?<=\w)\s?\*\s?(?=\w)", " times "),
    (r"(?<=\w)~(?=\w)", " to "),
    (r"(?<=\w)\s?>=\s?(?=\w)", " greater than or equal to "),
    (r"(?<=\w)\s?<=\s?(?=\w)", " less than or equal to "),
    (r"(?<=\w)\s?!=\s?(?=\w)", " not equal to "),
    (r"(?<![-=])[-=]{1,3}>", " to "),
    (r"(?<![\w)])(?<![\w)] )[<>=*]+|[<>=*]+(?!\s?[\w-])", " "),
    (r"(?<=[a-z])/(?=[a-z])", " or "),
    ("[" + re.escape("".join(SYMBOLS_EN)) + "]", lambda m: f" {SYMBOLS_EN[m[0]]} "),
]
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        *_WORDS,
        *_ACCOUNTS_AND_PHONES,
        *_DATES,
        *_TIMES,
        *_QUANTITIES,
        *_MATHEMATICS,
        *_NUMBERS,
        *_SIGNS,
    )
]
