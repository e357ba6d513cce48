"""Beginnings: a node's home directory, and the genesis of a federation.

    init_node       keys, records and configuration of a new member with one node
    draft_genesis   the body to which all founders will consent
    consent_to      one member's consent, by the key that it keeps off the node's machine
    seal            body, consents and node cards into the federation file that everybody pins

Founders exchange node cards and consents as files, by whatever way they trust. Nobody leads: whoever drafts holds no
more than the others, since every member signs the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.content.keyfile import read_signer, write_keys
from comity.trust.charter import Body, CharterPolicy, Member, consent, genesis, quorum
from comity.trust.cosignature import cosigner_key
from comity.trust.digest import Digest
from comity.trust.dsse import MAX_LINE
from comity.trust.encoding import Json, parse_json
from comity.trust.errors import Conflict, Malformed, Untrusted
from comity.trust.federation import Federation, FederationNode
from comity.trust.fields import Fields
from comity.trust.identity import Inception, KeySet, announce, check_inception, check_jurisdiction
from comity.trust.keys import HybridSigner
from comity.trust.node_record import NodeRecord, check_node_record, sign_node_record
from comity.trust.note import check_name, log_verifier_key
from comity.trust.statement import parse_entry
from comity.verifier import read_bounded
from comity.wire.address import Address
from comity.wire.certs import make_certificate

from comity_client.node_toml import node_toml

SCHEMA: Final = "comity/node-card/v1"
MAX_CARD: Final = 4 * MAX_LINE
HTTP: Final = "127.0.0.1:7480"
"""Where a new node's gateway listens: for the programs of its own machine, until its operator decides otherwise."""


@dataclass(frozen=True, slots=True)
class NodeCard:
    """What a founder hands to the others: who the member is, and which node is its own. All of it is public.

    Only `parse` and `init_node` make one: the records are proven by their own signatures. That the card comes from the
    institution it names is for people to find out, by voice.
    """

    inception: Inception
    record: NodeRecord
    inception_line: bytes
    record_line: bytes
    mutual: tuple[str, ...]
    open: tuple[str, ...]

    @classmethod
    def parse(cls, data: bytes) -> NodeCard:
        """Raises Malformed/Untrusted."""
        fields = Fields(parse_json(data, limit=MAX_CARD, what="node card"), "node card")
        fields.constant("schema", SCHEMA)
        inception_line = fields.text("inception", most=MAX_LINE).encode()
        record_line = fields.text("record", most=MAX_LINE).encode()
        mutual, open_ = _addresses(fields, "mutual"), _addresses(fields, "open")
        fields.done()
        return _card(inception_line, record_line, mutual, open_)

    def encode(self) -> bytes:
        document: dict[str, Json] = {
            "schema": SCHEMA,
            "inception": self.inception_line.decode(),
            "record": self.record_line.decode(),
            "mutual": list(self.mutual),
            "open": list(self.open),
        }
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"

    @property
    def member(self) -> Member:
        """The seat that this card asks for."""
        who = self.inception
        return Member(who.id, who.label, who.jurisdiction, who.keys, who.recovery)


def init_node(
    directory: Path, *, jurisdiction: str, org: str, node_name: str, mutual: str, open_: str, http: str = HTTP
) -> NodeCard:
    """Make `directory` the home of a new member's node: keys, inception, node record, node.toml, node-card.json.

    Args:
        jurisdiction: ISO 3166-1 alpha-2 code, or a name that the charter defines.
        org: what people call the member.
        node_name: unique in the federation, e.g. `node-ch.example.org`; the log is called `<node_name>/log` for ever.
        mutual, open_: `host:port` where other nodes, and everybody, reach it.
        http: where its HTTP gateway listens, an IP address and a port; empty for none.

    The keys below `offline/` decide about the seat: the running node never reads them, and they belong on a medium that
    is not connected. Raises Conflict where the directory holds anything, Malformed for a bad name or address,
    OutOfSpace, Unavailable.
    """
    check_jurisdiction(jurisdiction)
    check_name(f"{node_name}/cosigner")
    for address in (mutual, open_):
        Address.parse(address)
    keys = _NodeKeys.generate()
    inception = Inception(
        kind="member",
        keys=KeySet((keys.governance.public,), 1),
        recovery=(keys.recovery.public.id,),
        home=f"{node_name}/log",
        jurisdiction=jurisdiction,
        label=org,
    )
    record = NodeRecord(
        member=inception.id,
        name=node_name,
        log=log_verifier_key(f"{node_name}/log", keys.log.keys[0].public),
        cosigners=tuple(cosigner_key(f"{node_name}/cosigner", key.public) for key in keys.cosigner.keys),
        online=keys.online.public,
        tls=make_certificate(keys.tls.keys[0]),
    )
    bound = (keys.log, keys.cosigner, keys.online, keys.tls)
    card = _card(
        announce(inception, keys.governance).line,
        sign_node_record(record, [keys.governance], bound).line,
        (mutual,),
        (open_,),
    )
    keys.write(directory)
    for name, data in (
        ("inception.line", card.inception_line + b"\n"),
        ("node-record.line", card.record_line + b"\n"),
        ("node-card.json", card.encode()),
        ("node.toml", node_toml(directory, card, http).encode()),
    ):
        durable.write_file(directory / name, data, mode=0o644, point="home")
    return card


@dataclass(frozen=True, slots=True)
class _NodeKeys:
    """Every key of a new node: those that stay on its machine, and the two that decide about the seat."""

    governance: HybridSigner
    recovery: HybridSigner
    log: HybridSigner
    cosigner: HybridSigner
    online: HybridSigner
    tls: HybridSigner

    @classmethod
    def generate(cls) -> _NodeKeys:
        statements = ("ed25519", "ml-dsa-65")
        return cls(
            governance=HybridSigner.generate(statements),
            recovery=HybridSigner.generate(statements),
            log=HybridSigner.generate(("ed25519",)),
            cosigner=HybridSigner.generate(("ed25519", "ml-dsa-44")),
            online=HybridSigner.generate(statements),
            tls=HybridSigner.generate(("ecdsa-p256",)),
        )

    def write(self, directory: Path) -> None:
        """Into `directory`, which must be new or empty."""
        keys, offline = directory / "keys", directory / "offline"
        with durable.disk_errors(f"{directory} was not set up"):
            durable.make_folders(directory)
            if any(directory.iterdir()):
                hint = "choose a new directory"
                raise Conflict(f"{directory} is not empty", why="it may hold a node", hint=hint, code="NODE-EXISTS")
            for folder in (keys, offline):
                durable.make_folders(folder, mode=0o700)
        write_keys(offline / "governance.pem", self.governance.keys)
        write_keys(offline / "recovery.pem", self.recovery.keys)
        write_keys(keys / "log.pem", self.log.keys)
        write_keys(keys / "cosigner.pem", self.cosigner.keys)
        write_keys(keys / "online.pem", self.online.keys)
        write_keys(keys / "tls.pem", self.tls.keys)


def draft_genesis(
    cards: Iterable[NodeCard], policy: CharterPolicy | None = None, namespaces: Mapping[str, Digest] | None = None
) -> Body:
    """The genesis body in which every card's member has a seat; `default_policy` where none is given.

    Args:
        namespaces: publishers by namespace, where the founders already agree on some.

    Anybody who has the same cards drafts the same bytes. Raises Malformed where the charter would break a rule.
    """
    members = list({card.inception.id: card.member for card in cards}.values())
    return genesis(members, policy or default_policy(members), namespaces)


def default_policy(members: Sequence[Member]) -> CharterPolicy:
    """What fits a federation of this size: the smallest lawful quorum, three copies, two cosigners."""
    jurisdictions = len({member.jurisdiction for member in members})
    return CharterPolicy(
        quorum_change=quorum(len(members)),
        min_copies=min(3, len(members)),
        min_jurisdictions=min(3, jurisdictions),
        cosigner_quorum=min(2, len(members) - 1),
    )


def consent_to(body: Body, directory: Path, *, governance: Path | None = None) -> bytes:
    """The member's `consented` line to exactly `body`.

    Args:
        directory: the node's home, for its inception.
        governance: the key file, where it is no longer in `offline/`.

    Raises Untrusted (code NOT-MY-SEAT) where `body` has no seat for this member, or one with other keys or another
    jurisdiction; NotFound, Refused, Malformed for the key file.
    """
    inception = check_inception(parse_entry(read_line(directory / "inception.line")))
    signer = read_signer(governance or directory / "offline" / "governance.pem")
    seat = body.member(inception.id)
    mine = (inception.jurisdiction, inception.keys, inception.recovery)
    if seat is None or (seat.jurisdiction, seat.keys, seat.recovery) != mine or signer.public not in seat.keys.keys:
        raise Untrusted(
            "consent refused",
            why="the charter has no seat for this member under its own keys and jurisdiction",
            hint="send node-card.json to whoever drafts, and ask for a new draft",
            code="NOT-MY-SEAT",
        )
    return consent(body, inception.id, signer).line


def seal(body: Body, consents: Iterable[bytes], cards: Iterable[NodeCard]) -> Federation:
    """The federation file's content. Raises Untrusted, naming who is missing, unless *every* member consented."""
    nodes = tuple(FederationNode(card.record, card.record_line, card.mutual, card.open) for card in cards)
    drafted = Federation(body, tuple(dict.fromkeys(consents)), nodes)
    return Federation.parse(drafted.encode())


def read_line(path: Path) -> bytes:
    """The one line in `path`, without its line feed. Raises NotFound, Malformed."""
    line = read_bounded(path, MAX_LINE + 1).removesuffix(b"\n")
    if not line or b"\n" in line:
        raise Malformed(f"{path.name} is malformed", why="expected one line")
    return line


def _card(inception_line: bytes, record_line: bytes, mutual: tuple[str, ...], open_: tuple[str, ...]) -> NodeCard:
    inception = check_inception(parse_entry(inception_line))
    record = check_node_record(parse_entry(record_line), inception.keys)
    if record.member != inception.id:
        raise Untrusted("node card refused", why="its node record is another member's", code="NODE-CARD")
    if inception.kind != "member" or not inception.jurisdiction:
        raise Malformed("node card is malformed", why="its inception claims no seat and jurisdiction")
    return NodeCard(inception, record, inception_line, record_line, mutual, open_)


def _addresses(fields: Fields, name: str) -> tuple[str, ...]:
    return tuple(str(Address.parse(item if isinstance(item, str) else "")) for item in fields.items(name, most=8))
