"""Moves the ledger of a node into another database: SQLite to PostgreSQL, and back.

The steps, and what a crash leaves after each, are in `comity.ledger.moves`. A source that was moved is never opened
again, and its target opens only when it is complete, so no two processes can sign for one log. The target gets the
marks of the source: if the source is a copy of which nobody knows whether it has all that was signed, so is the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Final

from sqlalchemy import func, select

from comity.ledger import schema
from comity.ledger.database import Database, NoWriter, migrate, require_revision, revision_of, set_revision
from comity.ledger.history import History
from comity.ledger.ledger import Ledger, LockedDatabase
from comity.ledger.log_store import LogStore
from comity.ledger.marks import MarkTable
from comity.ledger.moves import COPY_OF, COPYING, MOVED, MOVED_TO, ledger_moved
from comity.ledger.revisions import NEWEST
from comity.ledger.sqlite import reading_engine
from comity.ledger.table_copy import copy_tables, count_rows, verify_logs
from comity.node.config import NodeConfig
from comity.node.home import ledger_backing, ledger_mark, read_backing
from comity.node.home_files import read_own_node
from comity.node.ledger_mark import LEDGER_MARK, OUTSIDE_MARK
from comity.node.threads import Clock
from comity.trust.encoding import sha256
from comity.trust.errors import Conflict, NotFound
from comity.trust.frozen import frozen

Advance = Callable[[int], None]
"""Is called with the bytes that are done."""


@frozen
class MovedRows:
    """`rows` of all tables, `written` of them now, and the `entries` whose root was computed again: 0 before the last
    step."""

    rows: int
    written: int
    entries: int


def count_ledger(config: NodeConfig) -> int:
    """The rows of the ledger in the settings. Changes nothing. Raises as `Ledger.read_only`."""
    with _read(config) as source:
        return count_rows(source)


def begin_target(old: NodeConfig, new: NodeConfig, source: LockedDatabase | None = None) -> None:
    """Say in the target that it is not complete, before anything else is done: a node that is started with the new
    settings finds no empty ledger, in which it could begin its log again.

    Args:
        source: of `lock_source`; None while the node writes it.

    Raises Conflict (STORAGE-TARGET), and the errors of `Database`.
    """
    with ExitStack() as stack:
        database = source.database if source is not None else stack.enter_context(_read(old))
        target = stack.enter_context(closing(_lock_target(new, in_use=False)))
        _begin(old, database, target)


def copy_beside(old: NodeConfig, new: NodeConfig, advance: Advance) -> MovedRows:
    """Copy what the ledger has now, while its node writes it. Raises as `begin_target`."""
    with _read(old) as source, closing(_lock_target(new, in_use=False)) as target:
        _begin(old, source, target)
        return MovedRows(count_rows(source), copy_tables(source, target.database, advance), 0)


def lock_source(config: NodeConfig) -> LockedDatabase:
    """The ledger in the settings, which no other process can write until it is closed; it may be moved already.

    Raises Conflict (LEDGER-LOCKED) while the node runs, Untrusted (LEDGER-CORRUPT) for damage that a start does not
    repair, and as `Ledger.open`.
    """
    source = LockedDatabase.take(
        config.storage.ledger.parent, ledger_backing(config), all_pages=True, prepare=_prepare_source
    )
    if source.examined.damaged:
        source.close()
        raise schema.damaged_ledger(f"pages are not as they were written: {source.examined.named}")
    return source


def was_moved(source: LockedDatabase) -> bool:
    return revision_of(source.database) == MOVED


def hand_over(old: NodeConfig, new: NodeConfig, source: LockedDatabase, advance: Advance, clock: Clock) -> MovedRows:
    """Make the ledger in the new settings the one of the node. After an error the same call goes on.

    Args:
        source: of `lock_source`.

    Raises Conflict (STORAGE-TARGET), Refused (LEDGER-MOVED) if the source was moved to another place, and as
    `copy_tables` and `verify_logs`.
    """
    moved = was_moved(source)
    with closing(_lock_target(new, in_use=moved)) as target:
        if moved and MarkTable(source.database).get(MOVED_TO) != target.identity:
            raise ledger_moved("it went to another database than the new settings name")
        if moved and revision_of(target.database) == NEWEST:
            return MovedRows(count_rows(target.database), 0, 0)  # all but the settings was done
        if moved and revision_of(target.database) != COPYING:
            raise ledger_moved("it was moved on from the database that the new settings name")
        if not moved:
            _begin(old, source.database, target)
        written = copy_tables(source.database, target.database, advance)
        entries = verify_logs(source.database, target.database, advance)
        _mark(old, new, source, target, clock)
        if not moved:
            _mark_moved(source.database, target.identity)
        _complete(target.database)
        return MovedRows(count_rows(target.database), written, entries)


@contextmanager
def _read(config: NodeConfig) -> Iterator[Database]:
    """The ledger in the settings, to read. Raises NotFound if there is none."""
    storage = config.storage
    if not storage.database and not storage.ledger.exists():
        raise NotFound(
            "there is no ledger to move", why=f"{storage.ledger} does not exist", hint="comity serve --check"
        )
    engine = read_backing(config).engine() if storage.database else reading_engine(storage.ledger)
    with closing(Database(engine, NoWriter())) as database:
        require_revision(revision_of(database))
        yield database


def _lock_target(config: NodeConfig, *, in_use: bool) -> LockedDatabase:
    """`in_use`: it may be the ledger of the node already."""
    prepare = _prepare_moved if in_use else _prepare_target
    return LockedDatabase.take(config.storage.ledger.parent, ledger_backing(config), all_pages=True, prepare=prepare)


def _prepare_source(database: Database) -> None:
    if revision_of(database) != MOVED:
        migrate(database)


def _prepare_moved(database: Database) -> None:
    """The target of a source that was moved is never made again."""
    if revision_of(database) not in (COPYING, MOVED, NEWEST):
        raise ledger_moved("the new settings name a database without its tables")


def _prepare_target(database: Database) -> None:
    """Make the tables. Raises Conflict (STORAGE-TARGET) for a database that has a ledger which may be in use."""
    revision = revision_of(database)
    if revision is None:
        migrate(database)
    elif revision == NEWEST and LogStore(database).keys():
        raise target_refused("it has a ledger, which a node may use")
    elif revision not in (COPYING, MOVED, NEWEST):
        raise target_refused(f"it has tables of revision {revision}, and this version makes {NEWEST}")


def target_refused(why: str) -> Conflict:
    return Conflict(
        "the target cannot be used",
        why=why,
        hint="name an empty database, bucket prefix or folder in NEW.toml; or empty this one, if nobody needs it",
        code="STORAGE-TARGET",
    )


def _begin(old: NodeConfig, source: Database, target: LockedDatabase) -> None:
    """Say in the target that it is not complete. Raises Conflict (STORAGE-TARGET) if it is of another log, or has
    entries of this one that the source has not."""
    own = str(read_own_node(old).record.log)
    marks, revision = MarkTable(target.database), revision_of(target.database)
    if revision == COPYING:
        if marks.get(COPY_OF) != sha256(own.encode()):
            raise target_refused("the ledger of another node is copied into it")
        return
    if revision == MOVED:
        size, root = LogStore(target.database).heads().get(own, (-1, b""))
        if not 0 <= size <= LogStore(source).get(own).size or History(source).root(own, size) != root:
            raise target_refused("it has a ledger that was moved, and not an earlier state of this one")
    marks.put(COPY_OF, sha256(own.encode()))
    with target.database.writing("move") as connection:
        set_revision(connection, COPYING)


_MARKS: Final = (LEDGER_MARK, OUTSIDE_MARK)


def _mark(old: NodeConfig, new: NodeConfig, source: LockedDatabase, target: LockedDatabase, clock: Clock) -> None:
    """Give the target the marks of the source."""
    before, after = Ledger.of(source, clock), Ledger.of(target, clock)
    own = str(read_own_node(old).record.log)
    with source.database.reading() as connection:
        submitted = connection.scalar(select(func.count()).select_from(schema.witnessed))
    begun = {LEDGER_MARK: before.logs.heads().get(own, (0,))[0] > 0, OUTSIDE_MARK: bool(submitted)}
    for name in _MARKS:
        mark = ledger_mark(new, after, name)
        if ledger_mark(old, before, name).mismatches(begun=begun[name]):
            mark.write_copy()
        else:
            mark.write()


def _mark_moved(source: Database, target: str) -> None:
    """From now on no version of Comity opens the source."""
    MarkTable(source).put(MOVED_TO, target)
    with source.writing("moved") as connection:
        set_revision(connection, MOVED)


def _complete(target: Database) -> None:
    """From now on the target is the ledger of the node."""
    with target.writing("complete") as connection:
        set_revision(connection, NEWEST)
