"""Bringing a database to the tables that this code knows, or refusing one that is ahead of it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from comity.ledger.database import Database
from comity.trust.errors import Refused

SCRIPTS: Final = Path(__file__).parent / "migrations"

_one_at_a_time = threading.Lock()
"""Alembic hands the connection to its scripts through globals."""


def migrate(database: Database, revision: str = "head") -> None:
    """Apply what is missing up to `revision`, all of it in one transaction. Raises Refused(code="LEDGER-NEWER")."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    with database.reading() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise Refused(
            "the ledger is newer than this program",
            why=f"its tables are at {current}, which is not known here",
            hint="install the version of Comity that wrote it, or a later one",
            code="LEDGER-NEWER",
        )
    if current != scripts.get_current_head():
        with _one_at_a_time, database.rebuilding("migrate") as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
