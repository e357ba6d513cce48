"""Settings for all tests."""

from __future__ import annotations

import gc
import os
import re
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import pytest
import structlog
from comity.ledger.ledger import Backing
from hypothesis import settings
from support.case import read_policy
from support.checked_once import check_signatures_once
from support.command_documents import watch_documents
from support.examples import ALL, FIFTH, TWO_FIFTHS
from support.file_times import slowest_files
from support.made_ledgers import cache_postgres_statements, cache_sql_statements, remember_migrations
from support.memory_folder import FAST, folder_of_the_run, memory_folder
from support.needed_addons import ADDONS, ASKED, needs_addons
from support.postgres import Postgres, start_postgres

# No deadline: a loaded machine is no failure. Other examples are drawn in each run, and the fast suite tries a fifth.
settings.register_profile("whole", deadline=None, max_examples=ALL)
settings.register_profile("two-fifths", deadline=None, max_examples=TWO_FIFTHS)
settings.register_profile("fifth", deadline=None, max_examples=FIFTH)
settings.load_profile("fifth")

# Tests start hundreds of nodes and commands. Where the environment forbids bytecode files, as in many containers, each
# of them would compile three hundred modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Nodes in the test's own process must not write into what a command under test prints.
structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


SLOW_MODULE: Final = re.compile(r"^pytestmark = .*\bmark\.(slow|long)\b", re.MULTILINE)

watch_documents()
remember_migrations()
cache_sql_statements()
forget_signatures = check_signatures_once()


def pytest_configure(config: pytest.Config) -> None:
    """The files of the fast tests go to a folder in memory. What tests leave in the temporary folder goes with the run:
    the sockets of nodes that were killed, a token. The files of tests that failed stay. Workers inherit the folders."""
    if not hasattr(config, "workerinput"):
        if config.option.markexpr == FAST:
            os.environ["COMITY_TESTS_FEW_FORKS"] = "1"  # `support.made_classes`
        chosen = memory_folder(os.environ) if config.option.markexpr == FAST else None
        above = chosen or Path(tempfile.gettempdir())
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(above))  # the files of tests, which pytest removes itself
        os.environ["TMPDIR"] = tempfile.tempdir = folder_of_the_run(above)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Of `-n auto`: two workers a core, because tests of nodes wait for about a third of their time; at most sixteen,
    because each of them collects all tests, which takes it ten seconds and half a gigabyte."""
    return min(2 * len(os.sched_getaffinity(0)), 16)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Modules that have slow tests alone are not imported for the fast ones, unless the command names the module; what
    needs an add-on is not imported where there are none."""
    if not ADDONS and collection_path.suffix == ".py" and needs_addons(collection_path):
        return True
    if config.option.markexpr != FAST or collection_path.suffix != ".py" or collection_path.name in _named(config):
        return None
    return True if SLOW_MODULE.search(collection_path.read_text("utf-8")) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long form of a slow suite has as long as it needs. Without add-ons, no test that asks one runs."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.timeout(0))
    if not ADDONS:
        left_out = [item for item in items if item.nodeid.startswith(ASKED)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.nodeid.startswith(ASKED)]


def _named(config: pytest.Config) -> set[str]:
    """Names of the files in the arguments of the command."""
    return {Path(argument.partition("::")[0]).name for argument in config.args}


def pytest_runtest_setup() -> None:
    """Each test that reaches a check looks for its mutants, so each begins with empty caches of checks and
    documents.
    """
    if "COMITY_TESTS_CHECK_ANEW" in os.environ:
        forget_signatures()
        read_policy.cache_clear()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collecting makes some millions of objects that stay: they are made without the garbage collector, and excluded
    from it. After that it runs more seldom: at its usual rate it takes an eighth of the time of tests that make many
    objects.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """With `--durations N`, also the N files that took longest."""
    if most := config.option.durations:
        reports = (each for some in terminalreporter.stats.values() for each in some if hasattr(each, "duration"))
        terminalreporter.section(f"slowest {most} files")
        for line in slowest_files(reports, most):
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    cache_postgres_statements()
    with start_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def backing(request: pytest.FixtureRequest) -> Backing | None:
    """The database of a ledger: each property of one holds for the other."""
    if request.param == "sqlite":
        return None
    server: Postgres = request.getfixturevalue("postgres")
    return server.emptied()
