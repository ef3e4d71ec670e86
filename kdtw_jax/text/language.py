"""The language of texts: of a code, and of the script they are written in."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable

import regex
from babel import Locale
from babel.core import get_global

from kdtw_jax.errors import UserError
from kdtw_jax.text.normal import words

# Chinese languages with codes of their own, written in the same characters.
_CHINESE = ("yue", "wuu", "hak", "gan", "hsn", "nan", "cdo", "cjy", "cpx", "czh", "czo", "mnp", "lzh")
# Languages that the script of their words alone tells; Kana stands for Japanese, which has Han as well.
_BY_SCRIPT = {"Thai": "th", "Lao": "lo", "Khmer": "km", "Myanmar": "my", "Tibetan": "bo", "Hangul": "ko", "Han": "zh"}
_BY_SCRIPT["Kana"] = "ja"
_SCRIPTS = ("Thai", "Lao", "Khmer", "Myanmar", "Tibetan", "Hangul", "Han", "Hiragana", "Katakana")
_SCRIPT = regex.compile("|".join(rf"(?P<{script}>\p{{{script}}})" for script in _SCRIPTS))
_LENGTH = 1000  # characters
_CODE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")
# Codes of countries that stand for languages where somebody errs.
_COUNTRIES = {"cn": "zh", "jp": "ja", "kr": "ko", "ua": "uk", "gr": "el", "cz": "cs", "dk": "da", "vn": "vi"}
_COUNTRIES |= {"kh": "km", "mm": "my", "hk": "zh", "kp": "ko", "ir": "fa", "il": "he", "rs": "sr"}
_KANA = 0.1  # of the characters of a Japanese text at the least; a Chinese one has a stray one


def main_language(code: str) -> str:
    """The shortest code of a language, without script and region: "zh" for "zh_CN", "zho_Hans" and "yue"; "" for "".

    Three letters become two where a language has them; what is none of the known codes stays as it is.
    """
    main = re.split("[-_]", code.lower())[0]
    if main in _CHINESE:
        return "zh"
    return str(get_global("language_aliases").get(main, main)).split("_")[0]


def check_language(code: str, option: str) -> None:
    """Checks a code of a language, where "" states none.

    Raises:
      UserError: it is none; names the option.
    """
    if code and not (_CODE.fullmatch(code) and main_language(code) in Locale("en").languages):
        meant = _COUNTRIES.get(main_language(code))
        advice = f"; is {meant} meant?" if meant else ""
        raise UserError(f"{option} must be a code such as en, zh or pt_BR, got {code!r}{advice}")


def guess_language(texts: Iterable[str]) -> str:
    """The language that the script of most words says, "" where many languages share it (Latin, Cyrillic, Arabic ...).

    The beginning of each text is looked at: some hundred texts will do.
    """
    found = itertools.chain.from_iterable(words(text[:_LENGTH]) for text in texts)
    scripts = Counter(match.lastgroup if (match := _SCRIPT.match(word)) else "" for word in found)
    kana, han = scripts.pop("Hiragana", 0) + scripts.pop("Katakana", 0), scripts.pop("Han", 0)
    if (hangul := scripts["Hangul"]) > _KANA * (hangul + han):  # Korean may have some Han, Chinese has no Hangul
        scripts["Hangul"], han = hangul + han, 0
    scripts["Kana" if kana > _KANA * (kana + han) else "Han"] = kana + han
    script, most = max(scripts.items(), key=lambda item: item[1])
    return _BY_SCRIPT.get(str(script), "") if most else ""
