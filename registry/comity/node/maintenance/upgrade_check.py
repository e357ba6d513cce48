"""`comity upgrade check`: what a start of the installed version would change in a home, tried on a copy.

The ledger is copied from one snapshot into a temporary folder, where the tables are migrated and the newest checkpoint
of the node's own log is computed again. Peers are asked for their version, which they claim.
"""

from __future__ import annotations

import ast
import os
import re
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

from comity.ledger.database import SCRIPTS
from comity.ledger.ledger import DATABASE_FILE, Ledger
from comity.ledger.revisions import NEWEST
from comity.node.config import NodeConfig
from comity.node.home_files import SOFTWARE
from comity.node.maintenance.backup_format import database_errors, read_ledger_copy
from comity.node.maintenance.doctor import running_status
from comity.node.maintenance.home_checks import (
    Diagnosis,
    disk_space,
)
from comity.node.maintenance.network_checks import (
    ping_peers,
)
from comity.node.maintenance.settings_shown import setting_problems
from comity.node.threads import Clock
from comity.trust.errors import ComityError

_VERSION: Final = re.compile(r"comity (\d{1,6})\.(\d{1,6})(\.|\Z)")
COPIES: Final = 3
"""How often the ledger must fit into the temporary folder: the copy, and what a migration writes beside it."""


def check_upgrade(
    file: Path, *, clock: Clock, ask_peers: bool = True, environ: Mapping[str, str] = os.environ
) -> Iterator[Diagnosis]:
    """What an upgrade of the home of a `node.toml` to the installed version meets. Blocking.

    Raises NotFound, Unavailable and Malformed if the settings cannot be read.
    """
    problems = setting_problems(file, environ)
    yield from (Diagnosis.of("settings", problem, fix="comity config check") for problem in problems)
    config = NodeConfig.load(file, environ)
    if not problems:
        yield Diagnosis("settings", "ok", "the installed version takes them")
    yield from _running(config)
    yield from _ledger(config, clock)
    if ask_peers and not config.is_front_end:
        yield from _peers(file)


def _running(config: NodeConfig) -> Iterator[Diagnosis]:
    status = running_status(config.listen.operator)
    if config.is_front_end:
        yield Diagnosis("version", "ok", f"{SOFTWARE} is installed; which one the front end runs was not asked")
    elif status is None:
        yield Diagnosis("version", "ok", f"{SOFTWARE} is installed; the node does not run")
    elif status.software == SOFTWARE:
        yield Diagnosis("version", "ok", f"{SOFTWARE} is installed, and runs")
    else:
        fix = "comity backup create BACKUP --node HOME, then: systemctl restart comity-node"
        yield Diagnosis("version", "warn", f"{SOFTWARE} is installed, and {status.software} runs", fix)


def _ledger(config: NodeConfig, clock: Clock) -> Iterator[Diagnosis]:
    source = config.storage.ledger
    if config.storage.database or not source.exists():
        where = "is in PostgreSQL" if config.storage.database else "does not exist yet"
        yield Diagnosis("ledger", "unknown", f"it {where}: no migration was tried")
        return
    free = disk_space(Path(tempfile.gettempdir())).free
    needed = COPIES * source.stat().st_size
    if free < needed:
        text = f"no migration was tried: it takes {needed} bytes in {tempfile.gettempdir()}, and {free} are free"
        yield Diagnosis("ledger", "unknown", text, "set TMPDIR to a folder with more space")
        return
    with tempfile.TemporaryDirectory(prefix="comity-upgrade-") as folder:
        yield from _migrated(source, Path(folder), clock)


def _migrated(source: Path, folder: Path, clock: Clock) -> Iterator[Diagnosis]:
    """Copy the ledger into `folder`, and migrate the copy."""
    copy = folder / DATABASE_FILE
    with (
        database_errors("the ledger was not copied"),
        closing(sqlite3.connect(f"{source.absolute().as_uri()}?mode=ro", uri=True)) as reading,
        closing(sqlite3.connect(copy)) as writing,
    ):
        reading.backup(writing)
        writing.execute("PRAGMA journal_mode=DELETE")
    try:
        found = read_ledger_copy(copy)
        with closing(Ledger.open(folder, clock)) as ledger:
            for log in ledger.logs.all():
                if log.own:
                    ledger.history.verify_right_edge(log.vkey)
    except (ComityError, sqlite3.Error, TypeError, ValueError) as error:
        code = getattr(error, "code", "LEDGER-FAILED")
        yield Diagnosis("ledger", "fail", f"a start would fail: {error}", f"comity explain {code}")
        return
    if found.revision == NEWEST:
        yield Diagnosis("ledger", "ok", f"its tables have the revision of this version, {NEWEST}")
        return
    fix = "comity backup create BACKUP --node HOME, because an older version cannot read the ledger afterwards"
    text = f"a start changes its tables from {found.revision} to {NEWEST}; tried on a copy, without an error"
    yield Diagnosis("ledger", "warn", text, fix)
    for revision, about in migrations():
        if revision > found.revision:
            yield Diagnosis("migration", "ok", f"{revision}: {about}")


def migrations() -> Iterator[tuple[str, str]]:
    """The revision of each migration of the tables and what it does, the oldest first."""
    for script in sorted((SCRIPTS / "versions").glob("[0-9]*.py")):
        described = ast.get_docstring(ast.parse(script.read_text("utf-8"))) or script.stem
        yield script.name[:4], described.partition("\n")[0]


def _peers(file: Path) -> Iterator[Diagnosis]:
    try:
        pinged = ping_peers(file)
    except ComityError as error:
        yield Diagnosis("peers", "unknown", f"they were not asked: {error}")
        return
    claimed = {one.peer: one.software for one in pinged if one.software}
    for peer, software in sorted(claimed.items()):
        if not releases_interoperate(software, SOFTWARE):
            text = f"{peer} says that it runs {software}: releases more than one minor apart are not tested together"
            yield Diagnosis("peers", "warn", text, "ask its operator to upgrade in step with you")
    silent = len({one.peer for one in pinged} - set(claimed))
    text = f"{len(claimed)} told their version, {silent} did not answer; the wire protocol is comity.v1 in all releases"
    yield Diagnosis("peers", "ok" if claimed else "unknown", text)


def releases_interoperate(one: str, other: str) -> bool:
    """Whether two releases are tested together: the same major version, and at most one minor version apart. A version
    in another form is not judged."""
    first, second = _VERSION.match(one), _VERSION.match(other)
    if first is None or second is None:
        return True
    return first[1] == second[1] and abs(int(first[2]) - int(second[2])) <= 1
