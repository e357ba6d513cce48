"""What is said about the successor of one body: proven statements, within a share for each author in each log.

A statement is its payload: another envelope of one that was counted costs nothing. Each author has a share of its own
in each log, so that nobody else can use it up, and what is kept of a share is the first of it, in the order of that
log: every node that holds the log keeps the same. In the logs of its own nodes a member has the large share, which an
honest member never fills: it says two statements a round. Elsewhere, where anybody may hand in what it once signed, it
has a small one.

Beyond its share a reading is kept if another member names its round and body in a reading that is kept: what an honest
member's readings rest on stays at hand everywhere, however much the author of it has said besides. So what one member
says takes no place from another, and the order in which logs are read decides nothing.

    grows with                                bound              charged to       at the bound
    statements of a member in its own logs    AT_HOME a log      the author       passed over; the status names the log
    in another log                            ELSEWHERE a log    the author       passed over; the status names the log
    readings beyond that, that others name    MAX_BEYOND a log   who names them   passed over
    envelopes of one statement in one log     MAX_ENVELOPES      the log          passed over, as copies
    rounds of bodies that were passed over    MAX_PASSED         all              logs are read again at each new need


What the logs held here say about the next epoch, gathered as they grow.

Of each log the proven statements are read in the order in which this node proved them, a window at a time and in turn
with the other logs, so that a long one keeps nobody waiting. A line counts by its signature wherever it stands; whose
it is says the seat that some epoch gives its author.
What is looked at of one author in one log is bounded before a signature is judged (`hearing`; `MAX_ROTATIONS` and
`MAX_NEWCOMING` here), by the order of that log alone: nodes that hold the same logs look at the same lines.


Signatures that were found good or bad already: each deliberation asks for the same ones again.

Lines of people without a seat on which a draft may rest: inceptions, rotations, consents of those it would admit.

They are looked up by the ids that a draft names, since anybody at all may have logged an inception. Blocking.


Charter bodies that drafts name, read from the store when somebody looks at them."""

from __future__ import annotations

import contextlib
from collections import ChainMap, OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from threading import Lock
from typing import Final, TypeAlias

from comity.content.blobs import BlobStore
from comity.ledger.ledger import Ledger
from comity.ledger.proven import ProvenLine
from comity.node.context import NodeContext
from comity.trust.charter.document import MAX_BYTES, Body
from comity.trust.charter.equivocation import MISBEHAVIOUR
from comity.trust.charter.tally import MAX_BODIES
from comity.trust.charter.votes import (
    ADOPTED,
    CONSENTED,
    DRAFT,
    INTENT,
    LEFT,
    RATIFIED,
    Intent,
    Ratify,
    Reading,
    read_reading,
    void,
)
from comity.trust.encoding import Digest, bare_digest, sha256
from comity.trust.errors import ComityError, Malformed, Unavailable
from comity.trust.identity import Inception, KeySet, check_inception
from comity.trust.keys import PublicKey
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import MAX_LINE, Author, Entry, Envelope, Statement, parse_entry

SPOKEN: Final = (DRAFT, INTENT, RATIFIED, CONSENTED, LEFT)
"""What members say about the next epoch."""
MAX_ENVELOPES: Final = 4
MAX_BEYOND: Final = 1024
MAX_PASSED: Final = 4096

RoundBody: TypeAlias = "tuple[int, Digest]"
_Spot: TypeAlias = "tuple[str, Digest, int, Digest, int | None]"
"""For which votes a reading can count: kind, member, round, body, unlock."""


@dataclass(frozen=True, slots=True)
class AuthorQuota:
    """Of one author in one log: statements, bytes of their lines, and bytes of charter bodies that it puts forward."""

    statements: int
    size: int
    drafted: int


AT_HOME: Final = AuthorQuota(256, 2 * 1024 * 1024, 2 * MAX_BYTES)
ELSEWHERE: Final = AuthorQuota(32, 256 * 1024, MAX_BYTES)


@dataclass(slots=True)
class AuthorUsage:
    """What one author has used of its share in one log. `counted`: how many envelopes of each statement were judged."""

    bound: AuthorQuota
    size: int = 0
    drafted: int = 0
    counted: dict[Digest, int] = field(default_factory=dict)
    beyond: int = 0
    """Envelopes that were judged beyond it."""
    full: bool = False

    def takes(self, entry: Entry) -> bool:
        """Whether the statement has a place here; then it is counted, once however often it comes."""
        statement = entry.statement_digest
        if statement in self.counted:
            return True
        drafted = sum(item.size for item in entry.statement.objects) if entry.statement.predicate == DRAFT else 0
        size, drafted = self.size + len(entry.line), self.drafted + drafted
        self.full = self.full or len(self.counted) >= self.bound.statements or size > self.bound.size
        if self.full or drafted > self.bound.drafted:
            return False
        self.size, self.drafted, self.counted[statement] = size, drafted, 0
        return True

    def judges(self, entry: Entry) -> bool:
        """Whether one more envelope of a counted statement is worth a look."""
        tried = self.counted[entry.statement_digest]
        self.counted[entry.statement_digest] = tried + 1
        return tried < MAX_ENVELOPES


@dataclass(slots=True)
class VoteInbox:
    """What was said about one body's successor, by statement digest. Who asks has proven what is put in."""

    entries: dict[Digest, Entry] = field(default_factory=dict)
    shares: dict[tuple[str, Digest], AuthorUsage] = field(default_factory=dict)
    """By log and author."""
    _naming: dict[RoundBody, set[Digest]] = field(default_factory=dict)
    """Who names a round of a body: two are enough to know."""
    _spots: set[_Spot] = field(default_factory=set)
    _passed: set[RoundBody] = field(default_factory=set)
    """Rounds and bodies of readings that were passed over, of whatever author."""
    stale: bool = False
    """Whether something that was passed over is needed by now: the logs are to be read again."""

    def full(self) -> tuple[tuple[str, Digest], ...]:
        """Logs and authors of which more was said than is kept."""
        return tuple(key for key, share in self.shares.items() if share.full)

    def wants(self, log: str, entry: Entry, *, home: bool = False) -> bool:
        """Whether it is worth to prove an entry that stands in a log; it is charged to its author's share there.

        `home`: the log is one of the author's own.
        """
        by = entry.statement.by
        if by is None:
            return False
        share = self.shares.setdefault((log, by.id), AuthorUsage(AT_HOME if home else ELSEWHERE))
        fits = share.takes(entry)
        if entry.statement_digest in self.entries:
            return False
        return share.judges(entry) if fits else self._is_needed(share, entry)

    def put(self, entry: Entry) -> bool:
        """Keep a proven entry; whether it was new."""
        if entry.statement_digest in self.entries:
            return False
        self.entries[entry.statement_digest] = entry
        reading = _reading(entry)
        if reading is not None:
            self._spots.add(_spot(reading))
            for named in _named(reading):
                self._name(named, reading.member)
        return True

    def drop(self, statement: Digest) -> None:
        """An entry matters no longer."""
        self.entries.pop(statement, None)

    def read_again(self) -> None:
        """Logs are read from their beginning: what was used of shares is counted anew."""
        self.shares.clear()
        self._passed.clear()
        self.stale = False

    def named(self) -> Iterator[Digest]:
        """Bodies that were put forward or read for: of each author the few that a council may look at."""
        by_author: dict[Digest, list[tuple[int, int, Digest]]] = {}
        for entry in self.entries.values():
            if entry.statement.predicate == LEFT or entry.statement.by is None:
                continue
            reading = _reading(entry)
            rank = (2, 0) if reading is None else (0 if isinstance(reading, Ratify) else 1, -reading.round)
            by_author.setdefault(entry.statement.by.id, []).append((*rank, entry.statement.subject))
        for bodies in by_author.values():
            yield from list(dict.fromkeys(body for *_, body in sorted(bodies)))[: 2 * MAX_BODIES]

    def _is_needed(self, share: AuthorUsage, entry: Entry) -> bool:
        """Whether an entry beyond the share is a reading on which what another member says may rest."""
        reading = _reading(entry)
        if reading is None or (isinstance(reading, Intent) and void(reading) is not None):
            return False
        spot, named = _spot(reading), _named(reading)
        if spot in self._spots:
            return False
        if not all(self._named_by_another(pair, reading.member) for pair in named):
            for pair in named if len(self._passed) < MAX_PASSED else ():
                self._passed.add(pair)
            return False
        share.beyond += 1
        return share.beyond <= MAX_BEYOND

    def _named_by_another(self, pair: RoundBody, member: Digest) -> bool:
        return bool(self._naming.get(pair, set()) - {member})

    def _name(self, pair: RoundBody, member: Digest) -> None:
        names = self._naming.setdefault(pair, set())
        if member not in names and len(names) < 2:
            names.add(member)
            self.stale = self.stale or pair in self._passed or len(self._passed) >= MAX_PASSED


def about(statement: Statement) -> Digest | None:
    """The body whose successor a statement is about; None where it does not say so."""
    name = "body" if statement.predicate == LEFT else "prev"
    try:
        return bare_digest(statement.body.get(name))
    except Malformed:
        return None


def _reading(entry: Entry) -> Reading | None:
    if entry.statement.predicate not in (INTENT, RATIFIED):
        return None
    try:
        return read_reading(entry)
    except ComityError:
        return None


def _spot(reading: Reading) -> _Spot:
    unlock = reading.unlock if isinstance(reading, Intent) else None
    return (type(reading).__name__, reading.member, reading.round, reading.body, unlock)


def _named(reading: Reading) -> list[RoundBody]:
    """The rounds of its body that a reading is of, or rests on."""
    unlock = reading.unlock if isinstance(reading, Intent) else None
    rounds = (reading.round,) if unlock is None else (reading.round, unlock)
    return [(at, reading.body) for at in rounds]


WINDOW: Final = 256
"""Statements of one log that are read in one turn."""
NEWCOMING: Final = ("inception", "rotated", CONSENTED)
"""What matters of those without a seat whom a draft would admit; it is looked up when a draft is weighed."""
READ: Final = (*SPOKEN, "inception", "rotated", MISBEHAVIOUR, ADOPTED)
MAX_ROTATIONS_A_LOG: Final = 16
"""Different rotations of one member that are looked at in one log; later ones are passed over."""
MAX_NEWCOMING: Final = 16
"""Statements of one newcomer in one log for which drafts are weighed anew."""

Signed = Callable[[KeySet, Envelope], bool]


@dataclass(slots=True)
class ReadStep:
    """What one turn over the logs brought. `behind`: some log has more to read."""

    heard: set[Digest] = field(default_factory=set)
    """Bodies about whose successor something new was said."""
    rotated: list[Entry] = field(default_factory=list)
    adopted: dict[str, Entry] = field(default_factory=dict)
    """By log, the last that its own node says there."""
    newcoming: set[Digest] = field(default_factory=set)
    """Those whom a draft would admit and who have said something."""
    behind: bool = False


@dataclass(frozen=True, slots=True)
class _Writer:
    """A log, the nodes that write it, and their member; None where no record tells."""

    log: str
    nodes: frozenset[Author]
    member: Digest | None


class VoteReader:
    """Hearings by the body that they are about. Touched by the event loop only."""

    def __init__(self, core: NodeContext, signed: Signed) -> None:
        self._core = core
        self._signed = signed
        self._read: dict[str, int] = {}
        """By log, the number of the last proven statement that was read."""
        self._beginning = 0
        """How often the logs were begun anew: a page that was asked for before that is not the next one."""
        self._hearings: dict[Digest, VoteInbox] = {}
        self._decided: dict[Digest, Digest] = {}
        self._seen: dict[tuple[str, Digest], dict[Digest, int]] = {}
        """By log and author, the rotations and newcomers' statements that were looked at, and how many envelopes."""
        self._again = False
        self.hopefuls: frozenset[Digest] = frozenset()
        """Those without a seat whom some draft would admit."""

    def open(self, body: Digest, successor: Digest | None = None) -> None:
        """Hear what is said about the successor of `body`, from the beginning of every log: it may stand anywhere.

        Where the successor is decided, what was put forward and read in its place still matters: readings may convict a
        liar, and a draft that lost may be put upon the one that won.
        """
        self._begin()
        if successor is not None:
            self._decided[body] = successor
            for digest, entry in list(self.about(body).entries.items()):
                if not self._matters(body, entry):
                    del self._hearings[body].entries[digest]
        self._hearings.setdefault(body, VoteInbox())

    def rehear(self) -> None:
        """Read all logs again when they were read to their end: somebody speaks by other keys now, and lines that were
        passed over may count. However many keys somebody takes, that is once a reading."""
        self._again = True

    def about(self, body: Digest) -> VoteInbox:
        return self._hearings.setdefault(body, VoteInbox())

    async def read(self) -> ReadStep:
        """One turn: at most a window of each log in which something was proven since."""
        turn, beginning, members = ReadStep(), self._beginning, self._core.membership
        proven = self._core.ledger.proven
        last = await self._core.pools.ledger(proven.last)
        for state in await self._core.pools.ledger(self._core.ledger.logs.all):
            log = state.vkey
            if (read := self._read.get(log, 0)) >= last:
                continue
            page = await self._core.pools.ledger(proven.since, read, READ, WINDOW, log)
            if beginning != self._beginning:
                turn.behind = True
                break
            whole = len(page) < WINDOW
            self._read[log] = max(last, page[-1].number if page else 0) if whole else page[-1].number
            turn.behind = turn.behind or not whole
            said = await self._core.pools.files(_said, self._core.store, page)
            writer = _Writer(log, members.writers(log), members.owner(log))
            wanted = [entry for entry in said if self._sort(turn, writer, entry)]
            for entry in await self._core.pools.hashing(self._proven, wanted, self._keys()):
                if (body := self.put(entry)) is not None:
                    turn.heard.add(body)
        if not turn.behind and (self._again or self._is_stale()):
            self._begin()
            turn.behind = True
        return turn

    def put(self, entry: Entry) -> Digest | None:
        """Keep an entry that its author signed; the body that it is about, where it is new."""
        body = about(entry.statement)
        return body if body in self._hearings and self._hearings[body].put(entry) else None

    def full(self, body: Digest) -> tuple[str, ...]:
        """Logs in which somebody says more than is kept."""
        return tuple(dict.fromkeys(log for log, _ in self.about(body).full()))

    def used(self, body: Digest, log: str, author: Digest) -> int:
        """How many statements of an author about the successor of `body` count in a log, as far as it was read."""
        share = self.about(body).shares.get((log, author))
        return len(share.counted) if share else 0

    def _begin(self) -> None:
        """Read all logs anew."""
        self._beginning += 1
        self._again = False
        self._read.clear()
        self._seen.clear()
        for hearing in self._hearings.values():
            hearing.read_again()

    def _is_stale(self) -> bool:
        return any(hearing.stale for body, hearing in self._hearings.items() if body not in self._decided)

    def _matters(self, body: Digest, entry: Entry) -> bool:
        decided = self._decided.get(body)
        return decided is None or (
            entry.statement.predicate in (DRAFT, INTENT, RATIFIED) and entry.statement.subject != decided
        )

    def _sort(self, turn: ReadStep, writer: _Writer, entry: Entry) -> bool:
        """Note what needs no proof here; whether the entry is to be proven, to be heard.

        Rotations prove themselves, and whoever reads what a node has adopted looks at its key.
        """
        by, predicate = entry.statement.by, entry.statement.predicate
        if by is None:
            return False
        if predicate == ADOPTED:
            if by in writer.nodes:
                turn.adopted[writer.log] = entry
        elif by.id in self.hopefuls:
            if predicate in NEWCOMING and self._is_among_the_first(writer.log, entry, MAX_NEWCOMING):
                turn.newcoming.add(by.id)
        elif self._core.membership.chains(by.id):
            if predicate != "rotated":
                return self._is_heard(writer, entry, by.id)
            if self._is_among_the_first(writer.log, entry, MAX_ROTATIONS_A_LOG):
                turn.rotated.append(entry)
        return False

    def _is_heard(self, writer: _Writer, entry: Entry, author: Digest) -> bool:
        body = about(entry.statement)
        if body is None or body not in self._hearings or not self._matters(body, entry):
            return False
        return self._hearings[body].wants(writer.log, entry, home=writer.member == author)

    def _is_among_the_first(self, log: str, entry: Entry, most: int) -> bool:
        """Whether an entry is one of the first few of its author in a log, and one of the first envelopes of it."""
        assert entry.statement.by is not None
        seen, statement = self._seen.setdefault((log, entry.statement.by.id), {}), entry.statement_digest
        if statement not in seen and len(seen) >= most:
            return False
        seen[statement] = seen.get(statement, 0) + 1
        return seen[statement] <= MAX_ENVELOPES

    def _keys(self) -> Mapping[Digest, Sequence[KeySet]]:
        members = self._core.membership
        return {identity: members.reached(identity) for identity in members.known}

    def _proven(self, wanted: Iterable[Entry], keys: Mapping[Digest, Sequence[KeySet]]) -> list[Entry]:
        """Blocking. The entries that are signed by who has, or had, a seat."""
        return [
            entry
            for entry in wanted
            if entry.statement.by
            and any(self._signed(mine, entry.envelope) for mine in keys.get(entry.statement.by.id, ()))
        ]


def _said(store: BlobStore, page: Iterable[ProvenLine]) -> list[Entry]:
    """Blocking. The entries of a page; in place of an accusation the two lines that it shows."""
    said: list[Entry] = []
    for item in page:
        entry = parse_entry(item.line)
        said += _shown(store, entry) if entry.statement.predicate == MISBEHAVIOUR else (entry,)
    return said


def _shown(store: BlobStore, accusation: Entry) -> list[Entry]:
    """Blocking. The lines that an accusation shows, unproven: whoever accuses, they convict by themselves or not."""
    shown = []
    for item in accusation.statement.objects[:2]:
        with contextlib.suppress(ComityError):  # too large, no statement, or put aside meanwhile
            if item.size <= MAX_LINE:
                shown.append(parse_entry(b"".join(store.iterate(item.digest, 0, item.size))))
    return shown


MAX_VERIFIED: Final = 65_536


class SignatureCache:
    """`KeySet.signed` with a memory. An answer depends on what is asked alone. Thread-safe enough: a
    lost race asks once more."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[KeySet, Digest, tuple[PublicKey, ...]], bool] = OrderedDict()

    def signed(self, keys: KeySet, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool:
        asked = keys, sha256(envelope.encode()), tuple(beside)
        known = self._known.get(asked)
        if known is None:
            known = self._known[asked] = keys.signed(envelope, beside)
            while len(self._known) > MAX_VERIFIED:
                self._known.popitem(last=False)
        return known


LOOKED_AT: Final = 64
"""Statements of one identity, of one kind, that are looked at."""
CONSENTS: Final = 8
"""Consents of one newcomer to drafts of one epoch."""


def newcomer(ledger: Ledger, identity: Digest, body: Digest, memo: SignatureCache) -> list[Entry]:
    """What somebody without a seat says that matters for a successor of `body`: proven, and bounded."""
    found = inception(ledger, identity)
    if found is None:
        return []
    record, entry = found
    chain = rotations(ledger, KeyState.of_inception(record), memo)
    consents = (
        said
        for said in claimed(ledger, identity, CONSENTED)
        if about(said.statement) == body and any(memo.signed(state.keys, said.envelope) for state in chain.reached)
    )
    return [entry, *(step.entry for step in chain.steps), *islice(consents, CONSENTS)]


def inception(ledger: Ledger, identity: Digest) -> tuple[Inception, Entry] | None:
    """The proven record of an identity, and the line that proves it."""
    for entry in claimed(ledger, identity, "inception"):
        try:
            record = check_inception(entry)
        except ComityError:
            continue
        if record.id == identity:
            return record, entry
    return None


def rotations(ledger: Ledger, start: KeyState, memo: SignatureCache) -> RotationChain:
    """Where the rotations of an identity lead that are logged here."""
    return follow(start, claimed(ledger, start.identity, "rotated"), signed=memo.signed)


def claimed(ledger: Ledger, identity: Digest, predicate: str) -> list[Entry]:
    """What an identity is proven to have said with one predicate, the first few statements."""
    if predicate == "inception":
        line = ledger.proven.inception(identity)
        return [parse_entry(line)] if line else []
    if predicate == "rotated":
        return [parse_entry(line) for line in ledger.proven.rotations(identity)]
    found = (parse_entry(item.line) for item in ledger.proven.by(identity, predicate, LOOKED_AT).found)
    return list({entry.statement_digest: entry for entry in found}.values())


def places(ledger: Ledger, entries: Iterable[Entry]) -> Iterator[tuple[Entry, str, int]]:
    """Where each entry stands first; entries that stand in no log here are left out."""
    for entry in entries:
        for place in ledger.index.places(entry.digest)[:1]:
            yield entry, place.origin, place.index


MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""Bytes of bodies, as they are and as they were read: what one member names is half of that at most, so that its
drafts do not have those of others read again each time."""
MAX_SEATS: Final = 1024
"""Bodies of which it is remembered who would have a seat."""


class StoredBodies(Mapping[Digest, bytes]):
    """The bodies named by `digests` that are here, as bytes. Reading blocks; what was read lately is remembered."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._lately: OrderedDict[Digest, bytes] = OrderedDict()
        self._parsed: OrderedDict[Digest, Body] = OrderedDict()
        self._seats: OrderedDict[Digest, frozenset[Digest]] = OrderedDict()
        self._turn = Lock()
        self.digests: frozenset[Digest] = frozenset()

    def beside(self, bodies: Iterable[Body]) -> Mapping[Digest, bytes]:
        """These, and some that may not be in the store."""
        return ChainMap({body.digest: body.data for body in bodies}, self)  # type: ignore[arg-type]

    def parse(self, data: bytes) -> Body:
        """`Body.parse` with a memory. Thread-safe. Raises Malformed."""
        digest = sha256(data)
        with self._turn:
            if digest in self._parsed:
                self._parsed.move_to_end(digest)
                return self._parsed[digest]
        parsed = Body.parse(data)
        with self._turn:
            self._parsed[digest] = parsed
            while sum(len(body.data) for body in self._parsed.values()) > MAX_BODY_BYTES:
                self._parsed.popitem(last=False)
        return parsed

    def seats(self, digest: Digest) -> frozenset[Digest]:
        """Who would have a seat; nobody where a body is not here, or none. Blocking; each body is read once."""
        if digest not in self._seats and digest in self:
            try:
                found = frozenset(seat.id for seat in self.parse(self[digest]).members)
            except ComityError:
                found = frozenset()
            with self._turn:
                self._seats[digest] = found
                while len(self._seats) > MAX_SEATS:
                    self._seats.popitem(last=False)
        return self._seats.get(digest, frozenset())

    def __getitem__(self, digest: Digest) -> bytes:
        if digest not in self._lately:
            self._lately[digest] = self._read(digest)
            while sum(map(len, self._lately.values())) > MAX_BODY_BYTES:
                self._lately.popitem(last=False)
        return self._lately.get(digest, b"")

    def __iter__(self) -> Iterator[Digest]:
        return (digest for digest in self.digests if self._store.has(digest))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _read(self, digest: Digest) -> bytes:
        try:
            if digest not in self.digests or not self._store.has(digest) or self._store.size(digest) > MAX_BYTES:
                raise KeyError(digest)
            return b"".join(self._store.iterate(digest, 0, self._store.size(digest)))
        except Unavailable as error:  # it was put aside meanwhile
            raise KeyError(digest) from error
