"""Checks of `comity doctor` towards others: ports, advertised addresses, proxies, peers, forks, and the gateway.

`ping_peers` calls each address of other members' nodes as this node would: with its certificate at the mutual port, and
with the peer's certificate pinned at both. The node of the home need not run. Peers are those of the home's federation
file. Nothing is changed, here or there.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit

from comity.node.config import NodeConfig
from comity.node.home_files import HomeFiles, check_ports
from comity.node.maintenance.home_checks import Diagnosis, ExaminedNode
from comity.node.members import Membership, Peer
from comity.trust.errors import ComityError, Malformed, NotFound
from comity.trust.frozen import frozen
from comity.upstream.guarded import AllowedHosts, RetryLater
from comity.upstream.hub_api import HubApi
from comity.upstream.listed_files import UpstreamRequest
from comity.wire.addresses import Address
from comity.wire.client import NodeClient
from comity.wire.node_status import WARN_SHARE
from comity.wire.tls import CertificatePin, TlsIdentity

TIMEOUT: Final = 5.0
MAX_ANSWER: Final = 4 * 1024 * 1024
MAX_CERTIFICATE: Final = 1024 * 1024
RENEW_DAYS: Final = 30
MAX_NAMED: Final = 16
"""Peers, logs or addresses that are told one by one."""
STALE_SECONDS: Final = 86_400
PROXIES: Final = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
HUB_HEADERS: Final = ("X-Repo-Commit", "ETag", "Content-Length", "Accept-Ranges")
"""What huggingface_hub reads of the answer to HEAD."""
PING_TIMEOUT: Final = 5.0
CALLS: Final = 3
"""Calls to an address that answers. The first one connects; the time is that of the fastest one."""
AT_ONCE: Final = 16


def check_listeners(node: ExaminedNode) -> Iterator[Diagnosis]:
    """The running node listens at its addresses; the addresses of a stopped node are free."""
    for setting, address in node.config.listeners.items():
        host, _, port = address.rpartition(":")
        if port == "0":
            continue
        if node.status is None:
            try:
                check_ports({setting: address})
            except ComityError as error:
                if node.config.is_front_end:
                    text = f"{setting} = {address} is in use: by this front end, if it runs"
                    yield Diagnosis("ports", "unknown", text, f"ss -ltnp 'sport = :{port}'")
                    continue
                fix = f"find the program with: ss -ltnp 'sport = :{port}'   and stop it, or change {setting}"
                yield Diagnosis.of("ports", error, fix=fix)
                continue
            yield Diagnosis("ports", "ok", f"{setting} = {address} is free")
        elif (why := _connect(_local(host), int(port))) is not None:
            text = f"{setting} = {address} does not answer, though the node runs: {why}"
            yield Diagnosis("ports", "fail", text, "restart the node, and read the first lines that it logs")
        else:
            yield Diagnosis("ports", "ok", f"{setting} = {address} listens")


def check_advertised(node: ExaminedNode) -> Iterator[Diagnosis]:
    """Others can use the addresses that the node gives to them."""
    advertise = node.config.advertise
    if node.config.is_front_end:
        return  # the writer tells its own settings to others
    for kind, addresses in (("mutual", advertise.mutual), ("open", advertise.open)):
        if not addresses:
            text = f"advertise.{kind} is empty: others know no address of this node but that of its card"
            yield Diagnosis("addresses", "warn", text, f"set {kind} in [advertise] of node.toml to HOST:PORT")
        for address in addresses[:MAX_NAMED]:
            yield _advertised(node, f"advertise.{kind}", Address.parse(address))


def _advertised(node: ExaminedNode, setting: str, address: Address) -> Diagnosis:
    fix = f"set {setting} in node.toml to a name or address that other members reach"
    if address.is_loopback:
        return Diagnosis("addresses", "warn", f"{setting} names {address}, which other machines cannot reach", fix)
    host, _, port = str(address).rpartition(":")
    host = host.strip("[]")
    try:
        if ipaddress.ip_address(host).is_unspecified:
            return Diagnosis("addresses", "fail", f"{setting} names {address}, which is no address of a machine", fix)
    except ValueError:
        pass  # a name
    try:
        socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        text = f"{setting} names {address}, and the name does not resolve here: {error}"
        return Diagnosis("addresses", "fail", text, f"add {host} to your DNS, or change {setting} in node.toml")
    if node.status is None:
        return Diagnosis("addresses", "unknown", f"{setting} names {address}: not tried, the node does not run")
    if (why := _connect(host, int(port))) is not None:
        text = f"{setting} names {address}, which this machine does not reach: {why}"
        return Diagnosis("addresses", "warn", text, f"open port {port} in the firewall; ask a peer: comity peer ping")
    return Diagnosis("addresses", "ok", f"{setting} names {address}, which this machine reaches")


def check_proxy(node: ExaminedNode) -> Iterator[Diagnosis]:
    """A proxy carries imports, and never the traffic between nodes."""
    proxy = next((name for name in PROXIES if node.machine.environ.get(name)), "")
    if not proxy:
        yield Diagnosis("proxy", "ok", "none is set")
        return
    peers = [] if node.status is None else [peer for peer in node.status.peers if not peer.former]
    text = f"{proxy} is set; imports use it, and traffic between nodes goes direct"
    if peers and not any(peer.reachable for peer in peers):
        ports = ", ".join(sorted({peer.address.rpartition(":")[2] for peer in peers if peer.address}))
        fix = f"allow outgoing TCP to the nodes of the members in the firewall, ports {ports}"
        yield Diagnosis("proxy", "fail", f"{text}; no peer is reached", fix)
    else:
        yield Diagnosis(
            "proxy", "ok", text if peers else f"{text} (not tried: no peer is known while the node is stopped)"
        )


def check_limits(node: ExaminedNode) -> Iterator[Diagnosis]:
    """No limit of the running node is nearly reached."""
    if node.status is None:
        return
    near = [quota for quota in node.status.quotas if quota.is_near]
    for quota in near:
        text = f"{quota.name}: {quota.used} of {quota.limit} {'items' if quota.items else 'bytes'}"
        yield Diagnosis("limits", "warn", text, f"comity status --node {node.home}")
    if not near:
        yield Diagnosis("limits", "ok", f"none of {len(node.status.quotas)} limits is used to {WARN_SHARE:.0%}")


def _how_to_ask(node: ExaminedNode) -> str:
    """The command that asks a front end whether it serves; empty if it has no HTTP port."""
    gateway, metrics = node.config.gateway, node.config.listen.metrics
    if gateway.http and gateway.certificate:
        return f"curl -fsSk https://{gateway.http}/readyz"
    return f"curl -fsS http://{gateway.http or metrics}/readyz" if gateway.http or metrics else ""


def check_running(node: ExaminedNode) -> Iterator[Diagnosis]:
    """The node runs, and signs."""
    if node.config.is_front_end:
        yield Diagnosis("node", "unknown", "a front end has no operator socket: it was not asked", _how_to_ask(node))
        return
    if node.status is None:
        yield Diagnosis("node", "unknown", "it does not run: peers, forks and gateway were not checked",
                      f"comity serve --node {node.home}")  # fmt: skip
        return
    silent = [text for text in node.status.warnings if text.startswith("this node signs nothing")]
    for text in silent:
        yield Diagnosis("node", "fail", text, "comity explain LOG-DIVERGED")
    if not silent:
        yield Diagnosis("node", "ok", "it runs and answers at its operator socket")


def check_peers(node: ExaminedNode) -> Iterator[Diagnosis]:
    """Every peer answers, and its log is followed."""
    if node.status is None:
        return
    peers = [peer for peer in node.status.peers if not peer.former]
    for peer in [peer for peer in peers if not peer.reachable][:MAX_NAMED]:
        text = f"{peer.name} does not answer at {peer.address or 'any address'}: {peer.last_error or 'not asked yet'}"
        yield Diagnosis("peers", "fail", text, f"comity peer ping {peer.name} --node {node.home}")
    for peer in [peer for peer in peers if peer.reachable and peer.last_error][:MAX_NAMED]:
        text = f"{peer.name} answers, and its data are not taken: {peer.last_error}"
        yield Diagnosis("peers", "warn", text, f"comity status --node {node.home}")
    if node.files is not None and node.files.federation is not None and not peers:
        yield Diagnosis("peers", "warn", "none is known", "comity join federation.json, or wait for other members")
    well = sum(peer.reachable for peer in peers)
    if peers and well:
        yield Diagnosis("peers", "ok", f"{well} of {len(peers)} answer")


def check_forks(node: ExaminedNode) -> Iterator[Diagnosis]:
    """No log and no charter has two histories, and others cosign this node's log."""
    if node.status is None:
        return
    status, charter = node.status, node.status.governance
    own = next((log for log in status.logs if log.own), None)
    found = [fork for fork in (charter.forks if charter else ()) if not fork.retired]
    for fork in found:
        text = f"epoch {fork.epoch} of the charter was certified twice; this node follows no further epoch"
        fix = "ask the other members, then set branch in [federation] of node.toml and restart"
        yield Diagnosis("forks", "fail", text, fix)
    if status.misbehaviour:
        text = f"{status.misbehaviour} proofs that a log or a member contradicted itself"
        yield Diagnosis("forks", "fail", text, "comity log misbehaviour --all")
    for name in (charter.liars if charter else ())[:MAX_NAMED]:
        yield Diagnosis("forks", "fail", f"{name} signed conflicting votes", "comity log misbehaviour --all")
    if not (found or status.misbehaviour or (charter and charter.liars)):
        yield Diagnosis("forks", "ok", "no proof of two histories is stored")
    for log in [log for log in status.logs if log.full][:MAX_NAMED]:
        fix = "raise entries_per_origin or bytes_per_origin in [limits] of node.toml, or ask its member"
        yield Diagnosis("quota", "warn", f"{log.origin} is above its quota and is not followed", fix)
    if own is None or not any(peer.reachable for peer in status.peers):
        return
    if not own.cosigners or node.machine.clock() - own.checkpoint_time > STALE_SECONDS:
        text = "no other member's node has cosigned this node's newest checkpoint within a day"
        yield Diagnosis(
            "cosigners", "warn", text, f"ask a peer whether it reaches you: comity peer ls --node {node.home}"
        )
    else:
        yield Diagnosis("cosigners", "ok", f"{len(own.cosigners)} cosigned this node's log")


def check_gateway(node: ExaminedNode) -> Iterator[Diagnosis]:
    """The gateway answers the requests that a real Hub client sends, and its certificate is valid."""
    settings = node.config.gateway
    if not settings.http:
        return
    yield from _certificate(node)
    host, _, port = settings.http.rpartition(":")
    if node.status is None:
        return
    if port == "0":
        yield Diagnosis("gateway", "unknown", "gateway.http has port 0: its address is only in the log of the node")
        return
    scheme = "https" if settings.certificate else "http"
    where = f"{scheme}://{_bracketed(_local(host))}:{port}"
    try:
        yield from _hub_client(where, settings.certificate, settings.url)
    except _NotAHub as problem:
        yield Diagnosis(
            "gateway", "fail", f"{where}: {problem}", "restart the node; if it stays: comity support-bundle"
        )
    except (OSError, HTTPException) as error:
        fix = f"read the log of the node for gateway; another program may listen there: ss -ltnp 'sport = :{port}'"
        yield Diagnosis("gateway", "fail", f"{where} does not answer: {error}", fix)


class _NotAHub(Exception):
    """The gateway answers something that a Hub client cannot use."""


def _hub_client(where: str, certificate: Path | None, url: str) -> Iterator[Diagnosis]:
    """Ask as a Hub client does: the list, a model, its files, and the head of one file. Raises _NotAHub, OSError.

    Args:
        certificate, url: of the gateway, to be named where this machine does not verify `where`.
    """
    listed = _get(where, "/api/models?limit=1")
    if listed.status in (401, 403):
        yield Diagnosis("gateway", "unknown", "it answers, and is not public: reading was not tried without a token")
        return
    models = _json(listed)
    if not isinstance(models, list) or (models and not isinstance(models[0], dict)):
        raise _NotAHub("GET /api/models is not a list of models")
    if not models:
        yield Diagnosis("gateway", "ok", "it answers a Hub client; it has no model yet")
        return
    repository = str(models[0].get("id", ""))
    if (why := _distrust(where)) is not None:
        text = f"it answers over TLS; no Hub client was tried, because this machine does not verify {where}: {why}"
        yield Diagnosis("gateway", "unknown", text, f"curl -fsS --cacert {certificate} {url or where}/readyz")
        return
    try:
        hub = HubApi(AllowedHosts.to(where), read_timeout=TIMEOUT)
        info = hub.revision_info(UpstreamRequest(repository))
        files = hub.listing(info).files
    except Malformed as error:
        raise _NotAHub(f"huggingface_hub cannot read {repository}: {error}") from error
    except (ComityError, RetryLater) as error:
        if getattr(error, "code", "") == "NO-IMPORTER":
            yield Diagnosis("gateway", "unknown", f"huggingface_hub could not be used here: {error}")
            return
        raise _NotAHub(f"huggingface_hub cannot read {repository}: {error}") from error
    for file in files[:1]:
        path = f"/{quote(repository)}/resolve/{info.upstream.commit}/{quote(file.path)}"
        head = _get(where, path, method="HEAD")
        lacking = [name for name in HUB_HEADERS if head.getheader(name) is None]
        if head.status not in (200, 302) or lacking:
            what = f"lacks {', '.join(lacking)}" if lacking else f"has status {head.status}"
            raise _NotAHub(f"the answer to HEAD {path} {what}")
    yield Diagnosis("gateway", "ok", f"a Hub client reads {repository}: list, model, files and the head of a file")


def _distrust(where: str) -> str | None:
    """Why this machine does not trust the certificate at an https URL, for the address in it; None if it does, and for
    http. An authority of the operator's own, and a name beside an IP address, are no fault of the node."""
    parts = urlsplit(where)
    if parts.scheme != "https":
        return None
    host = parts.hostname or ""
    try:
        with socket.create_connection((host, parts.port or 443), timeout=TIMEOUT) as plain:
            ssl.create_default_context().wrap_socket(plain, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    return None


def _get(where: str, path: str, *, method: str = "GET") -> HTTPResponse:
    """One request without a proxy; the certificate is not verified, because the address is this machine."""
    parts = urlsplit(where)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = parts.hostname or "", parts.port
    secure = parts.scheme == "https"
    connection = (
        HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
        if secure
        else HTTPConnection(host, port, timeout=TIMEOUT)
    )
    connection.request(method, path, headers={"Accept-Encoding": "identity", "Connection": "close"})
    return connection.getresponse()


def _json(response: HTTPResponse) -> Any:
    data = response.read(MAX_ANSWER)
    if response.status != 200:
        raise _NotAHub(f"GET /api/models has status {response.status}")
    try:
        return json.loads(data)
    except ValueError as error:
        raise _NotAHub("GET /api/models is not JSON") from error


def _certificate(node: ExaminedNode) -> Iterator[Diagnosis]:
    file = node.config.gateway.certificate
    if file is None:
        return
    from cryptography import x509  # most gateways have no certificate of their own

    try:
        with file.open("rb") as source:
            certificate = x509.load_pem_x509_certificate(source.read(MAX_CERTIFICATE))
    except (OSError, ValueError) as error:
        yield Diagnosis("certificate", "fail", f"{file} has no certificate: {error}", "comity config check")
        return
    left = (certificate.not_valid_after_utc - datetime.fromtimestamp(node.machine.clock(), UTC)).days
    fix = f"renew the certificate in {file}, and restart the node"
    if left < 0:
        yield Diagnosis("certificate", "fail", f"the certificate of the gateway expired {-left} days ago", fix)
    elif left < RENEW_DAYS:
        yield Diagnosis("certificate", "warn", f"the certificate of the gateway expires in {left} days", fix)
    else:
        yield Diagnosis("certificate", "ok", f"the certificate of the gateway is valid for {left} days")


def _connect(host: str, port: int) -> str | None:
    """Why a TCP connection fails; None if it does not."""
    try:
        socket.create_connection((host, port), timeout=TIMEOUT).close()
    except OSError as error:
        return error.strerror or str(error)
    return None


def _local(host: str) -> str:
    """The address of this machine at which a listener of any address answers."""
    return {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@frozen
class PingedAddress:
    """How one address of a peer answered. `seconds` is the time of a call, None if none was answered; then `error`,
    `code` and `hint` say why. `software` is what the peer claims."""

    peer: str
    jurisdiction: str
    port: Literal["mutual", "open"]
    address: str
    seconds: float | None = None
    software: str = ""
    error: str = ""
    code: str = ""
    hint: str = ""


def ping_peers(file: Path, name: str = "") -> tuple[PingedAddress, ...]:
    """Call the nodes of the other members that the home of a `node.toml` knows, or those that `name` names: a node, its
    log or its member. Blocking.

    Raises NotFound if the home has no federation file or no such peer, and the errors of `NodeConfig.load` and
    `HomeFiles.read`.
    """
    config = NodeConfig.load(file)
    files = HomeFiles.read(config)
    if files.federation is None:
        hint = "comity join federation.json --node HOME"
        raise NotFound("this node knows no peer", why=f"{config.federation.file} is missing", hint=hint)
    membership = Membership(files.own_node, files.federation)
    peers = [peer for peer in membership.peers if not name or name in (peer.name, peer.origin, peer.member.name)]
    if not peers:
        known = ", ".join(membership.shown_name(peer) for peer in membership.peers) or "none"
        why = f"the federation file has {known}; a node that joined later is in: comity peer ls"
        raise NotFound(f"no peer {name[:80]!r}", why=why, hint="comity peer ls --node HOME")
    return asyncio.run(_ping_all(membership, peers, files.keys.tls))


async def _ping_all(membership: Membership, peers: list[Peer], tls: TlsIdentity) -> tuple[PingedAddress, ...]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(peer: Peer, port: Literal["mutual", "open"], address: str) -> PingedAddress:
        async with turn:
            return await _ping(membership.shown_name(peer), peer, port, address, tls)

    return tuple(await asyncio.gather(*(one(*where) for peer in peers for where in _addresses(peer))))


def _addresses(peer: Peer) -> Iterator[tuple[Peer, Literal["mutual", "open"], str]]:
    for address in peer.mutual:
        yield peer, "mutual", address
    for address in peer.open:
        yield peer, "open", address


async def _ping(
    shown: str, peer: Peer, port: Literal["mutual", "open"], address: str, tls: TlsIdentity
) -> PingedAddress:
    place = (shown, peer.member.jurisdiction, port, address)
    try:
        target, pin = Address.parse(address), CertificatePin.of(peer.record.tls)
        connected = NodeClient.connect(target, pin, tls if port == "mutual" else None)
        async with connected as client:
            fastest, software = await _fastest(client.with_timeout(PING_TIMEOUT))
    except Malformed as error:
        return PingedAddress(*place, error=str(error), code=error.code)
    except ComityError as error:
        return PingedAddress(*place, error=str(error), code=error.code, hint=error.hint)
    return PingedAddress(*place, seconds=fastest, software=software)


async def _fastest(client: NodeClient) -> tuple[float, str]:
    times, software = list[float](), ""
    for _ in range(CALLS):
        begun = time.monotonic()
        software = (await client.node()).software
        times.append(time.monotonic() - begun)
    return min(times), software
