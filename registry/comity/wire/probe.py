"""Why does it not connect? gRPC calls a refused handshake UNAVAILABLE, and no more; one plain TLS connection tells.

Nothing is trusted for what is seen here: the answer is a better sentence for a person.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

from comity.trust.digest import sha256, short
from comity.trust.errors import ComityError, Refused, Unavailable
from comity.wire.address import Address
from comity.wire.certs import Pin, TlsIdentity

_PATIENCE: Final = 5.0


async def explain(address: Address, pin: Pin, identity: TlsIdentity | None) -> ComityError | None:
    """The most likely reason why a channel to `address` fails, or None where nothing seems wrong. Never raises."""
    try:
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=_context(), server_hostname=pin.server_name
            )
            try:
                shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
                if shown != pin.certificate:
                    return _wrong_pin(address, pin, shown or b"")
                return None if await _lets_in(reader) else _not_let_in(address, identity)
            finally:
                writer.transport.abort()
    except ssl.SSLError as error:
        return Unavailable(f"{address} does not speak TLS 1.3", why=error.reason or "", code="NO-TLS")
    except (OSError, TimeoutError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else "no answer"
        hint = "check the address, and that the node runs and its port is open"
        return Unavailable(f"{address} cannot be reached", why=why, hint=hint, code="UNREACHABLE")


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def _lets_in(reader: asyncio.StreamReader) -> bool:
    """Whether the server greets us, who showed no certificate. A mutual door hangs up instead."""
    try:
        return bool(await reader.read(1))
    except (ssl.SSLError, ConnectionError):
        return False


def _wrong_pin(address: Address, pin: Pin, shown: bytes) -> Refused:
    return Refused(
        f"{address} is not the node that was pinned",
        why=f"it shows certificate {short(sha256(shown))}, pinned is {short(sha256(pin.certificate))}",
        hint="get the node's newest node-record from another member, or ask its operator which certificate it shows",
        code="PIN-MISMATCH",
    )


def _not_let_in(address: Address, identity: TlsIdentity | None) -> Refused:
    if identity is None:
        return Refused(
            f"{address} asks for a certificate",
            why="this is the port for members' nodes, and no certificate was shown",
            hint="use the node's open port",
            code="CERTIFICATE-REQUIRED",
        )
    return Refused(
        f"{address} did not let this node in",
        why=f"it shows the pinned certificate, but hangs up on ours, {short(sha256(identity.certificate))}",
        hint="ask its operator whether it holds this node's newest node-record",
        code="CERTIFICATE-UNKNOWN",
    )


async def explain_socket(socket: Path) -> ComityError | None:
    """The same for a node's Unix socket."""
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except PermissionError:
        return Refused(f"{socket} may not be used", why="its permissions do not let this user in", code="SOCKET-DENIED")
    except OSError as error:
        hint = "start the node with: comity serve --dir HOME"
        return Unavailable("no node answers", why=f"{socket}: {error.strerror}", hint=hint, code="UNREACHABLE")
    writer.transport.abort()
    return None
