"""The surface of an expression: which signs may stand in it at all, before any parser looks at it.

Python's parser is asked only about text that is short, shallow, of plain tokens and with brackets in balance, so that
nothing it can be made to do with hostile text (deep recursion, huge numbers, formatted strings, letters that look
alike) is reachable.
"""

from __future__ import annotations

import itertools
import keyword
import re
from collections.abc import Iterator
from dataclasses import dataclass

from features.expressions.scope import ExpressionProblem

EXPRESSION_CHARACTERS_MAX = 4_000
EXPRESSION_TOKENS_MAX = 1_000
BRACKETS_DEPTH_MAX = 20
TEXT_CHARACTERS_MAX = 256
NUMBER_DIGITS_MAX = 17
INTEGER_MAX = 2**53
"""Beyond it a float64 does not hold every whole number."""

_TOKEN = re.compile(
    r"(?P<blank>[ \t\r\n]+)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<text>\"[^\"\\\x00-\x1f\x7f\ud800-\udfff]*\"|'[^'\\\x00-\x1f\x7f\ud800-\udfff]*')"
    r"|(?P<open>[\"'][^\n]*)"
    r"|(?P<sign>==|!=|<=|>=|\*\*|//|<<|>>|:=|&&|\|\||[-+*/<>()\[\],.])"
    r"|(?P<other>.)",
    re.DOTALL,
)
_WORDS = frozenset({"and", "or", "not", "in", "if", "else", "True", "False"})
"""The words of Python that the language shares."""

_REMEDIES = {
    "**": "Write x * x.",
    "//": "Write /: a quotient is not rounded.",
    "<<": "",
    ">>": "",
    ":=": "Write the expression where it is used.",
    "=": "Write == to compare.",
    "&": "Write and.",
    "&&": "Write and.",
    "|": "Write or.",
    "||": "Write or.",
    "!": "Write not.",
    "~": "Write not.",
    "is": "Write ==, or unknown(x).",
    "None": "Write unknown(x) or known(x).",
    "{": "A list is written in [ ].",
}
_OPENING = {"(": ")", "[": "]"}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of an expression and where it begins, in characters from 0."""

    kind: str
    text: str
    at: int

    @property
    def end(self) -> int:
        return self.at + len(self.text)


class TextPosition:
    """Turns a position of a text into its line and column, from 1."""

    def __init__(self, text: str) -> None:
        self._text = text

    def problem(self, at: int, expected: str, got: str, remedy: str = "") -> ExpressionProblem:
        """Return a problem at a position, in characters from 0."""
        before = self._text[:at]
        return ExpressionProblem(before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1, expected, got, remedy)


def tokens_of(text: str) -> list[Token]:
    """Return all tokens but blanks; what no token begins with is one of kind `other`, a text without its end one of
    kind `open`.
    """
    found = (Token(str(match.lastgroup), match[0], match.start()) for match in _TOKEN.finditer(text))
    return [token for token in found if token.kind != "blank"]


def surface_problems(text: str) -> list[ExpressionProblem]:
    """Return what is wrong with a text before it is parsed; of one that is too long, that alone."""
    place = TextPosition(text)
    if len(text) > EXPRESSION_CHARACTERS_MAX:
        remedy = "Give a part of it a name, as a segment."
        return [place.problem(0, f"at most {EXPRESSION_CHARACTERS_MAX} characters", str(len(text)), remedy)]
    tokens = tokens_of(text)
    if not tokens:
        return [place.problem(0, "an expression", "nothing", "For example customer.tenure_days >= 90.")]
    if len(tokens) > EXPRESSION_TOKENS_MAX:
        remedy = "Give a part of it a name, as a segment."
        return [place.problem(0, f"at most {EXPRESSION_TOKENS_MAX} words and signs", str(len(tokens)), remedy)]
    return [*_alone(tokens, place), *_beside(tokens, place), *_brackets(tokens, place)]


def _alone(tokens: list[Token], place: TextPosition) -> Iterator[ExpressionProblem]:
    """Tokens that have no meaning here, and numbers and texts beyond their bounds."""
    for token in tokens:
        shown = f"`{token.text}`"
        if token.kind == "open":
            remedy = "It is closed by the quote that opened it, on the same line, and has no backslash."
            yield place.problem(token.at, "a text in quotes", _printable(_short(token.text)), remedy)
        elif token.kind == "other":
            if not token.text.isascii():
                remedy = "Names are of a-z, 0-9 and _; other letters stand in quotes."
                yield place.problem(token.at, "plain ASCII letters and signs outside quotes", ascii(token.text), remedy)
            else:
                yield place.problem(
                    token.at, "a name, a value or an operator", _printable(token.text), _REMEDIES.get(token.text, "")
                )
        elif token.text in _REMEDIES and token.kind == "sign":
            yield place.problem(token.at, "one of + - * / and comparisons", shown, _REMEDIES[token.text])
        elif token.kind == "name" and keyword.iskeyword(token.text) and token.text not in _WORDS:
            yield place.problem(
                token.at, "a name, or one of and, or, not, in, if, else", shown, _REMEDIES.get(token.text, "")
            )
        elif token.kind == "number":
            digits = re.sub(r"[eE].*|\.", "", token.text)
            if len(digits.lstrip("0")) > NUMBER_DIGITS_MAX or not abs(float(token.text)) < float("inf"):
                yield place.problem(token.at, "a number that float64 holds", _short(token.text))
            elif digits == token.text and int(digits) > INTEGER_MAX:
                yield place.problem(token.at, f"a whole number up to {INTEGER_MAX}", _short(token.text))
        elif token.kind == "text" and len(token.text) - 2 > TEXT_CHARACTERS_MAX:
            yield place.problem(
                token.at, f"a text of at most {TEXT_CHARACTERS_MAX} characters", str(len(token.text) - 2)
            )


def _beside(tokens: list[Token], place: TextPosition) -> Iterator[ExpressionProblem]:
    """Tokens that must not touch: `90d`, `f"…"`, and two texts of which a comma was forgotten."""
    for token, following in itertools.pairwise(tokens):
        both = f"`{_short(token.text + following.text)}`"
        touching = token.end == following.at
        if token.kind == "number" and following.kind in ("name", "number") and touching:
            remedy = "A quantity of time is written days(90) or hours(36)." if following.text.isalpha() else ""
            yield place.problem(token.at, "a plain decimal number", both, remedy)
        elif token.kind == "name" and following.kind == "text" and touching and token.text not in _WORDS:
            yield place.problem(token.at, "a plain text in quotes", both, "Take the letters before the quote away.")
        elif token.kind == "text" and following.kind == "text":
            yield place.problem(following.at, "a comma between two texts", f"`{_short(following.text)}`", "")


def _brackets(tokens: list[Token], place: TextPosition) -> Iterator[ExpressionProblem]:
    """Brackets that nothing closes or opens, and too many in each other."""
    opened: list[Token] = []
    for token in tokens:
        if token.kind != "sign":
            continue
        if token.text in _OPENING:
            opened.append(token)
            if len(opened) > BRACKETS_DEPTH_MAX:
                remedy = "Give a part of it a name, as a segment."
                yield place.problem(
                    token.at, f"at most {BRACKETS_DEPTH_MAX} brackets within each other", "more", remedy
                )
                return
        elif token.text in ")]":
            if not opened or _OPENING[opened[-1].text] != token.text:
                wanted = f"`{_OPENING[opened[-1].text]}`" if opened else "no closing bracket, as none is open"
                yield place.problem(token.at, wanted, f"`{token.text}`")
                return
            opened.pop()
    if opened:
        yield place.problem(opened[-1].at, f"`{_OPENING[opened[-1].text]}` to close this bracket", "the end")


def _printable(text: str) -> str:
    return f"`{text}`" if text.isprintable() else ascii(text)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."
