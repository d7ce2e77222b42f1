"""Chinese sentences in words: each rule rewrites what it understands, in order.

A rule leaves no digit behind in what it rewrites, so later rules do not see it again. Special
forms come first (account numbers, phones, dates, times, money, units), plain numbers last.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from glm_tts.text.numerals import (
    NUMBER,
    SIGN,
    SIGNED,
    START,
    cardinal_zh,
    count_zh,
    digits_zh,
    number_zh,
    ordinal_en,
)
from glm_tts.text.tables import CURRENCIES_ZH, MEASURE_WORDS, SYMBOLS_ZH, UNITS_ZH

Match = re.Match[str]


def in_words(sentence: str) -> str:
    """A Chinese sentence with its numbers and symbols in words; punctuation is left."""
    for pattern, replacement in _RULES:
        sentence = pattern.sub(replacement, sentence)
    return sentence.translate(_SYMBOLS)


def address_in_words(address: str) -> str:
    """A web or mail address: a.b@c.com as a点b艾特c点com, digits one by one."""
    return digits_zh("".join(_ADDRESS_MARKS.get(c, c) for c in address))


_ADDRESS_MARKS = {
    ".": "点",
    "@": "艾特",
    "/": "斜杠",
    "-": "杠",
    "_": "下划线",
    ":": "冒号",
    "~": "波浪号",
    "+": "加",
}
_MAGNITUDES = {"k": "千", "K": "千", "m": "百万", "M": "百万", "b": "十亿", "B": "十亿"}
_MAGNITUDES |= {"w": "万", "W": "万"}
_HALVES = {"a": "上午", "p": "下午"}


def _digits(match: Match) -> str:
    return digits_zh(match.group())


def _hyphened(match: Match) -> str:
    return digits_zh(match[0].replace("-", ""), yao=True)


def _internet_address(match: Match) -> str:
    return digits_zh(match.group()).replace(".", "点")


def _phone(match: Match) -> str:
    """Separators are not said; a plus is, and so is the hyphen of an extension."""
    number = match.group().replace("+", "加")
    number = re.sub(r"(?<=\d{7})-(?=\d{1,5}$)", "转", number)
    return digits_zh(re.sub(r"[-() ]", "", number), yao=True)


def _named_number(match: Match) -> str:
    return match[1] + digits_zh(match[2], yao=True)


def _leading_digits(match: Match) -> str:
    return digits_zh(match.group(), yao=True)


def _date(match: Match) -> str:
    return _spoken_date(match, match["y"], match["m"], match["d"])


def _date_year_last(match: Match) -> str:
    month, day = match["m"], match["d"]
    if int(month) > 12:
        month, day = day, month
    return _spoken_date(match, match["y"], month, day)


def _spoken_date(match: Match, year: str, month: str, day: str) -> str:
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return match.group()
    return f"{digits_zh(year)}年{cardinal_zh(int(month))}月{cardinal_zh(int(day))}日"


def _year_and_month(match: Match) -> str:
    return f"{digits_zh(match[1])}年{cardinal_zh(int(match[2]))}月"


def _month_and_day(match: Match) -> str:
    return f"{cardinal_zh(int(match[1]))}月{cardinal_zh(int(match[2]))}日"


def _years(match: Match) -> str:
    if int(match[1]) >= int(match[2]):
        return match.group()
    return f"{digits_zh(match[1])}到{digits_zh(match[2])}"


def _time(match: Match) -> str:
    """8:05 as 八点零五分; 8:00 as 八点."""
    if int(match["h"]) > 24:
        return match.group()
    minute, second = match["m"], match["s"]
    spoken = f"{count_zh(str(int(match['h'])))}点"
    if second:
        spoken += f"{_two_digits(minute)}分{_two_digits(second)}秒"
    elif minute != "00":
        spoken += f"{_two_digits(minute)}分"
    return _HALVES.get((match["half"] or "").lower(), "") + spoken


def _hour_of_half(match: Match) -> str:
    return f"{_HALVES[match[2].lower()]}{count_zh(match[1])}点"


def _two_digits(digits: str) -> str:
    if digits == "00":
        return "零"
    return ("零" if digits[0] == "0" else "") + cardinal_zh(int(digits))


def _ratio(match: Match) -> str:
    return f"{match[1]}{number_zh(match[2])}比{number_zh(match[3])}"


def _money(match: Match) -> str:
    currency = CURRENCIES_ZH[match["currency"]]
    sign = "负" if match["sign"] or match["inner"] else ""
    magnitude = _MAGNITUDES.get(match["size"] or "", match["size"] or "")
    return f"{sign}{_amount(match, count_zh)}{magnitude}{currency}"


def _money_after(match: Match) -> str:
    return f"{_signed(match[1], count_zh)}{CURRENCIES_ZH[match[2]]}"


def _amount(match: Match, speak: Callable[[str], str]) -> str:
    if match["to"] is None:
        return speak(match["n"])
    return f"{speak(match['n'])}到{speak(match['to'])}"


def _blood_pressure(match: Match) -> str:
    return f"{number_zh(match[1])}比{number_zh(match[2])}毫米汞柱"


def _quantity(match: Match) -> str:
    """-3.5℃ as 零下三点五摄氏度, 10-20kg as 十到二十公斤."""
    unit = UNITS_ZH[match["unit"]]
    speak = number_zh if unit.endswith("度") else count_zh
    minus = "零下" if unit == "摄氏度" else "负"
    spoken = _signed(match["n"], speak, minus)
    if match["to"] is not None:
        spoken += f"到{_signed(match['to'], speak, minus)}"
    return spoken + unit


def _signed(number: str, speak: Callable[[str], str], minus: str = "负") -> str:
    return (minus if number.startswith("-") else "") + speak(number.removeprefix("-"))


def _percent(match: Match) -> str:
    name = "百分之" if match["mark"] == "%" else "千分之"
    spoken = _signed_share(match["n"], name)
    if match["to"] is None:
        return spoken
    end = _signed_share(match["to"], name) if match["first"] else number_zh(match["to"])
    return f"{spoken}到{end}"


def _signed_share(number: str, name: str) -> str:
    return _signed(number, lambda n: name + number_zh(n))


def _exponential(match: Match) -> str:
    unit = UNITS_ZH.get(match["unit"] or "", "")
    return f"{number_zh(match[1])}乘十的{number_zh(match[2].lstrip('+'))}次方{unit}"


def _power(match: Match) -> str:
    base = number_zh(match[1]) if match[1][-1].isdigit() else match[1]
    exponent = match[2].strip("()")
    named = {"2": "平方", "3": "立方"}.get(exponent)
    unit = UNITS_ZH.get(match["unit"] or "", "")
    if named and not match[1][-1].isdigit():
        return f"{base}的{named}{unit}"
    said = number_zh(exponent) if exponent[-1].isdigit() else exponent
    return f"{base}的{said}次方{unit}"


def _superscript(match: Match) -> str:
    return f"{match[1]}^{match[2].translate(_SUPERSCRIPTS)}"


def _sum(match: Match) -> str:
    """An expression before an equals sign, where - is 减, and / is 除以 unless it makes fractions
    of a sum."""
    expression = match.group().replace(" / ", "除以")
    if not re.search(r"[-+]", expression):
        expression = expression.replace("/", "除以")
    return expression.replace("-", "减")


def _fraction(match: Match) -> str:
    if int(match["b"]) == 0:
        return match.group()
    whole = f"{number_zh(match['w'])}又" if match["w"] else ""
    return f"{whole}{number_zh(match['b'])}分之{number_zh(match['a'])}"


def _range(match: Match) -> str:
    first, mark, second = match[1], match[2], match[3]
    falls = _value(first) >= _value(second)
    word = "减" if mark == "-" and falls else "到"
    return f"{number_zh(first)}{word}{number_zh(second)}"


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _version(match: Match) -> str:
    return "点".join(number_zh(part) for part in match.group().split("."))


def _about(match: Match) -> str:
    """2、3天 as 两三天; other pairs are two numbers."""
    follows = int(match[2]) == int(match[1]) + 1
    return count_zh(match[1]) + number_zh(match[2]) if follows else match.group()


def _number(match: Match) -> str:
    return number_zh(match.group())


def _year(match: Match) -> str:
    """2024年 by its digits; 5000年 and 2000年前 as quantities."""
    year, after = match[1], match[2]
    span = year.endswith("00") and after.startswith(("前", "后", "来", "间", "历史", "的历史"))
    return (number_zh(year) if span or year[0] > "2" else digits_zh(year)) + "年" + after


_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS_ZH, key=len, reverse=True))
_CURRENCY = "|".join(re.escape(name) for name in sorted(CURRENCIES_ZH, key=len, reverse=True))
_RANGE_TO = rf"(?:\s?[-~到至]\s?(?P<to>-?{NUMBER}))?"
_NAMED = (
    "房间号|电话|热线|拨打|致电|手机号码?|手机|号码|尾号|QQ|微信|验证码|密码|编号|工号|订单号|身份证号?|学号|账号|"
    "卡号|邮编|邮政编码|单号|股票代码|代码|车牌号?|门牌号?|分机|呼叫|拨"
)
_SCORE = "比分|比例|比率|配比|赔率|大胜|战胜|险胜|负于|战平|领先|击败"
_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_COUNTED = "元块角分里米克斤升次人个度件字天月年时秒"
_TWO_BEFORE = (
    f"[{MEASURE_WORDS}]|年(?![级代])|小时|分钟|公里|公斤|千克|厘米|毫米|平方|立方|英里|美元|欧元|"
    "英镑|港元|日元|秒|升|克|吨|名|位"
)

_Rule = tuple[str, Callable[[Match], str] | str]

_ACCOUNTS_AND_PHONES: list[_Rule] = [
    (rf"{START}\d{{17}}[\dXx](?![\dA-Za-z])|{START}\d{{13,}}(?!\.?\d)", _digits),
    (rf"{START}\d{{4}}(?: \d{{4}}){{3,4}}(?!\d)", lambda m: digits_zh(m[0].replace(" ", ""))),
    (rf"{START}\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?![\d.])", _internet_address),
    (rf"(?:\+?{START}86[- ]?)?{START}1[3-9]\d(?:[- ]?\d{{4}}){{2}}(?!\d)", _phone),
    (rf"{START}0\d{{2,3}}[- ]\d{{7,8}}(?:-\d{{1,5}})?(?![-\d])", _phone),
    (r"\(0\d{2,3}\)[- ]?\d{7,8}(?!\d)", _phone),
    (rf"{START}[48]00[- ]\d{{3,4}}[- ]\d{{3,4}}(?!\d)", _phone),
    (r"\+\d{1,3}(?:[- ]\d{2,8}){2,4}(?!\d)", _phone),
    (
        rf"((?:{_NAMED})(?:号码|是|为|[:： ]){{0,2}})(\d{{3,12}})"
        r"(?!\d|[.,]\d|[年月元个行条位次人多余万块])",
        _named_number,
    ),
    (rf"{START}\d{{3,6}}(?=打个?电话|热线|报警|急救)", _leading_digits),
    (r"([打报叫])(11[049]|12[02])(?![\d.分个次折米元])", _named_number),
]
_DATES: list[_Rule] = [
    (r"(?<=[年月日号点分])\s?[-—~]\s?(?=\d{1,4}[年月日号点:])", "到"),
    (
        rf"{START}(?P<y>\d{{4}})([-/.])(?P<m>\d{{1,2}})\2(?P<d>\d{{1,2}})(?!\d|[-/.]\d)(?:T(?=\d))?",
        _date,
    ),
    (
        rf"{START}(?P<m>\d{{1,2}})([-/.])(?P<d>\d{{1,2}})\2(?P<y>\d{{4}})(?!\d|[-/.]\d)",
        _date_year_last,
    ),
    (rf"{START}((?:19|20)\d\d)[-/](0[1-9]|1[0-2])(?![\d./-])", _year_and_month),
    (
        rf"{START}((?:1[89]|20)\d\d)\s?[-~到至]\s?((?:1[89]|20)\d\d)(?=学?年|赛季|[^\w.%]|$)",
        _years,
    ),
    (
        r"(?<![\d./-])(?=0|\d\d[-/]0)(0[1-9]|1[0-2])[-/](0[1-9]|[12]\d|3[01])(?![\d/.-])",
        _month_and_day,
    ),
    (rf"{START}(\d{{4}})年(前|后|来|间|历史|的历史|)", _year),
    (rf"{START}\d\d(?=年\d{{1,2}}月)", _digits),
    (rf"{START}(?:[5-9][05]|0[05])(?=后)", _digits),
    (rf"{START}(\d{{1,2}})[·•](\d{{1,2}})(?!\d)", lambda m: digits_zh(m[1] + m[2])),
]
_SCORES_AND_TIMES: list[_Rule] = [
    (r"(?<![\d.:])(\d{1,2})['′](\d{1,2})[\"″]", r"\1分\2秒"),
    (rf"((?:{_SCORE})[^\d，。]{{0,6}})(\d{{1,3}})[:-](\d{{1,3}})(?![:\d%])", _ratio),
    (r"(\d{1,2}:\d\d)\s?[-~]\s?(?=\d{1,2}:\d\d)", r"\1到"),
    (
        r"(?<![\d.:])(?P<h>\d{1,2}):(?P<m>[0-5]\d)(?::(?P<s>[0-5]\d))?(?![\d:])"
        r"(?:\s?(?P<half>[aApP])\.?[mM](?![A-Za-z])\.?)?",
        _time,
    ),
    (r"(?<![\d.:])(1[0-2]|[1-9])\s?([aApP])\.?[mM](?![A-Za-z])\.?", _hour_of_half),
    (r"()(?<![\d.:])(\d{1,4}):(\d{1,4})(?![\d:])", _ratio),
]
_QUANTITIES: list[_Rule] = [
    (r"(?<![A-Za-z\d)])\+(?=\d)", "正"),
    (
        rf"({SIGNED})[eE]([-+]?\d{{1,3}})(?!\d)(?:\s?(?P<unit>{_UNIT}))?(?![\dA-Za-z])",
        _exponential,
    ),
    (
        rf"(?P<sign>{SIGN})(?<![A-Za-z])(?P<currency>{_CURRENCY})\s?(?P<inner>-?)(?P<n>{NUMBER})"
        rf"{_RANGE_TO}\s?(?P<size>万亿|百万|千万|[万亿千]|[kKmMbBwW](?![A-Za-z]))?元?",
        _money,
    ),
    (rf"({SIGNED})\s?([€£¥$]|(?:USD|EUR|GBP|RMB|CNY|JPY|HKD)(?![A-Za-z]))", _money_after),
    (
        rf"({START}{NUMBER}\s?[kcmd]?m)([23])(?![\dA-Za-z])",
        lambda m: m[1] + ("²" if m[2] == "2" else "³"),
    ),
    (rf"({START}{NUMBER})/({NUMBER})\s?mmHg(?![A-Za-z])", _blood_pressure),
    (rf"(?P<n>{SIGNED}){_RANGE_TO}\s?(?P<unit>{_UNIT})(?![A-Za-z²³])", _quantity),
    (rf"(?P<n>{SIGNED})(?P<first>[%‰]?){_RANGE_TO}(?P<mark>[%‰])", _percent),
]
_MATHEMATICS: list[_Rule] = [
    (r"([A-Za-z\d)])([⁺⁻]?[⁰¹²³⁴-⁹]{1,9})", _superscript),
    (
        rf"({START}{NUMBER}|[A-Za-z)])\s?\^\s?(\(-?\d{{1,6}}\)|-?\d{{1,6}}(?!\d)|[A-Za-z])"
        rf"(?:\s?(?P<unit>{_UNIT})(?![A-Za-z]))?",
        _power,
    ),
    (
        rf"(?<![\d.+\-*/×÷]){NUMBER}(?:\s?[-+*/×÷]\s?{NUMBER}){{1,20}}\s?(?==|≈|等于)",
        _sum,
    ),
    (
        r"(?<![A-Za-z\d])([A-Za-z]|\d{1,9})\s?-\s?(?=(?:[A-Za-z]|\d{1,9})\s?[=<>≤≥≠])",
        r"\1减",
    ),
    (
        r"(?<![\d./])(?:(?P<w>\d{1,4}) )?(?P<a>\d{1,5}(?:\.\d{1,2})?)\s?/\s?"
        r"(?P<b>\d{1,5})(?![\d/]|\.\d)",
        _fraction,
    ),
    (rf"({SIGNED})\s?([-~])\s?(-?{NUMBER})", _range),
    (r"(?<![\w~])~\s?(?=\d)", "约"),
    (rf"{START}\d+(?:\.\d+){{2,}}", _version),
]
_CODES: list[_Rule] = [
    (rf"{START}\d{{1,12}}(?:-\d{{1,12}}){{2,9}}(?![\d-])", _hyphened),
    (r"(?<![A-Za-z])([A-Z]{1,2})(\d{1,4})(?=次|航班|号列车)", _named_number),
    (rf"([{_PROVINCES}][A-Z])·?([A-Z\d]{{5,6}})(?![A-Z\d])", _named_number),
    (r"(?<![A-Za-z])(?i:no)\.\s?(?=\d)", "第"),
    (rf"{START}[1-9]\d{{2,3}}(?=会议室|室|房间|号房)", _leading_digits),
]
_NUMBERS: list[_Rule] = [
    (r"(?<![A-Za-z\d.])(\d{1,9})(?:st|nd|rd|th)(?![A-Za-z])", lambda m: ordinal_en(int(m[1]))),
    (r"(?<![\d、第])([1-8])、([2-9])(?=[天个人岁年次周倍成百千万名位件])", _about),
    (rf"(?<!第)({SIGN}){START}2(?={_TWO_BEFORE})", lambda m: "负两" if m[1] else "两"),
    (rf"({SIGNED})[wW](?![A-Za-z])", lambda m: count_zh(m[1]) + "万"),
    (rf"({SIGNED})[x×](?!\w)", lambda m: count_zh(m[1]) + "倍"),
    (rf"({SIGNED})k(?![A-Za-z])", lambda m: count_zh(m[1]) + "千"),
    (SIGNED, _number),
    (r"\d+", _digits),
]
# Signs that mean something only between operands.
_SIGNS: list[_Rule] = [
    (r"(?<!\w)额(?!\w)", "呃"),
    (r"(?i:C\+\+)", "c加加"),
    (r"(?<![A-Za-z])([CF])#", r"\1 sharp"),
    (r"(?<=\w)~(?=\w)", "到"),
    (r"(?<=\w)\s?\*\s?(?=\w)", "乘"),
    (r"(?<=\w)\s?>=\s?(?=\w)", "大于等于"),
    (r"(?<=\w)\s?<=\s?(?=\w)", "小于等于"),
    (r"(?<=\w)\s?!=\s?(?=\w)", "不等于"),
    (r"(?<![-=])[-=]{1,3}>", "到"),
    (r"(?<![\w)])(?<![\w)] )[<>=*]+|[<>=*]+(?!\s?[\w-])", ""),
    (rf"(?<=[{_COUNTED}])/(?=[\u4e00-\u9fff])", "每"),
    (r"(?<=[\u4e00-\u9fff])/(?=[\u4e00-\u9fff])", "或"),
]
_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        *_ACCOUNTS_AND_PHONES,
        *_DATES,
        *_CODES,
        *_SCORES_AND_TIMES,
        *_QUANTITIES,
        *_MATHEMATICS,
        *_NUMBERS,
        *_SIGNS,
    )
]
_SYMBOLS = str.maketrans(SYMBOLS_ZH)
