"""YAML without its surprises, and with the line of every part.

PyYAML reads; what it lets pass by design is refused here: duplicate keys, tags, anchors that repeat a subtree without
bound, and the surprises of YAML 1.1 (`no` for false, `1:30` for 90, `010` for 8), which a marketer cannot be expected
to know.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from features.config.faults import BadWorkspace, Fault, Path, shown

FILE_BYTES_MAX = 8 << 20
PARTS_MAX = 500_000
"""Keys, values and list items of one file, each counted as often as an anchor repeats it."""
LEVELS_MAX = 32

_TAGS = "tag:yaml.org,2002:"
_TEXT_TAG = "tag:yaml.org,2002:str"
_NUMBER_TAGS: dict[str, type[int] | type[float]] = {"tag:yaml.org,2002:int": int, "tag:yaml.org,2002:float": float}


class _Loader(yaml.SafeLoader):
    """YAML as people read it: only true and false are booleans; 1:30, 007 and dates are text, whose meaning their
    reader knows.
    """


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag.rpartition(":")[2] not in ("bool", "int", "float", "timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_FLOAT = r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$"
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]{0,17})$"), list("-+0123456789")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_FLOAT), list("-+.0123456789"))


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    return _NUMBER_TAGS[node.tag](node.value)


for _tag in _NUMBER_TAGS:
    _Loader.add_constructor(_tag, _number)


class Tree:
    """A parsed file: its value as plain Python, and the line of each of its parts."""

    def __init__(self, file: str, content: bytes) -> None:
        self.file = file
        self.lines: dict[Path, int] = {}
        self.faults: list[Fault] = []
        if len(content) > FILE_BYTES_MAX:
            raise BadWorkspace([Fault(file, "$", f"at most {FILE_BYTES_MAX} bytes", f"{len(content)} bytes")])
        try:
            loader = _Loader(content.decode("utf-8-sig"))
            root = loader.get_single_node()
            self._index(loader, root, ())
            if self.faults:
                raise BadWorkspace(self.faults)
            self.value: Any = {} if root is None else loader.construct_document(root)
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            raise BadWorkspace(
                [Fault(file, "$", "UTF-8 text", "a byte that is not", line, "Save the file as UTF-8.")]
            ) from error
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            why = " ".join(filter(None, (error.context, error.problem)))
            raise BadWorkspace(
                [Fault(file, "$", "valid YAML", f"an error {why}", None if mark is None else mark.line + 1)]
            ) from error
        except yaml.YAMLError as error:
            raise BadWorkspace([Fault(file, "$", "valid YAML", str(error).splitlines()[0])]) from error
        except RecursionError as error:
            raise BadWorkspace([Fault(file, "$", f"at most {LEVELS_MAX} levels", "many more")]) from error

    def _index(self, loader: _Loader, node: yaml.Node | None, path: Path) -> None:
        """Note the line of each part and refuse what YAML allows and nobody means."""
        if node is None:
            return
        line = node.start_mark.line + 1
        if len(path) > LEVELS_MAX:
            raise BadWorkspace([Fault(self.file, shown(path), f"at most {LEVELS_MAX} levels", "more", line)])
        if len(self.lines) >= PARTS_MAX:
            raise BadWorkspace(
                [
                    Fault(
                        self.file,
                        shown(path),
                        f"at most {PARTS_MAX} parts",
                        "more",
                        line,
                        "Anchors repeat what they name.",
                    )
                ]
            )
        self.lines.setdefault(path, line)
        self._check_scalar(loader, node, path)
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, child in node.value:
                name = str(key.value)
                if name in seen:
                    self.faults.append(
                        Fault(
                            self.file, shown((*path, name)), "each key once", "the key again", key.start_mark.line + 1
                        )
                    )
                seen.add(name)
                self._check_scalar(loader, key, (*path, name))
                self.lines[(*path, name)] = key.start_mark.line + 1
                self._index(loader, child, (*path, name))
        elif isinstance(node, yaml.SequenceNode):
            for position, child in enumerate(node.value):
                self._index(loader, child, (*path, position))

    def _check_scalar(self, loader: _Loader, node: yaml.Node, path: Path) -> None:
        line = node.start_mark.line + 1
        plain: str = loader.resolve(type(node), node.value, (True, False))  # type: ignore[no-untyped-call]
        if node.tag not in (_TEXT_TAG, plain):
            self.faults.append(
                Fault(
                    self.file,
                    shown(path),
                    "a value without a tag",
                    f"`{node.tag.removeprefix(_TAGS)}`",
                    line,
                    "Remove the tag.",
                )
            )
        elif node.tag in _NUMBER_TAGS and not math.isfinite(float(node.value)):
            self.faults.append(Fault(self.file, shown(path), "a number within range", f"`{node.value}`", line))
