"""The chains of this node's own offers, and the only writer of their records.

`OwnChains` is the state of the chains inside the transaction that appends to the node's log. `RecordWriter` writes one
record a transaction: it reads the log to its last entry, checks the record, and appends it. The state only includes
committed entries, so it stays correct after a failed commit or a crash. A statement that a record answers is searched
in all logs, checked, and copied into the own log before the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Lock
from typing import Final, TypeAlias

import structlog

from comity.ledger.entry_rows import MAX_LINES
from comity.ledger.ledger import Ledger
from comity.ledger.log_store import OwnLogTransaction
from comity.node.authors import AuthorVerifier
from comity.node.charter.inbox import find_inception
from comity.node.keys import NodeSigner
from comity.node.members import Membership
from comity.node.own_log import Compose
from comity.node.threads import AsyncLedger, Clock
from comity.rules.offers.chain import ChainState, GrantState
from comity.rules.offers.log_reader import OfferChain, OfferLogReader
from comity.rules.offers.records import ChainLink, PartyStatement, Record, is_party_statement, read_party_statement
from comity.rules.signing import statement_of
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import NotFound, Refused
from comity.trust.frozen import frozen
from comity.trust.statement import Author, Entry, Statement, parse_entry, sign_statement
from comity.trust.statement_kinds import OFFER_PREDICATES
from comity.wire.messages import LocatedEntry


class OwnChains:
    """The chains of this node's own offers. Thread-safe."""

    def __init__(self, ledger: AsyncLedger, membership: Membership, signer: NodeSigner) -> None:
        self._ledger = ledger
        self._membership = membership
        self._signer = signer
        self._node: Final[Author] = signer.record.node
        self._position = 0
        self._lock = Lock()
        self.log = OfferLogReader(membership.own_node.log)

    def refresh(self, transaction: OwnLogTransaction) -> OwnChains:
        """Read the entries that were appended since the last call. Entries of this log were verified when they were
        logged, and only this node writes records of its chains."""
        with self._lock:
            while self._position < transaction.size:
                end = min(transaction.size, self._position + MAX_LINES)
                for index, line in transaction.entries_with(OFFER_PREDICATES, self._position, end):
                    self._add(index, parse_entry(line))
                self._position = end
        return self

    def catch_up(self) -> None:
        """Read the log outside of a transaction, so that a long log does not block other writers at a start."""
        ledger, log = self._ledger.tables, self._membership.own_node.log
        self.refresh(OwnLogTransaction(ledger.logs.get(log).size, partial(ledger.index.entries_with, log)))

    def chain(self, offer: Digest) -> OfferChain:
        """The chain of an own offer, of any version. Raises NotFound (NO-OFFER)."""
        chain = self.log.chain_of(offer)
        if chain is None:
            raise no_offer(offer)
        return chain

    def sign_record(self, record: Record) -> bytes:
        """The line of a record, signed with this node's online key."""
        return self.sign(statement_of(record, self._node))

    def sign(self, statement: Statement) -> bytes:
        """The line of a statement, signed with this node's online key."""
        return sign_statement(statement, self._signer.online).line

    @property
    def node(self) -> Author:
        return self._node

    def missing(self, lines: Iterable[bytes]) -> list[bytes]:
        """Those of these lines (statements of identities) that are not in this log."""
        return [line for line in lines if parse_entry(line).digest not in self.log.statements]

    def _add(self, index: int, entry: Entry) -> None:
        by = entry.statement.by
        self.log.read(index, entry, by is not None and (by.kind == "identity" or self._is_this_node(by)))

    def _is_this_node(self, by: Author) -> bool:
        record = self._membership.node(by)
        return record is not None and str(record.log) == self._membership.own_node.log


def no_offer(offer: Digest) -> NotFound:
    return NotFound(
        "no such offer",
        why=f"no log at this node contains the offer {offer}",
        hint="comity offer ls",
        code="NO-OFFER",
    )


@frozen
class ProvenStatement:
    """A verified statement of an identity about an offer. `introduction`: lines that prove the keys of the identity and
    are missing in this node's own log."""

    entry: Entry
    content: PartyStatement
    introduction: tuple[bytes, ...]


def load_statement(ledger: Ledger, membership: Membership, line: Digest) -> ProvenStatement:
    """The statement with this line digest, from any log, in the envelope of the node's own log if it has one. Blocking.

    Raises NotFound (NO-STATEMENT, UNKNOWN-IDENTITY), Malformed, and Untrusted if its author did not sign it.
    """
    entry = _own_envelope(ledger, membership.own_node.log, _find(ledger, line))
    if not is_party_statement(entry.statement):
        raise _no_statement(f"{line} is not a statement of an identity about an offer")
    content = read_party_statement(entry.statement)
    AuthorVerifier(ledger, membership).verify(entry)
    return ProvenStatement(entry, content, _introduction(ledger, membership, content.by))


def _find(ledger: Ledger, line: Digest) -> Entry:
    for place in ledger.index.positions(line):
        return parse_entry(ledger.history.entry(place.vkey, place.index))
    raise _no_statement(f"no log at this node contains the line {line}")


def _own_envelope(ledger: Ledger, own_log: str, entry: Entry) -> Entry:
    """The entry of the own log with the same statement. An author can sign one statement in several envelopes. A record
    must name the line that the log contains, because readers of the log find no other."""
    index = ledger.index.first_index(own_log, entry.statement_digest)
    return entry if index is None else parse_entry(ledger.history.entry(own_log, index))


def _introduction(ledger: Ledger, membership: Membership, identity: Digest) -> tuple[bytes, ...]:
    """The inception of an identity without a seat; the charter proves the keys of members."""
    if membership.chains(identity):
        return ()
    found = find_inception(ledger, identity)
    if found is None or ledger.index.first_index(membership.own_node.log, found[1].statement_digest) is not None:
        return ()
    return (found[1].line,)


def _no_statement(why: str) -> NotFound:
    return NotFound(
        "no such statement",
        why=why,
        hint="submit its line to this node, or wait until the log that contains it is mirrored",
        code="NO-STATEMENT",
    )


Made: TypeAlias = "Sequence[bytes] | int"
"""Lines to append, or the index of the existing entry if the record was already written."""
MakeRecord: TypeAlias = "Callable[[ChainLink, GrantState], Record]"

_log: Final = structlog.get_logger("comity.node.offers")


class RecordWriter:
    """Writes records of this node's own chains, one record a transaction."""

    def __init__(
        self, ledger: AsyncLedger, membership: Membership, signer: NodeSigner, clock: Clock, compose: Compose
    ) -> None:
        self._ledger = ledger
        self._membership = membership
        self._clock = clock
        self._compose = compose
        self._own = OwnChains(ledger, membership, signer)

    async def write(self, make: Callable[[OwnChains], Made]) -> tuple[LocatedEntry, ...]:
        """Append the lines that `make` returns; returns the entries. If `make` raises, nothing is written."""
        existing: list[int] = []

        def lines(transaction: OwnLogTransaction) -> Sequence[bytes]:
            made = make(self._own.refresh(transaction))
            if isinstance(made, int):
                existing.append(made)
                return []
            return made

        await self._ledger.run(self._own.catch_up)
        written = await self._compose(lines)
        for index in existing:
            written.append(
                (index, await self._ledger.run(self._ledger.tables.history.entry, self._membership.own_node.log, index))
            )
        if not existing:
            for index, line in written:
                _log.info("offer record logged", index=index, line=sha256(line))
        return tuple(LocatedEntry(self._membership.own_node.record.origin, index, line) for index, line in written)

    async def answer(
        self, statement: ProvenStatement, grant: Digest, make: MakeRecord, *others: ProvenStatement
    ) -> tuple[LocatedEntry, ...]:
        """Write the record that answers the grantee's statement about a grant, once."""

        def lines(own: OwnChains) -> Made:
            chain, grant_state = find_grant(own, grant)
            if (record := chain.state.answers.get(statement.entry.digest)) is not None:
                return index_of(chain, record)
            if statement.content.by != grant_state.grant.grantee:
                why = "the statement is not signed by the grantee"
                raise Refused("not the grantee", why=why, code="OFFER-ELIGIBILITY")
            record_line = own.sign_record(self.linked(chain.state, make(unlinked(chain), grant_state)))
            return [*missing_lines(own, statement, *others), record_line]

        return await self.write(lines)

    async def record(self, grant: Digest, state: str, make: MakeRecord) -> tuple[LocatedEntry, ...]:
        """Write a record that needs no statement of the grantee and leaves the grant in `state`, once."""

        def lines(own: OwnChains) -> Made:
            chain, grant_state = find_grant(own, grant)
            if grant_state.state == state:
                return index_of(chain, grant_state.newest)
            return [own.sign_record(self.linked(chain.state, make(unlinked(chain), grant_state)))]

        return await self.write(lines)

    async def load_statement(self, line: Digest) -> ProvenStatement:
        """As the function `load_statement`, in a thread."""
        return await self._ledger.run(load_statement, self._ledger.tables, self._membership, line)

    def linked(self, state: ChainState, record: Record) -> Record:
        """The record, linked as the next one of its chain. Raises Refused."""
        return state.link(record, int(self._clock()))

    def now(self, state: ChainState) -> int:
        """The time of the next record of a chain, POSIX seconds."""
        return max(int(self._clock()), state.at)


def missing_lines(own: OwnChains, *statements: ProvenStatement) -> list[bytes]:
    """The lines of these statements that are missing in the own log, after the lines that prove their keys."""
    introductions = [line for item in statements for line in item.introduction]
    return list(dict.fromkeys((*introductions, *own.missing(item.entry.line for item in statements))))


def find_grant(own: OwnChains, grant: Digest) -> tuple[OfferChain, GrantState]:
    """A grant of this node. Raises Refused (OFFER-STATE)."""
    chain = own.log.chain_of_grant(grant)
    if chain is None:
        raise Refused(
            "no such grant", why=f"the log of this node does not contain the grant {grant}", code="OFFER-STATE"
        )
    return chain, chain.state.grants[grant]


def index_of(chain: OfferChain, record: Digest) -> int:
    """Index of a record in the log."""
    return chain.indexes[chain.state.number(record)]


def unlinked(chain: OfferChain) -> ChainLink:
    """A placeholder link, to be replaced by `RecordWriter.linked`."""
    return ChainLink(chain.state.chain, 0, None, 0, ())
