"""Reading a pile of claims: which of them are somebody's proven word about this artifact.

A line that does not parse or does not verify becomes a note and counts for nothing; it never hides a line that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from comity.trust.claims import Advisory, parse_advisory
from comity.trust.digest import Digest, short
from comity.trust.errors import ComityError, Untrusted
from comity.trust.identity import Inception, check_inception
from comity.trust.published import Published, check_published
from comity.trust.statement import Entry, parse_entry

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Publication:
    """A `published` statement with its publisher's proven record."""

    entry: Entry
    published: Published
    publisher: Inception


@dataclass(frozen=True, slots=True)
class Readings:
    """What the claims amount to. `failed` counts `published` lines about the artifact that did not verify, `orphans`
    those whose publisher's inception is not among the claims."""

    entries: tuple[Entry, ...]
    inceptions: dict[Digest, Inception]
    publications: tuple[Publication, ...]
    failed: int
    orphans: tuple[Digest, ...]
    notes: tuple[str, ...] = field(default=())


def read_claims(lines: Iterable[bytes], artifact: Digest) -> Readings:
    """Parse every line once, prove inceptions, then the publications of `artifact`."""
    notes: list[str] = []
    entries = [entry for line in dict.fromkeys(lines) if (entry := _try(parse_entry, line, notes)) is not None]
    proven = (_try(check_inception, e, notes) for e in entries if e.statement.predicate == "inception")
    inceptions = {inception.id: inception for inception in proven if inception is not None}
    publications, failed, orphans = [], 0, []
    for entry in entries:
        statement = entry.statement
        if statement.predicate != "published" or artifact not in {s.digest for s in statement.subjects}:
            continue
        publisher = inceptions.get(statement.by.id) if statement.by else None
        if publisher is None:
            if statement.by is not None:
                orphans.append(statement.by.id)
            continue
        published = _try(lambda e, who=publisher: check_published(e, who), entry, notes)
        if published is None:
            failed += 1
        else:
            publications.append(Publication(entry, published, publisher))
    return Readings(tuple(entries), inceptions, tuple(publications), failed, tuple(orphans), tuple(notes))


def proven_advisories(readings: Readings, artifact: Digest) -> tuple[Advisory, ...]:
    """Advisories about `artifact` that an identity among the claims really signed. A node's are not proven here."""
    found = []
    for entry in readings.entries:
        statement = entry.statement
        if statement.predicate != "advisory" or statement.subject != artifact or statement.by is None:
            continue
        issuer = readings.inceptions.get(statement.by.id)
        if statement.by.kind == "identity" and issuer is not None and issuer.keys.signed(entry.envelope):
            advisory = _try(parse_advisory, statement, [])
            if advisory is not None:
                found.append(advisory)
    return tuple(found)


def _try(step: Callable[[object], T] | Callable[..., T], subject: object, notes: list[str]) -> T | None:
    try:
        return step(subject)
    except ComityError as error:
        notes.append(_note(subject, error))
        return None


def _note(subject: object, error: ComityError) -> str:
    kind = "did not verify" if isinstance(error, Untrusted) else "could not be read"
    name = f"{subject.statement.predicate} {short(subject.digest)}" if isinstance(subject, Entry) else "a claim line"
    return f"{name} {kind} and counts for nothing: {error}"
