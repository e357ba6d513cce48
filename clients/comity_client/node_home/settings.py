"""The text of a new node's node.toml: every setting that an operator may want to change, with its default."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comity.wire.address import Address

if TYPE_CHECKING:
    from comity_client.node_home.card import NodeCard

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
