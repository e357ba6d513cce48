"""The home of a node on this machine: the keys of a new one, its settings file and federation, whether the node is
installed, and its audit log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from comity.content.audit_log import FAILED, AuditLog, local_user
from comity.trust.errors import ComityError, Conflict, NotFound, Unavailable, Untrusted
from comity.trust.frozen import frozen

from comity_cli.command import client, output

if TYPE_CHECKING:
    from comity_client.signing.seat_keys import SeatShape


@frozen
class SeatOptions:
    """How many keys a new seat gets. `governance_keys` counts those that `tokens` describe."""

    governance_keys: int
    threshold: int | None
    recovery_keys: int
    tokens: tuple[Path, ...]

    @property
    def shape(self) -> SeatShape:
        from comity_client.signing.seat_keys import SeatShape

        return SeatShape(self.governance_keys - len(self.tokens), self.threshold, self.recovery_keys, self.tokens)


@contextmanager
def node_installed() -> Iterator[None]:
    """The block imports parts of the node. Raises Unavailable if they are not installed."""
    try:
        _load_structlog_without_rich()
        yield
    except ImportError as error:
        raise Unavailable(
            "the node is not installed", why=f"{error.name} is missing", hint="pip install 'comity[node]'"
        ) from error


def _load_structlog_without_rich() -> None:
    """Import structlog as it is where rich is not installed. Else it imports rich for coloured traces, which no node
    prints: 80 modules, a tenth of the CPU of a start, and 4 MB. Raises ImportError."""
    if "structlog" not in sys.modules and "rich" not in sys.modules:
        sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it raises ImportError
        try:
            import_module("structlog")  # which the node brings, and the client does not
        finally:
            del sys.modules["rich"]


def node_file(home: Path) -> Path:
    """The settings file of a home. Raises NotFound."""
    file = home / "node.toml"
    if not file.exists():
        hint = "name your node's home: --node HOME; or make one: comity init --help"
        raise NotFound(f"no node in {home}", why=f"{file} is missing", hint=hint)
    return file


def pin_own_federation(home: Path) -> None:
    """Pin the federation of the node with this home, if none is pinned and its member signed it: there is nothing to
    compare."""
    file = home / "federation.json"
    if client().pins() or not file.exists():
        return
    from comity.federation_file import read_federation
    from comity_client.founding import own_seat

    signed = read_federation(file)
    with suppress(Untrusted):
        own_seat(signed.body, home)
        client().pin(signed)
        output().say(f"Pinned the federation that your member signed: {file}")


def recorded_act(home: Path, act: str, subject: str = "", detail: str = "") -> AbstractContextManager[None]:
    """A line before the block runs, and another one if it fails. Raises as `AuditLog.append` does."""
    return AuditLog(home, time.time).recorded(act, local_user(), subject, detail)


@contextmanager
def noted_act(home: Path, act: str, subject: str = "", detail: str = "") -> Iterator[None]:
    """As `recorded_act`, for an act that only reads the home: where the line cannot be written, such as on a full disk,
    it warns and goes on, because a backup or a support bundle is wanted most then."""
    log = AuditLog(home, time.time)
    try:
        line = f"line {log.append(act, local_user(), subject, detail).number}"
    except ComityError as error:
        output().warn(f"this is not in the audit log: {error.what}: {error.why}")
        line = ""
    try:
        yield
    except ComityError as error:
        if line:
            log.append(act + FAILED, local_user(), subject, f"{line}: {error.code}")
        raise


@contextmanager
def noted_if_home(node: str | None, act: str, subject: str, detail: str) -> Iterator[None]:
    """As `noted_act`, where `node` names a home, or is None and a home is here, and this user may write to it. Who may
    only call the node does nothing there that everybody could not do."""
    home = Path() if node is None else Path(node)
    if (home / "node.toml").is_file() and os.access(home, os.W_OK):
        with noted_act(home, act, subject, detail):
            yield
    else:
        yield


def configured_rules(home: Path) -> str | None:
    """`replication.rules` of a home; None if it names none. Raises as `read_settings` does, and Conflict."""
    from comity_client.node_home import read_settings

    section = read_settings(home).get("replication", {})
    named = section.get("rules", "") if isinstance(section, dict) else ""
    if not isinstance(named, str):
        raise Conflict("replication.rules is no file", why=f"in {home / 'node.toml'}", hint='rules = "mirror.toml"')
    return named or None
