"""The error codes that the source can raise, and the hints that it gives, read from the source."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from comity.trust import errors
from comity.wire.services import CALL_RULES

ROOT = Path(__file__).resolve().parents[2]
CLASSES = frozenset(
    name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.ComityError)
)


@dataclass(frozen=True)
class Source:
    """The error codes and hints of the modules."""

    raised: Mapping[str, str]
    """Each code, and one position of it."""
    computed: frozenset[str]
    """Files in which an error has a code that is not a literal."""
    hints: frozenset[str]
    """The hints: `hint=…`, `hint = …`, `….hint(…)`; values of the run time are replaced by X."""


@functools.cache
def source() -> Source:
    """Read once: a quarter of a million syntax nodes, which are not kept."""
    raised: dict[str, str] = {getattr(errors, name).code: "registry/comity/trust/errors.py" for name in CLASSES}
    raised |= {rule.reason: "proto/comity/v1" for rule in CALL_RULES.values() if rule.reason}
    computed, hints = set[str](), set[str]()
    for path, tree in _modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call | ast.Tuple | ast.Assign):
                raised.update(dict.fromkeys(_codes(node), path))
                hints.update(text for value in _hints(node) for text in _texts(value))
                if _has_computed_code(node):
                    computed.add(path)
    return Source(raised, frozenset(computed), frozenset(hints))


def _has_computed_code(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not _is_error(node.func):
        return False
    return any(keyword.arg == "code" and not _constants(keyword.value) for keyword in node.keywords)


def _hints(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Call):
        said = node.args if isinstance(node.func, ast.Attribute) and node.func.attr == "hint" else []
        return [*said, *(keyword.value for keyword in node.keywords if keyword.arg == "hint")]
    if isinstance(node, ast.Assign):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        return [node.value] if any(name.lower().endswith("hint") for name in names) else []
    return []


def _texts(node: ast.AST) -> Iterator[str]:
    """The whole strings in an expression, literal or formatted."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node.value
    else:
        for part in ast.iter_child_nodes(node):
            yield from _texts(part)


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("registry/comity", "clients"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" not in path.name:
                yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"))


def _codes(node: ast.AST) -> list[str]:
    """Codes in `Error(…, code=…)`, and in tables whose rows begin with an error class and a code."""
    if isinstance(node, ast.Call):
        return [code for keyword in node.keywords if keyword.arg == "code" for code in _constants(keyword.value)]
    if isinstance(node, ast.Tuple) and len(node.elts) > 1 and _is_error(node.elts[0]):
        return _constants(node.elts[1])
    return []


def _constants(value: ast.expr) -> list[str]:
    if isinstance(value, ast.IfExp):
        return _constants(value.body) + _constants(value.orelse)
    if isinstance(value, ast.BoolOp):
        return [code for each in value.values for code in _constants(each)]
    return [value.value] if isinstance(value, ast.Constant) and isinstance(value.value, str) else []


def _is_error(value: ast.expr) -> bool:
    return isinstance(value, ast.Name) and value.id in CLASSES
