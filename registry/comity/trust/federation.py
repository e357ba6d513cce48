"""The federation file: all that a newcomer needs to find a federation and hold on to it. One JSON file.

It names the federation, the charter body to pin with the consents that certify it, and the nodes: their records and
addresses. Taken from two members by separate ways, it is the one moment of trust in a user's journey; everything
later is checked against the pinned body. Source: protocol, section 7.9.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from comity.trust.charter import MAX_BYTES as MAX_CHARTER
from comity.trust.charter import Body, certify_genesis
from comity.trust.claims import read_addresses
from comity.trust.encoding import Json, parse_json
from comity.trust.errors import Malformed, Untrusted
from comity.trust.fields import Fields
from comity.trust.node_record import NodeRecord, check_node_record, parse_node_record
from comity.trust.rotation import Chains, KeyState
from comity.trust.statement import Entry, parse_entry

SCHEMA: Final = "comity/federation/v1"
MAX_BYTES: Final = 32 * 1024 * 1024
MAX_NODES: Final = 1000


@dataclass(frozen=True, slots=True)
class FederationNode:
    """A node as the file lists it: its proven record, the line that proves it, and hints where it listens."""

    record: NodeRecord
    line: bytes
    mutual: tuple[str, ...]
    open: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Federation:
    """A certified charter body and the nodes of its members. Only `parse` and `assemble` make one."""

    body: Body
    certificate: tuple[bytes, ...]
    nodes: tuple[FederationNode, ...]

    @classmethod
    def parse(cls, data: bytes) -> Federation:
        """Read a federation file and prove it: unanimous consent, and each node record by its member's keys.

        Raises Malformed/Untrusted. That the file is the *right* one is the owner's decision, not this function's.
        """
        fields = Fields(parse_json(data, limit=MAX_BYTES, what="federation file"), "federation file")
        fields.constant("schema", SCHEMA)
        body = Body.parse(_text(fields.take("body"), MAX_CHARTER))
        certificate = tuple(_text(item, 65_535) for item in fields.items("certificate", most=1000))
        certify_genesis(body, certificate)
        nodes = tuple(_node(item, body) for item in fields.items("nodes", most=MAX_NODES))
        if fields.digest("federation") != body.federation:
            raise Untrusted("federation file refused", why="its body belongs to another federation", code="FEDERATION")
        fields.done()
        return cls(body, certificate, nodes)

    def encode(self) -> bytes:
        nodes: list[Json] = [
            {"record": node.line.decode(), "mutual": list(node.mutual), "open": list(node.open)} for node in self.nodes
        ]
        document: dict[str, Json] = {
            "schema": SCHEMA,
            "federation": self.body.federation,
            "body": self.body.data.decode(),
            "certificate": [line.decode() for line in self.certificate],
            "nodes": nodes,
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def prove_record(entry: Entry, body: Body, chains: Chains | None = None) -> NodeRecord:
    """The record, if a member of `body` signed it with keys listed there, or reached from them by its own rotations.

    When it was made does not matter, nor whether rotations are in dispute: every key on every branch counts. Were it
    otherwise, a rotation that turns up later would un-count a cosigner that had counted (I4), and a member could take
    back what it witnessed by contradicting itself. A thief of keys, current or retired, starts no branch. A thief of
    most recovery keys gains little, since the seat counts once, however many keys speak for it; and the owner of the
    policy ends even that by pinning a body that lists newer keys: from there no branch leads back.

    Raises Malformed/Untrusted.
    """
    claimed = parse_node_record(entry)
    member = body.member(claimed.member)
    if member is None:
        raise Untrusted("node record refused", why="its member is not in the pinned charter", code="NON-MEMBER")
    return check_node_record(entry, (chains or Chains()).follow(KeyState.of_seat(member)))


def _node(item: Json, body: Body) -> FederationNode:
    fields = Fields(item, "federation node")
    line = _text(fields.take("record"), 65_535)
    mutual, open_ = read_addresses(fields, "mutual"), read_addresses(fields, "open")
    fields.done()
    return FederationNode(prove_record(parse_entry(line), body), line, mutual, open_)


def _text(value: Json, limit: int) -> bytes:
    if not isinstance(value, str) or len(value) > limit:
        raise Malformed("federation file is malformed", why=f"expected a string of at most {limit} characters")
    return value.encode()
