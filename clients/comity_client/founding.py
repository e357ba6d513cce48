"""A node's home directory: its keys, its card, its settings; and the beginnings of a federation.

A node card: what a member hands to others, as a founder or to join. It says who it is, and which node is its own.

    {"schema":"comity/node-card/v1","inception":"…","rotations":["…"],"record":"…","mutual":["…"],"open":["…"]}

The records in it prove themselves; addresses are hints.


The keys that stay on a node's machine: of its log, its cosigner, its own statements and its TLS certificate.

    keys/log.pem  cosigner.pem  online.pem  tls.pem

None of them decides about the seat. They countersign the node record that binds them, again after each rotation of the
member's governance keys.


What a node's home says about its member and its settings.

inception.line    who it is
rotations.lines   its `rotated` lines, oldest first; absent before the first
node-record.line  which node is its own
node.toml         what its operator decided


The text of a new node's node.toml: every setting that an operator may want to change, with its default.

Beginnings: a node's home directory, and the genesis of a federation.

    init_node       keys, records and configuration of a new member with one node
    draft_genesis   the body to which all founders will consent
    consent_to      one member's consent, by the key that it keeps off the node's machine
    seal            body, consents and node cards into the federation file that everybody pins

Founders exchange node cards and consents as files, by whatever way they trust. Nobody leads: whoever drafts holds no
more than the others, since every member signs the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from comity.content import durable
from comity.content.secrets import read_signer, write_keys
from comity.trust.charter.document import Body, CharterPolicy, Member, genesis, quorum
from comity.trust.charter.federation import Federation, FederationNode
from comity.trust.charter.votes import consent
from comity.trust.encoding import Digest, Fields, Json, parse_json
from comity.trust.errors import Conflict, Malformed, NotFound, Untrusted
from comity.trust.identity import Inception, announce, check_inception, check_jurisdiction
from comity.trust.keys import HybridSigner, PublicKey
from comity.trust.rotation import KeyState, follow
from comity.trust.statement import MAX_LINE, Entry, parse_entry
from comity.trust.statements import NodeRecord, check_node_record, sign_node_record
from comity.trust.tlog.note import VerifierKey, check_name, cosigner_key, log_verifier_key
from comity.verifier import read_bounded
from comity.wire.tls import Address, make_certificate
from comity_client.signing.seat_keys import SeatKeys, SeatShape
from comity_client.signing.votes import find_keys, open_key

SCHEMA: Final = "comity/node-card/v1"
MAX_CARD_ROTATIONS: Final = 64
MAX_CARD: Final = (2 + MAX_CARD_ROTATIONS) * MAX_LINE


@dataclass(frozen=True, slots=True)
class NodeCard:
    """A card whose records are proven by their own signatures; only `of` and `parse` make one. That it comes from the
    institution that it names is for people to find out, by voice.

    `state` are the keys by which the member speaks now: those of its inception, or of its newest rotation.
    """

    inception: Inception
    state: KeyState
    record: NodeRecord
    inception_line: bytes
    rotation_lines: tuple[bytes, ...]
    record_line: bytes
    mutual: tuple[str, ...]
    open: tuple[str, ...]

    @classmethod
    def of(
        cls,
        inception_line: bytes,
        rotation_lines: Sequence[bytes],
        record_line: bytes,
        mutual: Sequence[str],
        open_: Sequence[str],
    ) -> NodeCard:
        """Raises Malformed/Untrusted."""
        inception = check_inception(parse_entry(inception_line))
        chain = follow(KeyState.of_inception(inception), map(parse_entry, rotation_lines))
        record = check_node_record(parse_entry(record_line), chain.current.keys)
        if record.member != inception.id:
            raise Untrusted("node card refused", why="its node record is another member's", code="NODE-CARD")
        if chain.disputes or len(chain.steps) != len(rotation_lines):
            raise Untrusted("node card refused", why="its rotations do not lead from its inception", code="NODE-CARD")
        if inception.kind != "member" or not inception.jurisdiction:
            raise Malformed("node card is malformed", why="its inception claims no seat and jurisdiction")
        addresses = (
            tuple(str(Address.parse(address)) for address in mutual),
            tuple(str(Address.parse(address)) for address in open_),
        )
        return cls(inception, chain.current, record, inception_line, tuple(rotation_lines), record_line, *addresses)

    @classmethod
    def read(cls, path: Path) -> NodeCard:
        """The card in a file. Raises as `parse` does, and NotFound."""
        return cls.parse(read_bounded(path, MAX_CARD))

    @classmethod
    def parse(cls, data: bytes) -> NodeCard:
        """Raises Malformed/Untrusted."""
        fields = Fields(parse_json(data, limit=MAX_CARD, what="node card"), "node card")
        fields.constant("schema", SCHEMA)
        inception_line = fields.text("inception", most=MAX_LINE).encode()
        rotations = fields.items("rotations", most=MAX_CARD_ROTATIONS) if fields.has("rotations") else ()
        record_line = fields.text("record", most=MAX_LINE).encode()
        mutual, open_ = fields.items("mutual", most=8), fields.items("open", most=8)
        fields.done()
        return cls.of(
            inception_line,
            [_text(item).encode() for item in rotations],
            record_line,
            *([_text(item) for item in items] for items in (mutual, open_)),
        )

    def encode(self) -> bytes:
        document: dict[str, Json] = {"schema": SCHEMA, "inception": self.inception_line.decode()}
        if self.rotation_lines:
            document["rotations"] = [line.decode() for line in self.rotation_lines]
        document |= {"record": self.record_line.decode(), "mutual": list(self.mutual), "open": list(self.open)}
        return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"

    @property
    def lines(self) -> tuple[bytes, ...]:
        """All that proves it."""
        return (self.inception_line, *self.rotation_lines, self.record_line)

    @property
    def member(self) -> Member:
        """The seat that this card asks for."""
        who = self.inception
        return Member(who.id, who.label, who.jurisdiction, self.state.keys, self.state.recovery)


def _text(item: Json) -> str:
    return item if isinstance(item, str) else ""


@dataclass(frozen=True, slots=True)
class NewNodeKeys:
    """All of them; each field is the name of its file."""

    log: HybridSigner
    cosigner: HybridSigner
    online: HybridSigner
    tls: HybridSigner

    @classmethod
    def generate(cls) -> NewNodeKeys:
        return cls(
            log=HybridSigner.generate(("ed25519",)),
            cosigner=HybridSigner.generate(("ed25519", "ml-dsa-44")),
            online=HybridSigner.generate(("ed25519", "ml-dsa-65")),
            tls=HybridSigner.generate(("ecdsa-p256",)),
        )

    @classmethod
    def read(cls, folder: Path) -> NewNodeKeys:
        """Raises NotFound, Refused, Malformed."""
        return cls(**{name: read_signer(folder / f"{name}.pem") for name in _NAMES})

    def write(self, folder: Path) -> None:
        """Raises Conflict (KEY-EXISTS), OutOfSpace, Unavailable."""
        for name in _NAMES:
            write_keys(folder / f"{name}.pem", getattr(self, name).keys)

    @property
    def signers(self) -> tuple[HybridSigner, ...]:
        """Those that countersign the node record."""
        return (self.log, self.cosigner, self.online, self.tls)


_NAMES = tuple(field.name for field in dataclasses.fields(NewNodeKeys))


ROTATIONS: Final = "rotations.lines"
MAX_SEAT_ROTATIONS: Final = 1000
MAX_SETTINGS: Final = 1024 * 1024


def settings_of(home: Path) -> dict[str, Any]:
    """What is written in node.toml, as it is written. Raises NotFound, Malformed (CONFIG)."""
    file = home / "node.toml"
    if not file.is_file():
        hint = "name your node's home: --dir HOME"
        raise NotFound(f"{home.absolute()} is no node's home", why="node.toml is missing", hint=hint, code="NO-HOME")
    try:
        return tomllib.loads(read_bounded(file, MAX_SETTINGS).decode())
    except ValueError as error:  # TOML and UTF-8 alike
        raise Malformed(f"{file} is not TOML", why=str(error), code="CONFIG") from error


def read_line(path: Path) -> bytes:
    """The one line in `path`, without its line feed. Raises NotFound, Malformed."""
    line = read_bounded(path, MAX_LINE + 1).removesuffix(b"\n")
    if not line or b"\n" in line:
        raise Malformed(f"{path.name} is malformed", why="expected one line")
    return line


def own_inception(home: Path) -> Inception:
    """Raises NotFound, Malformed, Untrusted."""
    return check_inception(parse_entry(read_line(home / "inception.line")))


def own_rotations(home: Path) -> list[Entry]:
    """The `rotated` lines that a home notes. Raises Malformed."""
    try:
        data = read_bounded(home / ROTATIONS, MAX_SEAT_ROTATIONS * MAX_LINE)
    except NotFound:
        return []
    return [parse_entry(line) for line in data.splitlines()]


def note_rotation(home: Path, rotated: Entry) -> None:
    """Add a `rotated` line, unless it is there. Raises OutOfSpace, Unavailable."""
    lines = dict.fromkeys((*(entry.line for entry in own_rotations(home)), rotated.line))
    durable.write_file(home / ROTATIONS, b"".join(line + b"\n" for line in lines), mode=0o644, point="home")


MAX_SOCKET: Final = 100
"""Bytes of a Unix socket's path that every system takes; the kernel's own limit is 104 to 108."""

_TEMPLATE: Final = """\
# Comity node. Relative paths start from this file's folder.
# Each setting may also come from the environment: COMITY_<SECTION>_<KEY>, which wins over this file.

[node]
name = {name}
member = {member}

[listen]
# mutual: other members' nodes; both sides show a pinned certificate.
# open: everybody reads here, and publishes where [publishing] allows it.
# operator: Unix socket of this node's operators; file permissions decide.
mutual = {listen_mutual}
open = {listen_open}
operator = {operator}
# Prometheus, such as "127.0.0.1:9100"; never on a public address.
metrics = ""

[advertise]
# Where others reach this node. Hints only: what counts is the certificate in node-record.line.
mutual = {mutual}
open = {open}

[storage]
blobs = "data/blobs"
ledger = "data/ledger.sqlite"
# A database of PostgreSQL in place of that file, such as "postgresql:///comity?host=/var/run/postgresql". No password
# stands here: it comes from a file of mode 0600 in libpq's format. See docs/operations.md.
database = ""
password_file = ""
# Everything held is read again at this pace, to find what rots; 0 for never. 16 MiB/s is 1.4 TB a day.
scrub_bytes_per_second = 16777216

[federation]
# Put it here once all founders have consented.
file = "federation.json"
# Where two charters were certified for one epoch, people decide: the digest of a body on the branch to follow.
branch = ""

[replication]
# How often each peer is asked for news, and what is copied: "all", "none", or ["namespace/*", "namespace/name"].
interval_seconds = 5.0
mirror = "all"
# How long a starting node waits to hear from a peer what it last signed, before it signs.
first_answer_seconds = 15.0

[publishing]
# Who may publish through the open port: "none", "any", or a list of identity ids. Operators always may.
accept = "none"

[gateway]
# HTTP: a Hub for unmodified Hugging Face clients, and the logs for outsiders. Empty: none.
http = {http}
# PEM files; both together make it HTTPS.
certificate = ""
key = ""
# How clients reach it, such as "https://models.example.org": told to whoever asks this node. Empty: nothing is told.
url = ""
# A second address for the same clients, at which large files leave at a file server's speed, and how they reach it.
files = {files}
files_url = ""
# One for other nodes and `comity pull`, under this node's own certificate, and how they reach it.
ranges = {ranges}
ranges_url = ""
# Whether anybody may read without a token (comity token new).
public = true
# Other names of repositories, such as ["gpt2=openai-community/gpt2"]: clients are redirected.
aliases = []
# What is served: a policy file, as for `comity verify`. Empty: what its publisher signed.
policy = ""
# What is not here: "off" refuses it, "peers" fetches what is known while a reader waits, and keeps it, "upstream" also
# imports what nobody has from its Hub, as far as [upstream] allows.
cold = "off"
# Requests a second that one address may make.
calls_per_second = 500.0

[upstream]
# Repositories that readers may have imported by asking for them (cold = "upstream"), such as ["org/name", "org/*"].
allow = []
# The Hub that is asked, and hosts beside it from which its files may come; those of huggingface.co are known.
endpoint = "https://huggingface.co"
hosts = []
# A repository that is larger is not imported for readers.
largest_bytes = 1099511627776

[tlog]
# Outside logs whose entries may be pushed here and are then cosigned, by verifier key: ["origin+id+key"].
mirror = []
# Outside logs that the plain witness signs for, its name, and its key (PEM, mode 0600). See docs/transparency.md.
witness = []
witness_name = ""
witness_key = "keys/witness.pem"
# Outside witnesses that are shown this node's own log: ["name+id+key https://witness.example/prefix"].
submit = []

[limits]
# A log that grows beyond this is no longer mirrored or cosigned here.
entries_per_origin = 10000000
bytes_per_origin = 17179869184
# Calls a second that one address may make at the open port.
open_calls_per_second = 50.0
# Bytes that all unfinished publications together may bring.
upload_bytes = 4398046511104
# Lines about compute offers that are read of one log; what is beyond is mirrored and not weighed.
offer_lines_per_origin = 262144
"""


def node_toml(directory: Path, card: NodeCard, http: str) -> str:
    values = {
        "name": card.record.name,
        "member": card.inception.label,
        "listen_mutual": _listen(card.mutual[0]),
        "listen_open": _listen(card.open[0]),
        "operator": _socket(directory),
        "mutual": list(card.mutual),
        "open": list(card.open),
        "http": http,
        "files": _next(http) if http else "",
        "ranges": _next(_listen(card.open[0])),
    }
    return _TEMPLATE.format_map({key: json.dumps(value, ensure_ascii=False) for key, value in values.items()})


def _listen(advertised: str) -> str:
    """An IP address is listened on as it is; a name may stand for any interface of this machine."""
    address = Address.parse(advertised)
    if address.host.lower() == "localhost":
        return f"127.0.0.1:{address.port}"
    return advertised if address.target.startswith("ipv") else f"0.0.0.0:{address.port}"


def _next(address: str) -> str:
    """The port after that of `host:port`; 0, which lets the system choose, stays 0."""
    host, _, port = address.rpartition(":")
    return f"{host}:{(int(port) + 1) % 65_536 if int(port) else 0}"


def _socket(directory: Path) -> str:
    """`operator.sock` beside the file, unless its whole path would be longer than a socket's may be."""
    path = directory.absolute() / "operator.sock"
    if len(str(path).encode()) <= MAX_SOCKET:
        return path.name
    tag = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:16]
    return str(Path(tempfile.gettempdir()) / f"comity-{tag}.sock")


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
    keys, decisive = NewNodeKeys.generate(), SeatKeys.generate(seat or SeatShape())
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


def seal_federation(body: Body, consents: Iterable[bytes], cards: Sequence[NodeCard]) -> Federation:
    """The federation file's content. Raises Untrusted, naming who is missing, unless *every* member consented and is
    who the charter says, by its own card."""
    nodes = tuple(FederationNode(card.record, card.record_line, card.mutual, card.open) for card in cards)
    inceptions = [line for card in cards for line in (card.inception_line, *card.rotation_lines)]
    return Federation.assemble([body], [[*inceptions, *consents]], nodes)
