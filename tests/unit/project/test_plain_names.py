"""Names and prose have no retired word, a module has a readable size, and a class name has one meaning."""

from __future__ import annotations

import ast
import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[3]
PRODUCT = ("registry/comity", "clients/comity_client", "clients/comity_cli")
RETIRED = frozenset(
    """accuser acquaintance annals anew chamber council custody convictions desk desks docket dossier dossiers floor
    hearing hearings heard house leftovers liar liars lies memo parcel parcels pen pile piles proceedings rooms
    shelf sitting speaker speakers tenure voice voices whoever""".split()  # noqa: SIM905
)
"""CONTRIBUTING.md lists what to write instead."""
OF_ATTACKERS = frozenset({"liar", "liars", "lie", "lies"})
"""Tests have nodes and members that lie."""
OUTSIDE = frozenset({"schema_floor", "heard", "liars", "GetProceedings"})
"""Names that others rely on: a setting of the charter, keys of `comity status --json`, a call of the protocol."""
RETIRED_IN_PROSE = (
    ("whoever", "the caller, the reader, the member: the noun"),
    ("whomever", "the noun"),
    ("whosoever", "the noun"),
    ("anew", "again"),
    ("in passing", "closed immediately"),
    ("thinking half", "service"),
    ("thinking halves", "services"),
    ("owns up", "declares"),
    ("own up", "declare"),
    ("put upon", "rebased on"),
    ("as it likes", "arbitrary"),
    ("as they like", "arbitrary"),
    ("nobody's", "the noun and what it lacks"),
    ("made by hand", "built here"),
    ("comes of it", "the result"),
    ("comes of what", "the result of"),
    ("half way", "in the middle"),
)
"""Words of the old prose, and what to write instead: in comments, docstrings, texts and pages."""
PROSE = ("registry", "clients", "proto", "docs", "deploy", "tests", "bench")
WRITTEN = frozenset({".py", ".md", ".toml", ".json", ".pml", ".cpp", ".proto", ".html", ".yml", ".yaml"})
MOST_LINES = 900
LEAST_MEDIAN = 200
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NAME = re.compile(r"\w+")
_SPACES = re.compile(r"[\s#*]+")
_RETIRED_PROSE = re.compile(rf"\b(?:{'|'.join(old.replace(' ', _SPACES.pattern) for old, _ in RETIRED_IN_PROSE)})\b")
_CLASS = re.compile(r"^class\s+(\w+)", re.MULTILINE)


def modules(*folders: str) -> Iterator[Path]:
    """Every module with code of its own: not generated ones, nor the migrations of the ledger."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT / folder).parts
            if relative[0] != "v1" and "migrations" not in relative:
                yield path


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname


@functools.cache
def words(name: str) -> frozenset[str]:
    return frozenset(word.lower() for word in _WORD.findall(name))


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def retired_in(path: Path, retired: frozenset[str], *, sentences: bool = False) -> list[str]:
    """The lines of a module on which a retired word is a part of a name. `sentences`: names of tests may have one.

    A module is parsed only if a word of its text is such a name: the word may be a name, or in a comment.
    """

    def refused(name: str) -> bool:
        return bool(words(name) & retired) and name not in OUTSIDE and not (sentences and name.startswith("test_"))

    found, text = ["the module"] if words(path.stem) & retired else [], text_of(path)
    if any(map(refused, set(_NAME.findall(text)))):
        found += [f"{line}: {name}" for line, name in names(ast.parse(text)) if refused(name)]
    return [f"{path.relative_to(ROOT)}: {place}" for place in found]


def retired_prose(text: str) -> list[tuple[int, str]]:
    """Line numbers and retired expressions of a text. An expression may continue on the next line of a comment."""
    lower = text.lower()
    return [
        (lower.count("\n", 0, found.start()) + 1, _SPACES.sub(" ", found[0]))
        for found in _RETIRED_PROSE.finditer(lower)
    ]


def classes(path: Path) -> list[str]:
    return [node.name for node in ast.parse(text_of(path)).body if isinstance(node, ast.ClassDef)]


def test_no_retired_word_stands_in_a_name() -> None:
    paths = list(modules(*PRODUCT))
    assert len(paths) > 100
    assert [place for path in paths for place in retired_in(path, RETIRED)] == []


def test_no_retired_word_stands_in_a_name_of_the_tests() -> None:
    """A test's own name is a sentence, in which a word may have its everyday meaning."""
    paths = list(modules("tests"))
    assert len(paths) > 100
    assert [place for path in paths for place in retired_in(path, RETIRED - OF_ATTACKERS, sentences=True)] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a client of whoever asks", [(1, "whoever")]),
        ("# one\n# Whoever asks\n", [(2, "whoever")]),
        ("    # closed in\n    # passing\n", [(1, "in passing")]),
        ("It is made anew, for whoever asks.", [(1, "anew"), (1, "whoever")]),
        ("the caller asks again, with a renewed key", []),
        ("test_a_key_is_made_anew", []),
    ],
)
def test_a_retired_expression_is_found_with_its_line(text: str, found: list[tuple[int, str]]) -> None:
    assert retired_prose(text) == found


def prose_with_retired(folders: Iterable[str]) -> list[str]:
    """Where the files of these folders have retired expressions, and what to write instead."""
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.suffix in WRITTEN)
    paths = [path for path in found if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)]
    assert len(paths) > 100
    instead = dict(RETIRED_IN_PROSE)
    return [
        f"{path.relative_to(ROOT)}:{line}: {old}: {instead[old]}"
        for path in paths
        if path != Path(__file__)
        for line, old in retired_prose(text_of(path))
    ]


def test_prose_has_no_retired_expression() -> None:
    assert prose_with_retired(PROSE) == []


def test_a_module_is_a_topic_of_readable_size() -> None:
    sizes = {path: len(text_of(path).splitlines()) for path in modules(*PRODUCT)}
    assert {str(path): size for path, size in sizes.items() if size > MOST_LINES} == {}
    with_code = [sizes[path] for path in modules(*PRODUCT[:2]) if path.name != "__init__.py"]
    assert median(with_code) >= LEAST_MEDIAN


def test_a_class_name_has_one_meaning() -> None:
    written = {path: _CLASS.findall(text_of(path)) for path in modules(*PRODUCT)}
    often = {name for name, count in Counter(itertools.chain(*written.values())).items() if count > 1}
    suspects = [path for path, found in written.items() if often.intersection(found)]
    defined = Counter(name for path in suspects for name in classes(path))
    assert {name: count for name, count in defined.items() if count > 1} == {}
