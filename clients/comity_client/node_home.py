"""A node's home directory: its keys, its member's records and its settings; and how a new one is made (`init_node`).

    HOME/keys/log.pem  cosigner.pem  online.pem  tls.pem    keys that stay on the node's machine
         offline/                                           the keys of the seat, until they are moved (`seat_keys`)
         inception.line                                     the member's inception
         rotations.lines                                    its `rotated` lines, oldest first; absent before the first
         node-record.line                                   the node's record
         node-card.json                                     the node card (`node_card`)
         node.toml                                          the operator's settings

The keys in `keys/` do not control the seat. They countersign the node record that binds them, again after each
rotation of the governance keys.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import itertools
import json
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.content.secrets import read_signer, write_keys
from comity.rules.signing import sign_content
from comity.trust.encoding import check_visible
from comity.trust.errors import Conflict, Malformed, NotFound
from comity.trust.frozen import frozen
from comity.trust.identity import Inception, InceptionStatement, check_inception
from comity.trust.keys import HybridSigner, PublicKey
from comity.trust.node_records import NodeRecord
from comity.trust.places import Place, check_new_jurisdiction
from comity.trust.statement import MAX_LINE, Entry, parse_entry
from comity.trust.tlog.note import VerifierKey, check_name, cosigner_key, log_verifier_key
from comity.wire.addresses import Address
from comity.wire.tls import make_certificate

from comity_client.node_card import NodeCard
from comity_client.signing.seat_keys import SeatKeys, SeatShape


@frozen
class NewNodeKeys:
    """The keys in `keys/`. Each field is the name of its file."""

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
        return cls(**{name: read_signer(folder / f"{name}.pem") for name in _KEY_NAMES})

    def write(self, folder: Path) -> None:
        """Raises Conflict (KEY-EXISTS), OutOfSpace, Unavailable."""
        for name in _KEY_NAMES:
            write_keys(folder / f"{name}.pem", getattr(self, name).keys)

    @property
    def signers(self) -> tuple[HybridSigner, ...]:
        """The keys that countersign the node record."""
        return (self.log, self.cosigner, self.online, self.tls)


_KEY_NAMES = tuple(field.name for field in dataclasses.fields(NewNodeKeys))
ROTATIONS: Final = "rotations.lines"
MAX_SEAT_ROTATIONS: Final = 1000
MAX_SETTINGS: Final = 1024 * 1024


def not_a_home(home: Path, missing: str) -> NotFound:
    """The error where a command of a member is given in a folder without the file `missing` of a node's home."""
    hint = "name your member's home: --node HOME; or make one: comity init --help"
    return NotFound(f"{home.absolute()} is not a node's home", why=f"{missing} is missing", hint=hint, code="NO-HOME")


def read_settings(home: Path) -> dict[str, Any]:
    """The values in node.toml, not validated. Raises NotFound, Malformed (CONFIG)."""
    file = home / "node.toml"
    if not file.is_file():
        hint = "name your node's home: --node HOME"
        raise NotFound(f"{home.absolute()} is not a node's home", why="node.toml is missing", hint=hint, code="NO-HOME")
    try:
        return tomllib.loads(read_bounded(file, MAX_SETTINGS).decode())
    except ValueError as error:  # TOML and UTF-8 alike
        raise Malformed(f"{file} is not TOML", why=str(error), code="CONFIG") from error


def blobs_folder(home: Path) -> Path:
    """The folder of the blobs of a home, as its node.toml says. Raises as `read_settings`."""
    storage = read_settings(home).get("storage")
    named = storage.get("blobs", "") if isinstance(storage, dict) else ""
    return home / (named if isinstance(named, str) and named else "data/blobs")


def read_line(path: Path) -> bytes:
    """The only line in `path`, without its line feed. Raises NotFound, Malformed."""
    line = read_bounded(path, MAX_LINE + 1).removesuffix(b"\n")
    if not line or b"\n" in line:
        raise Malformed(f"{path.name} is malformed", why="expected one line")
    return line


def own_inception(home: Path) -> Inception:
    """The inception in a home. Raises NotFound, Malformed, Untrusted."""
    return check_inception(parse_entry(read_line(home / "inception.line")))


def own_rotations(home: Path) -> list[Entry]:
    """The `rotated` lines in a home. Raises Malformed."""
    try:
        data = read_bounded(home / ROTATIONS, MAX_SEAT_ROTATIONS * MAX_LINE)
    except NotFound:
        return []
    return [parse_entry(line) for line in data.splitlines()]


def append_rotation(home: Path, rotated: Entry) -> None:
    """Add a `rotated` line to a home, if missing. Raises OutOfSpace, Unavailable."""
    lines = dict.fromkeys((*(entry.line for entry in own_rotations(home)), rotated.line))
    durable.write_file(home / ROTATIONS, b"".join(line + b"\n" for line in lines), mode=0o644, point="home")


MAX_SOCKET: Final = 100
"""Bytes of a Unix socket's path that every system accepts; kernel limits are 104 to 108."""
_TEMPLATE: Final = """\
# Comity node. Relative paths start from this file's folder.
# Each setting may also come from the environment: COMITY_<SECTION>_<KEY>, which wins over this file.

[node]
# role "front-end": this process only reads the PostgreSQL database and the blobs of its node's writer, signs nothing,
#   and serves strangers and users. See docs/operations/grow.md.
# role "standby": this process, on another machine, listens nowhere until no other one writes the database, and is the
#   writer then. See docs/operations/grow.md.
# writer: where a front end says that the writer is reached.
# drain_seconds: how long running transfers may take when the node is asked to end; others are refused then.
name = {name}
member = {member}
role = "writer"
writer = ""
drain_seconds = 30.0

[listen]
# mutual: other members' nodes; both sides present a pinned certificate.
# open: everyone may read here, and publish if [publishing] allows it.
# operator: Unix socket of this node's operators; file permissions decide.
mutual = {listen_mutual}
open = {listen_open}
operator = {operator}
# Prometheus, such as "127.0.0.1:9100"; never on a public address.
metrics = {metrics}

[advertise]
# Addresses of this node for others. Hints only: others verify the certificate in node-record.line.
mutual = {mutual}
open = {open}

[storage]
blobs = "data/blobs"
ledger = "data/ledger.sqlite"
# A PostgreSQL database instead of that file, such as "postgresql:///comity?host=/var/run/postgresql". Write no password
# here: it is read from a file of mode 0600 in libpq's format. See docs/operations/grow.md.
database = ""
password_file = ""
# Rate at which stored data is read again to find damage; 0 for never. 16 MiB/s is 1.4 TB a day.
scrub_bytes_per_second = 16777216
# The hours of the day in UTC in which that happens, such as "22-6"; empty for all.
scrub_hours = ""
# Bytes of the disk that uploads and imports leave free.
reserve_bytes = 268435456
# The folder with the node's own keys.
keys = "keys"
# The folder of the node's own keys, if not keys/ beside this file: such as one in memory, filled before each start.
# keys = "/run/comity/keys"

[federation]
# Put the file here after all founders have consented.
file = "federation.json"
# If two charters were certified for one epoch, people decide: the digest of a body on the branch to follow.
branch = ""

[replication]
# How often each peer is polled, and what is copied: "all", "none", or ["namespace/*", "namespace/name"].
interval_seconds = 5.0
mirror = "all"
# A file of ordered mirror rules instead, such as "mirror.toml": see docs/operations/copies.md. Empty: none.
rules = ""
# Copies stop while less of the disk than this is free, and go on from the second.
stop_free_bytes = 268435456
resume_free_bytes = 1073741824
# Hours of the day in UTC with their bytes a second, such as ["6-22 20000000"]; 0 is no copies. Empty: no limit.
bandwidth = []
# How much of the space for copies is reserved for the members in equal parts; of the rest a member uses at most as much
# as it leaves free. "MEMBER PERCENT" in shares sets the most that a member may use: see docs/operations/copies.md.
reserved_percent = 50
shares = []
# Networks such as "10.20.0.0/16" that are not of the public internet, and in which addresses that other nodes announce
# are called. Addresses in the federation file always are.
private_networks = {private_networks}
# How long a starting node waits for a peer to report what this node signed last, before it signs.
first_answer_seconds = 15.0
# How many complete copies one statement claims at most. 1 while other nodes have a version that does not know `holds`.
hold_batch = 32

[publishing]
# Who may publish through the open port: "none", "any", or a list of identity ids. Operators always may.
accept = "none"

[gateway]
# HTTP address of a Hub for unmodified Hugging Face clients, and of the logs for outsiders. Empty: none.
http = {http}
# PEM files; both together make it HTTPS.
certificate = ""
key = ""
# Its URL for clients, such as "https://models.example.org"; this node announces it on request. Empty: not announced.
url = ""
# A second address and URL for the same clients: a file server for large files.
files = {files}
files_url = ""
# Address and URL of a file server for other nodes and `comity pull`, under this node's own certificate.
ranges = {ranges}
ranges_url = ""
# Whether reading needs no token (comity token new).
public = true
# Pages for browsers: at /, below /-/, and at the addresses of the repositories.
console = true
# Web origins whose pages may read this gateway, such as ["https://models.example.org"]. Empty: none.
cors_origins = []
# Aliases of repositories, such as ["gpt2=openai-community/gpt2"]: clients are redirected.
aliases = []
# Which artifacts are served: a policy file, as for `comity verify`. Empty: those that their publisher signed.
policy = ""
# Artifacts that are not stored here: "off" refuses them; "peers" fetches known ones from peers while the reader waits,
# and stores them; "upstream" also imports unknown ones from their Hub, as far as [upstream] allows.
cold = "off"
# How many members, of two jurisdictions, must say which artifact a lost name was, before it is answered with that one;
# at least 2. 0: no lost name is answered.
continuations = 0
# Requests per second of one address.
calls_per_second = 500.0
# Files for pages of the console: the laws of publishers who are no members, as for `comity descent --laws`, and prices,
# as for `comity costs --prices`. Empty: none.
laws_file = ""
prices_file = ""
# IP addresses of proxies at `http` that add the address of their client to X-Forwarded-For: limits count by it.
proxies = []

[upstream]
# Repositories that readers' requests may import (cold = "upstream"), such as ["org/name", "org/*"].
allow = []
# Repositories whose newest commit the node imports by itself, such as ["org/name"], every so many hours.
follow = []
follow_hours = 24
# The Hub, and additional hosts that may serve its files; those of huggingface.co are built in.
endpoint = "https://huggingface.co"
hosts = []
# Larger repositories are not imported for readers, nor followed.
largest_bytes = 1099511627776

[oidc]
# People sign in to the console through this OpenID Connect provider; empty: by `comity console sign-in` only.
# The issuer as in the provider's metadata, this node's client id, and a file with the client's secret (mode 0600).
issuer = ""
client_id = ""
secret_file = ""
# Certificates of a private authority of the provider (PEM).
ca_file = ""
# The claim of the ID token with the groups of a person; who may change tokens and sessions, and who may only look.
claim = "groups"
operators = []
viewers = []
# Asked of the provider besides "openid".
scopes = ["profile"]

[tlog]
# Outside logs whose entries may be pushed here and are then cosigned, by verifier key: ["origin+id+key"].
mirror = []
# Outside logs that the plain witness cosigns, its name, and its key (PEM, mode 0600). See docs/transparency.md.
witness = []
witness_name = ""
witness_key = "keys/witness.pem"
# Outside witnesses to which this node submits its own log: ["name+id+key https://witness.example/prefix"].
submit = []

[limits]
# A log above this limit is no longer mirrored or cosigned here.
entries_per_origin = 10000000
bytes_per_origin = 17179869184
# Calls per second of one address at the open port.
open_calls_per_second = 50.0
# Total bytes of all unfinished publications.
upload_bytes = 4398046511104
# Lines about compute offers that are read from one log; further lines are mirrored, but ignored.
offer_lines_per_origin = 262144

[audits]
# Bytes that this node reads in a day to test copies of others, at its disk and at theirs; 0 for none.
bytes_per_day = 34359738368
# Pieces of one challenge.
pieces = 10
# The least time between two audits of one copy, except those that a person asks for.
again_minutes = 60
# Bytes that each member may make this node read in an hour.
answer_bytes_per_hour = 536870912

[audit_log]
# What operators do is in audit.log. Other places for its lines: a file, and syslog ("/dev/log", or "host:514" for UDP).
copy_file = ""
syslog = ""

[retention]
# A file of retention rules: what `comity gc` may remove. See docs/operations/copies.md.
rules = ""
# The node itself removes what the rules let go, every so many hours; 0: never.
every_hours = 0.0

[webhooks]
# A file that says who is told of new versions, advisories, alerts, missing copies and votes: comity webhook new
file = ""

[telemetry]
# A collector for traces of calls and transfers, such as "http://127.0.0.1:4318"; needs pip install 'comity[otel]'.
otlp = ""
# The share of calls and transfers that get a trace.
share = 1.0

[pins]
# Seconds without an answer after which a peer is taken for lost: its copies count no more for pins of this node.
patience_seconds = 21600.0
"""


HTTP: Final = "127.0.0.1:7480"
"""The address of a new node's gateway: only for its own machine, until its operator changes it."""


@frozen
class ListenSettings:
    """Addresses where a new node listens, IP address and port each; empty means none.

    `files` and `ranges` are None for a free port beside `http` and the open port.
    """

    http: str = HTTP
    files: str | None = None
    ranges: str | None = None
    metrics: str = ""


def node_toml(directory: Path, card: NodeCard, listeners: ListenSettings) -> str:
    """The text of node.toml. Raises Malformed, also with the code PORT-TWICE."""
    for name in ("http", "files", "ranges", "metrics"):
        _check_listener(name, getattr(listeners, name) or "")
    mutual, open_ = _listen(card.mutual[0]), _listen(card.open[0])
    taken = {"mutual": mutual, "open": open_, "http": listeners.http, "metrics": listeners.metrics}
    for name, beside in (("ranges", open_), ("files", listeners.http)):
        given: str | None = getattr(listeners, name)
        taken[name] = _free_port(beside, taken.values()) if given is None else given
    _check_distinct(taken)
    values = {
        "name": card.record.name,
        "member": card.inception.label,
        "listen_mutual": mutual,
        "listen_open": open_,
        "operator": _socket(directory),
        "mutual": list(card.mutual),
        "open": list(card.open),
        "private_networks": _own_networks(card),
        **{name: taken[name] for name in ("metrics", "http", "files", "ranges")},
    }
    return _TEMPLATE.format_map({key: json.dumps(value, ensure_ascii=False) for key, value in values.items()})


def _own_networks(card: NodeCard) -> list[str]:
    """A node that others reach on its own machine only is one of a lab: its peers are on that machine too."""
    local = (Address.parse(address).is_loopback for address in (*card.mutual, *card.open))
    return ["127.0.0.0/8", "::1/128"] if all(local) else []


def _listen(advertised: str) -> str:
    """The address to listen on: an IP address as it is, localhost on 127.0.0.1, another name on all interfaces."""
    address = Address.parse(advertised)
    if address.host.lower() == "localhost":
        return f"127.0.0.1:{address.port}"
    return advertised if address.target.startswith("ipv") else f"0.0.0.0:{address.port}"


def _check_listener(name: str, address: str) -> None:
    """Raises Malformed unless this is an IP address and a port, or empty."""
    host, _, port = address.rpartition(":")
    try:
        ipaddress.ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
        usable = port.isdecimal() and len(port) < 6 and int(port) < 65_536
    except ValueError:
        usable = False
    if address and not usable:
        why = f"expected an IP address and a port, got {address[:80]!r}"
        raise Malformed("a node cannot listen there", why=why, hint=f"write it like --{name} 127.0.0.1:7480")


def _free_port(beside: str, taken: Iterable[str]) -> str:
    """`beside` with the next port that no address in `taken` has; port 0 (chosen by the system) stays 0."""
    host, _, port = beside.rpartition(":")
    if not beside or not int(port):
        return beside
    ports = {address.rpartition(":")[2] for address in taken}
    numbers = itertools.chain(range(int(port) + 1, 65_536), range(1024, int(port)))
    return next(f"{host}:{n}" for n in numbers if str(n) not in ports)


def _check_distinct(listeners: Mapping[str, str]) -> None:
    """Raises Malformed (PORT-TWICE) if two listeners have one port; hosts do not matter, 0 is chosen by the system."""
    names: dict[str, str] = {}
    for name, address in listeners.items():
        port = address.rpartition(":")[2]
        if port in names:
            why = f"{names[port]} and {name} both have port {port}"
            hint = f"give one of them another port: --{names[port]} or --{name}"
            raise Malformed("two listeners have one port", why=why, hint=hint, code="PORT-TWICE")
        if port not in ("", "0"):
            names[port] = name


def _socket(directory: Path) -> str:
    """`operator.sock` in the home, or a path in the temporary folder if the home's path is too long for a socket."""
    path = directory.absolute() / "operator.sock"
    if len(str(path).encode()) <= MAX_SOCKET:
        return path.name
    tag = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:16]
    return str(Path(tempfile.gettempdir()) / f"comity-{tag}.sock")


OFFLINE: Final = "offline"


@frozen
class NewNode:
    """A node to make, and the seat of its member.

    Attributes:
        jurisdiction: ISO 3166-1 alpha-2 code, or a name that the charter defines.
        org: the display name of the member.
        node_name: unique in the federation, e.g. `node-ch.example.org`.
        mutual, open_: `host:port` for other nodes, and for everyone.
        listeners: where its gateway, file servers and metrics listen; by default on this machine only.
        origin: the permanent name of its log; by default `<node_name>/log`. `{key}` in it is replaced by the SHA-256 of
            the log's public key, which some witnesses require.
        seat: the number of keys of the seat; by default one governance and one recovery key.
        place: what the member declares about the node's machines; by default nothing.
    """

    jurisdiction: str
    org: str
    node_name: str
    mutual: str
    open_: str
    listeners: ListenSettings = ListenSettings()
    origin: str = ""
    seat: SeatShape = field(default_factory=SeatShape)
    place: Place | None = None


def init_node(directory: Path, new: NewNode) -> NodeCard:
    """Create the home of a new member's node in `directory`: keys, inception, node record, node.toml, node-card.json.

    The keys below `offline/` control the seat: the running node never reads them; keep them on a medium that is not
    connected (see `signing.seat_keys`). Raises Conflict if the directory is not empty, Malformed for an invalid name,
    address, number of keys or two listeners with one port, OutOfSpace, Unavailable.
    """
    check_new_jurisdiction(new.jurisdiction)
    check_visible(new.org, "the organisation's name")
    check_visible(new.node_name, "the node's name")
    check_name(f"{new.node_name}/cosigner")
    for address in (new.mutual, new.open_):
        Address.parse(address)
    keys, seat_keys = NewNodeKeys.generate(), SeatKeys.generate(new.seat)
    log = _log_key(new.origin or f"{new.node_name}/log", keys.log.keys[0].public)
    inception = Inception(
        kind="member",
        keys=seat_keys.keys,
        recovery=seat_keys.recovery,
        home=log.name,
        jurisdiction=new.jurisdiction,
        label=new.org,
    )
    record = NodeRecord(
        member=inception.id,
        name=new.node_name,
        log=log,
        cosigners=tuple(cosigner_key(f"{new.node_name}/cosigner", key.public) for key in keys.cosigner.keys),
        online=keys.online.public,
        tls=make_certificate(keys.tls.keys[0]),
        place=new.place,
    )
    card = NodeCard.of(
        sign_content(InceptionStatement(inception), *seat_keys.signers).line,
        (),
        sign_content(record, *seat_keys.signers, *keys.signers).line,
        (new.mutual,),
        (new.open_,),
    )
    settings = node_toml(directory, card, new.listeners)
    _new_home(directory)
    keys.write(directory / "keys")
    seat_keys.write(directory / OFFLINE)
    for name, data in (
        ("inception.line", card.inception_line + b"\n"),
        ("node-record.line", card.record_line + b"\n"),
        ("node-card.json", card.encode()),
        ("node.toml", settings.encode()),
    ):
        durable.write_file(directory / name, data, mode=0o644, point="home")
    return card


def _log_key(origin: str, public: PublicKey) -> VerifierKey:
    return log_verifier_key(origin.replace("{key}", hashlib.sha256(public.raw).hexdigest()), public)


def _new_home(directory: Path) -> None:
    """Create the folders of a node's home in `directory`, which must be new or empty."""
    with durable.disk_errors(f"{directory} was not created"):
        durable.make_folders(directory)
        if any(directory.iterdir()):
            hint = "choose a new directory"
            raise Conflict(f"{directory} is not empty", why="it may hold a node", hint=hint, code="NODE-EXISTS")
        for folder in ("keys", OFFLINE):
            durable.make_folders(directory / folder, mode=0o700)
