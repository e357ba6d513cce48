"""Each module of the product has a test that imports it: rules that only a larger test reaches are found broken late.

A module of less than `LEAST` lines may be tested with the one that uses it. Generated stubs are tested by the calls; a
migration is tested by the ledgers that are made with it, and never changes again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from support import product

LEAST: Final = 100
NOT_BY_HAND: Final = ("comity.v1.", "comity.ledger.migrations.")
UNTESTED: Final[Mapping[str, str]] = {
    "comity.node.copies.controller": "it makes parts that have tests, and begins their loops",
}
"""Modules that no test imports, with the reason. A module is removed here when it has its test, and none is added."""
MOST: Final = 1
"""How many there are: this number only becomes smaller."""
_IMPORT: Final = re.compile(r"^\s*(?:import ([\w., ]+)|from ([\w.]+) import (?:\(([^)]*)\)|([^\n]*)))", re.MULTILINE)
_COMMENT: Final = re.compile(r"#[^\n]*")


def lines_by_module() -> dict[str, int]:
    """The modules of the product that are written by hand, with their lines."""
    return {
        name: path.read_text("utf-8").count("\n")
        for name, path in product.modules().items()
        if not name.startswith(NOT_BY_HAND)
    }


def imported(source: str) -> Iterator[str]:
    """The modules that a source imports, and the names in them, which may be modules too."""
    for plain, module, several, one in _IMPORT.findall(source):
        yield from (name.split(" as ")[0].strip() for name in plain.split(","))
        yield module
        for name in _COMMENT.sub("", several or one).split(","):
            yield f"{module}.{name.split(' as ')[0].strip()}"


def untested() -> set[str]:
    tested = {name for path in (product.ROOT / "tests").rglob("*.py") for name in imported(path.read_text("utf-8"))}
    return {name for name, lines in lines_by_module().items() if lines >= LEAST and name not in tested}


def test_each_large_module_is_imported_by_a_test() -> None:
    assert untested() == set(UNTESTED), "write a test of the module, at the path that mirrors it"
    assert len(UNTESTED) == MOST and all(UNTESTED.values())


def test_imports_are_found_in_each_form() -> None:
    source = "import a.b, c as d\nfrom e.f import (\n    g,  # why\n    h as i,\n)\nif True:\n    from j import k\n"
    assert {"a.b", "c", "e.f", "e.f.g", "e.f.h", "j", "j.k"} <= set(imported(source))
    assert "l" not in set(imported("# import l\ntext = 'import l'\n"))
