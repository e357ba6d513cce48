"""One statement, several signers in several places: a file that is carried from one to the next.

    {"schema":"comity/ceremony/v1","payload":"…","panels":[…],"signatures":[…],"objects":[…],"lines":[…],"next":"…"}

The payload is fixed before the first signature. `panels` say whose signatures make the line complete: m of the
governance keys, say. A wrong panel only misleads about that, since whoever reads the line judges it by the member's
record. `objects` and `lines` are what a signer needs to see what they sign: charter bodies, named by their digests, and
what others have signed. `next` is the command for the next signer. It is for people, and nothing here reads it back:
each signer is shown a plan made from the payload (`governance.plans`).
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from comity.trust.digest import Digest
from comity.trust.dsse import MAX_LINE, MAX_SIGNATURES, PAYLOAD_TYPE, Envelope, EnvelopeSignature, assemble, pae
from comity.trust.encoding import Json, b64decode, b64encode, parse_json
from comity.trust.errors import Conflict, Malformed, Refused, Unavailable
from comity.trust.fields import Fields
from comity.trust.identity import KeySet, read_key_set
from comity.trust.keys import Signer, VerifyingKey
from comity.trust.statement import MAX_PAYLOAD, Entry, Statement, parse_entry

SCHEMA: Final = "comity/ceremony/v1"
MAX_BYTES: Final = 32 * 1024 * 1024
MAX_LINES: Final = 4096
MAX_OBJECTS: Final = 64
MAX_PANELS: Final = 4
NEXT: Final = "comity keys sign {} --key YOUR-KEY.pem"


@dataclass(frozen=True, slots=True)
class Panel:
    """Keys of which `keys.threshold` sign, and as what: `governance`, `recovery`, `new` or `node`."""

    role: str
    keys: KeySet


@dataclass(frozen=True, slots=True)
class Wanted:
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
    panels: tuple[Panel, ...]
    signatures: tuple[EnvelopeSignature, ...] = ()
    objects: tuple[bytes, ...] = ()
    lines: tuple[bytes, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Ceremony:
        """Read a ceremony file; signatures that are not over the payload are refused. Raises Malformed."""
        fields = Fields(parse_json(data, limit=MAX_BYTES, what="ceremony file"), "ceremony file")
        fields.constant("schema", SCHEMA)
        payload = _text(fields.take("payload"), MAX_PAYLOAD)
        panels = tuple(_panel(item) for item in fields.items("panels", least=1, most=MAX_PANELS))
        signatures = tuple(_signature(item) for item in fields.items("signatures", most=MAX_SIGNATURES))
        objects = tuple(_text(item, MAX_BYTES) for item in fields.items("objects", most=MAX_OBJECTS))
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
            "schema": SCHEMA,
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
    def wanted(self) -> tuple[Wanted, ...]:
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

    def panel_of(self, key: VerifyingKey) -> Panel:
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

    def _short(self, panel: Panel) -> bool:
        return sum(map(self.signed_by, panel.keys.keys)) < panel.keys.threshold

    def _signers(self) -> Iterable[Digest]:
        """The key ids of all halves that have signed."""
        halves = (half for panel in self.panels for key in panel.keys.keys for half in key.halves)
        return (half.id for half in halves if self._envelope().bears(VerifyingKey((half,))))


def _wanted(panel: Panel, envelope: Envelope) -> Wanted:
    absent = tuple(key for key in panel.keys.keys if not envelope.bears(key))
    signed = len(panel.keys.keys) - len(absent)
    return Wanted(panel.role, panel.keys.threshold - signed, absent)


def _panel(item: Json) -> Panel:
    fields = Fields(item, "ceremony panel")
    panel = Panel(fields.text("role", most=40), read_key_set(fields))
    fields.done()
    return panel


def _panel_json(panel: Panel) -> dict[str, Json]:
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
