"""Select the lines from nodes that are proven; the others are counted and dropped.

(1) cheap checks     lines that do not parse, or whose author cannot be known here, are dropped
(2) keys             inceptions that hash to their id, rotations that extend a chain, node records of pinned members
(3) statements       each is verified with the keys of its author

A limit applies only to proven lines, in the order of `comity.rules.precedence`: so the lines of one node never displace
those of another, and those of others never displace those of a preferred author or a member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from comity.rules.precedence import Bounds, Precedence, Said, select
from comity.trust.bound_nodes import BoundNode, bind_nodes
from comity.trust.charter.document import Body
from comity.trust.claims import KnownAuthors, ParsedClaims
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.evidence import MAX_CLAIMS, MAX_READ, EvidenceReader
from comity.trust.identity import Inception, check_inception
from comity.trust.rotation import KeyState, RotationChains
from comity.trust.statement import Entry
from comity.trust.statement_kinds import INCEPTION, KEY_PREDICATES, PROVING_PREDICATES, ROTATED

_RANKS = {"published": 0, "hold": 1, "holds": 1, "observed": 2, "advisory": 3}


@dataclass(frozen=True, slots=True)
class ProvenStatements:
    """Proven statements. `sources` has the entries by sender (for example the verifier key of the log of a node), in
    order of arrival, without duplicates; `unproven` counts the dropped lines of each sender."""

    inceptions: Mapping[Digest, Entry]
    readings: ParsedClaims
    bound: tuple[BoundNode, ...]
    sources: Mapping[str, tuple[Entry, ...]]
    unproven: Mapping[str, int] = field(default_factory=dict)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All statements, in the order of the sources, without duplicates."""
        return tuple({entry.statement_digest: entry for said in self.sources.values() for entry in said}.values())

    def keys_of(self, identity: Digest) -> tuple[Entry, ...]:
        """Return the inception of an identity and all rotations of its chain."""
        inception, chain = self.inceptions.get(identity), self.readings.chain(identity)
        return () if inception is None or chain is None else (inception, *(step.entry for step in chain.steps))

    def notes(self) -> tuple[str, ...]:
        """Return notes for the user about dropped lines."""
        return tuple(
            f"{source.partition('+')[0]} gave {count} unproven line{'s' * (count != 1)}, dropped"
            for source, count in self.unproven.items()
            if count
        )


def prove_lines(
    sources: Mapping[str, Iterable[bytes]],
    bodies: Sequence[Body],
    records: Sequence[Entry],
    wanted: Callable[[Entry], bool] = lambda entry: True,
    reader: EvidenceReader | None = None,
) -> ProvenStatements:
    """Verify lines. Invalid lines are dropped, not raised.

    Args:
        sources: the lines, by sender.
        bodies: pinned charter bodies, whose members and nodes are known.
        records: node records that are known already; an answer need not repeat them.
        wanted: selects the statements to verify, in addition to those about keys and nodes; the others are not counted
            as proven.
        reader: that of the session; default: a new one.
    """
    reader = reader or EvidenceReader()
    read = {name: _read(lines, reader) for name, lines in sources.items()}
    entries = list({entry.line: entry for said in (records, *read.values()) for entry in said}.values())
    lines = _inceptions(entries)
    inceptions = {identity: inception for identity, (_, inception) in lines.items()}
    chains = RotationChains(entry for entry in entries if entry.statement.predicate == ROTATED)
    readings = ParsedClaims((), inceptions, chains, (), 0, ())
    bound, _, _ = bind_nodes(bodies, entries, chains)
    seats = [seat for body in bodies for seat in body.members]
    starts = [KeyState.of_inception(each) for each in inceptions.values()] + [seat.key_state for seat in seats]
    proven = {entry.statement_digest: entry for entry, _ in lines.values()}
    proven |= {node.entry.statement_digest: node.entry for node in bound}
    proven |= {s.entry.statement_digest: s.entry for start in starts for s in chains.follow(start).steps}
    proven |= _signed_statements(entries, KnownAuthors(readings, bound, seats), wanted)
    kept = {name: _distinct(proven, said) for name, said in read.items()}
    unproven = {name: len(said) - sum(e.statement_digest in proven for e in said) for name, said in read.items()}
    return ProvenStatements({who: entry for who, (entry, _) in lines.items()}, readings, bound, kept, unproven)


def choose(
    proven: ProvenStatements,
    first: Iterable[Entry],
    prefer: Sequence[Digest],
    most: int = MAX_CLAIMS,
    size: int = MAX_READ,
) -> tuple[tuple[bytes, ...], int]:
    """Return as many of the proven lines as a verifier reads, each with the keys of its author, and the number left
    out.

    Args:
        first: entries that come before all others (node records of the pinned federations).
        prefer: authors whose lines come first in each turn, for example publishers that the owner trusts.
    """
    chosen: dict[Digest, bytes] = {}
    for entry in first:
        chosen.setdefault(entry.statement_digest, entry.line)
    remaining, left = size - sum(len(line) + 1 for line in chosen.values()), 0
    for bundle in _in_turn(proven, prefer):
        new = {entry.statement_digest: entry.line for entry in bundle if entry.statement_digest not in chosen}
        cost = sum(len(line) + 1 for line in new.values())
        if len(chosen) + len(new) > most or cost > remaining:
            left += len(new)
            continue
        chosen |= new
        remaining -= cost
    return tuple(chosen.values()), left


def _in_turn(proven: ProvenStatements, prefer: Sequence[Digest]) -> Iterator[tuple[Entry, ...]]:
    """Yield the statements of preferred authors, then those of members, then the others, each with the keys of its
    author before it. In each group, the authors of each source take turns, the most decisive statements first."""
    nodes = {node.record.node.id: node for node in proven.bound}
    precedence = Precedence(frozenset(prefer), frozenset({*nodes, *(node.record.member for node in proven.bound)}))
    said = [
        Said(author, entry.statement_digest, source, entry)
        for source, entries in proven.sources.items()
        for author, own in _authors(entries).items()
        for entry in own
    ]
    every = Bounds(len(said), len(said), len(said), len(said))
    return ((*_keys(proven, nodes, entry), entry) for entry in select(said, precedence, every).found)


def _keys(proven: ProvenStatements, nodes: Mapping[Digest, BoundNode], entry: Entry) -> tuple[Entry, ...]:
    """Return the entries that prove the author of the entry."""
    by = entry.statement.by
    if by is None:
        return ()
    if by.kind == "node":
        return (nodes[by.id].entry,) if by.id in nodes else ()
    return proven.keys_of(by.id)


def _authors(said: Iterable[Entry]) -> dict[Digest, list[Entry]]:
    """Return the statements by author, the most decisive first; keys come with the statements that they sign."""
    found: dict[Digest, list[Entry]] = {}
    for entry in said:
        if entry.statement.by is not None and entry.statement.predicate not in KEY_PREDICATES:
            found.setdefault(entry.statement.by.id, []).append(entry)
    return {author: sorted(entries, key=_rank) for author, entries in found.items()}


def _rank(entry: Entry) -> int:
    return _RANKS.get(entry.statement.predicate, len(_RANKS))


def _read(lines: Iterable[bytes], reader: EvidenceReader) -> list[Entry]:
    """Return the distinct lines that parse."""
    return [entry for line in dict.fromkeys(lines) if (entry := reader.readable(line)) is not None]


def _inceptions(entries: Iterable[Entry]) -> dict[Digest, tuple[Entry, Inception]]:
    found: dict[Digest, tuple[Entry, Inception]] = {}
    for entry in entries:
        if entry.statement.predicate != INCEPTION or entry.statement.subject in found:
            continue
        try:
            inception = check_inception(entry)
        except ComityError:
            continue
        found[inception.id] = entry, inception
    return found


def _signed_statements(
    entries: Iterable[Entry], authors: KnownAuthors, wanted: Callable[[Entry], bool]
) -> dict[Digest, Entry]:
    """Return the statements with a valid signature of a known author, each in its shortest envelope."""
    said: dict[Digest, Entry] = {}
    for entry in entries:
        if entry.statement.predicate in PROVING_PREDICATES or not wanted(entry):
            continue
        known = said.get(entry.statement_digest)
        if (known is None or len(entry.line) < len(known.line)) and authors.author_of(entry) is not None:
            said[entry.statement_digest] = entry
    return said


def _distinct(proven: Mapping[Digest, Entry], said: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the proven entries, each statement once, in order of arrival."""
    digests = dict.fromkeys(entry.statement_digest for entry in said)
    return tuple(proven[digest] for digest in digests if digest in proven)
