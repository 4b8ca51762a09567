"""Generated code of conditions and formulas: from checked trees to two functions, built as a syntax tree and never as
text.

Three-valued logic needs no third value here. A condition is asked "true?" or "false?", and each of these is an ordinary
two-valued question: `a and b` is true where both are true, false where one is false; `x >= 90` is true where x >= 90,
false where x < 90, and neither holds for NaN. Since only "true?" is asked of a rule, `not` disappears into the leaves.

What depends on offers alone is computed when a catalogue is loaded, what depends on customer and context alone is
computed once a request as plain truths, and only the rest works on sets of offers. Each question is asked once: what
several rules need becomes a variable, what one rule needs stays inside it, behind the conditions before it.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from types import CodeType

from features.common.timestamps import DAY_SECONDS
from features.expressions.nodes import OPPOSITE, Node, negated
from serving.conditions.scope import LOAD, SCALAR, Scope
from serving.conditions.syntax import call, function_of, method, name, test, unpacked

_ARITHMETIC: dict[str, type[ast.operator]] = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult}
_CALLS = {
    "/": ("quotient", "quotients"),
    "min": ("least", "least_all"),
    "max": ("greatest", "greatest_all"),
    "log": ("log", "logarithms"),
    "abs": ("absolute", "absolute"),
    "default": ("default", "defaults"),
}
Part = tuple[bool, ast.expr]
"""Code of a condition, and whether it is a plain truth rather than a set of offers."""


class Writer(Scope):
    """Writes the functions `load` and `evaluate` for some expressions; see `Scope` for what it is made with."""

    def write(self, roots: Sequence[Node]) -> tuple[CodeType, CodeType]:
        """Code of `load(c, n, full, none)`, which returns values for the names in `loaded`, and of `evaluate(s, p, now,
        b, at, n, full, none)`, which returns one set or array a root.

        `c` are columns of offers, `s` scalars, `p` rows, `b` the sets of `atoms`, `at` chosen offers, `n` their number,
        `full` and `none` the sets of all and of none.
        """
        for self._counting in (True, False):
            self._start()
            results = [self._result(root) for root in roots]
        load = [*self._load, ast.Return(ast.Tuple([name(made) for made in self.loaded], ast.Load()))]
        begin = [unpacked("x", len(self._scalars), "s"), unpacked("b", len(self.atoms), "b")]
        body = [*begin, *self._body, ast.Return(ast.Tuple(results, ast.Load()))]
        return (
            function_of("load", ["c", "n", "full", "none"], load),
            function_of("evaluate", ["s", "p", "now", "b", "at", "n", "full", "none"], body),
        )

    def _result(self, root: Node) -> ast.expr:
        if root.dtype == "boolean":
            flag, code = self._truth(root, True)
            return ast.IfExp(code, name("full"), name("none")) if flag else code
        code = self._number(root)
        return code if self._depends_on(root) & ~SCALAR else call("spread", code, name("n"))

    # Conditions

    def _truth(self, node: Node, wanted: bool) -> Part:
        """Return whether a condition is true, or whether it is false."""
        if node.op == "not":
            return self._truth(node.parts[0], not wanted)
        if node.op == "segment":
            return self._truth(node.parts[0], wanted)
        if node.op in OPPOSITE and not wanted:
            return self._truth(negated(node), True)
        key = node.text, "true" if wanted else "false"
        if self._depends_on(node) == LOAD:
            return False, self._at(self._once(key, lambda: self._condition(node, wanted)[1], at_load=True))
        return self._is_scalar(node), self._once(key, lambda: self._condition(node, wanted)[1])

    def _condition(self, node: Node, wanted: bool) -> Part:
        op = node.op
        if op in ("and", "or"):
            return self._joined((op == "and") == wanted, [self._truth(part, wanted) for part in node.parts])
        if op == "if":
            condition, left, right = node.parts
            first = self._joined(True, [self._truth(condition, True), self._truth(left, wanted)])
            second = self._joined(True, [self._truth(condition, False), self._truth(right, wanted)])
            return self._joined(False, [first, second])
        if op in ("known", "unknown"):
            return self._is_known(node.parts[0], op == "known")
        if op == "column":
            return self._flag(node, wanted)
        if op in ("in", "not in"):
            return (
                self._number_in(node, op == "in")
                if node.parts[0].dtype == "number"
                else self._text_in(node, op == "in")
            )
        left, right = node.parts
        if left.dtype == "number":
            return self._compared(op, left, right)
        values = (right.value,) if right.is_constant else ()
        return self._texts(left, None if right.is_constant else right, values, op == "==")

    def _joined(self, every: bool, parts: Sequence[Part]) -> Part:
        """Return all of the parts, or one of them; plain truths are asked first, and sets only if those leave it
        open.
        """
        truths, sets = ([code for flag, code in parts if flag == kind] for kind in (True, False))
        both = (
            None
            if not truths
            else truths[0]
            if len(truths) == 1
            else ast.BoolOp(ast.And() if every else ast.Or(), truths)
        )
        if not sets:
            assert both is not None
            return True, both
        code = sets[0]
        for part in sets[1:]:
            code = ast.BinOp(code, ast.BitAnd() if every else ast.BitOr(), part)
        if both is None:
            return False, code
        return False, ast.IfExp(both, code, name("none")) if every else ast.IfExp(both, name("full"), code)

    def _opposite(self, part: Part) -> Part:
        flag, code = part
        return flag, ast.UnaryOp(ast.Not(), code) if flag else ast.BinOp(name("full"), ast.BitXor(), code)

    def _is_known(self, part: Node, wanted: bool) -> Part:
        if part.dtype == "boolean":
            known = self._joined(False, [self._truth(part, True), self._truth(part, False)])
        elif part.dtype == "number":
            if self._is_row(part):
                known = False, self._atom(part, ">=", float("-inf"))
            else:
                value = self._once_number(part)
                known = self._sealed(part, test(value, "==", value))
        elif self._is_scalar(part):
            known = True, test(self._scalar(part), "is not", ast.Constant(None))
        else:
            known = False, ast.Attribute(self._keys(str(part.value)), "known", ast.Load())
        return known if wanted else self._opposite(known)

    def _flag(self, node: Node, wanted: bool) -> Part:
        """Return a column of truths: 1, 0 or NaN; a scalar may be True, False or None too."""
        return self._sealed(node, test(self._column(node), "==", ast.Constant(1.0 if wanted else 0.0)))

    def _sealed(self, node: Node, code: ast.expr) -> Part:
        return (True, code) if self._is_scalar(node) else (False, call("sealed", code))

    def _compared(self, op: str, left: Node, right: Node) -> Part:
        if isinstance(right.value, float) and self._is_row(left):
            return False, self._row_compared(op, left, right.value)
        both = self._number(left), self._number(right)
        scalar = self._is_scalar(left) and self._is_scalar(right)
        code = call("differ" if scalar else "differs", *both) if op == "!=" else test(both[0], op, both[1])
        return (True, code) if scalar else (False, call("sealed", code))

    def _row_compared(self, op: str, row: Node, value: float) -> ast.expr:
        """With >= and <= alone: x > 3 is x >= the next number after 3."""
        above, below = math.nextafter(value, math.inf), math.nextafter(value, -math.inf)
        if op in (">=", ">"):
            return self._atom(row, ">=", value if op == ">=" else above)
        if op in ("<=", "<"):
            return self._atom(row, "<=", value if op == "<=" else below)
        if op == "==":
            return ast.BinOp(self._atom(row, ">=", value), ast.BitAnd(), self._atom(row, "<=", value))
        return ast.BinOp(self._atom(row, ">=", above), ast.BitOr(), self._atom(row, "<=", below))

    def _number_in(self, node: Node, inside: bool) -> Part:
        part = node.parts[0]
        numbers = [value for value in node.values if isinstance(value, float)]
        if self._is_row(part):
            return self._joined(
                not inside, [(False, self._row_compared("==" if inside else "!=", part, value)) for value in numbers]
            )
        value, values = self._number(part), ast.Constant(frozenset(numbers))  # type: ignore[arg-type]
        if self._is_scalar(part):
            return True, test(value, "in", values) if inside else call("outside", value, values)
        return False, call("sealed", call("within_all" if inside else "outside_all", value, values))

    def _text_in(self, node: Node, inside: bool) -> Part:
        if len(node.parts) == 1:
            return self._texts(node.parts[0], None, node.values, inside)
        element, texts = node.parts
        if element.is_constant:
            return self._texts(texts, None, (element.value,), inside)
        return self._texts(element, texts, (), inside)

    def _texts(self, left: Node, right: Node | None, values: Sequence[object], same: bool) -> Part:
        """Return whether a category or texts have one of these constants, or a text in common with another."""
        sides = [side for side in (left, right) if side is not None]
        scalars, offers = [s for s in sides if self._is_scalar(s)], [s for s in sides if not self._is_scalar(s)]
        if not offers:
            return True, self._scalar_texts(scalars, values, same)
        keys = [self._keys(str(side.value)) for side in offers]
        if len(keys) == 2:
            return False, method(keys[0], "shared" if same else "unshared", keys[1])
        texts: list[ast.expr] = [self._scalar(scalars[0])] if scalars else [ast.Constant(value) for value in values]  # type: ignore[arg-type]
        found = method(keys[0], "one_of" if same else "none_of", ast.Tuple(texts, ast.Load()))
        return False, self._at(found) if scalars else found

    def _scalar_texts(self, scalars: Sequence[Node], values: Sequence[object], same: bool) -> ast.expr:
        sides = [self._scalar(side) for side in scalars]
        if len(sides) == 2:
            code = test(sides[0], "==" if same else "!=", sides[1])
        elif len(values) == 1:
            code = test(sides[0], "==" if same else "!=", ast.Constant(values[0]))  # type: ignore[arg-type]
        else:
            code = test(sides[0], "in" if same else "not in", ast.Constant(frozenset(values)))  # type: ignore[arg-type]
        present = [] if same and len(sides) == 1 else sides[:1] if same else sides
        known = [test(side, "is not", ast.Constant(None)) for side in present]
        return ast.BoolOp(ast.And(), [*known, code]) if known else code

    # Numbers

    def _column(self, node: Node) -> ast.expr:
        full = str(node.value)
        if full in self._scalars:
            code = self._scalar(node)
        elif full in self._rows:
            return ast.Subscript(name("p"), ast.Constant(self._rows[full]), ast.Load())
        else:
            code = self._at(self._offer(full))
        if node.term is not None and node.term.dtype == "time":
            return ast.BinOp(ast.BinOp(name("now"), ast.Sub(), code), ast.Div(), ast.Constant(DAY_SECONDS))
        return code

    def _number(self, node: Node) -> ast.expr:
        """Return a number, or one an offer."""
        if node.is_constant:
            return ast.Constant(node.value)
        if self._depends_on(node) == LOAD:
            return self._at(self._once((node.text, "number"), lambda: self._computed(node), at_load=True))
        return self._once((node.text, "number"), lambda: self._computed(node))

    def _once_number(self, node: Node) -> ast.expr:
        """Return a number as a variable, since it is used twice."""
        self._uses[node.text, "number"] += self._counting
        return self._number(node)

    def _computed(self, node: Node) -> ast.expr:
        if node.op == "column":
            return self._column(node)
        if node.op == "if":
            return self._conditional(node)
        parts = [self._number(part) for part in node.parts]
        if node.op == "default" and isinstance(parts[0], ast.Name) and self._is_scalar(node):
            return ast.IfExp(test(parts[0], "==", parts[0]), *parts)  # the most usual call of all: not worth one
        if node.op == "negative":
            return ast.UnaryOp(ast.USub(), parts[0])
        if node.op in _ARITHMETIC:
            return ast.BinOp(parts[0], _ARITHMETIC[node.op](), parts[1])
        return call(_CALLS[node.op][0 if self._is_scalar(node) else 1], *parts)

    def _conditional(self, node: Node) -> ast.expr:
        condition, *branches = node.parts
        (flag, true), (_, false) = self._truth(condition, True), self._truth(condition, False)
        numbers = [self._number(branch) for branch in branches]
        if not flag:
            return call("chosen", call("masked", true, name("n")), call("masked", false, name("n")), *numbers)
        if not self._is_scalar(node):
            numbers = [call("spread", number, name("n")) for number in numbers]
        neither = name("NAN") if self._is_scalar(node) else call("spread", name("NAN"), name("n"))
        return ast.IfExp(true, numbers[0], ast.IfExp(false, numbers[1], neither))
