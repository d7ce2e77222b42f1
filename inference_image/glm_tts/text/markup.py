"""What a text carries that is not meant to be read out: tags, Markdown, emoji, stray characters."""

from __future__ import annotations

import html
import re
import unicodedata

_PAUSE = "，"
_TAG_NAME = "(?:[abipqsu]|[A-Za-z][A-Za-z0-9]+(?:[-:][A-Za-z0-9]+){0,3})"
_ATTRIBUTE = r"""\s+[\w:-]{1,40}\s*=\s*(?:"[^"<>]*+"|'[^'<>]*+'|[^\s"'<>]++)"""
_TAG = re.compile(rf"<(/?)({_TAG_NAME})(?:{_ATTRIBUTE}){{0,20}}+\s*/?>")
_BLOCK = re.compile(
    "br|p|div|li|ul|ol|tr|table|h[1-6]|hr|section|article|header|footer|blockquote|pre|title"
    "|speak|s|paragraph|sentence"
)
_HIDDEN = (("<!--", "-->"), ("<script", "</script>"), ("<style", "</style>"), ("<?", "?>"))

_LINE_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"^\s*(?:```|~~~)\s*[\w+-]*\s*$", ""),
        (r"^\s*(?:[-*_=]\s*+){3,}$", ""),
        (r"^(?=.*---)[\s:|-]+$", ""),
        (r"^\s*(?:>\s*)+", ""),
        (r"^\s*#{1,6}\s+", ""),
        (r"\s+#{1,6}\s*$", ""),
        (r"^\s*[-*+•‣◦▪●○■◆]\s+(?:\[[ xX]\]\s+)?", ""),
        (r"^\s*(\d{1,3})[.)]\s+", rf"\1{_PAUSE}"),
    )
]
_TEXT_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"!?\[([^\[\]]{0,500})\]\([^()\s]*(?:\s+\"[^\"]*\")?\)", r"\1"),
        (r"\[\^\w{1,20}\]:?", ""),
        (r"\[([^\[\]]{1,500})\]\[[^\[\]]{0,100}\]", r"\1"),
        (r"(?<![\w$])\$(?=[A-Za-z\\(])([^$\n]+)(?<=\S)\$(?!\w)", r"\1"),
        (r"(`{1,3})([^`\n]+)\1", r"\2"),
        (r"\*\*([^*\n]+)\*\*|__([^_\n]+)__|~~([^~\n]+)~~", r"\1\2\3"),
        (r"(?<![A-Za-z\d*])\*(?=\S)([^*\n]+)(?<=\S)\*(?![A-Za-z\d*])", r"\1"),
        (r"(?<![A-Za-z\d_])_(?=\S)([^_\n]+)(?<=\S)_(?![A-Za-z\d_])", r"\1"),
    )
]
_EMOTICON = re.compile(
    r"(?:(?<=\s)|^)(?:[:;=][-o^']?[)(\]\[DPpOo3|/\\*]|<3|\^_{1,5}\^|[xX]D|T_T)(?=\s|$)"
)
_HASHTAG = re.compile(r"(?<!\w)#(?=[^\W\d])|(?<=[\u4e00-\u9fff])#(?!\w)")


def plain(text: str) -> str:
    """The text without markup, one line for each line or block of it."""
    text = _without_tags(text)
    lines = (_plain_line(line) for line in text.split("\n"))
    text = "\n".join(line for line in lines if line.strip())
    for pattern, replacement in _TEXT_RULES:
        text = pattern.sub(replacement, text)
    text = _without_pictures(_HASHTAG.sub("", _EMOTICON.sub("", text)))
    return re.sub("[^\\S\n]+", " ", text)


def clean(text: str) -> str:
    """Composed Unicode, with wide and styled letters made plain, and no control characters."""
    text = unicodedata.normalize("NFC", text.replace("\\n", "\n").replace("\r", "\n"))
    text = "".join(_cleaned(character) for character in text)
    text = re.sub(r"(?<=\d)：(?=\d)", ":", text)
    text = re.sub(r"(?<=\d) ?[—―] ?(?=\d)", "-", text)
    return re.sub("[^\\S\n]+", " ", text)


def _without_tags(text: str) -> str:
    for start, end in _HIDDEN:
        text = _without_hidden(text, start, end)
    return html.unescape(_TAG.sub(_tag_as_text, text))


def _without_hidden(text: str, start: str, end: str) -> str:
    """Cut what lies between two marks; a mark without its partner is left."""
    kept: list[str] = []
    position = 0
    while (opened := text.find(start, position)) >= 0:
        closed = text.find(end, opened)
        if closed < 0:
            break
        kept += [text[position:opened], " "]
        position = closed + len(end)
    return "".join(kept) + text[position:]


def _tag_as_text(match: re.Match[str]) -> str:
    name = match[2].lower()
    if name == "break":
        return _PAUSE
    return "\n" if _BLOCK.fullmatch(name) else ""


def _plain_line(line: str) -> str:
    for pattern, replacement in _LINE_RULES:
        line = pattern.sub(replacement, line, count=1)
    if line.count("|") > 1:
        line = _PAUSE.join(cell.strip() for cell in line.split("|") if cell.strip())
    return line


def _cleaned(character: str) -> str:
    if character in _SPELLED:
        return _SPELLED[character]
    category = unicodedata.category(character)
    if category[0] == "C":
        return "\n" if character == "\n" else " " if character == "\t" else ""
    if category[0] == "Z":
        return "\n" if category in ("Zl", "Zp") else " "
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category[0] == "L" or category == "Nl" or "\u2f00" <= character <= "\u2fdf":
        return unicodedata.normalize("NFKC", character)
    if "\u3371" <= character <= "\u33df" or (category == "No" and character > "\u2080"):
        return unicodedata.normalize("NFKC", character)
    return character


def _without_pictures(text: str) -> str:
    """No emoji, dingbats, stacked accents or other symbols that have no reading."""
    return "".join(c for c in text if c in _READABLE or not _is_picture(c))


def _is_picture(character: str) -> bool:
    skin_tone = "\U0001f3fb" <= character <= "\U0001f3ff"
    return skin_tone or unicodedata.category(character) in ("So", "Me", "Mn")


_READABLE = frozenset("°℃℉№→←↑↓△□☎")
_SPELLED = {
    **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    **{mark: mark for mark in "，！？：；℃℉"},
    **dict.fromkeys("‐‑‒–−﹣－", "-"),
    **dict.fromkeys("～〜∼˜", "~"),
    **dict.fromkeys("™©®", ""),
    **dict.fromkeys("⁄∕", "/"),
    **{
        fraction: " " + unicodedata.normalize("NFKC", fraction).replace("⁄", "/")
        for fraction in "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
    },
    **{chr(0x2460 + index): str(index + 1) for index in range(20)},
    **{chr(0x2160 + index): str(index + 1) for index in range(12)},
    "〇": "零",
    "￥": "¥",
    "￡": "£",
    "㎡": "m²",
    "㎥": "m³",
    "µ": "μ",
    "‼": "!!",
    "⁉": "!?",
    "…": "…",
}
"""Characters written another way, or kept where compatibility forms would change them."""
