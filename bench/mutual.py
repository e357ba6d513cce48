"""`comity` as a process that talks to nodes' mutual ports with another node's key, as nodes talk to one another.

python bench/mutual.py NODE-HOME pull bench/model@v1 --to DIR
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from unittest.mock import patch

from comity.content.secrets import read_keys
from comity.trust.node_records import NodeRecord
from comity.trust.statement import parse_entry
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.tls import CertificatePin, TlsIdentity
from comity_cli.main import main
from comity_client import session


def at_mutual_ports(home: Path) -> None:
    """Make every session of this process use the mutual ports of the lab around `home`, as the node in `home`."""
    record = NodeRecord.parse(parse_entry((home / "node-record.line").read_bytes().strip()).statement)
    identity = TlsIdentity(record.tls, read_keys(home / "keys" / "tls.pem")[0])
    ports = {}
    for config in home.parent.glob("*/node.toml"):
        listen = tomllib.loads(config.read_text())["listen"]
        ports[listen["open"]] = listen["mutual"]

    def client(node: session.RemoteNode, address: str) -> NodeClient:
        if address not in node._clients:
            mutual = Address.parse(ports[address])
            node._clients[address] = NodeClient.connect(mutual, CertificatePin.of(node.record.tls), identity)
        return node._clients[address]

    patch.object(session.RemoteNode, "client", client).start()


if __name__ == "__main__":
    at_mutual_ports(Path(sys.argv[1]))
    main(sys.argv[2:])
