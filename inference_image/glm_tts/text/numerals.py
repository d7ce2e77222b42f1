"""Numbers in words, Chinese and English, and the patterns that find them."""

from __future__ import annotations

# Every pattern starts where no digit or point stands before, so that a long run of digits is looked
# at once and not from each of its digits: time stays linear in the length of the text.
START = r"(?<![\d.^])"
NUMBER = r"(?:\d{1,3}(?:,\d{3}){1,5}(?!,?\d)|\d+|(?<![A-Za-z\d.])(?=\.\d))(?:\.\d+)?(?!\d)"
SIGN = r"(?:(?<![A-Za-z\d)\]])-)?"
SIGNED = f"{SIGN}{START}{NUMBER}"

MAX_DIGITS = 12
"""Integers with more digits are named digit by digit, as account and order numbers are."""

_DIGITS_ZH = "零一二三四五六七八九"
_ONES_EN = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
_TENS_EN = ["-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES_EN = ("", "thousand", "million", "billion")
_ORDINALS_EN = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def digits_zh(text: str, *, yao: bool = False) -> str:
    """Digit by digit; with `yao`, 1 is 幺 as in phone and room numbers. Other characters stay."""
    one = "幺" if yao else "一"
    return "".join(
        one if c == "1" else _DIGITS_ZH[int(c)] if c in "0123456789" else c for c in text
    )


def number_zh(number: str) -> str:
    """-1,234.50 as 负一千二百三十四点五零."""
    sign, whole, fraction = _parts(number)
    spoken = _integer_zh(whole or "0")
    if fraction:
        spoken += "点" + digits_zh(fraction)
    return "负" + spoken if sign else spoken


def count_zh(number: str) -> str:
    """A number before what it counts: 2 is 两."""
    return "两" if number == "2" else number_zh(number)


def cardinal_zh(number: int) -> str:
    """Of a number from 0 to below 10^16; 2 is 两 before 千, 万 and 亿, and before 百 in front."""
    spoken = _cardinal_zh(number)
    if spoken.startswith("一十"):
        return spoken[1:]
    return "两" + spoken[1:] if spoken.startswith("二百") else spoken


def _integer_zh(digits: str) -> str:
    if len(digits) > MAX_DIGITS or (digits[0] == "0" and len(digits) > 1):
        return digits_zh(digits)
    return cardinal_zh(int(digits))


def _cardinal_zh(number: int) -> str:
    for size, name in ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十")):
        if number >= size:
            high, low = divmod(number, size)
            head = "两" if high == 2 and size > 100 else _cardinal_zh(high)
            gap = "零" if 0 < low < size // 10 else ""
            return head + name + gap + (_cardinal_zh(low) if low else "")
    return _DIGITS_ZH[number]


def digits_en(text: str) -> str:
    """Digit by digit; letters by name, anything else left out."""
    return " ".join(_ONES_EN[int(c)] if c in "0123456789" else c for c in text if c.isalnum())


def number_en(number: str) -> str:
    """-1,234.50 as minus one thousand two hundred and thirty four point five zero."""
    sign, whole, fraction = _parts(number)
    spoken = _integer_en(whole) if whole else ""
    if fraction:
        spoken += " point " + digits_en(fraction)
    spoken = spoken.strip()
    return "minus " + spoken if sign else spoken


def cardinal_en(number: int) -> str:
    """Of a number from 0 to below 10^12."""
    groups: list[str] = []
    rest = number
    for scale in _SCALES_EN:
        rest, group = divmod(rest, 1000)
        if group:
            groups.insert(0, f"{_hundreds_en(group)} {scale}".strip())
    last = number % 1000
    if len(groups) > 1 and 0 < last < 100:
        groups.insert(-1, "and")
    return " ".join(groups) or "zero"


def ordinal_en(number: int) -> str:
    head, _, last = cardinal_en(number).rpartition(" ")
    if last in _ORDINALS_EN:
        last = _ORDINALS_EN[last]
    else:
        last = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return f"{head} {last}".strip()


def year_en(year: int) -> str:
    """Of a year from 1000 to 2999."""
    high, low = divmod(year, 100)
    if low == 0:
        return cardinal_en(year) if year % 1000 == 0 else f"{cardinal_en(high)} hundred"
    if low < 10:
        oh = f"{cardinal_en(high)} oh {cardinal_en(low)}"
        return f"two thousand and {cardinal_en(low)}" if high == 20 else oh
    return f"{cardinal_en(high)} {cardinal_en(low)}"


def fraction_en(numerator: int, denominator: int) -> str:
    if denominator in (2, 4):
        part = "half" if denominator == 2 else "quarter"
    else:
        part = ordinal_en(denominator)
    if numerator != 1:
        part = "halves" if part == "half" else f"{part}s"
    return f"{cardinal_en(numerator)} {part}"


def _parts(number: str) -> tuple[str, str, str]:
    sign = "-" if number.startswith("-") else ""
    whole, _, fraction = number.removeprefix("-").replace(",", "").partition(".")
    return sign, whole, fraction


def _integer_en(digits: str) -> str:
    if len(digits) > MAX_DIGITS or (digits[0] == "0" and len(digits) > 1):
        return digits_en(digits)
    return cardinal_en(int(digits))


def _hundreds_en(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    words = [_ONES_EN[hundreds], "hundred"] if hundreds else []
    if hundreds and rest:
        words.append("and")
    if rest >= 20:
        words.append(_TENS_EN[rest // 10])
        rest %= 10
    if rest:
        words.append(_ONES_EN[rest])
    return " ".join(words)
