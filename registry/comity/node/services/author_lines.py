"""What a part of an answer takes of the lines of each author, within a number of bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from comity.ledger.proven import ProvenLine, ProvenPublication, ProvenTables
from comity.rules.fair_bytes import FairBytes
from comity.rules.precedence import Said
from comity.trust.encoding import Digest, sha256
from comity.trust.statement import parse_entry
from comity.wire import limits

KEYS_BYTES: Final = 8 * limits.MiB
"""Bytes of the keys of authors who are not members."""

L = TypeVar("L", ProvenLine, ProvenPublication)


def author_of(line: ProvenLine | ProvenPublication) -> Digest:
    """The id of who signed a proven statement."""
    if isinstance(line, ProvenPublication):
        return line.publisher
    by = parse_entry(line.line).statement.by
    assert by is not None  # a proven statement has an author
    return by.id


def take(taken: FairBytes[L], author: Digest, line: L, each: int | None = None) -> None:
    """Add a line of an author, if the line is not there. `each` is as `FairBytes.add` says."""
    taken.add(Said(author, sha256(line.line), line.vkey, line), len(line.line), each)


def keys_of(proven: ProvenTables, authors: Iterable[Digest]) -> FairBytes[ProvenLine]:
    """The inceptions and rotations of authors, of at most `KEYS_BYTES`. Blocking."""
    found = FairBytes[ProvenLine](KEYS_BYTES)
    for author, line in proven.each_key(authors):
        take(found, author, line)
    return found
