"""The table of kinds of statements is what readers, documents and the rest of the product go by."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from comity.rules.statement_readers import read_content
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.statement import PAYLOAD_TYPE, Author, Entry, Envelope, Statement
from comity.trust.statement_kinds import STATEMENT_KINDS, AuthorRule
from support import product
from support.documents import statements

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = [Statement.parse(payload) for payload in statements()]
OTHER = {"identity": Author("node", Digest("c" * 64)), "node": Author("identity", Digest("c" * 64))}


def entry(statement: Statement) -> Entry:
    return Entry(b"", Envelope(PAYLOAD_TYPE, statement.encode(), ()), statement)


def test_every_kind_has_a_reader_and_a_sample_by_every_author_that_it_allows() -> None:
    for kind in STATEMENT_KINDS.values():
        samples = [said for said in SAMPLES if said.predicate == kind.predicate]
        assert samples, kind
        assert all(read_content(entry(said)) is not None for said in samples), kind
        authors = {said.by.kind for said in samples if said.by is not None}
        if kind.by is not AuthorRule.ANYONE:
            assert authors == {author for author in OTHER if kind.by.allows(author)}, kind


@pytest.mark.parametrize("said", SAMPLES, ids=[said.predicate for said in SAMPLES])
def test_an_author_that_the_kind_does_not_allow_is_refused(said: Statement) -> None:
    assert said.by is not None
    other = OTHER[said.by.kind]
    if not STATEMENT_KINDS[said.predicate].by.allows(other.kind):
        with pytest.raises(ComityError):
            read_content(entry(replace(said, by=other)))
    with pytest.raises(Malformed):
        said.author("advisory" if said.predicate != "advisory" else "vouched")


def test_an_unknown_predicate_has_no_content() -> None:
    said = next(one for one in SAMPLES if not one.objects)
    assert read_content(entry(replace(said, predicate="of-tomorrow"))) is None


def test_the_protocol_has_a_row_for_each_kind_with_its_authors() -> None:
    page = (ROOT / "docs/protocol.md").read_text("utf-8").partition("| predicate | by | content |")[2]
    found: dict[str, set[str]] = {}
    for row in page.partition("\n\n")[0].splitlines()[2:]:
        _, predicates, by, *_ = row.split("|")
        for predicate in re.findall(r"`([a-z-]+)`", predicates):
            found.setdefault(predicate, set()).update(by.replace(" and ", " ").split())
    words = {"anyone": {"identity", "node"}, "publisher": {"identity"}, "member": {"identity"}}
    for predicate, kind in STATEMENT_KINDS.items():
        if kind.logged:
            authors = set().union(*(words.get(word, {word}) for word in found.pop(predicate)))
            assert authors == {author for author in OTHER if kind.by.allows(author)}, predicate
    assert not found


def _comparisons(path: Path) -> Iterator[str]:
    """Predicates that a module compares with as a text of its own."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Compare) and "predicate" in ast.unparse(node.left):
            for each in ast.walk(node):
                if isinstance(each, ast.Constant) and isinstance(each.value, str) and each.value in STATEMENT_KINDS:
                    yield f"{path.relative_to(ROOT)}:{node.lineno} {each.value}"


NO_OTHER_WORD = {"inception", "rotated", "published", *(kind for kind in STATEMENT_KINDS if "-" in kind)}
"""Predicates that mean nothing else in a node, so that their text is a second spelling wherever it stands."""


def _texts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in NO_OTHER_WORD:
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.value}"


def test_no_module_of_a_node_spells_a_predicate_again() -> None:
    folders = tuple(f"comity.{name}." for name in ("gateway", "ledger", "node", "rules", "trust", "wire"))
    apart = ("comity.trust.statement_kinds", "comity.ledger.migrations")
    modules = (
        path for name, path in product.modules().items() if name.startswith(folders) and not name.startswith(apart)
    )
    assert [found for path in modules for found in _texts(path)] == []


def test_no_module_compares_with_a_predicate_of_its_own_spelling() -> None:
    assert [found for path in product.modules().values() for found in _comparisons(path)] == []
