"""Where a node says that its gateway is: its own claim, by the connection that its pinned certificate answers for, and
nothing that anybody proves. What is behind the URL is a matter between the client and its certificate there."""

from __future__ import annotations

from dataclasses import dataclass

from comity.trust.errors import NotFound
from comity.wire.address import Address
from comity.wire.gateway_url import GatewayUrl

from comity_client.nodes.session import NO_PIN, RemoteNode, Session


@dataclass(frozen=True, slots=True)
class ToldGateway:
    """What the node called `node` claims."""

    node: str
    url: GatewayUrl


async def told_gateway(session: Session, name: str = "") -> ToldGateway:
    """Ask the node that `name` names; without a name, the only one that is known.

    Raises NotFound (NO-NODES, NO-GATEWAY), Malformed (GATEWAY-URL) for what is no URL of a gateway, and what the
    connection raises.
    """
    node = session.named(name) if name else _only(session)
    url = (await node.ask(lambda client: client.node())).gateway
    if url is None:
        raise _none(node, "its operator wrote no `url` in [gateway], or its software is older than that setting")
    if url.address.is_loopback and not any(Address.parse(address).is_loopback for address in node.addresses):
        raise _none(node, f"it tells {url}, which is this machine and not the node's")
    return ToldGateway(node.name, url)


def _only(session: Session) -> RemoteNode:
    if not session.nodes:
        raise NotFound("no node is known", why="no federation is pinned", hint=NO_PIN, code="NO-NODES")
    if len(session.nodes) > 1:
        known = ", ".join(node.name for node in session.nodes)
        hint = f"name one: --node {session.nodes[0].name}"
        raise NotFound("which node's gateway?", why=f"pinned federations have {known}", hint=hint, code="NO-GATEWAY")
    return session.nodes[0]


def _none(node: RemoteNode, why: str) -> NotFound:
    hint = "ask its operator for the URL, and name it: comity env --url URL"
    return NotFound(f"{node.name} tells no gateway that can be used", why=why, hint=hint, code="NO-GATEWAY")
