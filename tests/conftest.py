"""Settings for all tests."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Generator, Iterator

import pytest
import structlog
from comity.ledger.ledger import Backing
from hypothesis import settings
from support.case import read_policy
from support.checked_once import check_signatures_once
from support.command_documents import watch_documents
from support.examples import ALL, THIRD
from support.made_ledgers import cache_sql_statements, remember_migrations
from support.memory_folder import FAST, memory_folder
from support.postgres import Postgres, start_postgres

# No deadline: a loaded machine is no failure. Other examples are drawn in each run, and the fast suite tries a third.
settings.register_profile("whole", deadline=None, max_examples=ALL)
settings.register_profile("third", deadline=None, max_examples=THIRD)
settings.load_profile("third")

# Tests start hundreds of nodes and commands. Where the environment forbids bytecode files, as in many containers, each
# of them would compile three hundred modules anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Nodes in the test's own process must not write into what a command under test prints.
structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


watch_documents()
remember_migrations()
cache_sql_statements()
forget_signatures = check_signatures_once()


def pytest_configure(config: pytest.Config) -> None:
    """The files of the fast tests go to a folder in memory. Workers inherit `TMPDIR`."""
    folder = memory_folder(os.environ) if config.option.markexpr == FAST else None
    if folder is not None:
        os.environ["TMPDIR"], tempfile.tempdir = str(folder), None


def pytest_runtest_setup() -> None:
    """A mutant of a check is looked for by every test that reaches it, so each begins with nothing checked or read."""
    if "COMITY_TESTS_CHECK_ANEW" in os.environ:
        forget_signatures()
        read_policy.cache_clear()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collecting makes some millions of objects that stay: they are made and kept without the garbage collector. After
    that it runs more seldom: at its usual pace it takes an eighth of the time of tests that make many objects."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        gc.enable()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with start_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def backing(request: pytest.FixtureRequest) -> Backing | None:
    """Where a ledger has its tables: what holds of one database holds of the other."""
    if request.param == "sqlite":
        return None
    server: Postgres = request.getfixturevalue("postgres")
    return server.emptied()
