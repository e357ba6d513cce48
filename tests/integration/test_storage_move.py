"""`comity storage migrate` with a real PostgreSQL and a real S3 service: there and back, killed at every step, and with
a running node. Whatever the moment of a kill, at most one of the two ledgers opens, and it is whole.

The short form moves some hundred entries and some MB. `pytest -m long tests/integration/test_storage_move.py` moves
10^5 entries and 5 GB there and back, killed ten times each way; `COMITY_MOVED_ENTRIES` and `COMITY_MOVED_MB` make that
smaller.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final

import pytest
from comity.content.blobs import BlobStore
from comity.ledger import schema
from comity.ledger.ledger import Ledger
from comity.node.config import NodeConfig
from comity.node.home import ledger_backing, ledger_mark, open_store
from comity.node.home_files import HomeFiles
from comity.node.ledger_mark import LEDGER_MARK
from comity.node.maintenance.storage_move import BEFORE, COPIED
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Refused
from comity.trust.tlog.note import Checkpoint, SignedNote
from comity_cli.commands.storage import command as storage
from sqlalchemy import select
from support.federation import NodeHome, converged, found, make_home, processes
from support.fenced import blocks
from support.forked import start_forked
from support.logs import LogKeys, statement_lines
from support.postgres import Postgres
from support.publisher import Publisher, model, release, send
from support.run_command import printed, run
from support.s3 import S3Account
from support.waiting import PATIENCE
from support.walks import Person

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

FAR: Final = LogKeys.generate("far.example/log")
LONGEST: Final = 3_600.0
"""Seconds for one process that nobody kills."""
SIZES: Final = {"ENTRIES": 100_000, "MB": 5_000}
(BLOCK,) = (block for block in blocks("docs/operations/grow.md") if "comity storage migrate" in block.text)
COMMANDS: Final = BLOCK.commands
STEPS: Final = (
    "move.blob",
    "ledger.move.after-commit",
    "ledger.move.before-commit",
    "ledger.moved.before-commit",
    "ledger.moved.after-commit",
    "ledger.complete.before-commit",
    "ledger.complete.after-commit",
    "move.settings",
    "move.file.rename",
)
"""Where the process of a move is killed, each once on the way there and once on the way back."""


@dataclass(frozen=True)
class Places:
    """The settings of one home for each place of its storage."""

    home: NodeHome
    local: Path
    remote: Path

    @classmethod
    def write(cls, home: NodeHome, database: str, s3: S3Account) -> Places:
        file = home.directory / "node.toml"
        local, remote = home.directory / "local.toml", home.directory / "remote.toml"
        shutil.copy(file, local)
        home.set("storage", database=database)
        bucket = {
            "endpoint": s3.endpoint,
            "bucket": s3.bucket,
            "credentials_file": str(s3.credentials),
            "prefix": f"{uuid.uuid4()}/",
            "region": "default",
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in bucket.items()]
        remote.write_text("\n".join((file.read_text(), "[storage.s3]", *lines, "")))
        shutil.copy(local, file)
        return cls(home, local, remote)

    def config(self, file: Path) -> NodeConfig:
        return NodeConfig.load(file, environ={})


def fill(home: NodeHome, entries: int, megabytes: int) -> None:
    """A ledger with an own and a mirrored log, both signed, and blobs: a few large ones and many small ones."""
    config = home.config()
    keys = HomeFiles.read(config).keys
    own = str(home.record.log)
    with closing(Ledger.open(config.storage.ledger.parent, lambda: 1_000, backing=ledger_backing(config))) as ledger:
        ledger_mark(config, ledger, LEDGER_MARK).write()
        ledger.logs.create(home.origin, own, own=True)
        ledger.logs.create(FAR.origin, FAR.vkey)
        for start in range(0, entries, 2_000):
            ledger.logs.append(own, statement_lines(start, min(entries, start + 2_000)))
        state = ledger.logs.get(own)
        checkpoint = Checkpoint(home.origin, state.size, state.root)
        ledger.logs.set_note(own, SignedNote(checkpoint.text, (keys.sign_checkpoint(checkpoint),)))
        lines = statement_lines(entries, entries + 64)
        root = ledger.logs.stage(FAR.vkey, 0, lines)
        ledger.logs.advance(FAR.vkey, 64, [], FAR.note(64, root))
    store, bytes_of = open_store(config), random.Random(1).randbytes
    for _ in range(20):
        put(store, bytes_of(2_000))
    for _ in range(megabytes // 4):
        put(store, bytes_of(4_000_000))


def put(store: BlobStore, data: bytes) -> None:
    store.put(sha256(data), data)


def ledger_of(config: NodeConfig) -> Ledger:
    return Ledger.open(config.storage.ledger.parent, lambda: 1_000, backing=ledger_backing(config))


def told(config: NodeConfig) -> Mapping[str, object]:
    """What a ledger says: its heads, computed from its entries, and all rows but those about the database itself."""
    with closing(ledger_of(config)) as ledger:
        assert not ledger_mark(config, ledger, LEDGER_MARK).mismatches(begun=True)
        heads = ledger.logs.heads()
        for log in heads:
            ledger.history.verify_all(log)
        with ledger._database.reading() as connection:
            rows = {
                table.name: sorted(sha256(repr(row).encode()) for row in connection.execute(select(table)))
                for table in schema.metadata.sorted_tables
                if table.name not in ("writer", "writer_heartbeat", "marks")
            }
        return {"heads": heads, **{name: sha256("".join(each).encode()) for name, each in rows.items()}}


def opens(config: NodeConfig) -> bool:
    try:
        ledger_of(config).close()
    except Refused as refusal:
        assert refusal.code in ("LEDGER-MOVED", "LEDGER-COPYING")
        return False
    return True


def blobs_of(config: NodeConfig) -> dict[Digest, int]:
    return dict(open_store(config).sizes())


def migrate(settings: Path, home: Path) -> None:
    """The command, in a process that the test kills."""
    result = run(storage, "migrate", settings, "--node", home, "--yes", "--json")
    raise SystemExit(0 if result.exception is None else 1)


def killed(places: Places, to: Path, log: Path, *, fault: str = "", seconds: float = LONGEST) -> bool:
    """Run the command until it ends or is killed. Returns whether it was killed."""
    environ = {**os.environ, "COMITY_FAULT": fault}
    process = start_forked(migrate, to, places.home.directory, environ=environ, log=log)
    if not wait([process.sentinel], seconds):
        process.kill()
    process.join(PATIENCE)
    assert process.exitcode in (0, -signal.SIGKILL), log.read_text()
    return process.exitcode != 0


def moved(places: Places, to: Path, log: Path, kills: Iterable[Mapping[str, Any]]) -> int:
    """Move with these kills, and once more to the end. Returns how many processes were killed."""
    new, old = (places.config(each) for each in (to, places.remote if to == places.local else places.local))
    count = 0
    for kill in kills:
        count += killed(places, to, log, **kill)
        assert not (opens(old) and opens(new)), "two ledgers of one log open"
    assert not killed(places, to, log)
    assert opens(new) and not opens(old)
    assert (places.home.directory / "node.toml").read_bytes() == to.read_bytes()
    return count


@pytest.fixture(name="places")
def _places(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> Places:
    """With a bucket of Ceph; in the long form of SeaweedFS, because the other one is in memory."""
    server = "seaweed" if request.node.get_closest_marker("long") else "ceph"
    account: S3Account = request.getfixturevalue(f"{server}_s3")
    return Places.write(make_home(tmp_path / "node", 0), postgres.url(postgres.database()), account)


@pytest.mark.ceph
def test_a_move_that_is_killed_at_a_step_goes_on_there_and_back(places: Places, tmp_path: Path) -> None:
    fill(places.home, 400, 8)
    local, remote, log = places.config(places.local), places.config(places.remote), tmp_path / "log"
    before, blobs = told(local), blobs_of(local)
    for to, config, steps in ((places.remote, remote, STEPS[::2]), (places.local, local, STEPS[1::2])):
        assert moved(places, to, log, [{"fault": step} for step in steps]) == len(steps)
        assert told(config) == before
        assert blobs_of(config) == blobs
        assert not (places.home.directory / "data" / COPIED).exists()
        shutil.rmtree(local.storage.blobs / "blobs")
    assert printed(storage, "migrate", places.local, "--node", places.home.directory)["moved"]


@pytest.mark.seaweed
@pytest.mark.long
def test_a_large_move_that_is_killed_ten_times_each_way(places: Places, tmp_path: Path) -> None:
    entries, megabytes = (int(os.environ.get(f"COMITY_MOVED_{name}", most)) for name, most in SIZES.items())
    fill(places.home, entries, megabytes)
    local, remote, log = places.config(places.local), places.config(places.remote), tmp_path / "log"
    before, blobs = told(local), blobs_of(local)
    for to, config in ((places.remote, remote), (places.local, local)):
        began = time.monotonic()
        kills: list[Mapping[str, Any]] = [{"seconds": 2 + megabytes / 100}, *({"fault": step} for step in STEPS)]
        count = moved(places, to, log, kills)
        print(f"to {to.stem}: {count} kills, {time.monotonic() - began:.0f} s")
        assert told(config) == before
        assert blobs_of(config) == blobs
        shutil.rmtree(local.storage.blobs / "blobs", ignore_errors=True)


@pytest.mark.seaweed
async def test_the_documented_commands_move_a_node_that_others_mirror(
    tmp_path: Path, postgres: Postgres, seaweed_s3: S3Account
) -> None:
    """The block of the page, as it stands: an editor writes the new settings, and `systemctl` stops and starts."""
    founded = found(tmp_path / "nodes", 2)
    first, _ = founded.homes
    node_ch = tmp_path / "node-ch"
    node_ch.symlink_to(first.directory)
    places = Places.write(first, postgres.url(postgres.database()), seaweed_s3)
    person = Person(tmp_path, tmp_path / "person", more={"EDITOR": f"cp {places.remote}"})
    with processes(*founded.homes) as (on_file, other):
        for node in (on_file, other):
            await node.ready()
        await publish(first, tmp_path / "one", "tests/one@v1")
        before = await converged(founded.homes, first, least=3)
        at = COMMANDS.index("systemctl stop comity")
        assert "nothing is moved yet" in person.does("\n".join(COMMANDS[:at]))
        await publish(first, tmp_path / "two", "tests/two@v1")
        on_file.stop()
        assert "the storage is moved" in person.does("\n".join(COMMANDS[at + 1 : -1]))
        assert COMMANDS[-1] == "systemctl start comity"
        with processes(first) as (moved_node,):
            await moved_node.ready()
            await publish(first, tmp_path / "three", "tests/three@v1")
            await converged(founded.homes, first, least=Checkpoint.parse(before.text).size + 2)
            assert not [event for event in moved_node.events if "copy" in str(event["event"])]
            moved_node.stop()
        shutil.copy(first.directory / f"node.toml{BEFORE}", first.directory / "node.toml")
        with processes(first) as (started_by_mistake,):
            assert started_by_mistake.ended() != 0
            assert "this ledger was moved" in started_by_mistake.words
    assert set(blobs_of(places.config(places.local))) < set(blobs_of(places.config(places.remote)))


async def publish(home: NodeHome, folder: Path, name: str) -> None:
    what = release(Publisher.generate(), model(folder, weights=20_000, seed=len(str(folder))), name)
    async with home.client() as client:
        await send(client, what)
