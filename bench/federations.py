"""Founds a federation of nodes with default settings for a benchmark, one node a member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comity.trust.charter.document import CharterPolicy, quorum
from comity_client.founding import consent_to, draft_genesis, seal_federation
from comity_client.node_card import NodeCard
from comity_client.node_home import ListenSettings, NewNode, init_node

COUNTRIES = ("CH", "ES", "KR", "SG", "BR", "KE", "NO", "JP", "CA", "DE", "FR", "IT", "NL", "SE", "FI", "AT")


@dataclass(frozen=True)
class NodePorts:
    """Addresses of one node's ports, HOST:PORT each."""

    mutual: str
    open_: str
    listeners: ListenSettings


def found(folder: Path, ports: Sequence[NodePorts]) -> list[tuple[Path, NodeCard]]:
    """Homes of a node for each of `ports`, `folder`/node-N, which take everybody's statements."""
    homes = [folder / f"node-{number}" for number in range(len(ports))]
    cards = [
        init_node(
            home,
            NewNode(
                jurisdiction=COUNTRIES[number % len(COUNTRIES)],
                org=f"Institute {number}",
                node_name=f"{home.name}.example",
                mutual=of.mutual,
                open_=of.open_,
                listeners=of.listeners,
            ),
        )
        for number, (home, of) in enumerate(zip(homes, ports, strict=True))
    ]
    count = len(homes)
    body = draft_genesis(cards, CharterPolicy(quorum(count), 1, 1, cosigner_quorum=min(2, count - 1)), None)
    federation = seal_federation(body, [consent_to(body, home) for home in homes], cards).encode()
    for home in homes:
        (home / "federation.json").write_bytes(federation)
        settings = (home / "node.toml").read_text()
        (home / "node.toml").write_text(settings.replace('accept = "none"', 'accept = "any"'))
    return list(zip(homes, cards, strict=True))
