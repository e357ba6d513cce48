"""Governance keys with their vote files, and ceremonies: one statement that several signers sign in several places.

    governance.pem   + governance.votes   a key file (`comity.content.secrets`), and its votes beside it
    governance.toml                       a key with its classical half in a token (`pkcs11`), and the path of its votes
    recovery.pem                          signs rotations only, so it has no votes

A vote file holds all votes that one key may have signed. A vote is written to the file, and to the disk, before it
is signed: after a crash the same vote may be signed again, and never another one in its place. A copied key without
its file, or with an old file from a backup, could make its member equivocate; such a key does not vote in the
current epoch.

    {"key":"<id>","schema":"comity/votes/v1"}
    {"sha256":"<of the statement>","statement":{…}}   a vote that this key may have signed
    {"lost":"<prev>","why":"…"}                       the key does not vote on the epoch after the body `prev`
    {"resumed":"<prev>","why":"…"}                    its owner decided to vote again

A ceremony file is carried from one signer to the next. `panels` list the required signers, for example m of the
governance keys; readers verify the line by the member's record, so a wrong panel cannot make it valid. `objects`
(charter bodies) and `lines` let a signer check the statement. `next` is a command for people and is never executed.

    {"schema":"comity/ceremony/v1","payload":"…","panels":[…],"signatures":[…],"objects":[…],"lines":[…],"next":"…"}

No network is used here. Source: protocol, section 7.5.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.content.secrets import read_signer, write_keys
from comity.rules.vote_state import VoteState, check_vote
from comity.trust.charter.votes import Intent, Ratify, Vote, parse_vote
from comity.trust.encoding import (
    Digest,
    Fields,
    Json,
    b64decode,
    b64encode,
    canonical,
    parse_canonical,
    parse_json,
    sha256,
    short,
)
from comity.trust.errors import ComityError, Conflict, Malformed, Refused, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.trust.identity import KeySet, read_key_set
from comity.trust.keys import HybridSigner, Signer, VerifyingKey
from comity.trust.statement import (
    MAX_LINE,
    MAX_PAYLOAD,
    MAX_SIGNATURES,
    PAYLOAD_TYPE,
    Entry,
    Envelope,
    EnvelopeSignature,
    Statement,
    assemble_envelope,
    pae,
    parse_entry,
)
from comity.trust.statement_kinds import VOTE_PREDICATES

from comity_client.home import exclusive
from comity_client.signing.pkcs11 import open_token_key

VOTES_SCHEMA: Final = "comity/votes/v1"
MAX_VOTE_FILE: Final = 16 * 1024 * 1024
POINT: Final = "votes"
AFTER_LOSS: Final = "wait for the next epoch; or see comity keys recover-votes --help"


@frozen
class VoteMark:
    """A mark in a vote file: now the key must not (`lost`), or may (`resumed`), vote on the epoch after `prev`."""

    kind: str
    prev: Digest
    why: str


@frozen
class VoteHistory:
    """The content of one vote file, oldest first."""

    votes: tuple[Vote, ...] = ()
    marks: tuple[VoteMark, ...] = ()

    def state(self, prev: Digest, known: Iterable[Vote] = ()) -> VoteState:
        """The votes of this key, and of its member by other keys (`known`), about the epoch after the body `prev`."""
        known = [vote for vote in dict.fromkeys((*self.votes, *known)) if vote.prev == prev]
        return VoteState(
            prev,
            tuple(vote for vote in known if isinstance(vote, Intent)),
            tuple(vote for vote in known if isinstance(vote, Ratify)),
            lost=self.lost(prev) is not None,
        )

    def lost(self, prev: Digest) -> VoteMark | None:
        """The mark because of which this key does not vote on the epoch after `prev`; None if it may vote."""
        newest = next((mark for mark in reversed(self.marks) if mark.prev == prev), None)
        return newest if newest is not None and newest.kind == "lost" else None

    def missing(self, prev: Digest, seen: Iterable[Vote]) -> list[Vote]:
        """Votes in `seen`, all signed by this key, that the file lacks: proof that the file is old."""
        return [vote for vote in seen if vote.prev == prev and vote not in self.votes]


class VoteFile:
    """The vote file of `key` at `path`. If the file is missing, the state is lost. A lock of its folder allows one
    process at a time.

    Methods raise Malformed (VOTES-DAMAGED) for a damaged file, Untrusted (VOTES-KEY) for the file of another key,
    OutOfSpace, Unavailable.
    """

    def __init__(self, path: Path, key: VerifyingKey) -> None:
        self.path = path
        self._key = key

    def create(self, votes: VoteHistory) -> None:
        """Create the file for a new key: empty for a member's first keys, else with the votes of the previous keys
        (`votes`). Raises Conflict (VOTES-EXIST)."""
        with exclusive(self.path.parent):
            if self.path.exists():
                why = "it may hold the votes of a key"
                raise Conflict(f"{self.path} already exists", why=why, hint="choose another name", code="VOTES-EXIST")
            self._write(votes)

    def load(self, prev: Digest, seen: Iterable[Vote] = ()) -> VoteHistory:
        """Read the votes of this key, for a plan. If the state is found to be lost, the file records that.

        Args:
            seen: known votes with this key's signature, from any source.
        """
        with exclusive(self.path.parent):
            return self._load(prev, seen)

    def permit(self, vote: Vote, seen: Iterable[Vote] = (), known: Iterable[Vote] = ()) -> None:
        """Write `vote` to the disk if this key may sign it; sign only after that. A recorded vote may be signed again.

        Args:
            seen: as in `load`.
            known: verified votes of this key's member, by any of its keys: all keys of a member vote as one.

        Raises Untrusted or Conflict as `check_vote` does, and Refused (VOTE-LOST) if the state is lost.
        """
        with exclusive(self.path.parent):
            votes = self._load(vote.prev, seen)
            if vote in votes.votes:
                return
            if mark := votes.lost(vote.prev):
                raise Refused("this key must not vote now", why=mark.why, hint=AFTER_LOSS, code="VOTE-LOST")
            check_vote(votes.state(vote.prev, known), vote)
            self._write(VoteHistory((*votes.votes, vote), votes.marks))

    def resume(self, prev: Digest, found: Sequence[Vote], why: str) -> None:
        """Vote again on the epoch after `prev`, assuming that this key signed only the votes in the file and `found`.
        The caller is responsible for that (see `charter.keys.prepare_resumption`)."""
        with exclusive(self.path.parent):
            history = self._load(prev, ())
            votes = tuple(dict.fromkeys((*history.votes, *found)))
            self._write(VoteHistory(votes, (*history.marks, VoteMark("resumed", prev, why))))

    def _load(self, prev: Digest, seen: Iterable[Vote]) -> VoteHistory:
        votes = self._read()
        if votes is None:
            why = f"there is no {self.path.name} beside the key, so its votes are unknown"
            lost = VoteHistory((), (VoteMark("lost", prev, why),))
        elif (missing := votes.missing(prev, seen)) and votes.lost(prev) is None:
            one = missing[0]
            why = f"it signed a vote for {short(one.body)} in round {one.round} that {self.path.name} lacks"
            lost = VoteHistory(votes.votes, (*votes.marks, VoteMark("lost", prev, why)))
        else:
            return votes
        self._write(lost)
        return lost

    def _read(self) -> VoteHistory | None:
        """The content of the file; None if there is no file."""
        with durable.disk_errors(f"{self.path} was not read"):
            if not self.path.exists():
                return None
        data = read_bounded(self.path, MAX_VOTE_FILE)
        head, *lines = data.removesuffix(b"\n").split(b"\n")
        try:
            fields = _fields(head)
            fields.constant("schema", VOTES_SCHEMA)
            if (owner := fields.digest("key")) != self._key.id:
                why = f"it holds the votes of key {short(owner)}"
                raise Untrusted(f"{self.path} belongs to another key", why=why, code="VOTES-KEY")
            fields.done()
            items = [_parse(line) for line in lines]
        except Malformed as error:
            why = f"a line is invalid: {error}"
            raise Malformed(f"{self.path} is damaged", why=why, code="VOTES-DAMAGED") from error
        return VoteHistory(
            tuple(item for item in items if not isinstance(item, VoteMark)),
            tuple(item for item in items if isinstance(item, VoteMark)),
        )

    def _write(self, votes: VoteHistory) -> None:
        lines = [canonical({"schema": VOTES_SCHEMA, "key": self._key.id}), *_lines(votes)]
        durable.write_file(self.path, b"\n".join(lines) + b"\n", point=POINT)


def parse_vote_payload(payload: bytes) -> Vote:
    """Parse the vote in a payload, signed or not. Raises Malformed."""
    return parse_vote(Entry(b"", Envelope(PAYLOAD_TYPE, payload, ()), Statement.parse(payload)))


def _lines(votes: VoteHistory) -> Iterator[bytes]:
    for vote in votes.votes:
        payload = vote.statement().encode()
        yield b'{"sha256":"%b","statement":%b}' % (sha256(payload).encode(), payload)
    for mark in votes.marks:
        yield canonical({mark.kind: mark.prev, "why": mark.why})


def _parse(line: bytes) -> Vote | VoteMark:
    fields = _fields(line)
    if fields.has("statement"):
        payload = canonical(fields.take("statement"))
        if fields.digest("sha256") != sha256(payload):
            raise Malformed("vote is malformed", why="its digest does not match")
        fields.done()
        return parse_vote_payload(payload)
    kind = "lost" if fields.has("lost") else "resumed"
    mark = VoteMark(kind, fields.digest(kind), fields.text("why", least=0, most=1000))
    fields.done()
    return mark


def _fields(line: bytes) -> Fields:
    value: Json = parse_canonical(line, limit=MAX_VOTE_FILE, what="vote file")
    return Fields(value, "vote file")


VOTES: Final = ".votes"
MAX_PUBLIC: Final = 16 * 1024


@frozen
class GovernanceKey:
    """One governance key: its signer and its vote file. `path` is the name that its owner gave."""

    path: Path
    signer: Signer
    votes: VoteFile

    @property
    def public(self) -> VerifyingKey:
        return self.signer.public

    def sign(self, message: bytes) -> tuple[tuple[Digest, bytes], ...]:
        """As `Signer.sign`. For votes use `sign_ceremony`, which checks the vote file first."""
        return self.signer.sign(message)


def open_key(path: Path) -> GovernanceKey:
    """The key at `path`: a PEM key file, or the TOML file that describes a token.

    Raises NotFound, Refused (not private; a PIN that the token refuses), Malformed, Unavailable.
    """
    if path.suffix == ".toml":
        signer, votes = open_token_key(path)
    else:
        signer, votes = read_signer(path), path.with_suffix(VOTES)
    return GovernanceKey(path, signer, VoteFile(votes, signer.public))


def read_public(path: Path) -> VerifyingKey:
    """A public key: from a JSON file of `write_public`, for a signer elsewhere, or from a key file here.

    Raises NotFound, Malformed, and as `open_key` does.
    """
    if path.suffix == ".json":
        return VerifyingKey.from_json(parse_json(read_bounded(path, MAX_PUBLIC), limit=MAX_PUBLIC, what="public key"))
    return open_key(path).public


def write_public(path: Path, key: VerifyingKey) -> None:
    """Raises OutOfSpace, Unavailable."""
    durable.write_file(path, json.dumps(key.to_json(), indent=1).encode() + b"\n", mode=0o644, point="public")


def new_key(path: Path, votes: VoteHistory | None = None) -> GovernanceKey:
    """Generate a hybrid governance key in a new file, and its vote file: a key without one would count as lost.

    Args:
        votes: the votes of the previous keys; None for a member's first key.

    Raises Conflict (KEY-EXISTS, VOTES-EXIST), OutOfSpace, Unavailable.
    """
    return write_key(path, HybridSigner.generate(), votes)


def write_key(path: Path, signer: HybridSigner, votes: VoteHistory | None = None) -> GovernanceKey:
    """As `new_key`, for a key that was generated in memory."""
    vote_file = VoteFile(path.with_suffix(VOTES), signer.public)
    vote_file.create(votes or VoteHistory())  # before the key: a key without votes would count as lost
    write_keys(path, signer.keys)
    return GovernanceKey(path, signer, vote_file)


def find_keys(folder: Path, keys: KeySet) -> list[GovernanceKey]:
    """The keys of a member in files below `folder`, by their content. Raises as `open_key` does."""
    paths = sorted((*folder.rglob("governance*.pem"), *folder.rglob("governance*.toml")))
    found = (open_key(path) for path in paths)
    return [key for key in found if key.public in keys.keys]


CEREMONY_SCHEMA: Final = "comity/ceremony/v1"
MAX_CEREMONY_FILE: Final = 32 * 1024 * 1024
MAX_LINES: Final = 4096
MAX_OBJECTS: Final = 64
MAX_PANELS: Final = 4
NEXT: Final = "comity keys sign {} --key YOUR-KEY.pem"


@frozen
class SigningPanel:
    """A set of keys of which `keys.threshold` must sign. `role`: `governance`, `recovery`, `new` or `node`."""

    role: str
    keys: KeySet


@frozen
class MissingSignatures:
    """The missing signatures of a panel: `count`, of any of `keys`."""

    role: str
    count: int
    keys: tuple[VerifyingKey, ...]


@frozen
class Ceremony:
    """A payload and its signatures so far. Signing returns a new value; signatures are never removed.

    `objects` are the bodies that the payload names; `lines` are the statements that its signers should see.
    """

    payload: bytes
    panels: tuple[SigningPanel, ...]
    signatures: tuple[EnvelopeSignature, ...] = ()
    objects: tuple[bytes, ...] = ()
    lines: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Ceremony:
        """Parse a ceremony file. Raises Malformed, also for a signature that does not verify."""
        fields = Fields(parse_json(data, limit=MAX_CEREMONY_FILE, what="ceremony file"), "ceremony file")
        fields.constant("schema", CEREMONY_SCHEMA)
        payload = _text(fields.take("payload"), MAX_PAYLOAD)
        panels = tuple(_panel(item) for item in fields.items("panels", least=1, most=MAX_PANELS))
        signatures = tuple(_signature(item) for item in fields.items("signatures", most=MAX_SIGNATURES))
        objects = tuple(_text(item, MAX_CEREMONY_FILE) for item in fields.items("objects", most=MAX_OBJECTS))
        lines = tuple(_text(item, MAX_LINE) for item in fields.items("lines", most=MAX_LINES))
        fields.take("next")
        fields.done()
        Statement.parse(payload)
        ceremony = cls(payload, panels, signatures, objects, lines)
        if not set(ceremony._signers()) == {signature.keyid for signature in signatures}:
            raise Malformed("ceremony file is malformed", why="it has a signature that belongs to no key of its panels")
        return ceremony

    def encode(self, name: str = "THIS-FILE") -> bytes:
        """The file content. `name` is the file name in the command for the next signer."""
        document: dict[str, Json] = {
            "schema": CEREMONY_SCHEMA,
            "next": "" if self.complete else NEXT.format(shlex.quote(name)),
            "payload": self.payload.decode(),
            "panels": [_panel_json(panel) for panel in self.panels],
            "signatures": [{"keyid": s.keyid, "sig": b64encode(s.sig)} for s in self.signatures],
            "objects": [data.decode() for data in self.objects],
            "lines": [line.decode() for line in self.lines],
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"

    @property
    def statement(self) -> Statement:
        return Statement.parse(self.payload)

    @property
    def missing(self) -> tuple[MissingSignatures, ...]:
        """The missing signatures; empty if the statement is complete."""
        return tuple(
            _missing_signatures(panel, self._envelope()) for panel in self.panels if self._is_incomplete(panel)
        )

    @property
    def complete(self) -> bool:
        return not self.missing

    def entry(self) -> Entry:
        """The signed line. Raises Unavailable (CEREMONY) naming the missing signatures."""
        if self.missing:
            why = "; ".join(f"{w.count} more of the {w.role} keys" for w in self.missing)
            raise Unavailable(
                "the statement is not completely signed", why=why, hint=NEXT.format("FILE"), code="CEREMONY"
            )
        return parse_entry(assemble_envelope(self.payload, self.signatures).encode())

    def panel_of(self, key: VerifyingKey) -> SigningPanel:
        """The panel that contains `key`. Raises Refused (NOT-A-SIGNER)."""
        for panel in self.panels:
            if key in panel.keys.keys:
                return panel
        why = f"key {key.id[:16]} is not a signer of this statement"
        raise Refused("this key has nothing to sign here", why=why, code="NOT-A-SIGNER")

    def awaits(self, key: VerifyingKey) -> bool:
        """Whether a signature of `key` is missing."""
        return any(key in missing.keys for missing in self.missing)

    def signed_by(self, key: VerifyingKey) -> bool:
        return self._envelope().has_valid_signature(key)

    def with_signature(self, signer: Signer) -> Ceremony:
        """Sign. The caller has shown the plan, and checked the vote file (`sign_ceremony`)."""
        self.panel_of(signer.public)
        if self.signed_by(signer.public):
            return self
        signatures = signer.sign(pae(PAYLOAD_TYPE, self.payload))
        return dataclasses.replace(
            self, signatures=(*self.signatures, *(EnvelopeSignature(keyid, sig) for keyid, sig in signatures))
        )

    def joined(self, other: Ceremony) -> Ceremony:
        """Merge the signatures of two copies of one file. Raises Conflict (CEREMONY) if payloads or panels differ."""
        if (self.payload, self.panels) != (other.payload, other.panels):
            raise Conflict("not the same ceremony", why="the two files hold different statements", code="CEREMONY")
        own = {signature.keyid for signature in self.signatures}
        more = [signature for signature in other.signatures if signature.keyid not in own]
        return dataclasses.replace(
            self,
            signatures=(*self.signatures, *more),
            objects=tuple(dict.fromkeys((*self.objects, *other.objects))),
            lines=tuple(dict.fromkeys((*self.lines, *other.lines))),
        )

    def _envelope(self) -> Envelope:
        return Envelope(PAYLOAD_TYPE, self.payload, self.signatures)

    def _is_incomplete(self, panel: SigningPanel) -> bool:
        return sum(map(self.signed_by, panel.keys.keys)) < panel.keys.threshold

    def _signers(self) -> Iterable[Digest]:
        """The ids of all key halves that have signed."""
        halves = (half for panel in self.panels for key in panel.keys.keys for half in key.halves)
        return (half.id for half in halves if self._envelope().has_valid_signature(VerifyingKey((half,))))


def _missing_signatures(panel: SigningPanel, envelope: Envelope) -> MissingSignatures:
    absent = tuple(key for key in panel.keys.keys if not envelope.has_valid_signature(key))
    signed = len(panel.keys.keys) - len(absent)
    return MissingSignatures(panel.role, panel.keys.threshold - signed, absent)


def _panel(item: Json) -> SigningPanel:
    fields = Fields(item, "ceremony panel")
    panel = SigningPanel(fields.text("role", most=40), read_key_set(fields))
    fields.done()
    return panel


def _panel_json(panel: SigningPanel) -> dict[str, Json]:
    keys: list[Json] = [key.to_json() for key in panel.keys.keys]
    return {"role": panel.role, "keys": keys, "threshold": panel.keys.threshold}


def _signature(item: Json) -> EnvelopeSignature:
    fields = Fields(item, "ceremony signature")
    signature = EnvelopeSignature(fields.digest("keyid"), b64decode(fields.take("sig")))
    fields.done()
    return signature


def _text(value: Json, limit: int) -> bytes:
    if not isinstance(value, str) or len(value) > limit:
        raise Malformed("ceremony file is malformed", why=f"expected a string of at most {limit} characters")
    return value.encode()


def sign_ceremony(
    ceremony: Ceremony, key: GovernanceKey, entries: Iterable[Entry] = (), known: Iterable[Vote] = ()
) -> Ceremony:
    """`ceremony` with the signature of `key`, whose owner has seen the plan.

    Args:
        entries: all known statements. If they hold a vote of this key that its vote file lacks, the file is old, and
            the key must not vote in this epoch.
        known: verified votes of this key's member, by any of its keys.

    Raises Refused (NOT-A-SIGNER, VOTE-LOST), Untrusted or Conflict if this key must not sign this vote, and as its
    vote file and its signer do.
    """
    ceremony.panel_of(key.public)
    if ceremony.statement.predicate in VOTE_PREDICATES:
        key.votes.permit(parse_vote_payload(ceremony.payload), votes_signed_by(key.public, entries), known)
    return ceremony.with_signature(key)


def votes_signed_by(key: VerifyingKey, entries: Iterable[Entry]) -> list[Vote]:
    """The votes in `entries` with a signature of `key`, alone or with others."""
    found = []
    for entry in entries:
        if entry.statement.predicate in VOTE_PREDICATES and entry.envelope.has_valid_signature(key):
            try:
                found.append(parse_vote(entry))
            except ComityError:
                continue  # signed, but malformed: it never counts
    return found
