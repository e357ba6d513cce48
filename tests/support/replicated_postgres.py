"""A PostgreSQL server with a streaming standby, of which a test kills the one and promotes the other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

from support.ceph import run
from support.postgres import (
    ADMIN,
    OWNER,
    Postgres,
    as_nobody_special,
    server_programs,
    start_postgres,
    wait_until_it_answers,
)
from support.tools import running


@dataclass(frozen=True)
class ReplicatedPostgres:
    first: Postgres
    second: Postgres

    def url(self, database: str) -> str:
        """Leads to the one of both that takes writes."""
        hosts = ",".join(quote(str(server.folder), safe="") for server in (self.first, self.second))
        return f"postgresql://{OWNER}@/{database}?host={hosts}"

    def replicate(self, commands: Sequence[str]) -> None:
        """Have the first server wait for the second one at each commit, by `commands` of its administrator."""
        for command in commands:
            self.first.admin(command)
        wanted = [("sync",)]
        while self.first.admin("SELECT sync_state FROM pg_stat_replication") != wanted:
            time.sleep(0.05)

    def kill_first(self) -> None:
        """End all its processes without a checkpoint, as a crash does."""
        pid = int((self.first.folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        while (self.first.folder / "data" / "postmaster.pid").exists():
            time.sleep(0.02)

    def promote(self) -> None:
        assert self.second.admin("SELECT pg_promote()") == [(True,)]


@contextmanager
def replicated_postgres() -> Iterator[ReplicatedPostgres]:
    """Start both. Skips where PostgreSQL is not installed."""
    with ExitStack() as stack:
        first = stack.enter_context(start_postgres())
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="comity-pg-")))
        prefix, data = as_nobody_special(folder), folder / "data"
        copy = (str(server_programs() / "pg_basebackup"), "-h", str(first.folder), "-U", ADMIN, "-D", str(data), "-R")
        run(*prefix, *copy, "--checkpoint=fast", "--no-sync")
        command = (str(server_programs() / "postgres"), "-D", str(data), "-k", str(folder), "-c", "listen_addresses=")
        stack.enter_context(running([*prefix, *command], folder / "log", stop=signal.SIGQUIT))
        second = stack.enter_context(closing(Postgres(folder)))
        wait_until_it_answers(second)
        yield ReplicatedPostgres(first, second)
