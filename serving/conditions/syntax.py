"""Pieces of generated code, as a syntax tree: names, calls, comparisons, functions."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from types import CodeType

_ORDER: dict[str, type[ast.cmpop]] = {
    "==": ast.Eq,
    "!=": ast.NotEq,
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
    "is": ast.Is,
    "is not": ast.IsNot,
    "in": ast.In,
    "not in": ast.NotIn,
}


def name(text: str) -> ast.expr:
    """Return a variable or function of generated code."""
    return ast.Name(text, ast.Load())


def call(function: str, *arguments: ast.expr) -> ast.expr:
    """Return a call of one of the functions of `bitsets.py`."""
    return ast.Call(name(function), list(arguments), [])


def method(value: ast.expr, function: str, *arguments: ast.expr) -> ast.expr:
    """Return a call of a method of `Keys`."""
    return ast.Call(ast.Attribute(value, function, ast.Load()), list(arguments), [])


def test(left: ast.expr, op: str, right: ast.expr) -> ast.expr:
    """Return a comparison."""
    return ast.Compare(left, [_ORDER[op]()], [right])


def function_of(title: str, arguments: Sequence[str], body: Sequence[ast.stmt]) -> CodeType:
    """Return the code of one function."""
    given = ast.arguments([], [ast.arg(argument) for argument in arguments], None, [], [], None, [])
    (definition,) = ast.parse(
        f"def {title}(): ..."
    ).body  # each Python asks for other fields when a definition is made by hand
    assert isinstance(definition, ast.FunctionDef)
    definition.args, definition.body = given, list(body)
    module = compile(ast.fix_missing_locations(ast.Module([definition], [])), f"<{title}>", "exec")
    return next(part for part in module.co_consts if isinstance(part, CodeType))


def unpacked(letter: str, count: int, source: str) -> ast.stmt:
    """Return an assignment such as `x0, x1, x2 = s`."""
    names: list[ast.expr] = [ast.Name(f"{letter}{at}", ast.Store()) for at in range(count)]
    return ast.Assign([ast.Tuple(names, ast.Store()) if names else ast.List([], ast.Store())], name(source))
