"""The charter state: the tally of statements from nodes or folders, from a trusted body on, computed in the client.

Nodes and folders only supply statements and bodies; nothing is trusted because of its source. A folder, to be
carried on a disk, holds one statement a file and each body as an object. File names are ignored on reading, so two
folders are merged by copying one over the other.

    FOLDER/lines/<sha256 of the line>.line
           objects/<sha256>

`confirm_logged` shows whether the current charter is the newest. A client that is cut off sees an old charter that
verifies; the signs are old cosignatures, and fewer confirming members than the policy asks for. For each member it
compares the home log's cosigned checkpoint, and the charter under which its node acts. The result is shown, and
changes no verdict. `pending_actions` lists who must act next, and by which command. Source: protocol, section 7.9.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import reduce
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.federation_file import Federation
from comity.rules.cosigned_times import AHEAD_SECONDS, corroborated_time, newest_of_each, verified_cosigners
from comity.rules.tally import DraftState, Tally, compute_tally
from comity.trust.charter.document import MAX_BYTES as MAX_BODY
from comity.trust.charter.document import Body, Member
from comity.trust.charter.votes import Vote, parse_vote
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, Refused
from comity.trust.frozen import frozen
from comity.trust.home_logs import AdmittedMembers, home_origin, inception_homes
from comity.trust.keys import VerifyingKey
from comity.trust.names import is_meant
from comity.trust.node_records import signed_by_node
from comity.trust.rotation import KeyState, RotationChain, follow
from comity.trust.statement import MAX_LINE, Entry, SideObject, parse_entry
from comity.trust.statement_kinds import (
    ADOPTED,
    CONSENTED,
    DRAFT,
    DRAFT_WITHDRAWN,
    INCEPTION,
    INTENT,
    LEFT,
    NODE_RECORD,
    RATIFIED,
    ROTATED,
    VOTE_PREDICATES,
)
from comity.trust.tlog.note import SignedNote, open_checkpoint
from comity.wire.client import NodeClient
from comity.wire.messages import LocatedEntry

from comity_client.events import OnEvent, ignore_event
from comity_client.session import RemoteNode, Session
from comity_client.uplink import Uplink, log_lines


@frozen
class CharterMaterial:
    """Unverified lines and bodies of any source. More material never removes a result."""

    lines: frozenset[bytes] = frozenset()
    objects: Mapping[Digest, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Iterable[bytes], objects: Iterable[bytes] = ()) -> CharterMaterial:
        return cls(frozenset(lines), {sha256(data): data for data in objects})

    def __or__(self, other: CharterMaterial) -> CharterMaterial:
        return CharterMaterial(self.lines | other.lines, {**self.objects, **other.objects})


@frozen
class CharterState:
    """A tally, and the material it was computed from. Made by `compute_charter_state`."""

    start: Body
    material: CharterMaterial
    entries: tuple[Entry, ...]
    tally: Tally

    @property
    def current(self) -> Body:
        """The newest certified body."""
        return self.tally.current

    def adding(self, material: CharterMaterial) -> CharterState:
        """The state with more material, for example a newcomer's card."""
        return compute_charter_state(self.start, self.material | material)

    def draft(self, name: str) -> DraftState:
        """The open draft whose digest begins with `name`, at least 8 digits. Raises NotFound (NO-DRAFT)."""
        wanted = name.removeprefix("sha256:")
        found = [draft for draft in self.tally.drafts if draft.body.digest.startswith(wanted)]
        if len(wanted) < 8 or len(found) != 1:
            known = ", ".join(draft.body.digest[:12] for draft in self.tally.drafts) or "none"
            certified = [body.epoch for body in self._certified if len(wanted) >= 8 and body.digest.startswith(wanted)]
            why = f"the votes known here decide it, as epoch {certified[0]}" if certified else f"open drafts: {known}"
            raise NotFound(f"no draft {name[:80]!r} is open", why=why, hint="comity proposal ls", code="NO-DRAFT")
        return found[0]

    @property
    def _certified(self) -> tuple[Body, ...]:
        return (self.start, *(made.body for made in self.tally.epochs))

    def superseded(self, name: str) -> tuple[Body, Body]:
        """The losing body of an earlier epoch whose digest begins with `name`, and the body before it. Raises NotFound
        (NO-DRAFT)."""
        wanted = name.removeprefix("sha256:")
        past = {body.digest: body for body in self._certified}
        found = [
            (drafted, past[drafted.prev])
            for digest, data in self.material.objects.items()
            if len(wanted) >= 8 and digest.startswith(wanted) and digest not in past
            if (drafted := _body(data)) is not None and drafted.prev in past and drafted.prev != self.current.digest
        ]
        if len(found) != 1:
            why = f"{len(found)} known drafts of earlier epochs have this digest"
            raise NotFound(f"no draft {name[:80]!r} to rebase", why=why, hint="comity proposal ls", code="NO-DRAFT")
        return found[0]

    def member(self, name: str) -> Member:
        """A seat of the current charter, by name, or by at least the first 8 digits of its id. Raises NotFound."""
        seats = self.current.members
        found = [m for m in seats if name == m.name or is_meant(name, m.id)]
        if len(found) != 1:
            known = ", ".join(f"{m.name} [{m.id[:12]}]" for m in seats)
            raise NotFound(f"no member {name[:80]!r}", why=f"members: {known}", hint="comity member ls")
        return found[0]

    def taken_origin(self, member: Member) -> tuple[str, str] | None:
        """The origin of the home log of `member`, which may be a newcomer, and whose it is, if another member owns it
        or several members name it. None if it is its own, or if its inception is not known here."""
        homes = inception_homes(self.entries)
        origin, owners = home_origin(homes.get(member.id, "")), AdmittedMembers.of(self._certified).owners(homes)
        if origin not in owners.owners or owners.owners[origin] == owners.seat(member.successor_of or member.id):
            return None
        owner = owners.owners[origin]
        seat = self.current.member(owner) if owner else None
        return origin, f"{seat.name} ({seat.jurisdiction})" if seat else owner[:16] if owner else "several members"

    def chain(self, member: Digest) -> RotationChain:
        """A member's rotation chain, from its seat in the current charter on. Raises NotFound."""
        seat = self.current.member(member)
        if seat is None:
            raise NotFound("no such member", why=f"{member[:16]} has no seat in epoch {self.current.epoch}")
        return follow(seat.key_state, self.entries)

    def seat_of(self, key: VerifyingKey) -> tuple[Member, KeyState]:
        """The member that `key` belongs to now, and the member's key state. Raises Refused (NO-SEAT, RETIRED-KEY);
        Conflict (DISPUTED) if two rotations of the member exclude one another."""
        for seat in self.current.members:
            chain = self.chain(seat.id)
            if chain.disputes:
                if any(key in state.keys.keys for state in chain.reached):
                    why = "two rotations of its keys exclude one another, and a charter cannot settle that"
                    raise Conflict(f"the keys of {seat.name} are in dispute", why=why, code="DISPUTED")
            elif key in chain.current.keys.keys:
                return seat, chain.current
            elif any(key in state.keys.keys for state in chain.reached):
                why = f"{seat.name} has rotated its keys"
                raise Refused("this key is retired", why=why, code="RETIRED-KEY")
        why = f"no member of epoch {self.current.epoch} has this key"
        raise Refused("this key has no seat", why=why, hint="comity proposal ls", code="NO-SEAT")

    def votes_of(self, member: Digest) -> list[Vote]:
        """The verified votes of a current member about the next epoch."""
        chain = self.chain(member)
        return [
            vote
            for entry, vote in _votes(self.entries)
            if vote.member == member and vote.prev == self.current.digest and chain.signed(entry.envelope)
        ]


def compute_charter_state(start: Body, material: CharterMaterial) -> CharterState:
    """Compute what was decided after `start`, and what is open. Lines that are not statements are ignored."""
    entries = tuple(read_entries(material.lines))
    return CharterState(start, material, entries, compute_tally(start, entries, material.objects))


def federation_charter_state(federation: Federation, *material: CharterMaterial) -> CharterState:
    """The charter state from the newest body of a federation file on."""
    return compute_charter_state(
        federation.body, reduce(CharterMaterial.__or__, material, federation_material(federation))
    )


def federation_material(federation: Federation) -> CharterMaterial:
    """The bodies and certificates of a federation file."""
    bodies = (body.data for body in federation.chain)
    lines = (line for certificate in federation.certificates for line in certificate)
    return CharterMaterial.of(lines, bodies)


def _body(data: bytes) -> Body | None:
    try:
        return Body.parse(data)
    except ComityError:
        return None


def read_entries(lines: Iterable[bytes]) -> Iterable[Entry]:
    """The statements in these lines, in the order of their bytes, not verified; what is no statement is left out."""
    for line in sorted(lines):
        try:
            yield parse_entry(line)
        except Malformed:
            continue


def _votes(entries: Iterable[Entry]) -> Iterable[tuple[Entry, Vote]]:
    for entry in entries:
        if entry.statement.predicate in VOTE_PREDICATES:
            try:
                yield entry, parse_vote(entry)
            except ComityError:
                continue


MAX_BODIES: Final = 64
"""Limit of bodies requested from one node; others come from another node, or the next time."""
MAX_ANSWERS: Final = 8
"""Limit of answers about epochs from one node: 8,000 epochs, or 512 MiB."""

MAX_COPIES: Final = 4
"""Limit of envelopes of one statement from one node."""

_ORDER: Final = (INCEPTION, ROTATED, NODE_RECORD, DRAFT, DRAFT_WITHDRAWN, CONSENTED, LEFT, INTENT, RATIFIED)
"""Order of submission: a node accepts a line only if it knows the author and the subject."""


@frozen
class GatheredVotes:
    """Material from nodes, the nodes that answered, and the `silent` ones, each with its error."""

    material: CharterMaterial
    answered: tuple[str, ...]
    silent: tuple[tuple[str, ComityError], ...]


@frozen
class DeliveredLine:
    """The result for one submitted line: its `index` in the log, or the `refusal`."""

    line: bytes
    index: int | None
    refusal: ComityError | None = None


async def gather_votes(session: Session, federation: Federation, known: CharterMaterial) -> GatheredVotes:
    """Fetch from every node the epochs after the pinned one, and the statements about the next epoch.

    Args:
        known: material that is here already; its bodies are not fetched again.

    Raises NotFound, Refused, Unavailable if no node answers.
    """
    answers = await session.ask(lambda client: gather_from(client, federation, known))
    if not answers.found:
        raise answers.failure("no node gave its charter statements")
    material = CharterMaterial()
    for found in answers.found.values():
        material |= found
    silent = tuple((node.name, error) for node, error in answers.failed.items())
    return GatheredVotes(material, tuple(node.name for node in answers.found), silent)


async def gather_past_votes(session: Session, prevs: Sequence[Digest], known: CharterMaterial) -> CharterMaterial:
    """Fetch statements about decided epochs: for each body in `prevs`, the statements about its successor and the
    losing drafts. Nodes that keep none, or do not answer, are skipped."""
    answers = await session.ask(lambda client: _about_successors(client, prevs, known))
    material = CharterMaterial()
    for found in answers.found.values():
        material |= found
    return material


async def gather_from_each(session: Session, federation: Federation) -> dict[Digest, CharterMaterial]:
    """As `gather_votes`, by member: the material of its own nodes. Nodes that do not answer are skipped."""
    answers = await session.ask(lambda client: gather_from(client, federation, CharterMaterial()))
    copies: dict[Digest, CharterMaterial] = {}
    for node, found in answers.found.items():
        copies[node.member.id] = copies.get(node.member.id, CharterMaterial()) | found
    return copies


async def deliver_lines(
    uplink: Uplink, material: CharterMaterial, *, on_event: OnEvent = ignore_event
) -> list[DeliveredLine]:
    """Submit lines to a node one by one, with the bodies that they name. A refused line does not stop the others. May
    be repeated. Raises Unavailable if the node does not answer."""
    delivered = []
    for entry in sorted(read_entries(material.lines), key=_rank):
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


async def gather_from(client: NodeClient, federation: Federation, known: CharterMaterial) -> CharterMaterial:
    """As `gather_votes`, from one node. Raises as its calls do."""
    lines, bodies = await _epochs(client, federation.body.epoch)
    here = CharterMaterial.of((*lines, *_limit_copies(await client.next_epoch_entries())), bodies)
    return here | await _missing_bodies(client, here | known)


async def _about_successors(client: NodeClient, prevs: Iterable[Digest], known: CharterMaterial) -> CharterMaterial:
    here = CharterMaterial()
    for prev in prevs:
        try:
            here |= CharterMaterial.of(_limit_copies(await client.next_epoch_entries(prev)))
        except NotFound:
            continue
    return here | await _missing_bodies(client, here | known)


def _limit_copies(answer: Iterable[LocatedEntry]) -> Iterator[bytes]:
    """The lines of one node's answer, at most `MAX_COPIES` envelopes of each statement, so a node cannot cause many
    signature checks by copies with invalid signatures."""
    copies: Counter[Digest] = Counter()
    for located in answer:
        try:
            statement = parse_entry(located.line).statement_digest
        except Malformed:
            continue
        copies[statement] += 1
        if copies[statement] <= MAX_COPIES:
            yield located.line


async def _missing_bodies(client: NodeClient, here: CharterMaterial) -> CharterMaterial:
    """Fetch the bodies that lines name, as far as the node holds them."""
    named = (item.digest for entry in read_entries(here.lines) for item in _bodies(entry))
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
    raise Malformed("too many epochs", why=f"the node has more after {MAX_ANSWERS} answers", code="UNBOUNDED")


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
    """All material in `folder`. Raises NotFound if it is not such a folder, Malformed above 65,536 files or 256 MiB."""
    if not (folder / "lines").is_dir():
        raise NotFound(
            f"no charter statements in {folder}", why="it has no folder 'lines'", hint="comity proposal export FOLDER"
        )
    budget = _FolderReader(folder)
    lines = [data.removesuffix(b"\n") for data in budget.files("lines", MAX_LINE + 1)]
    return CharterMaterial.of(lines, budget.files("objects", MAX_BODY))


def write_folder(folder: Path, material: CharterMaterial) -> int:
    """Add `material` to `folder`, which is created if needed; existing files stay. Returns the number of new lines.
    Raises OutOfSpace, Unavailable."""
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


class _FolderReader:
    """Reads the files of a folder within the limits of number and total size."""

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
                why = f"at most {MAX_FILES} files and {MAX_TOTAL} bytes are allowed"
                raise Malformed(f"{self._folder} is too large", why=why)
            yield data


CURRENT, EARLIER, UNKNOWN, SILENT = "current", "earlier", "unknown", "silent"


@frozen
class HomeLogHead:
    """The known state of one member's home log.

    Attributes:
        size: of the newest known checkpoint; None for none.
        times: of the other members that cosigned that checkpoint, the POSIX seconds of the newest cosignature by the
            member's clock.
        adopted: whether the member's node acts under the charter that is `current` here, an `earlier` one, or one that
            is `unknown` here; `silent` if it logged no `adopted`, as under a genesis.
    """

    member: Digest
    name: str
    jurisdiction: str
    origin: str
    size: int | None
    times: Mapping[Digest, int]
    adopted: str

    @property
    def cosigners(self) -> tuple[Digest, ...]:
        return tuple(sorted(self.times))


@frozen
class Confirmation:
    """How many members confirm the current charter. `needed`: the number that its policy asks for."""

    epoch: int
    body: Digest
    heads: tuple[HomeLogHead, ...]
    needed: int

    @property
    def confirmed(self) -> int:
        """Members with a cosigned home log that act under this charter; under a genesis, also without `adopted`."""
        accepted = (CURRENT,) if self.epoch else (CURRENT, SILENT)
        return sum(bool(head.cosigners) and head.adopted in accepted for head in self.heads)

    @property
    def enough(self) -> bool:
        return self.confirmed >= self.needed and not self.elsewhere

    @property
    def elsewhere(self) -> tuple[HomeLogHead, ...]:
        """Members that act under a charter unknown here: the state here is old, or there is a fork."""
        return tuple(head for head in self.heads if head.adopted == UNKNOWN)

    def seen(self, now: float) -> int | None:
        """The time of the newest cosignatures of all heads, by the cosigners' clocks, as `corroborated_time` takes it
        from the newest of each member: one member cannot move it. POSIX seconds."""
        return corroborated_time(self._newest().values(), now)

    def ahead(self, now: float) -> dict[Digest, float]:
        """The members whose cosignatures are dated later than `now`, with the seconds."""
        return {member: at - now for member, at in sorted(self._newest().items()) if at > now + AHEAD_SECONDS}

    def _newest(self) -> dict[Digest, int]:
        return newest_of_each(item for head in self.heads for item in head.times.items())


async def confirm_logged(session: Session, federation: Federation, charter_state: CharterState) -> Confirmation:
    """Compare the home logs of all active members, as the nodes show them. Raises Unavailable if no node does."""
    answers = await session.ask(lambda client: client.logs())
    if not answers.found:
        raise answers.failure("no node shows the members' logs")
    notes: dict[str, list[bytes]] = {}
    for heads in answers.found.values():
        for head in heads:
            notes.setdefault(head.origin, []).append(head.note)
    adopted = _adopted_by_member(session, federation, charter_state)
    current = charter_state.current
    seats = {seat.id: seat for seat in current.active}
    heads_ = [
        _head(session, node, seat, notes.get(node.record.origin, ()), adopted)
        for node in session.nodes
        if (seat := seats.get(node.record.member)) is not None
    ]
    best = {head.member: head for head in sorted(heads_, key=lambda head: len(head.times))}
    return Confirmation(current.epoch, current.digest, tuple(best.values()), current.policy.cosigner_quorum)


def _head(
    session: Session, node: RemoteNode, seat: Member, notes: Iterable[bytes], adopted: Mapping[Digest, str]
) -> HomeLogHead:
    """The newest checkpoint of a node's log, and the other members that cosigned it."""
    owners = {key: other.record.member for other in session.nodes for key in other.record.cosigners}
    size, times = None, dict[Digest, int]()
    for data in notes:
        try:
            note = SignedNote.parse(data)
            checkpoint = open_checkpoint(note, node.record.log)
        except ComityError:
            continue  # not a checkpoint of this log
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
        times,
        adopted.get(seat.id, SILENT),
    )


def _adopted_by_member(session: Session, federation: Federation, charter_state: CharterState) -> dict[Digest, str]:
    """By member, the charter under which its node acts: an unknown one if any, else the latest known one."""
    known = {body.digest for body in (*federation.chain, *(each.body for each in charter_state.tally.epochs))}
    found: dict[Digest, str] = {}
    for entry in charter_state.entries:
        if entry.statement.predicate != ADOPTED:
            continue
        body = entry.statement.subject
        adoption = UNKNOWN if body not in known else CURRENT if body == charter_state.current.digest else EARLIER
        for node in session.nodes:
            if signed_by_node(entry, node.record):
                member = node.record.member
                found[member] = max(found.get(member, EARLIER), adoption, key=_ADOPTED_ORDER.index)
    return found


_ADOPTED_ORDER = (EARLIER, CURRENT, UNKNOWN)


@frozen
class PendingAction:
    """A missing statement of one member, and the command for it: `action` is `intent`, `ratified` or `consented`."""

    member: Digest
    name: str
    jurisdiction: str
    action: str
    body: Digest
    round: int
    why: str
    command: str


def pending_actions(charter_state: CharterState) -> list[PendingAction]:
    """The duties of the tally, in its order, each with its command."""
    found = []
    for duty in charter_state.tally.duties:
        draft = charter_state.tally.draft(duty.body)
        seat = charter_state.current.member(duty.member) or (draft.body.member(duty.member) if draft else None)
        verb = "consent" if duty.action == CONSENTED else "approve"
        name, where = (seat.name, seat.jurisdiction) if seat else (duty.member[:16], "")
        command = f"comity proposal {verb} {duty.body[:12]}"
        found.append(PendingAction(duty.member, name, where, duty.action, duty.body, duty.round, duty.why, command))
    return found
