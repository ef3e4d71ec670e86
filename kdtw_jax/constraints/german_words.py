"""Rules that are said in German, word by word in English: small letters in, and small letters out.

The result is no good English ("you may ask at most 3 times" comes out as "you may at most 3 times ask"), and need not
be: readers of rules take what only speaks of asking in any order. A word that is not known here stays as it is, and no
reader passes over it, so that nothing is understood that was not said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

_ONES = ["null", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf"]
_TENS = ["zwanzig", "dreissig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig"]
_STEMS = {"drei": "drit", "sieben": "sieb", "acht": "ach", "ein": "ers"}  # of "drittel", "siebte", "achtel", "erste"


def _below_hundred() -> dict[str, int]:
    found = {word: number for number, word in enumerate(_ONES)} | {"siebzehn": 17, "sechzehn": 16, "zwo": 2}
    found |= {f"{_ONES[n]}zehn": 10 + n for n in (3, 4, 5, 8, 9)}
    for ten, word in enumerate(_TENS, 2):
        found |= {word: 10 * ten} | {f"{_ONES[n]}und{word}": 10 * ten + n for n in range(1, 10)}
    return found


def _numbers() -> dict[str, int]:
    small = _below_hundred()
    found = dict(small)
    for many, hundred in [(1, "hundert"), *((n, f"{_ONES[n]}hundert") for n in range(1, 10))]:
        found[hundred] = 100 * many
        found |= {f"{hundred}{word}": 100 * many + n for word, n in small.items() if n}
    return found


def _parts() -> dict[str, int]:
    """Denominators: "fünftel", "zwanzigstel"; and ordinals without their ending: "fünft", "zwanzigst"."""
    found = {"halb": 2, "zweit": 2}
    for word, number in _below_hundred().items():
        if number > 2:
            found[f"{_STEMS.get(word, word)}{'s' if number > 19 else ''}t"] = number
    return found | {"hundertst": 100}


_NUMBERS, _PARTS = _numbers(), _parts()


def _either(words: object) -> str:
    return "|".join(sorted(words, key=len, reverse=True))  # type: ignore[call-overload]


_N = rf"(?:{_either(_NUMBERS)}|\d+)"
_ORDINAL = rf"(?:(?P<nth>{_either(_PARTS)})e[nrsm]?|(?P<place>\d+)\.)"
_NOUN_OF_ASKING = (
    rf"(?<![\w/.])(?P<before>{_N}|ein(?:e[nrm]?|zige[nr]?)?|keine[nr]?|jede[nr]?|zwischen|aufeinanderfolgende[n]?|der|die|"
    r"weitere[nr]?|nächste[nr]?)"
)

# Words that no English rule has.
_GERMAN = re.compile(
    r"\b(?:h(?:ö|oe)chst(?:ens|anteil)|nicht|nie|niemals|keine?[nmrs]?|ohne|nur|mindestens|weniger|mehr|oft|selten|"
    r"bis zu|wenig|bisschen|etwas|viel|frag\w*|\w*fragen|hilfe|unterst(?:ü|ue)tzung|lehr(?:er|kraft|modell)\w*|"
    r"w(?:ö|oe)rtern?|wort(?:e[ns]?|s)?|prozent|h(?:ä|ae)lfte|\w+tel|alleine?|aufrufe?n?|antwort(?:en)?|kostet|jede[nrsm]?|"
    r"unbegrenzt|beliebig|de[rs]|das|und|mal|darfst?|grenze|hintereinander|erste[nrsm]?|zwischen|etwa|ungef(?:ä|ae)hr|sparsam|"
    rf"gelegentlich|ab und zu|notfall|(?:{_N})-?mal)\b"
)


def _of(found: re.Match[str]) -> str:
    return str(_PARTS[found["nth"]] if found["nth"] else int(found["place"]))


def _value(word: str) -> str:
    return str(_NUMBERS.get(word, word))


_Change = str | Callable[[re.Match[str]], str]
_LAST, _FREE = "only if you really must", "as often as you like"
_PHRASES: list[tuple[str, _Change]] = [  # in this order
    (r"\b(?P<whole>[1-9]\d{0,2})\.(?P<rest>\d{3})(?![\d.,])", r"\g<whole>,\g<rest>"),  # thousands, or a fraction
    (r"ae(?=\w)|(?<=\w)ae", "ä"),
    (r"oe(?=\w)|(?<=\w)oe", "ö"),
    (r"(?<![aeq])ue(?=\w)", "ü"),
    # Vague words.
    (r"\b(?:so wenig wie (?:nur )?möglich|möglichst wenig)\b", "as little as possible"),
    (r"\b(?:nur )?(?:ein )?(?:klein )?(?:wenig|bi(?:ss|ß)chen)\b|\b(?:sehr |recht )?(?:sparsam|selten)\b", "a little"),
    (r"\bnur,? wenn (?:es|du) (?:(?:wirklich|unbedingt|absolut) )*(?:sein muss|musst|(?:nöt|notwend)ig ist)\b", _LAST),
    (r"\bnur im notfall\b", _LAST),
    (r"\b(?:gelegentlich|ab und zu|hin und wieder|manchmal|etwas)\b", "sometimes"),
    (r"\b(?:sehr )?(?:viel|häufig|oft)(?= hilfe| fragen|$)|\b(?:frag|frage) (?:viel|oft|häufig)\b", "a lot of"),
    # Without any limit, and not at all.
    (
        r"\b(?:(?:genau )?so ?(?:oft|viel|häufig)|wann immer) ?(?:wie )?(?:du|sie) (?:willst|wollen|möchte(?:st|n))\b",
        _FREE,
    ),
    (r"\bbeliebig(?: oft| viel| häufig)?\b", _FREE),
    (r"\b(?:unbegrenzt|unbeschränkt|uneingeschränkt)(?:e[nrs]?)?\b", "unlimited"),
    (r"\b(?:ohne|keine)(?: jede)? (?:ober)?(?:(?:be)?grenz(?:e|ung)|(?:be|ein)schränkung|limit)(?:e?n)?\b", "no limit"),
    (r"\b(?:auf keinen fall|keinesfalls|unter keinen umständen|niemals|nie)(?: jemals)?\b", "never"),
    (r"^(?:überhaupt|gar|ganz und gar) nicht$", "never ask"),
    (r"\b(?:überhaupt|gar|ganz und gar) (?=nicht\b|kein)", ""),
    (r"\bganz (?=ohne|allein)", ""),
    (r"\berst (?=nach)", "only "),
    (r"\bnicht mehr\b(?! als)", "no longer"),
    (r"\bbis auf\b", "all but"),
    # Numbers.
    (
        rf"\b(?:höchstens )?(?:ein|1) (?:wort )?(?:von|aus|unter|pro) (?P<of>{_N}) wörtern\b",
        lambda m: f"1 in {_value(m['of'])} words",
    ),
    (rf"\bjede[snrm]? {_ORDINAL} (?=wort|token)", lambda m: f"1 in {_of(m)} "),
    (rf"\b(?:dem|das|des|der) {_ORDINAL} (?=wort|token)", lambda m: f"the {_of(m)}th "),
    (r"\b(?:ein(?:e[nrms]?)? )?halb(?:e[nrms]?)?\b|\b(?:die |der )?hälfte\b", "half "),
    (r"\b(?:anderthalb|eineinhalb)\b", "1.5"),
    (rf"\b(?P<n>{_N})einhalb\b", lambda m: f"{_value(m['n'])}.5"),
    (
        rf"\b(?P<n>{_N}|ein(?:e[nrms]?)?) ?(?P<of>{_either(_PARTS)})el[ns]?\b",
        lambda m: f"{1 if m['n'].startswith('ein') and m['n'] not in _NUMBERS else _value(m['n'])}/{_PARTS[m['of']]}",
    ),
    (r"\b(?:ein einziges mal|einmal|1[- ]?mal)\b", "1 times"),
    (rf"\b(?P<n>{_N})[- ]?mal\b", lambda m: f"{_value(m['n'])} times"),
    (r"\bein(?:en|em|e|er)? (?=lehr)", "the "),
    # To ask, and a question.
    (r"\bbitte(?:n)? (?:den lehrer |die lehrerin )?um\b", "ask for"),
    (rf"{_NOUN_OF_ASKING} fragen?\b", r"\g<before> questions"),
    (r"\b(?P<sold>ein(?:e[nr]?)?) (?=(?:aufruf|anruf|antwort|frage|questions|anfrage)\b.* kostet)", "a "),
    (r"\bin (?:folge|einer reihe)\b|\bam stück\b|\b(?:hinter|nach)einander\b", "in a row"),
    (r"\baufeinander ?folgende[nrs]?\b", "consecutive"),
    (rf"\b(?P<n>{_either(_NUMBERS)}|ein(?:e[nrms]?|zige[nrms]?)|eins)\b", lambda m: str(_NUMBERS.get(m["n"], 1))),
]

_WORDS: dict[str, str] = {
    word: english
    for english, words in {
        "at most": "höchstens allerhöchstens maximal höchstanteil",
        "at least": "mindestens wenigstens zumindest",
        "more": "mehr öfter häufiger",
        "less": "weniger seltener",
        "than": "als",
        "under": "unter unterhalb",
        "over": "über",
        "up to": "bis",
        "only": "nur lediglich bloss ausschliesslich",
        "about": "etwa ungefähr circa zirka rund",
        "nearly": "fast beinahe",
        "exactly": "genau",
        "between": "zwischen",
        "and": "und",
        "or": "oder",
        "not": "nicht",
        "no": "kein keine keinen keiner keinem keines",
        "without": "ohne",
        "alone": "allein alleine",
        "yourself": "selbst selber",
        "own": "eigene eigenen eigener eigenes",
        "%": "prozent",
        "words": "wort worte worten wörter wörtern wortes worts",
        "tokens": "token tokens",
        "text": "text textes texts texte",
        "output": "ausgabe ausgaben",
        "translation": "übersetzung",
        "summary": "zusammenfassung",
        "teacher": "lehrer lehrers lehrerin lehrkraft lehrermodell lehrermodells lehrmodell",
        "ask": "frag frage fragen fragst fragt gefragt nachfragen befrage befragen",
        "calls": "aufruf aufrufe aufrufen aufrufs anruf anrufe anrufen anfrage anfragen rückfrage rückfragen nachfrage",
        "answers": "antwort antworten",
        "help": "hilfe hilfen helfen hilf hilft unterstützung nachhilfe",
        "use": "benutze benutzen benutz nutze nutzen nutz verwende verwenden verwendest gebrauche gebrauchen",
        "get": "hol hole holen nimm nehmen",
        "let": "lass lasse lassen",
        "write": "schreibe schreib schreiben schreibt schreibst",
        "come": "stammen kommen",
        "may": "darf darfst dürfen kann kannst können",
        "should": "soll sollst sollen sollte solltest sollten",
        "must": "muss musst müssen",
        "you": "du dir dich",
        "": "sie mal",
        "your": "dein deine deiner deinen deinem deines",
        "my": "mein meine meiner meinen meinem",
        "the": "der die das den dem des",
        "all": "alle aller allen alles",
        "each": "jede jeder jedem jeden jedes",
        "first": "erste ersten erster erstes erstem",
        "next": "nächste nächsten nächster",
        "for": "für bei um",
        "of": "von",
        "of the": "vom",
        "from": "aus ab",
        "to": "zu",
        "to the": "zum zur",
        "with": "mit",
        "in the": "im",
        "on": "auf",
        "at the": "am",
        "per": "pro je",
        "after": "nach",
        "before": "vor",
        "during": "während",
        "within": "innerhalb",
        "wait": "warte warten",
        "pause": "pausiere",
        "leave": "lasse",
        "costs": "kostet kosten",
        "price": "preis",
        "limit": "limit grenze obergrenze höchstgrenze",
        "share": "anteil",
        "budget": "budget",
        "in total": "insgesamt",
        "please": "bitte",
        "freely": "frei",
        "if": "wenn falls",
        "also": "auch",
        "be": "sein",
        "is": "ist",
    }.items()
    for word in words.split()
}
_WORD = re.compile(rf"(?<!\w)(?:{_either(_WORDS)})(?!\w)")
_YOU, _NO = "(?:you (?:may|should|must) )", "not|never|no"
_ASK = "(?:ask|use|help|write|questions|calls)"
# A German clause ends with what an English one begins with.
_ORDER = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"\s+", " "),
        (r"\b(teacher (?:may|should|must)|let the teacher)( not| never)? (.+?) (write|help)$", r"\1\2 \4 \3"),
        (rf"^({_YOU}?)(?!{_YOU}?(?:{_NO})\b)(\D+?) ({_NO})( at all)?$", r"\1\3 \2\4"),
        (rf"^({_YOU}?)(?!{_YOU}?(?:{_NO})\b)(\D+?) ({_NO}) ({_ASK}\D*)$", r"\1\3 \2 \4"),
    )
]


@cache
def _compiled() -> list[tuple[re.Pattern[str], _Change]]:
    return [(re.compile(pattern), new) for pattern, new in _PHRASES]


def in_english(said: str) -> str:
    """A clause in English words, if it has a word that only German has; otherwise as it is.

    Args:
      said: in small letters ("ß" is "ss" then).
    """
    if not _GERMAN.search(said):
        return said
    said = said.rstrip(" .!")
    for pattern, new in _compiled():
        said = pattern.sub(new, said)
    said = _WORD.sub(lambda found: _WORDS[found[0]], said)
    for order, changed in _ORDER:
        said = order.sub(changed, said.strip())
    return said
