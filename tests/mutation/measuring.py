"""A pytest plugin that counts the mutants which the collected tests notice.

Tests are imported and collected once. A first child process runs all of them and records which lines of the modules
each one reaches. Then each mutant gets a child process of its own, in which the code of the changed function is
replaced, and which runs the tests that reach the changed lines until one of them fails.
"""

from __future__ import annotations

import gc
import os
import pickle
import resource
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

import pytest
from _pytest.runner import runtestprotocol
from mutation.mutants import Mutant, Source

MEMORY: Final = 2 << 30
"""Bytes of memory that a mutant may use beyond those at the start of its process."""
MOST_CALLS: Final = 1000
"""Calls of one function that are traced in one test."""
EXAMPLES: Final = 34
"""Examples of a property that says no number, as when the scores in README.md were measured."""
BROKEN: Final = 3
"""Exit status of a child process that could not run its mutant."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a mutant: `killer` is the test that failed, or ran out of time; empty if the mutant survived."""

    mutant: Mutant
    tests: int
    killer: str


@dataclass(frozen=True, slots=True)
class Baseline:
    """The tests without a change: the lines that each reaches, its seconds of CPU time, and which failed."""

    lines: Mapping[str, Mapping[str, frozenset[int]]]
    seconds: Mapping[str, float]
    failed: tuple[str, ...]


class Measuring:
    """The plugin. `results` has one result per mutant once pytest is through.

    Args:
        spare: seconds of CPU time that a test may take beyond five times what it takes without a change.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        mutants: Sequence[Mutant],
        jobs: int,
        report: Callable[[Result], None],
        spare: float,
    ) -> None:
        self._sources, self._mutants, self._jobs, self._report = sources, mutants, jobs, report
        self._spare = spare
        self.baseline: Baseline | None = None
        self.results: list[Result] = []
        self._killers: Counter[tuple[tuple[str, int], str]] = Counter()

    def pytest_collection(self) -> None:
        """Searches of hypothesis are the same each time, and stop at the first failure. Tests are not imported yet."""
        try:
            from hypothesis import Phase, settings
        except ImportError:
            return
        phases = (Phase.explicit, Phase.generate)
        settings.register_profile(
            "mutation", deadline=None, max_examples=EXAMPLES, database=None, derandomize=True, phases=phases
        )
        settings.load_profile("mutation")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        items = {item.nodeid: item for item in session.items}
        gc.unfreeze()  # objects frozen after collection are not counted by the garbage collector
        functions = _functions({str(source.path) for source in self._sources})
        gc.collect()
        gc.freeze()  # children then do not copy the memory that the collector would touch
        self.baseline = _reached(items, {str(source.path) for source in self._sources})
        if not self.baseline.failed:
            self._measure(items, functions, self.baseline)
        return True

    def _measure(
        self,
        items: Mapping[str, pytest.Item],
        functions: Mapping[tuple[str, str, int], list[FunctionType]],
        baseline: Baseline,
    ) -> None:
        limits = {name: self._spare + 5 * seconds for name, seconds in baseline.seconds.items()}
        waiting = list(reversed(self._mutants))
        running: dict[int, tuple[Mutant, int, int]] = {}
        while waiting or running:
            while waiting and len(running) < self._jobs:
                mutant = waiting.pop()
                tests = self._order(mutant, baseline)
                live = functions.get((str(mutant.source.path), *mutant.where), [])
                pid, pipe = _start(mutant, live, [items[name] for name in tests], limits)
                running[pid] = mutant, len(tests), pipe
            pid, status = os.wait()
            mutant, count, pipe = running.pop(pid)
            result = Result(mutant, count, _killer(pipe, status))
            self._killers[mutant.where, result.killer] += 1
            self.results.append(result)
            self._report(result)

    def _order(self, mutant: Mutant, baseline: Baseline) -> list[str]:
        """The tests that reach a mutant: first those that noticed others in the same function, then the fastest."""
        path, lines = str(mutant.source.path), range(mutant.first, mutant.last + 1)
        reaching = [name for name, reached in baseline.lines.items() if not reached.get(path, _NONE).isdisjoint(lines)]
        return sorted(reaching, key=lambda name: (-self._killers[mutant.where, name], baseline.seconds[name]))


_NONE: Final[frozenset[int]] = frozenset()


def _functions(paths: Iterable[str]) -> dict[tuple[str, str, int], list[FunctionType]]:
    """The functions of the modules, by path, qualified name and first line."""
    found: dict[tuple[str, str, int], list[FunctionType]] = {}
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename in paths:
            code = each.__code__
            found.setdefault((code.co_filename, code.co_qualname, code.co_firstlineno), []).append(each)
    return found


def _reached(items: Mapping[str, pytest.Item], paths: set[str]) -> Baseline:
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(reader)
        _silence()
        with os.fdopen(writer, "wb") as out:
            pickle.dump(_run_traced(list(items.values()), paths), out)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        data = answer.read()
    os.waitpid(pid, 0)
    if not data:
        raise RuntimeError("the tests ended the process that runs them")
    baseline: Baseline = pickle.loads(data)
    return baseline


def _run_traced(items: Sequence[pytest.Item], paths: set[str]) -> Baseline:
    tracer = _Tracer(paths)
    lines, seconds, failed = {}, {}, []
    for item, after in zip(items, [*items[1:], None], strict=True):
        started = time.process_time()
        with tracer:
            passed = _passes(item, after)
        seconds[item.nodeid] = time.process_time() - started
        lines[item.nodeid] = {path: frozenset(reached) for path, reached in tracer.reached.items()}
        if not passed:
            failed.append(item.nodeid)
    return Baseline(lines, seconds, tuple(failed))


class _Tracer:
    """Records which lines of the files `paths` run in one test after the other.

    A function of which all lines were seen is not traced again, and neither is one after `MOST_CALLS` calls: what an
    exhaustive test reaches only after that is not known, and costs too much to find.
    """

    def __init__(self, paths: set[str]) -> None:
        self._paths = paths
        self._lines: dict[CodeType, frozenset[int]] = {}
        self._calls: Counter[CodeType] = Counter()
        self.reached: dict[str, set[int]] = {}

    def __enter__(self) -> None:
        self.reached, self._calls = {}, Counter()
        threading.settrace(self._call)
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        code = frame.f_code
        if code.co_filename not in self._paths or self._calls[code] >= MOST_CALLS:
            return None
        self._calls[code] += 1
        reached = self.reached.setdefault(code.co_filename, set())
        if code not in self._lines:
            self._lines[code] = frozenset(line for _, _, line in code.co_lines() if line)
        reached.add(frame.f_lineno)
        if self._lines[code] <= reached:
            return None

        def step(frame: FrameType, event: str, argument: object) -> Any:
            reached.add(frame.f_lineno)
            return step

        return step


def _start(
    mutant: Mutant, live: Sequence[FunctionType], items: Sequence[pytest.Item], limits: Mapping[str, float]
) -> tuple[int, int]:
    """Start a process that runs the tests on a mutant; returns its id, and the pipe on which it names the test."""
    reader, writer = os.pipe()
    if (pid := os.fork()) != 0:
        os.close(writer)
        return pid, reader
    os.close(reader)
    try:
        _silence()
        os._exit(_run(mutant, live, items, limits, writer))
    except BaseException:
        os.write(writer, traceback.format_exc().encode())
        os._exit(BROKEN)


def _run(
    mutant: Mutant, live: Sequence[FunctionType], items: Sequence[pytest.Item], limits: Mapping[str, float], told: int
) -> int:
    """In the child process: 0 if no test notices the mutant, 1 if one does. `limits`: seconds of CPU time of a test."""
    code = mutant.compile()
    if items and not live:
        raise RuntimeError(f"no function has the code of {mutant.function}: was another copy of the module imported?")
    for function in live:
        # What was left out may have been the only use of a variable outside, such as that of `super()`.
        function.__code__ = code.replace(co_freevars=function.__code__.co_freevars)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    for item, after in zip(items, [*items[1:], None], strict=False):
        os.write(told, item.nodeid.encode() + b"\n")
        limit = limits[item.nodeid]
        signal.setitimer(signal.ITIMER_PROF, limit)
        signal.setitimer(signal.ITIMER_REAL, 30 + 10 * limit)
        if not _passes(item, after):
            return 1
    return 0


def _killer(pipe: int, status: int) -> str:
    """The test that failed, or during which the process ended; empty if all passed."""
    with os.fdopen(pipe, "rb") as told:
        text = told.read().decode()
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == BROKEN:
        raise RuntimeError(text)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0:
        return ""
    return text.split("\n")[-2]


def _passes(item: pytest.Item, after: pytest.Item | None) -> bool:
    return not any(report.failed for report in runtestprotocol(item, nextitem=after, log=False))


def _silence() -> None:
    sink = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(sink, descriptor)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
