"""The expression language: what it accepts and means, and how it refuses."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.expressions.evaluate import Meaning
from features.expressions.parse import Expression, parse
from features.expressions.syntax import EXPRESSION_DEPTH_MAX
from features.expressions.tokens import BRACKETS_DEPTH_MAX, EXPRESSION_CHARACTERS_MAX, EXPRESSION_TOKENS_MAX
from tests.features.expressions.guide_cases import SCOPE, parsed, problems, table

EXAMPLES = table("expression | where | is")
REFUSALS = table("expression | column | expected | got")


@pytest.mark.parametrize(("text", "where", "result"), EXAMPLES)
def test_examples_of_the_guide_mean_what_it_says(text: str, where: str, result: str) -> None:
    """Every example of the guide has the result that stands beside it."""
    given = ast.parse(f"f({re.sub(r'(?<=[a-z])[.](?=[a-z])', '__', where)})", mode="eval").body
    assert isinstance(given, ast.Call)
    facts = {str(word.arg).replace("__", "."): ast.literal_eval(word.value) for word in given.keywords}
    assert facts.keys() <= SCOPE.keys()
    meaning = Meaning(facts.get).of(parsed(text).root)
    assert {True: "true", False: "false", None: "unknown"}[meaning] == result  # type: ignore[index]


@pytest.mark.parametrize(("text", "column", "expected", "got"), REFUSALS)
def test_refusals_of_the_guide_are_told_as_it_says(text: str, column: str, expected: str, got: str) -> None:
    """Every refused example of the guide is refused at that column in those words."""
    (problem,) = problems(text)
    shown = problem.got[1:-1] if re.fullmatch("`[^`]*`", problem.got) else problem.got
    assert (problem.column, problem.expected, shown) == (int(column), expected, got)


def test_the_guide_has_examples() -> None:
    """The guide's tables are found, so that the tests above look at something."""
    assert len(SCOPE) >= 10
    assert len(EXAMPLES) >= 20
    assert len(REFUSALS) >= 8


# text, then (line, column, a part of what was expected, a part of what came, a part of the remedy) for each problem
GOLDEN: list[tuple[str, list[tuple[int, int, str, str, str]]]] = [
    ("", [(1, 1, "an expression", "nothing", "For example")]),
    ("1 == 1", [(1, 1, "can be true and false", "two constants", "")]),
    ("True", [(1, 1, "depends on something", "True", "")]),
    ("customer.wait == customer.wait", [(1, 1, "can be true and false", "on both sides", "known(x)")]),
    ("context.hour < 24", [(1, 1, "can be true and false", "always true where known", "known(x)")]),
    ("context.hour == 24", [(1, 1, "can be true and false", "always false where known", "Take it away")]),
    ("customer.visits_90d == 1.5", [(1, 1, "can be true and false", "always false", "")]),
    ("context.hour in [1, 25]", [(1, 21, "can be true and false", "always false", "")]),
    ("context.channel in []", [(1, 20, "can be true and false", "an empty list", "")]),
    ('context.channel in ["web", "app", "call_centre"]', [(1, 1, "can be true", "always true where known", "")]),
    ("context.open_case or not context.open_case", [(1, 1, "can change the result", "never false", "")]),
    ("context.open_case == (not context.open_case)", [(1, 1, "can be true and false", "opposite", "")]),
    ("known(known(customer.wait))", [(1, 7, "may be unknown", "which never is", "")]),
    (
        "custmer.wait > 1 and customer.wiat > 1\n  and context.chanel == 3",
        [
            (1, 1, "a known name", "custmer.wait", "customer.wait"),
            (1, 22, "a name of customer", "customer.wiat", "customer.wait"),
            (2, 7, "a name of context", "context.chanel", "context.channel"),
        ],
    ),
    ("customer.__class__ == 1", [(1, 1, "a name of customer", "customer.__class__", "")]),
    ("customer.wait.__class__ == 1", [(1, 1, "a name like", "customer.wait.__class__", "")]),
    ('"".__class__ == 1', [(1, 1, "a name like", "__class__", "")]),
    ("customer == 1", [(1, 1, "a known name", "customer", "")]),
    ("().real", [(1, 1, "a name like", "().real", "")]),
    ("__import__('os')", [(1, 1, "a function", "__import__", "There is abs")]),
    ("customer.wait() > 1", [(1, 1, "a function", "customer.wait", "")]),
    ("lenth(customer.wait) > 1", [(1, 1, "a function", "lenth", "")]),
    ("knwon(customer.wait)", [(1, 1, "a function", "knwon", "`known`")]),
    ("min(customer.wait) > 1", [(1, 1, "2 to 8 values in `min( )`", "1", "")]),
    ("lambda: 1", [(1, 1, "and, or, not", "lambda", ""), (1, 7, "an operator", ":", "")]),
    ("[x for x in customer.wait]", [(1, 4, "and, or, not", "for", "")]),
    ("customer.wait is 1", [(1, 15, "and, or, not", "is", "Write ==")]),
    ("customer.wait == None", [(1, 18, "and, or, not", "None", "unknown(x)")]),
    ("(x := 1) > 2", [(1, 4, "one of + - * /", ":=", "")]),
    ("customer.wait = 1", [(1, 15, "an operator", "=", "Write == ")]),
    ("customer.wait ** 2 > 1", [(1, 15, "one of + - * /", "**", "x * x")]),
    ("customer.wait // 2 > 1", [(1, 15, "one of + - * /", "//", "not rounded")]),
    ("customer.wait % 2 == 1", [(1, 15, "an operator", "%", "")]),
    ("context.open_case & context.open_case", [(1, 19, "an operator", "&", "Write and")]),
    ("~context.open_case", [(1, 1, "an operator", "~", "Write not")]),
    ("+customer.wait > 1", [(1, 1, "`-` or `not`", "another sign", "")]),
    ("f'{customer.wait}' == 'a'", [(1, 1, "a plain text", "f'{customer.wait}'", "")]),
    ("customer.region == 'a\\x41'", [(1, 20, "a text in quotes", "'a", "no backslash")]),
    ('customer.region in ["a" "b"]', [(1, 25, "a comma between two texts", '"b"', "")]),
    ("customer.wait > 0x10", [(1, 17, "a plain decimal number", "0x10", "")]),
    ("customer.wait > 1_000", [(1, 17, "a plain decimal number", "1_000", "")]),
    ("customer.wait > 1e999", [(1, 17, "a number that float64 holds", "1e999", "")]),
    ("customer.wait > 9007199254740993", [(1, 17, "a whole number up to", "9007199254740993", "")]),
    ("customer.wait > " + "9" * 400, [(1, 17, "a number that float64 holds", "999", "")]),
    ("customer.wait > nan", [(1, 17, "a known name", "nan", "")]),
    ("customer.wait > 1 / 0", [(1, 17, "constants that make a number", "1 / 0", "")]),
    ("ᶜustomer.wait > 1", [(1, 1, "plain ASCII", "u1d9c", "in quotes")]),
    ("customer.wait > １", [(1, 17, "plain ASCII", "uff11", "")]),
    ("customer.region == 'grün' and customer.wait > 'é'", [(1, 47, "a number", "a category", "without quotes")]),
    ("customer.region == 1", [(1, 20, "a category", "a number", 'Put it in quotes: "1"')]),
    ("customer.region < 'a'", [(1, 19, "== or !=", "<", "Only numbers")]),
    ("context.open_case + 1 > 2", [(1, 1, "a number", "a condition", "")]),
    ("customer.wait and context.open_case", [(1, 1, "a condition", "a number", "Compare it")]),
    ("offer.tags == 'wine'", [(1, 15, "in to look into", "==", "")]),
    ("'wine' in offer.region", [(1, 11, "a list like", "offer.region", "==")]),
    ("1 in offer.tags", [(1, 1, "a text before in", "a number", "")]),
    ("customer.wait in [customer.tenure_days]", [(1, 19, "a constant of type number", "customer.tenure_days", "")]),
    ("customer.wait in (1, 2)", [(1, 18, "a name, a value", "several values", "[ ]")]),
    ("customer.visits_90d > days(3)", [(1, 23, "a unit of time on both sides", "declares none", "Declare its unit")]),
    ("customer.wait + customer.spend_90d > 1", [(1, 17, "a number in hours", "USD", "")]),
    ("days(customer.visits_90d) > customer.wait", [(1, 6, "a plain number in `days( )`", "customer.visits_90d", "")]),
    ("default(context.channel, 'fax') == 'web'", [(1, 26, "a declared value", '"fax"', "")]),
    ("default(customer.wait, customer.tenure_days) > 1", [(1, 24, "a constant", "customer.tenure_days", "")]),
    (
        "('a' if context.open_case else 'b') == offer.region",
        [(1, 2, "two numbers or two conditions", '"a"', "each branch")],
    ),
    ("(customer.wait > 1", [(1, 1, "`)` to close", "the end", "")]),
    ("customer.wait > 1) or (context.open_case", [(1, 18, "none is open", ")", "")]),
    ("customer.wait > [1)", [(1, 19, "`]`", ")", "")]),
    ("customer.wait[0] > 1", [(1, 1, "a name, a value", "a value in [ ]", "")]),
    ("... == 1", [(1, 1, "a number, a text", "...", "")]),
    ("customer.region == '" + "a" * 300 + "'", [(1, 20, "at most 256 characters", "300", "")]),
]


@pytest.mark.parametrize(("text", "expected"), GOLDEN, ids=[text[:40] for text, _ in GOLDEN])
def test_problems_are_told_where_they_are(text: str, expected: list[tuple[int, int, str, str, str]]) -> None:
    """Each bad expression gives exactly these problems, each at its line and column and with its way out."""
    found = problems(text)
    assert [(problem.line, problem.column) for problem in found] == [place[:2] for place in expected], found
    for problem, (_, _, wanted, got, remedy) in zip(found, expected, strict=True):
        assert wanted in problem.expected
        assert got in problem.got
        assert remedy in problem.remedy
        assert str(problem).startswith(f"line {problem.line}, column {problem.column}: expected ")


SAME = [
    ("90<=customer.wait", "customer.wait >= 90"),
    ("not customer.wait < 90", "customer.wait >= 90"),
    ("not (not (context.open_case))", "context.open_case"),
    ("context.open_case == False", "not context.open_case"),
    ("context.channel in ['web']", 'context.channel == "web"'),
    ("not context.channel in ['web', 'app', 'web']", 'context.channel not in ["app", "web"]'),
    ("customer.tenure_days > hours(36)", "customer.tenure_days > 1.5"),
    ("customer.wait > 60 * 24 / 2", "customer.wait > 720"),
    ("offer.price > customer.spend_90d", "customer.spend_90d < offer.price"),
    ("context.open_case and (context.open_case and customer.wait > 1)", "context.open_case and customer.wait > 1"),
    ("unknown(customer.wait)", "not known(customer.wait)"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spellings_of_the_same_have_one_canonical_form(one: str, other: str) -> None:
    """Conditions that differ only in how they are written are one node, so that rules share them."""
    assert parsed(one).root == parsed(other).root


@pytest.mark.parametrize(
    "text", [row[0] for row in EXAMPLES] + ["(customer.wait - (1 - customer.wait)) * -customer.wait > 1"]
)
def test_the_canonical_text_is_the_expression(text: str) -> None:
    """The canonical text of an expression, parsed again, is the same expression; units have been converted in it
    already.
    """
    root = parsed(text).root
    plain = {name: dataclasses.replace(term, unit=None) for name, term in SCOPE.items()}
    assert parsed(root.text, scope=plain).root == root


def bombs() -> Iterator[tuple[str, str]]:
    long, deep = EXPRESSION_CHARACTERS_MAX, EXPRESSION_TOKENS_MAX
    yield "(" * 10_000, f"at most {long} characters"
    yield "1" + " + 1" * 10_000, f"at most {long} characters"
    yield "(" * 400 + "1" + ")" * 400, f"at most {BRACKETS_DEPTH_MAX} brackets"
    yield "[" * 300 + "]" * 300, f"at most {BRACKETS_DEPTH_MAX} brackets"
    yield "not " * 990 + "context.open_case", f"at most {EXPRESSION_DEPTH_MAX} parts"
    yield "-" * 990 + "1 > 2", f"at most {EXPRESSION_DEPTH_MAX} parts"
    yield "customer.wait" + " + 1" * 200 + " > 1", f"at most {EXPRESSION_DEPTH_MAX} parts"
    yield "1 if context.open_case else " * 100 + "2 > 1", f"at most {EXPRESSION_DEPTH_MAX} parts"
    yield "a" * 3_999, "a known name"
    yield "a." * 300 + "a", f"at most {EXPRESSION_DEPTH_MAX} parts"
    yield "-" * (deep + 1), f"at most {deep} words"


@pytest.mark.parametrize(("text", "expected"), list(bombs()), ids=lambda text: text[:20])
def test_what_is_too_long_or_too_deep_is_a_problem(text: str, expected: str) -> None:
    """Text made to exhaust a parser gives one problem that names the bound."""
    (problem,) = problems(text)
    assert expected in problem.expected


PIECES = [
    "customer.wait",
    "context.open_case",
    "offer.tags",
    "'web'",
    '"',
    "(",
    ")",
    "[",
    "]",
    ",",
    " in ",
    " not ",
    " and ",
    " if ",
    " else ",
]
PIECES += [
    "1",
    "1e9",
    "-",
    "+",
    "/",
    "==",
    "<",
    "default",
    "known",
    "min",
    "days",
    "\n",
    "\\",
    "é",
    "\x00",
    "\ud800",
    ".",
    "#",
    "True",
    "None",
]


@settings(max_examples=500, deadline=None)
@given(text=st.text(max_size=60) | st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_any_text_gives_an_expression_or_problems(text: str) -> None:
    """Whatever the text, parsing raises nothing, and every problem lies within the text."""
    for wants in ("boolean", "number"):
        found = parse(text, SCOPE, wants)  # type: ignore[arg-type]
        if isinstance(found, Expression):
            assert parsed(found.root.text, wants).root == found.root
            continue
        assert found
        lines = text.split("\n")
        for problem in found:
            assert 1 <= problem.line <= len(lines)
            assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
