"""What follows from the lines at hand: a pure look at a federation's proceedings, from a body that is held for true.

Proceedings from nodes, and back to them. What nodes say is material: the sitting that it gives is computed here.

Proceedings in a plain folder, to be carried by disk: one line a file, each body as an object.

    FOLDER/lines/<sha256 of the line>.line
           objects/<sha256>

Two folders are joined by copying one over the other. Names mean nothing when it is read: what a file is, its bytes say.


Is this the newest charter? What members' home logs say, and how fresh that is; no newer one can be ruled out.

Whoever is cut off sees nothing wrong: an old charter, old logs, and everything verifies. What betrays it is the age of
the cosignatures, and that fewer members than the charter asks for confirm it. So a newcomer, and a node that was away,
compare heads: for each member its home log's checkpoint, as others cosigned it, and the charter under which its node
says that it acts. This is shown, and turns no verdict. Source: protocol, section 7.9.


Who must do what next, and by which command: the council's duties, for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.charter.document import MAX_BYTES as MAX_BODY
from comity.trust.charter.document import Body, Member
from comity.trust.charter.federation import Federation
from comity.trust.charter.tally import DraftState, Tally, deliberate
from comity.trust.charter.votes import ADOPTED, CONSENTED, DRAFT, INTENT, LEFT, RATIFIED, Reading, read_reading
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Refused
from comity.trust.keys import VerifyingKey
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import MAX_LINE, Entry, SideObject, parse_entry
from comity.trust.statements import signed_by_node
from comity.trust.tlog.note import SignedNote, open_checkpoint, verified_cosigners
from comity.verifier import read_bounded
from comity.wire.client import NodeClient
from comity.wire.messages import LocatedEntry
from comity_client.events import OnEvent, ignore_event
from comity_client.session import RemoteNode, Session
from comity_client.uplink import Uplink, log_lines


@dataclass(frozen=True, slots=True)
class CharterMaterial:
    """Lines and bodies, from wherever they came. Nothing in it is proven; more of it never takes anything away."""

    lines: frozenset[bytes] = frozenset()
    objects: Mapping[Digest, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Iterable[bytes], objects: Iterable[bytes] = ()) -> CharterMaterial:
        return cls(frozenset(lines), {sha256(data): data for data in objects})

    def __or__(self, other: CharterMaterial) -> CharterMaterial:
        return CharterMaterial(self.lines | other.lines, {**self.objects, **other.objects})


@dataclass(frozen=True, slots=True)
class CharterState:
    """A council computed here, with the lines that it was computed from. Made by `convene`."""

    start: Body
    material: CharterMaterial
    entries: tuple[Entry, ...]
    council: Tally

    @property
    def current(self) -> Body:
        """The newest body that is certified by what is at hand."""
        return self.council.current

    def adding(self, material: CharterMaterial) -> CharterState:
        """The same with more at hand: a newcomer's card, say."""
        return convene(self.start, self.material | material)

    def draft(self, name: str) -> DraftState:
        """The open draft whose digest begins with `name`, 8 digits at least. Raises NotFound."""
        wanted = name.removeprefix("sha256:")
        found = [draft for draft in self.council.drafts if draft.body.digest.startswith(wanted)]
        if len(wanted) < 8 or len(found) != 1:
            known = ", ".join(draft.body.digest[:12] for draft in self.council.drafts) or "none"
            hint = "comity proposal ls"
            raise NotFound(f"no draft {name[:80]!r}", why=f"open drafts: {known}", hint=hint, code="NO-DRAFT")
        return found[0]

    def superseded(self, name: str) -> tuple[Body, Body]:
        """The body whose digest begins with `name` and that lost to another of its epoch, with the one that it was
        drafted upon. Raises NotFound (NO-DRAFT)."""
        wanted = name.removeprefix("sha256:")
        past = {body.digest: body for body in (self.start, *(made.body for made in self.council.epochs))}
        found = [
            (drafted, past[drafted.prev])
            for digest, data in self.material.objects.items()
            if len(wanted) >= 8 and digest.startswith(wanted) and digest not in past
            if (drafted := _body(data)) is not None and drafted.prev in past and drafted.prev != self.current.digest
        ]
        if len(found) != 1:
            why = f"{len(found)} drafts of earlier epochs begin so, among the lines at hand"
            raise NotFound(f"no draft {name[:80]!r} to rebase", why=why, hint="comity proposal ls", code="NO-DRAFT")
        return found[0]

    def member(self, name: str) -> Member:
        """A seat of the current charter, by name, or by the first 8 digits or more of its id. Raises NotFound."""
        seats = self.current.members
        found = [m for m in seats if name == m.name or (len(name) >= 8 and m.id.startswith(name))]
        if len(found) != 1:
            known = ", ".join(f"{m.name} [{m.id[:12]}]" for m in seats)
            raise NotFound(f"no member {name[:80]!r}", why=f"members: {known}", hint="comity member ls")
        return found[0]

    def chain(self, member: Digest) -> RotationChain:
        """A member's keys from its seat in the current charter on, by the rotations at hand. Raises NotFound."""
        seat = self.current.member(member)
        if seat is None:
            raise NotFound("no such member", why=f"{member[:16]} has no seat in epoch {self.current.epoch}")
        return follow(seat.key_state, self.entries)

    def seat_of(self, key: VerifyingKey) -> tuple[Member, KeyState]:
        """The member that `key` speaks for now, and all its keys. Raises Refused (NO-SEAT, RETIRED-KEY); Conflict
        (DISPUTED) where two rotations claim the seat."""
        for seat in self.current.members:
            chain = self.chain(seat.id)
            if chain.disputes:
                if any(key in state.keys.keys for state in chain.reached):
                    why = "two rotations of its keys exclude one another, and no charter settles that"
                    raise Conflict(f"whose keys {seat.name} has is in dispute", why=why, code="DISPUTED")
            elif key in chain.current.keys.keys:
                return seat, chain.current
            elif any(key in state.keys.keys for state in chain.reached):
                why = f"{seat.name} has changed its keys since"
                raise Refused("this key no longer speaks for its member", why=why, code="RETIRED-KEY")
        why = f"no member of epoch {self.current.epoch} has it"
        raise Refused("this key has no seat", why=why, hint="comity proposal ls", code="NO-SEAT")

    def said(self, member: Digest) -> list[Reading]:
        """The proven readings of a member of the current charter, on its successor."""
        chain = self.chain(member)
        return [
            reading
            for entry, reading in _readings(self.entries)
            if reading.member == member and reading.prev == self.current.digest and chain.signed(entry.envelope)
        ]


def convene(start: Body, material: CharterMaterial) -> CharterState:
    """Compute what was decided after `start`, and what is open. Lines that are no statements count for nothing."""
    entries = tuple(_entries(material.lines))
    return CharterState(start, material, entries, deliberate(start, entries, material.objects))


def of_federation(federation: Federation, *material: CharterMaterial) -> CharterState:
    """The sitting after the newest body of a federation file."""
    return convene(federation.body, reduce(CharterMaterial.__or__, material, material_of(federation)))


def material_of(federation: Federation) -> CharterMaterial:
    """What a federation file brings: bodies, and the lines that certify them."""
    bodies = (body.data for body in federation.chain)
    lines = (line for certificate in federation.certificates for line in certificate)
    return CharterMaterial.of(lines, bodies)


def _body(data: bytes) -> Body | None:
    try:
        return Body.parse(data)
    except ComityError:
        return None


def _entries(lines: Iterable[bytes]) -> Iterable[Entry]:
    for line in sorted(lines):
        try:
            yield parse_entry(line)
        except Malformed:
            continue


def _readings(entries: Iterable[Entry]) -> Iterable[tuple[Entry, Reading]]:
    for entry in entries:
        if entry.statement.predicate in (INTENT, RATIFIED):
            try:
                yield entry, read_reading(entry)
            except ComityError:
                continue


MAX_BODIES: Final = 64
"""Bodies that one node is asked for; a draft too many is gathered from another, or the next time."""
MAX_ANSWERS: Final = 8
"""Answers about epochs that one node is asked for: 8,000 epochs, or 512 MiB of them."""

MAX_COPIES: Final = 4
"""Envelopes of one statement that are taken from one node; from another one they count anew."""

_ORDER: Final = ("inception", "rotated", "node-record", DRAFT, CONSENTED, LEFT, INTENT, RATIFIED)
"""A node takes a line when it knows who speaks, and of what: in this order."""


@dataclass(frozen=True, slots=True)
class GatheredVotes:
    """What nodes handed out, and who they were; `silent` are those that did not, each with the reason."""

    material: CharterMaterial
    answered: tuple[str, ...]
    silent: tuple[tuple[str, ComityError], ...]


@dataclass(frozen=True, slots=True)
class DeliveredLine:
    """One line as a node took it: `index` in its log, or `refusal`."""

    line: bytes
    index: int | None
    refusal: ComityError | None = None


async def gather_votes(session: Session, federation: Federation, known: CharterMaterial) -> GatheredVotes:
    """Ask every node of the session for the epochs after the pinned one and for what is open after the newest.

    Args:
        known: what is here already; its bodies are not fetched again.

    Raises NotFound, Refused, Unavailable where none of them answers.
    """
    answers = await session.ask(lambda client: _from_node(client, federation, known))
    if not answers.found:
        raise answers.failure("nobody says how governance stands")
    material = CharterMaterial()
    for found in answers.found.values():
        material |= found
    silent = tuple((node.name, error) for node, error in answers.failed.items())
    return GatheredVotes(material, tuple(node.name for node in answers.found), silent)


async def gather_past_votes(session: Session, prevs: Sequence[Digest], known: CharterMaterial) -> CharterMaterial:
    """What nodes keep about epochs that are decided: for each body in `prevs`, the lines about its successor, and
    the drafts that lost. A node that keeps nothing of them, or is silent, is missing."""
    answers = await session.ask(lambda client: _about_successors(client, prevs, known))
    material = CharterMaterial()
    for found in answers.found.values():
        material |= found
    return material


async def gather_from_each(session: Session, federation: Federation) -> dict[Digest, CharterMaterial]:
    """The same, node by node, joined by member: what each of them holds by itself. One that is silent is missing."""
    answers = await session.ask(lambda client: _from_node(client, federation, CharterMaterial()))
    copies: dict[Digest, CharterMaterial] = {}
    for node, found in answers.found.items():
        copies[node.member.id] = copies.get(node.member.id, CharterMaterial()) | found
    return copies


async def deliver_lines(
    uplink: Uplink, material: CharterMaterial, *, on_event: OnEvent = ignore_event
) -> list[DeliveredLine]:
    """Hand lines to a node one after the other, with the bodies that they name. One that is refused does not keep back
    the others; repeating it does no harm. Raises Unavailable where the node is gone."""
    delivered = []
    for entry in sorted(_entries(material.lines), key=_rank):
        named = {item.digest: material.objects[item.digest] for item in entry.statement.objects
                 if item.digest in material.objects}  # fmt: skip
        try:
            (receipt,) = await log_lines(uplink, [entry.line], named, {}, link=False, on_event=on_event)
        except NotFound as error:
            delivered.append(DeliveredLine(entry.line, None, error))
        except ComityError as error:
            if error.exit_status == 5:
                raise
            delivered.append(DeliveredLine(entry.line, None, error))
        else:
            delivered.append(DeliveredLine(entry.line, receipt.index))
    return delivered


async def _from_node(client: NodeClient, federation: Federation, known: CharterMaterial) -> CharterMaterial:
    lines, bodies = await _epochs(client, federation.body.epoch)
    here = CharterMaterial.of((*lines, *_few_copies(await client.proceedings())), bodies)
    return here | await _missing_bodies(client, here | known)


async def _about_successors(client: NodeClient, prevs: Iterable[Digest], known: CharterMaterial) -> CharterMaterial:
    here = CharterMaterial()
    for prev in prevs:
        try:
            here |= CharterMaterial.of(_few_copies(await client.proceedings(prev)))
        except NotFound:
            continue
    return here | await _missing_bodies(client, here | known)


def _few_copies(told: Iterable[LocatedEntry]) -> Iterator[bytes]:
    """The lines of one node's answer, of each statement a few envelopes: whoever hands out a thousand copies of what
    others signed, with signatures that do not hold, has none of them judged."""
    copies: Counter[Digest] = Counter()
    for located in told:
        try:
            statement = parse_entry(located.line).statement_digest
        except Malformed:
            continue
        copies[statement] += 1
        if copies[statement] <= MAX_COPIES:
            yield located.line


async def _missing_bodies(client: NodeClient, here: CharterMaterial) -> CharterMaterial:
    """The charters that lines speak of, as far as the node holds them."""
    named = (item.digest for entry in _entries(here.lines) for item in _bodies(entry))
    wanted, bodies = dict.fromkeys(digest for digest in named if digest not in here.objects), list[bytes]()
    for digest in list(wanted)[:MAX_BODIES]:
        try:
            bodies.append(await client.object(digest))
        except NotFound:
            continue
    return CharterMaterial.of((), bodies)


async def _epochs(client: NodeClient, epoch: int) -> tuple[list[bytes], list[bytes]]:
    """Certificate lines and bodies of the epochs after `epoch` that the node holds. Raises Malformed (UNBOUNDED)."""
    lines, bodies = list[bytes](), list[bytes]()
    for _ in range(MAX_ANSWERS):
        try:
            found = await client.epochs(epoch + 1)
        except NotFound:
            return lines, bodies
        lines += [line for charter in found for line in charter.certificate]
        bodies += [charter.body for charter in found]
        epoch = found[-1].epoch
    raise Malformed("the epochs do not end", why=f"{MAX_ANSWERS} answers, and there are more", code="UNBOUNDED")


def _bodies(entry: Entry) -> Sequence[SideObject]:
    """The charter bodies that a line names as side objects."""
    if entry.statement.predicate not in (DRAFT, CONSENTED, LEFT):
        return ()
    return [item for item in entry.statement.objects if item.size <= MAX_BODY]


def _rank(entry: Entry) -> int:
    predicate = entry.statement.predicate
    return _ORDER.index(predicate) if predicate in _ORDER else len(_ORDER)


MAX_FILES: Final = 65_536
MAX_TOTAL: Final = 256 * 1024 * 1024


def read_folder(folder: Path) -> CharterMaterial:
    """Everything in `folder`. Raises NotFound where it is no such folder, Malformed beyond 65,536 files or 256 MiB."""
    if not (folder / "lines").is_dir():
        raise NotFound(
            f"no proceedings in {folder}", why="it has no folder 'lines'", hint="comity proposal export FOLDER"
        )
    budget = _Budget(folder)
    lines = [data.removesuffix(b"\n") for data in budget.files("lines", MAX_LINE + 1)]
    return CharterMaterial.of(lines, budget.files("objects", MAX_BODY))


def write_folder(folder: Path, material: CharterMaterial) -> int:
    """Add `material` to `folder`, which is made where it is missing; what is there stays. Returns how many lines are
    new there. Raises OutOfSpace, Unavailable."""
    lines, objects = folder / "lines", folder / "objects"
    with durable.disk_errors(f"{folder} was not written"):
        for made in (lines, objects):
            durable.make_folders(made)
    for digest, data in material.objects.items():
        _add(objects / digest, data)
    return sum(_add(lines / f"{sha256(line)}.line", line + b"\n") for line in material.lines)


def _add(path: Path, data: bytes) -> bool:
    if path.exists():
        return False
    durable.write_file(path, data, mode=0o644, point="carried")
    return True


class _Budget:
    """Files of a folder, as long as they are not too many or too large altogether."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files, self._bytes = MAX_FILES, MAX_TOTAL

    def files(self, name: str, most: int) -> Iterator[bytes]:
        for path in sorted((self._folder / name).glob("*")):
            if path.suffix == durable.TEMPORARY or not path.is_file():
                continue
            data = read_bounded(path, most)
            self._files, self._bytes = self._files - 1, self._bytes - len(data)
            if self._files < 0 or self._bytes < 0:
                why = f"at most {MAX_FILES} files and {MAX_TOTAL} bytes are read"
                raise Malformed(f"{self._folder} holds too much", why=why)
            yield data


CURRENT, EARLIER, UNKNOWN, SILENT = "current", "earlier", "unknown", "silent"


@dataclass(frozen=True, slots=True)
class HomeLogHead:
    """What is known of one member's home log.

    Attributes:
        size: of the newest checkpoint that anybody showed; None for none.
        cosigners: other members that cosigned it.
        seen: POSIX seconds of the newest of their cosignatures, by their own clocks; None for none.
        adopted: whether its node acts under the charter that is `current` here, an `earlier` one, or one that is
            `unknown` here; `silent` where it does not say, as under a genesis.
    """

    member: Digest
    name: str
    jurisdiction: str
    origin: str
    size: int | None
    cosigners: tuple[Digest, ...]
    seen: int | None
    adopted: str


@dataclass(frozen=True, slots=True)
class Confirmation:
    """How well the current charter is confirmed. `needed` members are what its policy asks."""

    epoch: int
    body: Digest
    heads: tuple[HomeLogHead, ...]
    needed: int

    @property
    def confirmed(self) -> int:
        """Members whose cosigned home logs stand by it: under a genesis, those that say nothing else."""
        stands = (CURRENT,) if self.epoch else (CURRENT, SILENT)
        return sum(bool(head.cosigners) and head.adopted in stands for head in self.heads)

    @property
    def enough(self) -> bool:
        return self.confirmed >= self.needed and not self.elsewhere

    @property
    def elsewhere(self) -> tuple[HomeLogHead, ...]:
        """Members that act under a charter which is not known here: this is stale, or a fork."""
        return tuple(head for head in self.heads if head.adopted == UNKNOWN)

    @property
    def seen(self) -> int | None:
        """The newest cosignature of any head: how old all this may be, by its owner's clock."""
        return max((head.seen for head in self.heads if head.seen is not None), default=None)


async def confirm_logged(session: Session, federation: Federation, sitting: CharterState) -> Confirmation:
    """Compare the heads of all active members, by what the session's nodes show. Raises Unavailable where none does."""
    answers = await session.ask(lambda client: client.logs())
    if not answers.found:
        raise answers.failure("nobody shows the members' logs")
    notes: dict[str, list[bytes]] = {}
    for heads in answers.found.values():
        for head in heads:
            notes.setdefault(head.origin, []).append(head.note)
    adopted = _adopted(session, federation, sitting)
    current = sitting.current
    seats = {seat.id: seat for seat in current.active}
    heads_ = [
        _head(session, node, seat, notes.get(node.record.origin, ()), adopted)
        for node in session.nodes
        if (seat := seats.get(node.record.member)) is not None
    ]
    best = {head.member: head for head in sorted(heads_, key=lambda head: (len(head.cosigners), head.seen or 0))}
    return Confirmation(current.epoch, current.digest, tuple(best.values()), current.policy.cosigner_quorum)


def _head(
    session: Session, node: RemoteNode, seat: Member, notes: Iterable[bytes], adopted: Mapping[Digest, str]
) -> HomeLogHead:
    """The newest checkpoint of a node's log, with the other members that cosigned it on any note shown."""
    owners = {key: other.record.member for other in session.nodes for key in other.record.cosigners}
    size, times = None, dict[Digest, int]()
    for data in notes:
        try:
            note = SignedNote.parse(data)
            checkpoint = open_checkpoint(note, node.record.log)
        except ComityError:
            continue  # not this log's: whoever showed it
        if size is None or checkpoint.size > size:
            size, times = checkpoint.size, {}
        if checkpoint.size == size:
            for key, time in verified_cosigners(note, owners, checkpoint).items():
                times[owners[key]] = max(time, times.get(owners[key], 0))
    times.pop(seat.id, None)
    return HomeLogHead(
        seat.id,
        seat.name,
        seat.jurisdiction,
        node.record.origin,
        size,
        tuple(sorted(times)),
        max(times.values(), default=None),
        adopted.get(seat.id, SILENT),
    )


def _adopted(session: Session, federation: Federation, sitting: CharterState) -> dict[Digest, str]:
    """Under which charter each member's node says that it acts: the latest that is known, or one that is not."""
    known = {body.digest for body in (*federation.chain, *(each.body for each in sitting.council.epochs))}
    found: dict[Digest, str] = {}
    for entry in sitting.entries:
        if entry.statement.predicate != ADOPTED:
            continue
        body = entry.statement.subject
        word = UNKNOWN if body not in known else CURRENT if body == sitting.current.digest else EARLIER
        for node in session.nodes:
            if signed_by_node(entry, node.record):
                member = node.record.member
                found[member] = max(found.get(member, EARLIER), word, key=_WEIGHT.index)
    return found


_WEIGHT = (EARLIER, CURRENT, UNKNOWN)


@dataclass(frozen=True, slots=True)
class PendingAction:
    """One thing that one member has to do: `action` is `intent`, `ratified` or `consented`."""

    member: Digest
    name: str
    jurisdiction: str
    action: str
    body: Digest
    round: int
    why: str
    command: str


def turns(sitting: CharterState) -> list[PendingAction]:
    """All that is missing for the leading draft, in the council's order."""
    found = []
    for duty in sitting.council.duties:
        draft = sitting.council.draft(duty.body)
        seat = sitting.current.member(duty.member) or (draft.body.member(duty.member) if draft else None)
        verb = "consent" if duty.action == CONSENTED else "approve"
        name, where = (seat.name, seat.jurisdiction) if seat else (duty.member[:16], "")
        command = f"comity proposal {verb} {duty.body[:12]}"
        found.append(PendingAction(duty.member, name, where, duty.action, duty.body, duty.round, duty.why, command))
    return found
