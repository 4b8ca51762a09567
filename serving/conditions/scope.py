"""What generated code may name: columns by their places, values that are computed once, comparisons that are made all
together.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Sequence

from features.expressions.nodes import Node
from serving.conditions.syntax import call, name

SCALAR, LOAD, ROW = 1, 2, 4
"""What a part depends on: customer or context; attributes of the offer; what changes from offer to offer and request to
request.
"""
Atom = tuple[int, str, float]
"""A comparison of a row with a constant, `>=` or `<=`, that is computed together with all others: row, operator,
constant.
"""


class Scope:
    """The names of one pair of functions, `load` and `evaluate`.

    Args:
        scalars, offers, rows: names of the columns used, in the order in which their values will come.
        subset: whether `evaluate` works on arrays of chosen offers, as formulas do, rather than on sets of all offers.
    """

    def __init__(
        self, scalars: Sequence[str], offers: Sequence[str], rows: Sequence[str], subset: bool = False
    ) -> None:
        self._scalars = {full: at for at, full in enumerate(scalars)}
        self._offers = {full: at for at, full in enumerate(offers)}
        self._rows = {full: at for at, full in enumerate(rows)}
        self._subset = subset
        self._depends: dict[Node, int] = {}
        self._uses: Counter[tuple[str, str]] = Counter()
        self._counting, self._loading = True, False
        self._start()

    def _start(self) -> None:
        self._named: dict[tuple[str, str], ast.expr] = {}
        self._load: list[ast.stmt] = []
        self._body: list[ast.stmt] = []
        self.loaded: list[str] = []
        self.atoms: dict[Atom, int] = {}

    def _depends_on(self, node: Node) -> int:
        found = self._depends.get(node)
        if found is None:
            full = str(node.value)
            if node.op == "column":
                timed = node.term is not None and node.term.dtype == "time"
                found = SCALAR if full in self._scalars else ROW if full in self._rows or timed else LOAD
            else:
                found = 0
                for part in node.parts:
                    found |= self._depends_on(part)
            self._depends[node] = found
        return found

    def _is_scalar(self, node: Node) -> bool:
        return not self._depends_on(node) & ~SCALAR

    def _once(self, key: tuple[str, str], make: Callable[[], ast.expr], at_load: bool = False) -> ast.expr:
        """Code that is written once: at load under a global name; on a request as a variable if it is used more than
        once.
        """
        if key in self._named:
            self._uses[key] += self._counting
            return self._named[key]
        was, self._loading = self._loading, self._loading or at_load
        code = make()
        self._loading = was
        if at_load:
            title = f"g{len(self.loaded)}"
            self.loaded.append(title)
            self._load.append(ast.Assign([ast.Name(title, ast.Store())], code))
            code = name(title)
        elif self._counting or self._uses[key]:
            title = f"v{len(self._body)}"
            self._body.append(ast.Assign([ast.Name(title, ast.Store())], code))
            code = name(title)
        else:
            return code
        self._named[key] = code
        return code

    def _at(self, code: ast.expr) -> ast.expr:
        """Return a value of the load as the request needs it: that of the chosen offers, if it works on those."""
        return ast.Subscript(code, name("at"), ast.Load()) if self._subset and not self._loading else code

    def _offer(self, full: str) -> ast.expr:
        """Return a column of offers, as the catalogue gives it."""
        place = ast.Constant(self._offers[full])
        return self._once(("column", full), lambda: ast.Subscript(name("c"), place, ast.Load()), at_load=True)

    def _keys(self, full: str) -> ast.expr:
        return self._once(("keys", full), lambda: call("keys", self._offer(full)), at_load=True)

    def _is_row(self, node: Node) -> bool:
        """Return whether comparisons of this number with constants are computed all together."""
        return node.op == "column" and str(node.value) in self._rows and not self._subset

    def _atom(self, node: Node, op: str, value: float) -> ast.expr:
        atom = (self._rows[str(node.value)], op, value)
        return name(f"b{self.atoms.setdefault(atom, len(self.atoms))}")

    def _scalar(self, node: Node) -> ast.expr:
        return name(f"x{self._scalars[str(node.value)]}")
