"""Mutants of a module: each is one small change of the code in one function, which some test should notice.

What is changed: comparisons (`>=` to `>`, `>= threshold` to `>= 1`, `==` to `!=`, `in` to `not in`), operands of `and`
and `or` (each left out), `not` (left out), conditions (made always true or never true), whole numbers (plus and minus
1), truth values, bounds of slices, `+` and `-` and similar operators, `any` and `all`, `min` and `max`, `sorted` (left
out), filters of comprehensions (left out), `return` of a truth value (inverted), `raise` and calls for their effect
(left out), `break` and `continue`.

What is not changed: docstrings, texts, errors that are raised, annotations, decorators, defaults of arguments, log
calls, and code outside functions.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import Any, Final, TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

FLIPPED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ORDERS: Final = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
ARITHMETIC: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
CALLS: Final = {"any": "all", "all": "any", "min": "max", "max": "min"}
LOGGERS: Final = frozenset({"log", "_log", "logger"})
SHARED: Final = 40
"""Characters on each side of a change that are shown, and that tell it from the same change elsewhere."""
TEXTS: Final = (ast.JoinedStr, ast.List, ast.Tuple, ast.ListComp)


@dataclass(frozen=True, slots=True, eq=False)
class Mutant:
    """One change: `after` instead of `before`, the head of the statement in lines `first` to `last` of `function`."""

    source: Source
    function: str
    start: int
    first: int
    last: int
    before: str
    after: str
    change: Change

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The part that stays the same when lines move: module, function, and the changed text."""
        return self.source.name, self.function, self.before, self.after

    def __str__(self) -> str:
        return f"{self.source.name}:{self.first}: {self.function}: {self.before}  ->  {self.after}"

    def compile(self) -> CodeType:
        """The code of the outermost function that holds the change."""
        with self.change.made():
            code = compile(
                ast.fix_missing_locations(self.source.tree), str(self.source.path), "exec", dont_inherit=True
            )
        return next(each for each in _functions_of(code) if (each.co_qualname, each.co_firstlineno) == self.where)

    @property
    def where(self) -> tuple[str, int]:
        """Qualified name and first line of the function, as its code object has them."""
        return self.function, self.start


def _functions_of(code: CodeType) -> Iterator[CodeType]:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield each
            yield from _functions_of(each)


@dataclass(frozen=True, slots=True)
class Change:
    """Sets `field` of the node `owner` to `value`."""

    owner: ast.AST
    field: str
    value: Any

    @contextmanager
    def made(self) -> Iterator[None]:
        before = getattr(self.owner, self.field)
        setattr(self.owner, self.field, self.value)
        try:
            yield
        finally:
            setattr(self.owner, self.field, before)


class Source:
    """A module, parsed. `name` is its path as results show it."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.tree = ast.parse(path.read_bytes(), str(path))

    def mutants(self) -> list[Mutant]:
        return [mutant for function, name in _functions(self.tree, "") for mutant in self._mutants(function, name)]

    def _mutants(self, function: Function, name: str) -> Iterator[Mutant]:
        start = min([function.lineno, *(each.lineno for each in function.decorator_list)])
        for statement in _statements(function):
            before = _head(statement)
            for change in _changes(statement, function):
                with change.made():
                    after = _head(statement)
                first, last = _lines(statement)
                if after != before:
                    yield Mutant(self, name, start, first, last, *_around_difference(before, after), change)


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[Function, str]]:
    """The functions of a module and of its classes, with their qualified names."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child, prefix + child.name
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")


@dataclass(frozen=True, slots=True)
class _Statement:
    node: ast.stmt | ast.match_case
    block: ast.AST
    field: str
    place: int


BLOCKS: Final = ("body", "orelse", "finalbody", "handlers", "cases")
"""The fields that hold statements: no part of a statement's head."""


def _statements(function: Function) -> Iterator[_Statement]:
    def inside(block: ast.AST) -> Iterator[_Statement]:
        for field in BLOCKS:
            children = getattr(block, field, ())
            for place, child in enumerate(children if isinstance(children, list) else ()):
                if isinstance(child, ast.stmt | ast.match_case):
                    yield _Statement(child, block, field, place)
                yield from inside(child)

    return inside(function)


def _head(statement: _Statement) -> str:
    """The text of a statement, as the tree has it now, without the statements inside it, on one line."""
    head = copy(getattr(statement.block, statement.field)[statement.place])
    for field in BLOCKS:
        if isinstance(getattr(head, field, None), list):
            setattr(head, field, [])
    return " ".join(ast.unparse(head).split())


def _around_difference(before: str, after: str) -> tuple[str, str]:
    """Both texts without their common beginning and end, except a little of each."""
    start = _common(before, after)
    end = _common(before[start:][::-1], after[start:][::-1])
    left, right = max(0, start - SHARED), max(0, end - SHARED)

    def shortened(text: str) -> str:
        return "…" * (left > 0) + text[left : len(text) - right] + "…" * (right > 0)

    return shortened(before), shortened(after)


def _common(one: str, other: str) -> int:
    """The number of characters with which both texts begin."""
    return next(
        (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _lines(statement: _Statement) -> tuple[int, int]:
    node = statement.node
    if isinstance(node, ast.match_case):
        return node.pattern.lineno, node.pattern.end_lineno or node.pattern.lineno
    inner = [
        child for field in BLOCKS if isinstance(children := getattr(node, field, None), list) for child in children
    ]
    starts = [each.pattern.lineno if isinstance(each, ast.match_case) else each.lineno for each in inner]
    last = max(node.lineno, min(starts) - 1) if starts else node.end_lineno or node.lineno
    return node.lineno, last


def _changes(statement: _Statement, function: Function) -> Iterator[Change]:
    node = statement.node
    if isinstance(node, ast.Raise):
        if not _guarded(statement):
            yield _replaced(statement, ast.Pass())
        return
    if isinstance(node, ast.Expr):
        if isinstance(node.value, ast.Constant) or _is_logging(node.value):
            return
        if isinstance(node.value, ast.Call):
            yield _replaced(statement, ast.Pass())
    if isinstance(node, ast.Break) and not _guarded(statement):
        yield _replaced(statement, ast.Pass())
    if isinstance(node, ast.Continue):
        yield _replaced(statement, ast.Break())
    if isinstance(node, ast.If) or (isinstance(node, ast.match_case) and node.guard is not None):
        field = "test" if isinstance(node, ast.If) else "guard"
        yield from (Change(node, field, ast.Constant(value)) for value in (True, False))
    if isinstance(node, ast.While):
        yield Change(node, "test", ast.Constant(False))
    if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC and not isinstance(node.value, TEXTS):
        yield Change(node, "op", ARITHMETIC[type(node.op)]())
    if isinstance(node, ast.Return) and node.value is not None and _is_truth(node.value, function):
        yield Change(node, "value", ast.UnaryOp(ast.Not(), node.value))
    for field, value in ast.iter_fields(node):
        if field not in (*BLOCKS, "annotation", "decorator_list", "args", "returns", "pattern"):
            yield from _inside(node, field, value)


def _guarded(statement: _Statement) -> bool:
    """Whether the statement is the whole body of an `if`: leaving it out equals a condition that is never true."""
    block = statement.block
    return isinstance(block, ast.If) and len(block.body) == 1 and statement.field == "body"


def _replaced(statement: _Statement, other: ast.stmt) -> Change:
    block, field = statement.block, statement.field
    return Change(block, field, _with(getattr(block, field), statement.place, other))


def _is_logging(node: ast.expr) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name) | ast.Attribute(attr=name))):
            return name in LOGGERS
    return False


def _is_truth(node: ast.expr, function: Function) -> bool:
    """Whether `node` is a truth value, and no other change inverts it."""
    match node:
        case ast.Constant() | ast.UnaryOp(op=ast.Not()):
            return False
        case ast.Compare(ops=[op]):
            return isinstance(op, ORDERS)
        case ast.Compare() | ast.Call(func=ast.Name(id="any" | "all" | "isinstance" | "bool")):
            return True
    return isinstance(function.returns, ast.Name) and function.returns.id == "bool"


def _inside(owner: ast.AST, field: str, value: object) -> Iterator[Change]:
    """Changes of one field of a node, and of all that is below it."""
    for place, node in enumerate(value if isinstance(value, list) else [value]):
        if not isinstance(node, ast.AST) or isinstance(node, ast.JoinedStr | ast.expr_context):
            continue
        if isinstance(node, ast.expr):
            for other in _alternatives(node, owner):
                yield Change(owner, field, _with(value, place, other) if isinstance(value, list) else other)
        if isinstance(node, ast.comprehension):
            for index in range(len(node.ifs)):
                yield Change(node, "ifs", [*node.ifs[:index], *node.ifs[index + 1 :]])
        for name, below in ast.iter_fields(node):
            yield from _inside(node, name, below)


def _alternatives(node: ast.expr, owner: ast.AST) -> Iterator[ast.expr]:
    match node:
        case ast.Compare():
            yield from _comparisons(node)
        case ast.BoolOp(op=op, values=values):
            for index in range(len(values)):
                rest = [*values[:index], *values[index + 1 :]]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield operand
        case ast.Constant(value=bool(truth)):
            yield ast.Constant(not truth)
        case ast.Constant(value=0) if isinstance(owner, ast.keyword) and owner.arg == "least":
            yield ast.Constant(1)  # a length below 0 is no other bound than 0
        case ast.Constant(value=int(number)):
            yield from (ast.Constant(number + 1), ast.Constant(number - 1))
        case ast.IfExp(body=body, orelse=orelse):
            yield from (body, orelse)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            if name in CALLS:
                yield ast.Call(ast.Name(CALLS[name], ast.Load()), arguments, node.keywords)
            elif name == "sorted":
                yield ast.Call(ast.Name("list", ast.Load()), arguments, [])
        case ast.BinOp(left=left, op=operator, right=right):
            if type(operator) in ARITHMETIC and not (_is_text(left) or _is_text(right)):
                yield ast.BinOp(left, ARITHMETIC[type(operator)](), right)
    if isinstance(owner, ast.Slice) and not isinstance(node, ast.Constant):
        yield from (ast.BinOp(node, operator, ast.Constant(1)) for operator in (ast.Add(), ast.Sub()))


def _comparisons(node: ast.Compare) -> Iterator[ast.Compare]:
    for index, op in enumerate(node.ops):
        yield ast.Compare(node.left, _with(node.ops, index, FLIPPED[type(op)]()), node.comparators)
        right = node.comparators[index]
        if isinstance(op, ast.Gt | ast.GtE) and isinstance(right, ast.Name | ast.Attribute):
            yield ast.Compare(node.left, node.ops, _with(node.comparators, index, ast.Constant(1)))
    if isinstance(node.ops[0], ast.Lt | ast.LtE) and isinstance(node.left, ast.Name | ast.Attribute):
        yield ast.Compare(ast.Constant(1), node.ops, node.comparators)


def _with(items: Iterable[Any], index: int, item: Any) -> list[Any]:
    return [item if place == index else each for place, each in enumerate(items)]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, TEXTS) or (isinstance(node, ast.Constant) and isinstance(node.value, str | bytes))
