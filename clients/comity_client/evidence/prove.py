"""Select the lines from nodes that are proven; the others are counted and dropped.

(1) cheap checks     lines that do not parse, or whose author cannot be known here, are dropped
(2) keys             inceptions that hash to their id, rotations that extend a chain, node records of pinned members
(3) statements       each is verified with the keys of its author

What is proven stays known while a command asks on: a line that several nodes send, or one node for several questions,
is proven once.

A limit applies only to proven lines, in the order of `comity.rules.precedence`: so the lines of one node never displace
those of another, and those of others never displace those of a preferred author or a member.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field

from comity.rules.precedence import Bounds, Precedence, Said, select
from comity.trust.bound_nodes import BoundNode, bind_nodes
from comity.trust.charter.document import Body
from comity.trust.claims import KnownAuthors, ParsedClaims
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.evidence import MAX_CLAIMS, MAX_READ, EvidenceReader
from comity.trust.frozen import frozen
from comity.trust.identity import Inception, check_inception
from comity.trust.rotation import KeyState, RotationChains
from comity.trust.statement import Entry
from comity.trust.statement_kinds import INCEPTION, KEY_PREDICATES, NODE_RECORD, PROVING_PREDICATES, ROTATED

_RANKS = {"published": 0, "hold": 1, "holds": 1, "observed": 2, "advisory": 3}


@frozen
class ProvenStatements:
    """Proven statements of one answer, and all keys that are known. `sources` has the entries by sender (for example
    the verifier key of the log of a node), in order of arrival, without duplicates; `unproven` counts the dropped lines
    of each sender; `entries` are all statements, in the order of the sources, without duplicates."""

    inceptions: Mapping[Digest, Entry]
    readings: ParsedClaims
    bound: tuple[BoundNode, ...]
    sources: Mapping[str, tuple[Entry, ...]]
    unproven: Mapping[str, int]
    entries: tuple[Entry, ...] = field(init=False)

    def __post_init__(self) -> None:
        every = {entry.statement_digest: entry for said in self.sources.values() for entry in said}
        object.__setattr__(self, "entries", tuple(every.values()))

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


class Prover:
    """Proves lines, and keeps what it proved, until that is more than a verifier reads. Invalid lines are dropped, not
    raised. Not thread-safe.

    Args:
        bodies: pinned charter bodies, whose members and nodes are known.
        known: node records, inceptions and rotations that are known already; an answer need not repeat them.
        reader: that of the session; default: a new one.
    """

    def __init__(self, bodies: Sequence[Body], known: Iterable[Entry] = (), reader: EvidenceReader | None = None):
        self._bodies = tuple(bodies)
        self._seats = [seat for body in bodies for seat in body.members]
        self._known = tuple({entry.line: entry for entry in known}.values())
        self._reader = reader or EvidenceReader()
        self._begin()

    def _begin(self) -> None:
        self._inceptions: dict[Digest, tuple[Entry, Inception]] = {}
        self._keys: dict[bytes, Entry] = {}
        self._chains = RotationChains()
        self._bound: tuple[BoundNode, ...] | None = None
        self._proven: dict[Digest, Entry] = {}
        self._learn_inceptions(self._known)
        self._learn_keys(self._known)

    @property
    def proven(self) -> tuple[Entry, ...]:
        """What is proven and kept, the newest last; first what was known already."""
        return tuple(self._proven.values())

    def prove(
        self, sources: Mapping[str, Iterable[bytes]], wanted: Callable[[Entry], bool] = lambda entry: True
    ) -> ProvenStatements:
        """Verify the lines of each sender.

        Args:
            wanted: selects the statements to verify, in addition to those about keys and nodes; the others are not
                counted as proven.
        """
        if sum(len(entry.line) for entry in self._proven.values()) > MAX_READ:
            self._begin()
        here = {entry.line: entry for entry in self._proven.values()}
        read = {name: _read(lines, here, self._reader) for name, lines in sources.items()}
        entries = {entry.line: entry for said in read.values() for entry in said}.values()
        self._learn_inceptions(entries)
        self._learn_keys(entries)
        inceptions = {identity: inception for identity, (_, inception) in self._inceptions.items()}
        readings, bound = ParsedClaims((), inceptions, self._chains, (), 0, ()), self._bound or ()
        self._prove_statements(entries, KnownAuthors(readings, bound, self._seats), wanted)
        kept = {name: self._kept(said, wanted) for name, said in read.items()}
        unproven = {name: sum(not self._counts(each, wanted) for each in said) for name, said in read.items()}
        lines = {identity: entry for identity, (entry, _) in self._inceptions.items()}
        return ProvenStatements(lines, readings, bound, kept, unproven)

    def _learn_inceptions(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if entry.statement.predicate != INCEPTION or entry.statement.subject in self._inceptions:
                continue
            try:
                inception = check_inception(entry)
            except ComityError:
                continue
            self._inceptions[inception.id] = entry, inception
            self._proven[entry.statement_digest] = entry

    def _learn_keys(self, entries: Iterable[Entry]) -> None:
        """Follow the rotations and bind the nodes again if there are new ones; those that prove nothing are dropped."""
        kinds = (ROTATED, NODE_RECORD)
        new = {e.line: e for e in entries if e.statement.predicate in kinds and e.line not in self._keys}
        if self._bound is not None and not new:
            return
        known = [*self._keys.values(), *new.values()]
        self._chains = RotationChains(known)
        self._bound, _, _ = bind_nodes(self._bodies, known, self._chains)
        starts = [KeyState.of_inception(each) for _, each in self._inceptions.values()]
        starts += [seat.key_state for seat in self._seats]
        steps = (step.entry for start in starts for step in self._chains.follow(start).steps)
        self._keys = {entry.line: entry for entry in (*steps, *(node.entry for node in self._bound))}
        self._proven |= {entry.statement_digest: entry for entry in self._keys.values()}

    def _prove_statements(
        self, entries: Iterable[Entry], authors: KnownAuthors, wanted: Callable[[Entry], bool]
    ) -> None:
        """Keep the statements with a valid signature of a known author, each in its shortest envelope."""
        for entry in entries:
            if entry.statement.predicate in PROVING_PREDICATES or not wanted(entry):
                continue
            known = self._proven.get(entry.statement_digest)
            if (known is None or len(entry.line) < len(known.line)) and authors.author_of(entry) is not None:
                self._proven[entry.statement_digest] = entry

    def _counts(self, entry: Entry, wanted: Callable[[Entry], bool]) -> bool:
        asked = entry.statement.predicate in PROVING_PREDICATES or wanted(entry)
        return asked and entry.statement_digest in self._proven

    def _kept(self, said: Iterable[Entry], wanted: Callable[[Entry], bool]) -> tuple[Entry, ...]:
        """The proven entries, each statement once, in order of arrival."""
        digests = dict.fromkeys(entry.statement_digest for entry in said if self._counts(entry, wanted))
        return tuple(self._proven[digest] for digest in digests)


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


def _read(lines: Iterable[bytes], here: Mapping[bytes, Entry], reader: EvidenceReader) -> list[Entry]:
    """Return the distinct lines that parse. `here`: those that were read before."""
    found: list[Entry] = []
    for line in dict.fromkeys(lines):
        with contextlib.suppress(Malformed):
            found.append(here.get(line) or reader.entry(line))
    return found
