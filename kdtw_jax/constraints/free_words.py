"""What a clause in free words states about asking: one reader per built-in constraint.

A reader takes a clause as `plain_text` gives it and returns the number that its constraint's templates would hold, or
None. It takes a clause as a whole or not at all: around a number may stand words that only speak of asking a teacher,
in any order, but no other word is ever passed over. So no rule is understood as more lenient than it was said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import floor

from kdtw_jax.constraints.amounts import CALLS, NOT, NUMBER, ONLY, WORDS, amounts, first_of, talk, written

Reader = Callable[[str], str | None]
_TALK = talk()

# A share of the words.
_ASK = "(?:ask(?:ing|ed)?|use|using|call|consult|query|teacher|help|assistance|advice|support)"
_AND_SO = "(?:get|take|seek|have|let|the|your|any|anyone|anything|it|a|for|from|of|to|by|at all|ever|questions?|calls?)"
_TASK = "(?:(?:write|work|translate|do|everything|all|it|the|text|words) )*"
_MAY_ASK = "(?:(?:you|may|can|ask|use|call|the|your|teacher|for|help) )*"
_LIMITS = "(?:limits?|restrictions?)"
_NEVER = first_of(
    rf"(?=.*\b{_ASK} )(?:you (?:may|can|must|should) )?{NOT}(?:(?:teacher write|{_ASK}|{_AND_SO}) )+",
    f"{_TASK}without (?:ever )?(?:(?:{_ASK}|the|your|any|for|from|a) )+",
    f"{_TASK}(?:alone|(?:all )?by yourself|on your own) ",
    "no (?:calls|questions)(?: to the teacher)?(?: at all)? |never |not at all ",
)
_FREELY = first_of(
    f"{_MAY_ASK}(?:as (?:often|much|many times) as|whenever|when|any ?time) (?:you|i) (?:like|want|wish)(?: to)? ",
    f"{_MAY_ASK}(?:freely|without (?:any )?{_LIMITS}|as you like) ",
    f"(?:there (?:is|are) )?(?:no|without|without any) {_LIMITS}(?: at all| on (?:asking|help|the teacher|calls))* ",
    "(?:unlimited|unrestricted)(?: (?:help|calls|questions|asking|access|use|of|to|the|teacher))* ",
)
_OF = "(?:(?:of|in|the|all|your|my|its|every|each) )*+"
_TEXT = (
    f"(?:{_OF}(?:{WORDS}|(?:texts?|outputs?|translation|summary|time) )|(?:that )?you write |of what you write |"
    "of everything )*"
)
_SHARE = amounts(f"% {_TEXT}", around=talk("words|tokens|"))
_OF_PERCENT = re.compile(r"(?<![\d./-])(\d+)/(\d+)%")  # "half a percent"
_RATIO = re.compile(
    rf"(?<![\d./-])(\d+)(?:/| {WORDS}?(?:in|out of|of|per)(?: (?:every|each|the))? )(\d+)(?![\d.%/-])(?: of)?"
)
_DECIMAL = re.compile(r"(?<![\d.,-])(0\.\d+)(?= of )")
_JUST_BELOW = 2e-5  # of 1; masks forgive half of it for what float32 cannot say


# What is vague is taken for so many percent; `Read.assumed` says so, which `kdtw write` repeats.
_SOME_TALK = talk("of|just|some|")
_REALLY = "(?:(?:really|absolutely|truly|strictly) )*"
_IF = f"(?:only )?(?:if|when|where) (?:(?:it|there|that|you) )?(?:(?:is|are) )?{_REALLY}"
_UNAVOIDABLE = "(?:must|have to|necessary|no other way|unavoidable|inevitable|can not do without(?: it)?)"
_LITTLE = "(?:a )?(?:(?:very|tiny|wee|small) )?(?:little|bit)(?: bit)?"
_NOW_AND_THEN = "(?:sometimes|(?:now )?and (?:then|again)|occasionally|from time to time|moderately)"
_VAGUE = {
    "5": first_of(
        f"{_TALK}as (?:little|rarely|seldom) as (?:possible|you can) {_TALK}",
        f"{_TALK}{_IF}{_UNAVOIDABLE} {_TALK}",
        f"{_TALK}(?:only )?in (?:an )?(?:emergency|emergencies) {_TALK}",
    ),
    "10": first_of(
        f"{_TALK}(?:(?:no|not) more than )?{ONLY}?{_SOME_TALK}{_LITTLE} {_SOME_TALK}",
        f"{_TALK}{ONLY}?{_TALK}(?:very )?(?:sparingly|rarely|seldom|not (?:much|often)) {_TALK}",
    ),
    "20": first_of(
        f"{_TALK}some help {_TALK}",
        f"{_TALK}{ONLY}?{_TALK}{_NOW_AND_THEN} {_TALK}",
    ),
    "50": first_of(f"{_TALK}(?:a )?(?:lot|lots|plenty|much|often|great deal) {_SOME_TALK}"),
}


_DUTY = r"(?<!if you )(?<!really )(?<!absolutely )\b(?:must|should|shall|will|need|have to)\b"
_OTHER_WAY = re.compile(rf"\b(?:limit|limited|restrict|cap)\b|{_DUTY}")


def vague(said: str) -> str | None:
    """Percent that vague words are taken for: of "a little help", "sometimes", "only if you really must"."""
    if _OTHER_WAY.search(said):  # "limit the help a lot"; "you must ask often"
        return None
    return next((percent for percent, understood in _VAGUE.items() if understood(said)), None)


def share(said: str) -> str | None:
    """Percent: of "20%", "a fifth of the words", "one in five", "0.2 of the words", "never ask", "a little"."""
    if (percent := vague(said)) is not None:
        return percent
    if _NEVER(said):
        return "0"
    if _FREELY(said):
        return "100"

    def in_percent(found: re.Match[str], whole: float) -> str:
        part, of = int(found[1]), int(found[2])
        return f"{round(whole * part / of, 12)}%" if of else found[0]

    said = _OF_PERCENT.sub(lambda found: in_percent(found, 1.0), said)
    said = _RATIO.sub(lambda found: in_percent(found, 100.0), said)
    said = _DECIMAL.sub(lambda found: f"{round(100 * float(found[1]), 12)}%", said)
    amount = _SHARE(said)
    return amount and written(amount.number - 100 * _JUST_BELOW * amount.excluded)


# A number of calls.
_SAID_CALLS = amounts(f" {CALLS}")
_LABELLED = amounts(" ", around=talk("number|calls|questions|requests|queries|"))
_WORDS_OF_TEACHER = amounts(f" {WORDS}", bound=True)


def calls(said: str) -> str | None:
    """A number: of "3 calls", "ask at most twice", "limit the calls to 3", "at most 5 words from the teacher"."""
    amount = _SAID_CALLS(said)
    if amount is None and re.search(r"\b(?:calls|questions|requests|queries)\b", said):
        amount = _LABELLED(said)
    if amount is None and re.search(r"\bteacher\b", said):
        amount = _WORDS_OF_TEACHER(said)
    return amount and written(amount.whole)


# Calls in a row.
_RUNNING = "(?:in (?:a row|succession|sequence)|running|consecutively|one after (?:another|the other)|back to back) "
_ROW = (
    f" (?:(?:consecutive|successive) {CALLS}|{CALLS}?{_RUNNING}|{CALLS}without a word of (?:yours|your own) )"
)  # fmt: skip
_IN_A_ROW = amounts(_ROW, bound=True)
_NEVER_IN_A_ROW = first_of(f"{_TALK}{NOT}{_TALK}{NUMBER}{_ROW}{_TALK}")


def in_a_row(said: str) -> str | None:
    """A number: of "not more than 2 in a row"; "never three times in a row" says 2."""
    if amount := _IN_A_ROW(said):
        return written(amount.whole)
    found = _NEVER_IN_A_ROW(said)
    return written(float(found[1]) - 1) if found and float(found[1]) >= 2 else None


# Where in an output.
_FIRST_WORDS = f"first {NUMBER} {WORDS}"
_SINCE = f"(?:(?:first )?{NUMBER} {WORDS}|word {NUMBER} )"
_WITHIN = "(?:(?:within|during|inside) )?"
_AT_LEAST = "(?:at least )?"
_NO_ASKING = f"{NOT}{talk('calls|questions|requests|')}"
_ALONE = "(?:alone|yourself|by yourself|on your own|without (?:any )?help|without the teacher) "
_FIRST = first_of(
    rf"(?!.*\bonly you\b)(?=.*\bonly ){_TALK}{ONLY}?{_TALK}{_WITHIN}{_TALK}{ONLY}?{_TALK}{_FIRST_WORDS}{_TALK}{ONLY}?",
    f"{_TALK}{_NO_ASKING}(?:after|beyond|past) {_TALK}{_SINCE}{_TALK}",
    f"{_TALK}stop {_TALK}after {_TALK}{_SINCE}",
)
_AFTER = first_of(
    f"{_TALK}(?:{_NO_ASKING}|nothing ){_WITHIN}{_TALK}{_FIRST_WORDS}{_TALK}",
    f"{_TALK}{ONLY}{_TALK}after {_TALK}{_AT_LEAST}{_TALK}{_SINCE}{_TALK}",
    f"{_TALK}(?:start|begin) {_TALK}{ONLY}?after {_TALK}{_AT_LEAST}{_TALK}{_SINCE}",
    f"(?:(?:write|do|leave) )?(?:the )?{_FIRST_WORDS}(?:(?:are|must be|should be) )?(?:yours |your own |{_ALONE})",
    f"{_TALK}wait (?:for )?{_AT_LEAST}{NUMBER} {WORDS}before {_TALK}first (?:call|question|request|time) ",
)


def first(said: str) -> str | None:
    """A number of words: of "only in the first 10 words", "no help after the first 10 words"."""
    found = _FIRST(said)
    return found and written(float(found[found.lastindex or 0]))


def after(said: str) -> str | None:
    """A number of words: of "not in the first 5 words", "only after 5 words"."""
    found = _AFTER(said)
    return found and written(float(found[found.lastindex or 0]))


# Pauses.
_GAP = (
    "(?:(?:for|of|with|a) )*(?P<more>more than )?(?:(?:at least|no less than|no fewer than|minimum|min)(?: of)? )?"
    f"(?P<n>{NUMBER}) {WORDS}(?:(?:of your own|yourself|alone|on your own) )?"
)
_EACH = "(?:(?:each|every|any|all|an?|2|your|the|consecutive|successive) )*"
_ASK_AGAIN = "(?:asking|calling|you ask|you call|using)(?: the teacher| it| for help)? again "
_BETWEEN = (
    f"(?:between {_EACH}{CALLS}|after (?:each|every|any|an?) (?:{CALLS}|answer of the teacher |time you ask )|"
    f"before (?:{_ASK_AGAIN}|(?:the next|another|each new) {CALLS}))(?:to the teacher )?"
)
_REST = (
    "(?:(?:you|must|should|always|there|are|be|is|wait|pause|rest|leave|write|keep|have|make|insert|put|a|of|for|let "
    "pass) )*"
)
_PAUSE = first_of(
    f"{_REST}{_GAP}(?:pass )?{_BETWEEN}",
    f"{_REST}{_BETWEEN}{_REST}{_GAP}",
    f"(?:do not|never) (?:ask|call|use)(?: the teacher| it)? again (?:for|within) (?:the next )?{_GAP}",
    f"{_REST}pause of {_GAP}",
)


def pause(said: str) -> str | None:
    """A number of words: of "wait two words between calls"."""
    if not (found := _PAUSE(said)):
        return None
    number = float(found["n"])
    return written(floor(number) + 1 if found["more"] else number)


# Arithmetic.
_COMPUTE = amounts(
    " ?(?P<scale>kilo|mega|giga|tera|k|m|g|t|) ?flops? (?:of (?:compute|computation|arithmetic) )?",
    around=talk("compute|computation|arithmetic|"),
)
_SCALES = {"": 1e-9, "k": 1e-6, "m": 1e-3, "g": 1.0, "t": 1e3}  # in GFLOP


def compute(said: str) -> str | None:
    """GFLOP: of "at most 2 GFLOPs", "keep the teacher under 500 MFLOP"."""
    if (amount := _COMPUTE(said)) is None:
        return None
    number = round(amount.number * _SCALES[(amount.scale or "")[:1]], 15)
    if amount.excluded:
        number = number * (1 - _JUST_BELOW) if number > 0 else -1.0
    return written(number)


# What a call costs.
_SOLD = "(?:(?:an?|the|each|every|per|for|of|at|is|to|you|teacher|call|calls|question|questions|answer|answers) )*"
_FOR = "(?:(?:costs?|prices?|pay|charges?|worth|fees?) )"
_PRICE = first_of(
    f"{_SOLD}{_FOR}{_SOLD}{NUMBER} nats? {_SOLD}",
    f"{_SOLD}{NUMBER} nats? {_SOLD}",
    f"{_TALK}{ONLY}?{_TALK}(?:where|if|when) (?:(?:an|the) answer |it |that )(?:saves|gains|is worth) "
    f"(?:at least )?{NUMBER} nats? (?:or more )?",
)


def price(said: str) -> str | None:
    """Nats: of "each question costs 2 nats", "2 nats per call", "ask only if it saves 2 nats"."""
    found = _PRICE(said)
    return found and written(float(found[1]))
