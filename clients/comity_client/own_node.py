"""The node of this machine: where it listens for its operators, and what only they have it do.

A process that may use the operator socket may also read the disk of the node. Each function makes one connection, and
raises as `ask_own_node` does, besides what it says.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from comity.trust.encoding import Digest
from comity.trust.errors import ComityError, Conflict, Malformed, NotFound, PolicyNotMet, Unavailable
from comity.trust.frozen import frozen
from comity.trust.names import is_meant
from comity.wire.client import NodeClient
from comity.wire.limits import CALL_TIMEOUT

if TYPE_CHECKING:
    from comity.rules.artifact_pins import Pin
    from comity.wire.audit import AuditCalls, CheckedCopy, HoldDecision, HoldOrder, RetainedCopy
    from comity.wire.node_status import NodeStatus
    from comity.wire.operator import SignInLink
    from comity.wire.pin import ListedPin

T = TypeVar("T")

AUDIT_TIMEOUT: Final = 600.0
"""Seconds that the node may take to test one copy: it reads pieces of it, and asks others for theirs."""
REMOVAL_TIMEOUT: Final = 900.0
"""Seconds that the node may take to withdraw or remove one copy."""
_SETTING: Final = "COMITY_LISTEN_OPERATOR"
_UNIX: Final = "unix:"


def operator_socket(home: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the operator socket of the node with this home: `listen.operator` in its node.toml, which the environment
    overrides, as for the node itself. Raises NotFound, Malformed (CONFIG), and Unavailable (FRONT-END) for a home whose
    process has no such socket."""
    from comity_client.node_home import read_settings

    settings = read_settings(home)
    node, listen = settings.get("node"), settings.get("listen")
    if isinstance(node, dict) and node.get("role") == "front-end":
        why = "a front end has no operator socket"
        hint = f"on the machine of its writer{_writer_of(settings)}, this command with --node HOME; what is wrong here "
        hint += f"says: comity doctor --node {shlex.quote(str(home))}"
        raise Unavailable(f"{home} is the home of a front end", why=why, hint=hint, code="FRONT-END")
    written = listen.get("operator") if isinstance(listen, dict) else None
    socket = environ.get(_SETTING) or written or "operator.sock"
    if not isinstance(socket, str):
        raise Malformed("setting 'listen.operator' is not usable", why=f"expected a path, in {home}", code="CONFIG")
    return home / socket


def _writer_of(settings: Mapping[str, object]) -> str:
    """Where the writer of a front end is reached, as the front end tells its callers (`comity.node.front_end`)."""
    node, advertise = settings.get("node"), settings.get("advertise")
    if isinstance(node, dict) and node.get("writer"):
        return f", {node['writer']}"
    mutual = advertise.get("mutual") if isinstance(advertise, dict) else None
    return f", {', '.join(map(str, mutual))}" if isinstance(mutual, list) and mutual else ""


def local_socket(named: str) -> Path | None:
    """Return the operator socket that `named` means: the path of a socket, with or without the prefix `unix:`, or the
    home of a node. None if it is neither, so that it is a name.

    Raises NotFound (NO-HOME) for a path where there is no node, and as `operator_socket` does.
    """
    path = Path(named.removeprefix(_UNIX)).expanduser()
    if named.startswith(_UNIX) or path.is_socket():
        return path
    if (path / "node.toml").is_file():
        return operator_socket(path)
    if path.suffix == ".sock":
        return path
    if named.startswith(("/", "./", "../", "~")) or named in (".", ".."):
        hint = "name your node's home: --node HOME; other nodes: comity status"
        raise NotFound(f"no node at {named}", why="it is neither a home nor a socket", hint=hint, code="NO-HOME")
    return None


def own_socket(named: str | None) -> Path:
    """Return the operator socket of the node on this machine that `named` means, or of the node whose home is the
    current folder. Raises NotFound (NO-HOME), and as `operator_socket` does."""
    socket = operator_socket(Path()) if named is None else local_socket(named)
    if socket is None and named is not None and Path(named).is_dir():
        return operator_socket(Path(named))  # which says what the folder lacks
    if socket is None:
        hint = "name your node's home: --node HOME"
        raise NotFound(f"no node {named!r} on this machine", why="only its operators may do this", hint=hint,
                       code="NO-HOME")  # fmt: skip
    return socket


def ask_own_node(socket: Path, question: Callable[[NodeClient], Awaitable[T]], *, timeout: float = CALL_TIMEOUT) -> T:
    """Ask the node of this machine that listens on `socket`; `timeout` in seconds, for an answer or the next message.

    Raises Unavailable (UNREACHABLE) if no node listens, Refused (SOCKET-DENIED) if this user may not use the socket.
    """

    async def ask() -> T:
        async with NodeClient.operator(socket.absolute(), timeout=timeout) as node:
            return await question(node)

    return asyncio.run(ask())


def operator_status(socket: Path) -> NodeStatus:
    """Return the status of the node that listens on `socket`. Raises as `ask_own_node` does."""
    return ask_own_node(socket, lambda node: node.status())


def decide_ask(socket: Path, member: str, *, keep: bool) -> Digest:
    """Have the node that listens on `socket` keep or dismiss a request to join. Returns the id of the requester.

    `member` is an id, or a unique beginning of 8 digits or more. Raises NotFound (NO-ASK), OutOfSpace (ASKS-KEPT), and
    as `ask_own_node` does.
    """

    async def decide(node: NodeClient) -> Digest:
        found = [ask.member for ask in await node.asks() if is_meant(member, ask.member)]
        if len(found) != 1:
            why = f"{len(found)} pending requests begin with {member[:64]!r}"
            hint = "comity member asks"
            raise NotFound("no unique request to join with that id", why=why, hint=hint, code="NO-ASK")
        await node.decide_ask(found[0], keep=keep)
        return found[0]

    return ask_own_node(socket, decide)


def sign_in_link(socket: Path) -> SignInLink:
    """Have the node that listens on `socket` make a link that signs in to its console once.

    Raises NotFound (NO-CONSOLE), and as `ask_own_node` does.
    """
    return ask_own_node(socket, lambda node: node.sign_in_link())


def check_copies(socket: Path, artifact: Digest) -> list[CheckedCopy]:
    """Have the node of this machine audit the copies of others now. Raises NotFound (NOT-HELD)."""

    async def check(node: NodeClient) -> list[CheckedCopy]:
        return [result async for result in node.audits.check(artifact)]

    return ask_own_node(socket, check, timeout=AUDIT_TIMEOUT)


def decide_hold(socket: Path, order: HoldOrder) -> HoldDecision:
    """Have the node of this machine withdraw its own copy, or take a withdrawal back. Raises as `AuditService.decide`
    does."""
    return ask_own_node(socket, lambda node: node.audits.decide(order), timeout=REMOVAL_TIMEOUT)


@frozen
class CollectedCopy:
    """An own copy and what the retention rules say about it. `decision` if it was removed, `refused` if the node did
    not remove it although the rules let it go."""

    copy: RetainedCopy
    decision: HoldDecision | None = None
    refused: ComityError | None = None


def collect(socket: Path, show: Callable[[CollectedCopy], None], *, remove: bool) -> None:
    """Have the node of this machine apply its retention rules to its own copies; each is shown when it is decided. With
    `remove`, what may go is removed as by `decide_hold`. Raises NotFound (NO-RETENTION-RULES), Malformed
    (RETENTION-RULES)."""

    async def walk(node: NodeClient) -> None:
        async for page in node.audits.retention():
            for copy in page.copies:
                show(await _collect(node.audits, copy) if remove and copy.goes else CollectedCopy(copy))

    ask_own_node(socket, walk, timeout=REMOVAL_TIMEOUT)


async def _collect(audits: AuditCalls, copy: RetainedCopy) -> CollectedCopy:
    from comity.wire.audit import HoldOrder

    order = HoldOrder(copy.artifact, "retention", f"retention rule: {copy.rule}")
    try:
        return CollectedCopy(copy, await audits.decide(order))
    except (PolicyNotMet, Conflict, NotFound) as error:
        return CollectedCopy(copy, refused=error)


def put_pin(socket: Path, pin: Pin) -> None:
    """Pin an artifact, or change its pin. Raises NotFound, OutOfSpace (PINS)."""
    ask_own_node(socket, lambda node: node.pins.put(pin))


def end_pin(socket: Path, artifact: Digest) -> None:
    """End a pin. Raises NotFound (NOT-PINNED)."""
    ask_own_node(socket, lambda node: node.pins.end(artifact))


def list_pins(socket: Path, artifact: Digest | None = None) -> list[ListedPin]:
    """All pins, or that of one artifact."""

    async def read(node: NodeClient) -> list[ListedPin]:
        return [pin async for pin in node.pins.listed(artifact)]

    return ask_own_node(socket, read)
