"""A thousand ways to say rules, in English and German, with what each means: drawn by seed, so that most are new."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

Meaning = tuple[tuple[str, float], ...]  # (constraint, budget) of each clause; none: it has to be refused


class Said(NamedTuple):
    """A rule as somebody says it."""

    text: str
    meaning: Meaning


def _names(texts: str) -> list[str]:
    return texts.split()


_ONES = _names("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen")
_ONES += ["seventeen", "eighteen", "nineteen"]
_TENS = _names("twenty thirty forty fifty sixty seventy eighty ninety")
_EINS = _names(
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn"
)
_EINS += ["siebzehn", "achtzehn", "neunzehn"]
_ZIG = _names("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")
_NTH = {3: "third", 4: "quarter", 5: "fifth", 8: "eighth", 10: "tenth", 20: "twentieth"}
_TEL = {3: "Drittel", 4: "Viertel", 5: "Fünftel", 8: "Achtel", 10: "Zehntel", 20: "Zwanzigstel"}
_TE = {2: "zweite", 3: "dritte", 4: "vierte", 5: "fünfte", 8: "achte", 10: "zehnte", 20: "zwanzigste"}
_ENTH = {2: "second", 3: "third", 4: "fourth", 5: "fifth", 8: "eighth", 10: "tenth", 20: "twentieth"}


def _in_words(number: int) -> str:
    if number < 20:
        return _ONES[number]
    if number == 100:
        return "a hundred"
    return _TENS[number // 10 - 2] + (f"-{_ONES[number % 10]}" if number % 10 else "")


def _in_worten(number: int) -> str:
    if number < 20:
        return _EINS[number]
    if number == 100:
        return "hundert"
    ones = {1: "ein"}.get(number % 10, _EINS[number % 10])
    return (f"{ones}und" if number % 10 else "") + _ZIG[number // 10 - 2]


SHARES = """at most {}; no more than {}; not more than {}; up to {}; maximum {}; {} at most; {} max; {} tops; only {}
    {}; ask the teacher for at most {}; ask for help with at most {}; never ask for more than {}
    don't ask for more than {}
    you may ask the teacher for up to {}; let the teacher write at most {}; the teacher may write at most {}
    I want you to ask for {} at most; please ask the teacher for no more than {}; use the teacher for at most {}
    get help with up to {}; limit yourself to {}; limit the help to {}; keep the teacher's share to {}; stay within {}
    the teacher should not write more than {}; take no more than {} from the teacher; you can use help for {}
    consult the teacher for at most {}; rely on the teacher for {} at most; your budget is {}; the limit is {}
    do not go over {}; do not exceed {}; don't use the teacher for more than {}
    make sure the teacher writes at most {}"""
ANTEILE = """höchstens {}; nicht mehr als {}; maximal {}; bis zu {}; {}; nur {}; {} maximal; frag bei höchstens {}
    frage den Lehrer für höchstens {}; frag den Lehrer bei maximal {}; du darfst für höchstens {} fragen
    der Lehrer darf höchstens {} schreiben; lass den Lehrer höchstens {} schreiben; hol dir Hilfe für höchstens {}
    nutze den Lehrer für höchstens {}; bitte frage für nicht mehr als {}; das Limit ist {}; frag nie für mehr als {}
    bitte höchstens {}; Hilfe bei höchstens {}; Fragen Sie den Lehrer für höchstens {}; verwende Hilfe für bis zu {}"""
CALLS = """ask at most {}; no more than {}; at most {}; {} at most; you may ask {}; don't ask more than {}
    never more than {}
    ask the teacher {} at most; only ask {}; ask only {}; call the teacher no more than {}; you can ask up to {}
    ask the teacher up to {}; please ask at most {}; I would like you to ask at most {}; max {}"""
AUFRUFE = """frag höchstens {}; höchstens {}; maximal {}; nicht mehr als {}; nicht öfter als {}
    frage den Lehrer höchstens {}; du darfst {} fragen; du darfst höchstens {} fragen; frag nur {}
    frage nie mehr als {}; bitte höchstens {} fragen"""
FIXED: dict[Meaning, str] = {
    (("share", 0.0),): """not at all; never; never ask; do not ask; don't ask the teacher; no help; without help; alone
        on your own; do it by yourself; no questions; don't ask anything; never ask the teacher
        don't use the teacher at all; no help at all; without the teacher; you must not ask; please don't ask
        nie; niemals; frag nie; frag nicht; frage den Lehrer nicht; ohne Hilfe; keine Hilfe; ohne den Lehrer; gar nicht
        allein; keine Fragen; du darfst nicht fragen; frag den Lehrer niemals; auf keinen Fall fragen""",
    (("share", 1.0),): """as often as you like; ask whenever you want; no limit; ask freely; unlimited help; no limits
        ask as much as you want; you may ask as often as you wish; without limit; ask the teacher whenever you like
        so oft du willst; frag so oft du möchtest; unbegrenzt; ohne Grenze; frag den Lehrer, so oft du willst""",
    (("share", 0.1),): """a little help; a little; just a little; ask a little; a bit of help; sparingly; rarely
        ein wenig; ein bisschen Hilfe; frag selten; nur ein wenig""",
    (("share", 0.05),): """only if you really must; only when absolutely necessary; as little as possible
        nur wenn es wirklich sein muss; nur im Notfall; so wenig wie möglich""",
    (("share", 0.2),): "some help; sometimes; occasionally; ask now and then; gelegentlich; ab und zu",
    (("share", 0.5),): "half of it; a lot of help; ask often; die Hälfte; viel Hilfe; half",
}
REFUSED = """at least {n}%; more than {n}%; about {n}%; between {n} and {m}%; {n} to {m}%; at most {n}; {n}
    {n} percent of fun
    at most {n}% of the letters; if needed, {n}%; at most {n} apples; {n}% unless it is hard; exactly {n} calls
    mindestens {n} %; mehr als {n} %; etwa {n} %; zwischen {n} und {m} %; {n} bis {m} %; höchstens {n}
    genau {n} Aufrufe
    höchstens {n} % der Buchstaben; höchstens {n} Äpfel; mindestens {n} Fragen; at most {n},500 calls
    höchstens {n}.500 Fragen
    not at least {n}%; ask the banana for {n}%; at most {n}% or {m}%; over {n}%; not less than {n}%; {n} % oder mehr
    at most {n}% of the words per sentence; a little more than {n}%; nicht weniger als {n} %; über {n} %
    {n}% and {m}%
    höchstens {n} % und höchstens {m} %; the teacher must write {n}%; du musst {n} mal fragen; ask {n} times or more"""
OTHERS: dict[str, tuple[str, Callable[[int], Meaning]]] = {
    "pause": (
        """wait {w} words between calls; at least {n} words between questions; after each call write {w} words yourself
        pause for {n} words after each call; leave {w} words between calls; warte {v} Wörter zwischen Aufrufen
        mindestens {v} Wörter zwischen Fragen; warte nach jeder Frage {v} Wörter""",
        lambda n: (("pause", n),),
    ),
    "in_a_row": (
        """at most {w} in a row; never more than {n} in a row; no more than {w} calls in a row; max {n} in a row
        höchstens {v} hintereinander; nicht mehr als {n} hintereinander""",
        lambda n: (("in_a_row", n),),
    ),
    "first": (
        """only in the first {w} words; ask only within the first {n} words; no help after the first {n} words
        nur in den ersten {v} Wörtern; frag nur in den ersten {n} Wörtern""",
        lambda n: (("first", n),),
    ),
    "after": (
        """not in the first {w} words; only after {n} words; write the first {w} words yourself
        nicht in den ersten {v} Wörtern; erst nach {n} Wörtern; keine Hilfe in den ersten {v} Wörtern""",
        lambda n: (("after", n),),
    ),
}


def _each(texts: str) -> list[str]:
    return [text.strip() for line in texts.splitlines() for text in line.split(";") if text.strip()]


def _share(draw: random.Random, german: bool) -> Said:
    of = draw.choice(["", " der Wörter", " des Textes"] if german else ["", " of the words", " of the text"])
    kind = draw.choice(["%", "%", "word", "part", "nth"])
    if kind in ("%", "word"):
        number = draw.choice([1, 2, 5, 10, 15, 20, 25, 30, 33, 40, 45, 50, 60, 75, 80, 90, 100])
        share = number / 100
        percent = "Prozent" if german else draw.choice(["percent", "per cent"])
        spelled = _in_worten(number) if german else _in_words(number)
        amount = (
            draw.choice([f"{number}%", f"{number} %", f"{number} {percent}"]) if kind == "%" else f"{spelled} {percent}"
        )
    elif kind == "part":
        whole = draw.choice([2, *_NTH])
        few = 1 if whole == 2 else draw.choice([n for n in (1, 2, 3) if n < whole])
        share = few / whole
        if whole == 2:
            amount = "die Hälfte" if german else "half"
        elif german:
            amount = f"{'ein' if few == 1 else _in_worten(few)} {_TEL[whole]}"
        else:
            amount = f"{_in_words(few)} {_NTH[whole]}s" if few > 1 else f"{'an' if whole == 8 else 'a'} {_NTH[whole]}"
    else:
        whole, of = draw.choice(list(_TE)), ""
        share = 1 / whole
        spelled = [f"one word in {_in_words(whole)}", f"1 in {whole} words", f"every {_ENTH[whole]} word"]
        worten = [f"jedes {_TE[whole]} Wort", f"eines von {_in_worten(whole)} Wörtern"]
        amount = draw.choice(worten if german else spelled)
    return Said(draw.choice(_each(ANTEILE if german else SHARES)).format(amount + of), (("share", share),))


def _calls(draw: random.Random, german: bool) -> Said:
    number = draw.randint(1, 12)
    if german:
        mal = "einmal" if number == 1 else draw.choice([f"{_in_worten(number)}mal", f"{number}-mal", f"{number} Mal"])
        return Said(draw.choice(_each(AUFRUFE)).format(mal), (("calls", number),))
    times = {1: "once", 2: "twice"}.get(number) or draw.choice([f"{_in_words(number)} times", f"{number} times"])
    return Said(draw.choice(_each(CALLS)).format(times), (("calls", number),))


def _fixed(draw: random.Random, german: bool) -> Said:
    meaning = draw.choice(list(FIXED))
    return Said(draw.choice(_each(FIXED[meaning])), meaning)


def _other(draw: random.Random, german: bool) -> Said:
    texts, meaning = OTHERS[draw.choice(list(OTHERS))]
    number = draw.randint(2, 12)
    text = draw.choice(_each(texts)).format(n=number, w=_in_words(number), v=_in_worten(number))
    return Said(text, meaning(number))


def _both(draw: random.Random, german: bool) -> Said:
    one, two = _share(draw, german), draw.choice([_calls, _other])(draw, german)
    joint = draw.choice([" und ", "; "] if german else [" and ", "; ", ", and ", ", but "])
    return Said(one.text + joint + two.text, one.meaning + two.meaning)


def _refused(draw: random.Random, german: bool) -> Said:
    number = draw.randint(2, 40)
    return Said(draw.choice(_each(REFUSED)).format(n=number, m=number + draw.randint(1, 40)), ())


def sayings(seed: int, count: int = 1000) -> Iterator[Said]:
    """Rules as people say them, with capitals and full stops as it happens.

    Args:
      seed: of the draws.
      count: how many.
    """
    draw = random.Random(seed)
    for _ in range(count):
        kinds = [_share, _share, _share, _calls, _calls, _fixed, _other, _both, _refused, _refused]
        said = draw.choice(kinds)(draw, draw.random() < 0.4)
        text = said.text[0].upper() + said.text[1:] if draw.random() < 0.3 else said.text
        text = text.upper() if draw.random() < 0.02 else text
        yield Said(text + draw.choice(["", "", "", ".", "!", " please" if not said.meaning else ""]), said.meaning)
