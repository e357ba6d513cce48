"""What one governance key has signed about the next charter: its vote state, in a file beside the key.

    governance.pem     the key
    governance.votes   {"key":"<id>","schema":"comity/votes/v1"}
                       {"sha256":"<of the statement>","statement":{…}}   a reading that this key may have signed
                       {"lost":"<prev>","why":"…"}                       it sits out the epoch after the body `prev`
                       {"resumed":"<prev>","why":"…"}                    its owner decided otherwise

A reading stands in the file, on the disk, before its signature exists. So after any crash the same reading may be
signed again, and never another in its place. Key and file belong together: a key that is copied to a second desk
without its file, or restored from a backup with an old one, can make a liar of its member. Such a key sits out the
current epoch, as an absent member does. Source: protocol, section 7.5.


Keys that sign for a member, each with its vote state. Where the secret lies is all that differs between them.

governance.pem  + governance.votes   a key file (`comity.content.secrets`), and its votes beside it
governance.toml                      a key whose classical half is in a token (`token`), and where its votes are
recovery.pem                         signs rotations only, so it has no votes


One statement, several signers in several places: a file that is carried from one to the next.

    {"schema":"comity/ceremony/v1","payload":"…","panels":[…],"signatures":[…],"objects":[…],"lines":[…],"next":"…"}

The payload is fixed before the first signature. `panels` say whose signatures make the line complete: m of the
governance keys, say. A wrong panel only misleads about that, since whoever reads the line judges it by the member's
record. `objects` and `lines` are what a signer needs to see what they sign: charter bodies, named by their digests, and
what others have signed. `next` is the command for the next signer. It is for people, and nothing here reads it back:
each signer is shown a plan made from the payload (`governance.plans`).


Putting a key to a ceremony's payload: a reading is remembered beside the key before its signature exists.

The signing desk: a member's governance keys, what each of them has signed, and how several of them sign as one.

    votes      the vote state of one key, in a file beside it
    keys       a key that signs: in a file, or in a token, with its vote state
    token      the classical half of a key inside a PKCS#11 token
    seat_keys  all the keys that decide about a seat, as they are made
    ceremony   m of k by one carried file
    signing    a key put to a ceremony: the votes are asked first

No network here, and nothing that a node runs. What to sign, and why, is decided in the room `governance`.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.content.secrets import read_signer, write_keys
from comity.trust.charter.tally import VoteState, guard
from comity.trust.charter.votes import INTENT, RATIFIED, Intent, Ratify, Reading, read_reading
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
    assemble,
    pae,
    parse_entry,
)
from comity.verifier import read_bounded
from comity_client.home import exclusive
from comity_client.signing.pkcs11 import open_token_key

VOTES_SCHEMA: Final = "comity/votes/v1"
MAX_VOTE_FILE: Final = 16 * 1024 * 1024
POINT: Final = "votes"
AFTER_LOSS: Final = "wait for the next epoch, as an absent member would; or comity keys recover-votes --help"


@dataclass(frozen=True, slots=True)
class VoteMark:
    """A turn in the life of the file: from here on the epoch after `prev` is sat out (`lost`), or not (`resumed`)."""

    kind: str
    prev: Digest
    why: str


@dataclass(frozen=True, slots=True)
class Votes:
    """The content of one key's file, oldest first."""

    readings: tuple[Reading, ...] = ()
    marks: tuple[VoteMark, ...] = ()

    def state(self, prev: Digest, said: Iterable[Reading] = ()) -> VoteState:
        """What this key, and its member by other keys (`said`), signed about the epoch after the body `prev`."""
        said = [reading for reading in dict.fromkeys((*self.readings, *said)) if reading.prev == prev]
        return VoteState(
            prev,
            tuple(reading for reading in said if isinstance(reading, Intent)),
            tuple(reading for reading in said if isinstance(reading, Ratify)),
            lost=self.lost(prev) is not None,
        )

    def lost(self, prev: Digest) -> VoteMark | None:
        """Why this key sits out the epoch after `prev`; None where it does not."""
        newest = next((mark for mark in reversed(self.marks) if mark.prev == prev), None)
        return newest if newest is not None and newest.kind == "lost" else None

    def unknown(self, prev: Digest, seen: Iterable[Reading]) -> list[Reading]:
        """Those of the `seen` readings that bear this key's signature and are not here: proof that the file is old."""
        return [reading for reading in seen if reading.prev == prev and reading not in self.readings]


class VoteFile:
    """The votes of `key` in the file `path`; where that is missing, the state is lost. One process at a time changes
    it; a lock of its folder sees to that.

    Methods raise Malformed (code VOTES-DAMAGED) for a file that is not as it was written, Untrusted (VOTES-KEY) for
    another key's, OutOfSpace, Unavailable.
    """

    def __init__(self, path: Path, key: VerifyingKey) -> None:
        self.path = path
        self._key = key

    def create(self, votes: Votes = Votes()) -> None:
        """For a key that is being made. A member's first keys have signed nothing; one that follows others takes over
        what they signed (`votes`). Raises Conflict (VOTES-EXIST)."""
        with exclusive(self.path.parent):
            if self.path.exists():
                why = "it may say what a key has signed"
                raise Conflict(f"{self.path} exists", why=why, hint="choose another name", code="VOTES-EXIST")
            self._write(votes)

    def look(self, prev: Digest, seen: Iterable[Reading] = ()) -> Votes:
        """What this key said, to plan by. That the state is lost, where that is found out now, is written down.

        Args:
            seen: readings at hand that bear this key's signature, wherever they were found.
        """
        with exclusive(self.path.parent):
            return self._look(prev, seen)

    def permit(self, reading: Reading, seen: Iterable[Reading] = (), said: Iterable[Reading] = ()) -> None:
        """Remember `reading`, on the disk, if this key may sign it; only then may it be signed. A reading that was
        remembered before may be signed again.

        Args:
            seen: as in `look`.
            said: proven readings of this key's member, by whichever of its keys: one member, one word.

        Raises Refused, Untrusted or Conflict as `voting.guard` does, and Refused (VOTE-LOST) where the state is lost.
        """
        with exclusive(self.path.parent):
            votes = self._look(reading.prev, seen)
            if reading in votes.readings:
                return
            if mark := votes.lost(reading.prev):
                raise Refused("this key may not vote now", why=mark.why, hint=AFTER_LOSS, code="VOTE-LOST")
            guard(votes.state(reading.prev, said), reading)
            self._write(Votes((*votes.readings, reading), votes.marks))

    def resume(self, prev: Digest, found: Sequence[Reading], why: str) -> None:
        """Vote again on the epoch after `prev`, as if this key had signed nothing but what is here and what was `found`
        under its signature. Whether that is so, the caller must know (see `governance.recovery`)."""
        with exclusive(self.path.parent):
            votes = self._look(prev, ())
            readings = tuple(dict.fromkeys((*votes.readings, *found)))
            self._write(Votes(readings, (*votes.marks, VoteMark("resumed", prev, why))))

    def _look(self, prev: Digest, seen: Iterable[Reading]) -> Votes:
        votes = self._read()
        if votes is None:
            why = f"there is no {self.path.name} beside the key, so nobody knows what it signed"
            lost = Votes((), (VoteMark("lost", prev, why),))
        elif (unknown := votes.unknown(prev, seen)) and votes.lost(prev) is None:
            one = unknown[0]
            why = f"it signed for {short(one.body)} in round {one.round}, of which {self.path.name} knows nothing"
            lost = Votes(votes.readings, (*votes.marks, VoteMark("lost", prev, why)))
        else:
            return votes
        self._write(lost)
        return lost

    def _read(self) -> Votes | None:
        """What the file says; None where there is no file."""
        with durable.disk_errors(f"{self.path} was not read"):
            if not self.path.exists():
                return None
        data = read_bounded(self.path, MAX_VOTE_FILE)
        head, *lines = data.removesuffix(b"\n").split(b"\n")
        try:
            fields = _fields(head)
            fields.constant("schema", VOTES_SCHEMA)
            if (whose := fields.digest("key")) != self._key.id:
                why = f"it says what key {short(whose)} signed"
                raise Untrusted(f"{self.path} is another key's", why=why, code="VOTES-KEY")
            fields.done()
            items = [_parse(line) for line in lines]
        except Malformed as error:
            why = f"a line of it is not as it was written: {error}"
            raise Malformed(f"{self.path} is damaged", why=why, code="VOTES-DAMAGED") from error
        return Votes(
            tuple(item for item in items if not isinstance(item, VoteMark)),
            tuple(item for item in items if isinstance(item, VoteMark)),
        )

    def _write(self, votes: Votes) -> None:
        lines = [canonical({"schema": VOTES_SCHEMA, "key": self._key.id}), *_lines(votes)]
        durable.write_file(self.path, b"\n".join(lines) + b"\n", point=POINT)


def reading_of(payload: bytes) -> Reading:
    """The reading that a payload is, signed or not. Raises Malformed."""
    return read_reading(Entry(b"", Envelope(PAYLOAD_TYPE, payload, ()), Statement.parse(payload)))


def _lines(votes: Votes) -> Iterator[bytes]:
    for reading in votes.readings:
        payload = reading.statement().encode()
        yield b'{"sha256":"%b","statement":%b}' % (sha256(payload).encode(), payload)
    for mark in votes.marks:
        yield canonical({mark.kind: mark.prev, "why": mark.why})


def _parse(line: bytes) -> Reading | VoteMark:
    fields = _fields(line)
    if fields.has("statement"):
        payload = canonical(fields.take("statement"))
        if fields.digest("sha256") != sha256(payload):
            raise Malformed("reading is malformed", why="its digest is another one")
        fields.done()
        return reading_of(payload)
    kind = "lost" if fields.has("lost") else "resumed"
    mark = VoteMark(kind, fields.digest(kind), fields.text("why", least=0, most=1000))
    fields.done()
    return mark


def _fields(line: bytes) -> Fields:
    value: Json = parse_canonical(line, limit=MAX_VOTE_FILE, what="vote file")
    return Fields(value, "vote file")


VOTES: Final = ".votes"
MAX_PUBLIC: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class GovernanceKey:
    """One governance key: what signs, and the file that remembers what it signed. `path` is how its owner calls it."""

    path: Path
    signer: Signer
    votes: VoteFile

    @property
    def public(self) -> VerifyingKey:
        return self.signer.public

    def sign(self, message: bytes) -> tuple[tuple[Digest, bytes], ...]:
        """As `Signer.sign`. For readings use `signing.sign`, which asks the votes first."""
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
    """The public key of somebody who signs elsewhere: a JSON file as `write_public` makes it, or a key that is here.

    Raises NotFound, Malformed, and as `open_key` does.
    """
    if path.suffix == ".json":
        return VerifyingKey.from_json(parse_json(read_bounded(path, MAX_PUBLIC), limit=MAX_PUBLIC, what="public key"))
    return open_key(path).public


def write_public(path: Path, key: VerifyingKey) -> None:
    """Raises OutOfSpace, Unavailable."""
    durable.write_file(path, json.dumps(key.to_json(), indent=1).encode() + b"\n", mode=0o644, point="public")


def new_key(path: Path, votes: Votes | None = None) -> GovernanceKey:
    """Make a hybrid governance key in a new file, and its vote file, so that it is not taken for one that lost it.

    Args:
        votes: what the keys that it follows have signed; a member's first key has nothing to take over.

    Raises Conflict (KEY-EXISTS, VOTES-EXIST), OutOfSpace, Unavailable.
    """
    return keep_key(path, HybridSigner.generate(), votes)


def keep_key(path: Path, signer: HybridSigner, votes: Votes | None = None) -> GovernanceKey:
    """As `new_key`, for one that was just made in memory."""
    kept = VoteFile(path.with_suffix(VOTES), signer.public)
    kept.create(votes or Votes())  # before the key, which without votes would count as one that lost them
    write_keys(path, signer.keys)
    return GovernanceKey(path, signer, kept)


def find_keys(folder: Path, keys: KeySet) -> list[GovernanceKey]:
    """The keys of a member that lie below `folder`, whatever their files are called. Raises as `open_key` does."""
    paths = sorted((*folder.rglob("governance*.pem"), *folder.rglob("governance*.toml")))
    found = (open_key(path) for path in paths)
    return [key for key in found if key.public in keys.keys]


CEREMONY_SCHEMA: Final = "comity/ceremony/v1"
MAX_CEREMONY_FILE: Final = 32 * 1024 * 1024
MAX_LINES: Final = 4096
MAX_OBJECTS: Final = 64
MAX_PANELS: Final = 4
NEXT: Final = "comity keys sign {} --key YOUR-KEY.pem"


@dataclass(frozen=True, slots=True)
class SigningPanel:
    """Keys of which `keys.threshold` sign, and as what: `governance`, `recovery`, `new` or `node`."""

    role: str
    keys: KeySet


@dataclass(frozen=True, slots=True)
class MissingSignatures:
    """What a panel still lacks: `count` signatures, of any of `keys`."""

    role: str
    count: int
    keys: tuple[VerifyingKey, ...]


@dataclass(frozen=True, slots=True)
class Ceremony:
    """A payload and the signatures that it has so far. Signing gives a new value; none is ever taken away.

    `objects` are what the payload speaks of; `lines` what its signers should have seen.
    """

    payload: bytes
    panels: tuple[SigningPanel, ...]
    signatures: tuple[EnvelopeSignature, ...] = ()
    objects: tuple[bytes, ...] = ()
    lines: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Ceremony:
        """Read a ceremony file; signatures that are not over the payload are refused. Raises Malformed."""
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
            raise Malformed("ceremony file is malformed", why="a signature in it is nobody's of its panels")
        return ceremony

    def encode(self, name: str = "THIS-FILE") -> bytes:
        """The file; `name` is what it will be called, for the command of the next signer."""
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
    def wanted(self) -> tuple[MissingSignatures, ...]:
        """Who must still sign; empty when the line is complete."""
        return tuple(_wanted(panel, self._envelope()) for panel in self.panels if self._short(panel))

    @property
    def complete(self) -> bool:
        return not self.wanted

    def entry(self) -> Entry:
        """The line, as it will be logged. Raises Unavailable (CEREMONY) naming who must still sign."""
        if self.wanted:
            why = "; ".join(f"{w.count} more of the {w.role} keys" for w in self.wanted)
            raise Unavailable("the statement is not signed yet", why=why, hint=NEXT.format("FILE"), code="CEREMONY")
        return parse_entry(assemble(self.payload, self.signatures).encode())

    def panel_of(self, key: VerifyingKey) -> SigningPanel:
        """The panel in which `key` sits. Raises Refused (NOT-A-SIGNER)."""
        for panel in self.panels:
            if key in panel.keys.keys:
                return panel
        why = f"key {key.id[:16]} is none of those that this statement is for"
        raise Refused("this key has nothing to sign here", why=why, code="NOT-A-SIGNER")

    def awaits(self, key: VerifyingKey) -> bool:
        """Whether a signature of `key` brings the line nearer to being complete."""
        return any(key in wanted.keys for wanted in self.wanted)

    def signed_by(self, key: VerifyingKey) -> bool:
        return self._envelope().bears(key)

    def with_signature(self, signer: Signer) -> Ceremony:
        """Sign. Whoever calls this has shown the plan, and asked the vote state (`signing.sign`)."""
        self.panel_of(signer.public)
        if self.signed_by(signer.public):
            return self
        made = signer.sign(pae(PAYLOAD_TYPE, self.payload))
        return dataclasses.replace(
            self, signatures=(*self.signatures, *(EnvelopeSignature(keyid, sig) for keyid, sig in made))
        )

    def joined(self, other: Ceremony) -> Ceremony:
        """Both signers' signatures, where two copies of one file were signed in two places. Raises Conflict (CEREMONY)
        for another payload or other panels."""
        if (self.payload, self.panels) != (other.payload, other.panels):
            raise Conflict("not the same ceremony", why="two files, two statements", code="CEREMONY")
        mine = {signature.keyid for signature in self.signatures}
        more = [signature for signature in other.signatures if signature.keyid not in mine]
        return dataclasses.replace(
            self,
            signatures=(*self.signatures, *more),
            objects=tuple(dict.fromkeys((*self.objects, *other.objects))),
            lines=tuple(dict.fromkeys((*self.lines, *other.lines))),
        )

    def _envelope(self) -> Envelope:
        return Envelope(PAYLOAD_TYPE, self.payload, self.signatures)

    def _short(self, panel: SigningPanel) -> bool:
        return sum(map(self.signed_by, panel.keys.keys)) < panel.keys.threshold

    def _signers(self) -> Iterable[Digest]:
        """The key ids of all halves that have signed."""
        halves = (half for panel in self.panels for key in panel.keys.keys for half in key.halves)
        return (half.id for half in halves if self._envelope().bears(VerifyingKey((half,))))


def _wanted(panel: SigningPanel, envelope: Envelope) -> MissingSignatures:
    absent = tuple(key for key in panel.keys.keys if not envelope.bears(key))
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


READINGS = (INTENT, RATIFIED)


def sign_ceremony(
    ceremony: Ceremony, key: GovernanceKey, entries: Iterable[Entry] = (), said: Iterable[Reading] = ()
) -> Ceremony:
    """`ceremony` with the signature of `key`, whose owner has seen the plan.

    Args:
        entries: all lines at hand. Where they show that this key signed what its vote file does not know, the file is
            an old one, and the key sits out this epoch.
        said: proven readings of this key's member, by whichever of its keys.

    Raises Refused (NOT-A-SIGNER, VOTE-LOST), Untrusted or Conflict where this key may not sign this reading, and as
    its votes and its signer do.
    """
    ceremony.panel_of(key.public)
    if ceremony.statement.predicate in READINGS:
        key.votes.permit(reading_of(ceremony.payload), readings_of(key.public, entries), said)
    return ceremony.with_signature(key)


def readings_of(key: VerifyingKey, entries: Iterable[Entry]) -> list[Reading]:
    """The readings among `entries` that bear the signature of `key`, alone or with others."""
    found = []
    for entry in entries:
        if entry.statement.predicate in READINGS and entry.envelope.bears(key):
            try:
                found.append(read_reading(entry))
            except ComityError:
                continue  # signed, but no reading: it counts for nothing anywhere
    return found
