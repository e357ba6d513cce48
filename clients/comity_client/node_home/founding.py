"""Beginnings: a node's home directory, and the genesis of a federation.

    init_node       keys, records and configuration of a new member with one node
    draft_genesis   the body to which all founders will consent
    consent_to      one member's consent, by the key that it keeps off the node's machine
    seal            body, consents and node cards into the federation file that everybody pins

Founders exchange node cards and consents as files, by whatever way they trust. Nobody leads: whoever drafts holds no
more than the others, since every member signs the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from comity.content import durable
from comity.trust.charter import Body, CharterPolicy, Member, consent, genesis, quorum
from comity.trust.digest import Digest
from comity.trust.errors import Conflict, Untrusted
from comity.trust.federation import Federation, FederationNode
from comity.trust.identity import Inception, announce, check_jurisdiction
from comity.trust.keys import PublicKey
from comity.trust.rotation import KeyState, follow
from comity.trust.statements.node_record import NodeRecord, sign_node_record
from comity.trust.tlog.cosignature import cosigner_key
from comity.trust.tlog.note import VerifierKey, check_name, log_verifier_key
from comity.wire.address import Address
from comity.wire.certs import make_certificate

from comity_client.desk.keys import find_keys, open_key
from comity_client.desk.seat_keys import SeatKeys, SeatShape
from comity_client.node_home.card import NodeCard
from comity_client.node_home.keys import NodeKeys
from comity_client.node_home.seat import own_inception, own_rotations
from comity_client.node_home.settings import node_toml

OFFLINE: Final = "offline"
HTTP: Final = "127.0.0.1:7480"
"""Where a new node's gateway listens: for the programs of its own machine, until its operator decides otherwise."""


def init_node(
    directory: Path,
    *,
    jurisdiction: str,
    org: str,
    node_name: str,
    mutual: str,
    open_: str,
    http: str = HTTP,
    origin: str = "",
    seat: SeatShape | None = None,
) -> NodeCard:
    """Make `directory` the home of a new member's node: keys, inception, node record, node.toml, node-card.json.

    Args:
        jurisdiction: ISO 3166-1 alpha-2 code, or a name that the charter defines.
        org: what people call the member.
        node_name: unique in the federation, e.g. `node-ch.example.org`.
        mutual, open_: `host:port` where other nodes, and everybody, reach it.
        http: where its HTTP gateway listens, an IP address and a port; empty for none.
        origin: what its log is called for ever; `<node_name>/log` where none is given. `{key}` in it stands for the
            SHA-256 of the log's public key, which some witnesses want to see there.
        seat: how many keys decide about it; one governance and one recovery key where none is given.

    The keys below `offline/` decide about the seat: the running node never reads them, and they belong on a medium that
    is not connected (see `desk.seat_keys`). Raises Conflict where the directory holds anything, Malformed for a bad
    name, address or number of keys, OutOfSpace, Unavailable.
    """
    check_jurisdiction(jurisdiction)
    check_name(f"{node_name}/cosigner")
    for address in (mutual, open_):
        Address.parse(address)
    keys, decisive = NodeKeys.generate(), SeatKeys.generate(seat or SeatShape())
    log = _log_key(origin or f"{node_name}/log", keys.log.keys[0].public)
    inception = Inception(
        kind="member",
        keys=decisive.keys,
        recovery=decisive.recovery,
        home=log.name,
        jurisdiction=jurisdiction,
        label=org,
    )
    record = NodeRecord(
        member=inception.id,
        name=node_name,
        log=log,
        cosigners=tuple(cosigner_key(f"{node_name}/cosigner", key.public) for key in keys.cosigner.keys),
        online=keys.online.public,
        tls=make_certificate(keys.tls.keys[0]),
    )
    card = NodeCard.of(
        announce(inception, *decisive.signers).line,
        (),
        sign_node_record(record, decisive.signers, keys.signers).line,
        (mutual,),
        (open_,),
    )
    _new_home(directory)
    keys.write(directory / "keys")
    decisive.write(directory / OFFLINE)
    for name, data in (
        ("inception.line", card.inception_line + b"\n"),
        ("node-record.line", card.record_line + b"\n"),
        ("node-card.json", card.encode()),
        ("node.toml", node_toml(directory, card, http).encode()),
    ):
        durable.write_file(directory / name, data, mode=0o644, point="home")
    return card


def _log_key(origin: str, public: PublicKey) -> VerifierKey:
    return log_verifier_key(origin.replace("{key}", hashlib.sha256(public.raw).hexdigest()), public)


def _new_home(directory: Path) -> None:
    """The folders of a node's home in `directory`, which must be new or empty."""
    with durable.disk_errors(f"{directory} was not set up"):
        durable.make_folders(directory)
        if any(directory.iterdir()):
            hint = "choose a new directory"
            raise Conflict(f"{directory} is not empty", why="it may hold a node", hint=hint, code="NODE-EXISTS")
        for folder in ("keys", OFFLINE):
            durable.make_folders(directory / folder, mode=0o700)


def draft_genesis(
    cards: Iterable[NodeCard],
    policy: CharterPolicy | None = None,
    namespaces: Mapping[str, Digest] | None = None,
    *,
    predecessor: Body | None = None,
) -> Body:
    """The genesis body in which every card's member has a seat; `default_policy` where none is given.

    Args:
        namespaces: publishers by namespace, where the founders already agree on some.
        predecessor: the last charter of a federation that has lost its quorum for good, and is founded anew; its
            namespaces stay with their publishers.

    Anybody who has the same cards drafts the same bytes. Raises Malformed where the charter would break a rule.
    """
    members = list({card.inception.id: card.member for card in cards}.values())
    names = {**(namespaces or {}), **(predecessor.namespaces if predecessor else {})}
    before = predecessor.digest if predecessor else None
    return genesis(members, policy or default_policy(members), names, predecessor=before)


def default_policy(members: Sequence[Member]) -> CharterPolicy:
    """What fits a federation of this size: the smallest lawful quorum, three copies, two cosigners."""
    jurisdictions = len({member.jurisdiction for member in members})
    return CharterPolicy(
        quorum_change=quorum(len(members)),
        min_copies=min(3, len(members)),
        min_jurisdictions=min(3, jurisdictions),
        cosigner_quorum=min(2, len(members) - 1),
    )


def consent_to(body: Body, directory: Path, *, governance: Sequence[Path] = ()) -> bytes:
    """The member's `consented` line to exactly `body`, by as many of its keys as must sign.

    Args:
        directory: the node's home, for its inception.
        governance: the key files, where they are no longer in `offline/`. Where the keys are in several places, see
            `governance.consenting`.

    Raises Untrusted (code NOT-MY-SEAT) where `body` has no seat for this member, or one with other keys or another
    jurisdiction; Untrusted (TOO-FEW-KEYS) where fewer keys are here than must sign; NotFound, Refused, Malformed for
    the key files.
    """
    inception = own_inception(directory)
    state = follow(KeyState.of_inception(inception), own_rotations(directory)).current
    seat = body.member(inception.id)
    mine = (inception.jurisdiction, state.keys, state.recovery)
    if seat is None or (seat.jurisdiction, seat.keys, seat.recovery) != mine:
        raise Untrusted(
            "consent refused",
            why="the charter has no seat for this member under its own keys and jurisdiction",
            hint="send node-card.json to whoever drafts, and ask for a new draft",
            code="NOT-MY-SEAT",
        )
    keys = [open_key(path) for path in governance] or find_keys(directory / OFFLINE, seat.keys)
    entry = consent(body, inception.id, *keys[: seat.keys.threshold])
    if not seat.keys.signed(entry.envelope):
        why = f"{seat.keys.threshold} of its {len(seat.keys.keys)} keys must sign"
        raise Untrusted("consent refused", why=why, hint="name each with --key", code="TOO-FEW-KEYS")
    return entry.line


def seal(body: Body, consents: Iterable[bytes], cards: Sequence[NodeCard]) -> Federation:
    """The federation file's content. Raises Untrusted, naming who is missing, unless *every* member consented and is
    who the charter says, by its own card."""
    nodes = tuple(FederationNode(card.record, card.record_line, card.mutual, card.open) for card in cards)
    inceptions = [line for card in cards for line in (card.inception_line, *card.rotation_lines)]
    return Federation.assemble([body], [[*inceptions, *consents]], nodes)
