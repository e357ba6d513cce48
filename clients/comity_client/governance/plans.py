"""What would be signed, in words, before anybody signs. Made from the payload itself, never from text beside it.

A plan is the only way to a signature: `acts.sign` takes one, so that whoever signs has had it in hand to show.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass

from comity.trust.charter import Body
from comity.trust.charter.proposing import CONSENTED, DRAFT, LEFT, Named, read_named
from comity.trust.charter.readings import INTENT, RATIFIED, Intent, Reading, read_reading
from comity.trust.digest import Digest, sha256, short
from comity.trust.dsse import PAYLOAD_TYPE, Envelope
from comity.trust.errors import Malformed
from comity.trust.offers import Said, is_said, read_said
from comity.trust.rotation import Rotation, parse_rotation
from comity.trust.statement import Entry, Statement
from comity.trust.statements.node_record import parse_node_record

from comity_client.desk.ceremony import Ceremony
from comity_client.governance.sitting import Material, Sitting, convene
from comity_client.owner.charter_diff import Change, body_changes

_IDENTITY = ("inception", "rotated", "node-record")


@dataclass(frozen=True, slots=True)
class Plan:
    """Something that may be signed.

    Attributes:
        title: what the signature says, in one sentence.
        facts: names and values of the payload, for people.
        changes: what the body that it is about changes; empty where it is about none, or the body before is not here.
        text: what whoever drafted the body wrote; a stranger's words.
        warnings: what a careful person would want to know first.
        ceremony: the payload, and who signs it.
        sitting: the look at the proceedings by which it was made.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    changes: tuple[Change, ...]
    text: str
    warnings: tuple[str, ...]
    ceremony: Ceremony
    sitting: Sitting

    @property
    def entry(self) -> Entry:
        """The signed line. Raises Unavailable (CEREMONY) while somebody must still sign."""
        return self.ceremony.entry()

    @property
    def material(self) -> Material:
        """What is to be handed to a node, or carried: the line, the bodies that it names, and the identities of those
        who are new in them."""
        named = {item.digest for item in self.entry.statement.objects}
        known = {**self.sitting.material.objects, **{sha256(data): data for data in self.ceremony.objects}}
        objects = [data for digest, data in known.items() if digest in named]
        return Material.of([*self._newcomers(objects), self.entry.line], objects)

    def _newcomers(self, bodies: Iterable[bytes]) -> list[bytes]:
        seats = {seat.id for data in bodies for seat in Body.parse(data).members}
        new = seats - {seat.id for seat in self.sitting.current.members}
        spoken = ((entry.statement.by, entry) for entry in self.sitting.entries)
        about = (entry for by, entry in spoken if by is not None and by.id in new)
        return [entry.line for entry in about if entry.statement.predicate in _IDENTITY]


def plan(ceremony: Ceremony, sitting: Sitting, warnings: tuple[str, ...] = ()) -> Plan:
    """Put a payload into words. Raises Malformed where it is none that a member signs."""
    entry = unsigned(ceremony.payload)
    predicate = entry.statement.predicate
    if predicate in (INTENT, RATIFIED):
        return _reading(read_reading(entry), ceremony, sitting, warnings)
    if predicate in (DRAFT, CONSENTED, LEFT):
        return _named(read_named(entry), ceremony, sitting, warnings)
    if predicate == "rotated":
        return _rotation(parse_rotation(entry)[0], ceremony, sitting, warnings)
    if predicate == "node-record":
        return _record(entry, ceremony, sitting, warnings)
    if is_said(entry.statement):
        return _lending(read_said(entry.statement), ceremony, sitting, warnings)
    raise Malformed("nothing that a member signs", why=f"a statement of type {predicate[:60]!r}", code="CEREMONY")


def plan_carried(data: bytes, sitting: Sitting | None = None) -> Plan:
    """The plan of a ceremony file that somebody brought.

    Args:
        sitting: what this signer knows by itself. Without it, as on a machine that has nothing but a key, the lines in
            the file are judged from the body before, which is in the file too; the plan says that this is so.

    Raises Malformed.
    """
    ceremony = Ceremony.parse(data)
    carried = Material.of(ceremony.lines, ceremony.objects)
    if sitting is not None:
        return plan(ceremony, convene(sitting.start, sitting.material | carried))
    before = _before(ceremony.statement, carried)
    if before is None:
        raise Malformed("the ceremony file lacks the current charter", why="nothing can be compared", code="CEREMONY")
    warning = "no federation is known here: compare federation and current charter with what you hold for true"
    return plan(ceremony, convene(before, carried), (warning,))


def unsigned(payload: bytes) -> Entry:
    """A payload as an entry that nobody has signed. Raises Malformed."""
    return Entry(b"", Envelope(PAYLOAD_TYPE, payload, ()), Statement.parse(payload))


def _reading(reading: Reading, ceremony: Ceremony, sitting: Sitting, warnings: tuple[str, ...]) -> Plan:
    who = _who(reading.member, sitting)
    if isinstance(reading, Intent):
        title = f"INTENT, round {reading.round}: {who} means to ratify this charter, if a quorum means to"
    else:
        title = f"RATIFY, round {reading.round}: {who} votes for this charter as epoch {reading.epoch}"
    facts = [("round", str(reading.round))]
    if isinstance(reading, Intent) and reading.last_ratified is not None:
        last = reading.last_ratified
        facts.append(("ratified before", f"round {last.round}, body {short(last.body)}"))
        facts.append(("free by", f"the intent-certificate of round {reading.unlock}"))
    return _about(reading.body, title, facts, ceremony, sitting, warnings)


def _named(named: Named, ceremony: Ceremony, sitting: Sitting, warnings: tuple[str, ...]) -> Plan:
    who = _who(named.by, sitting)
    title = {
        DRAFT: f"DRAFT: {who} puts this charter forward",
        CONSENTED: f"CONSENT: {who} agrees to its seat in this charter",
        LEFT: f"LEAVE: {who} asks to be left out of the next charter",
    }[named.predicate]
    made = _about(named.body, title, [], ceremony, sitting, warnings)
    return dataclasses.replace(made, text=named.text or made.text)


def _about(
    digest: Digest,
    title: str,
    facts: list[tuple[str, str]],
    ceremony: Ceremony,
    sitting: Sitting,
    warnings: tuple[str, ...],
) -> Plan:
    """A plan about a body, against the current one."""
    current, draft = sitting.current, sitting.council.draft(digest)
    bodies = {**sitting.material.objects, **{sha256(data): data for data in ceremony.objects}}
    body = Body.parse(bodies[digest]) if digest in bodies else None
    changes: tuple[Change, ...] = ()
    if body is None:
        warnings += ("the charter itself is not at hand: nobody can say what this would change",)
    elif body.digest != current.digest:
        changes = tuple(body_changes(current, body))
        if body.prev != current.digest:
            warnings += (f"it does not follow the charter that is current here, epoch {current.epoch}",)
    if draft is not None and draft.objection:
        warnings += (draft.objection,)
    warnings += tuple(f"proven liar: {_who(lie.member, sitting)} ({lie.kind})" for lie in sitting.council.lies)
    facts = [
        ("federation", current.federation),
        ("current charter", f"epoch {current.epoch}, {current.digest}"),
        ("this charter", digest),
        *facts,
    ]
    return Plan(title, tuple(facts), changes, draft.text if draft else "", warnings, ceremony, sitting)


def _rotation(rotation: Rotation, ceremony: Ceremony, sitting: Sitting, warnings: tuple[str, ...]) -> Plan:
    title = f"NEW KEYS: {_who(rotation.identity, sitting)} changes its keys, for the {_ordinal(rotation.seq)} time"
    keys = ", ".join(key.id[:16] for key in rotation.keys.keys)
    facts = [
        ("identity", rotation.identity),
        ("new keys", f"{rotation.keys.threshold} of {keys}"),
        ("new recovery keys", ", ".join(digest[:16] for digest in rotation.recovery) or "none"),
        *((f"cut of {cut.origin}", f"size {cut.size}") for cut in rotation.cut),
    ]
    if not rotation.recovery:
        warnings += ("without recovery keys these new keys can never be changed",)
    return Plan(title, tuple(facts), (), "", warnings, ceremony, sitting)


def _record(entry: Entry, ceremony: Ceremony, sitting: Sitting, warnings: tuple[str, ...]) -> Plan:
    record = parse_node_record(entry)
    title = f"NODE: {_who(record.member, sitting)} says that {record.name} is its node"
    facts = (("log", str(record.log)), ("online key", record.online.id))
    return Plan(title, facts, (), "", warnings, ceremony, sitting)


def _lending(said: Said, ceremony: Ceremony, sitting: Sitting, warnings: tuple[str, ...]) -> Plan:
    title = f"{ceremony.statement.predicate.upper()}: {_who(said.by, sitting)} speaks about a compute offer"
    body = {name: value for name, value in ceremony.statement.body.items() if name not in ("by", "objects", "text")}
    facts: list[tuple[str, str]] = [("offer", ceremony.statement.subject)]
    facts += [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(body.items())]
    text = ceremony.statement.body.get("text")
    return Plan(title, tuple(facts), (), text if isinstance(text, str) else "", warnings, ceremony, sitting)


def _who(member: Digest, sitting: Sitting) -> str:
    bodies = (sitting.current, *(draft.body for draft in sitting.council.drafts))
    seat = next((seat for body in bodies if (seat := body.member(member)) is not None), None)
    return f"{seat.name} ({seat.jurisdiction})" if seat else f"identity {member[:16]}"


def _before(statement: Statement, carried: Material) -> Body | None:
    """The charter that was current when a statement was drawn up, among the carried bodies."""
    bodies = [Body.parse(data) for data in carried.objects.values()]
    if statement.predicate not in (INTENT, RATIFIED, DRAFT, CONSENTED):  # it speaks of no other body than the current
        return bodies[0] if len(bodies) == 1 else None
    prev = statement.body.get("prev")
    return next((body for body in bodies if body.digest == prev), None)


def _ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")
