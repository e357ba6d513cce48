#!/usr/bin/env python3
"""What scanners find in two corpora: files that execute, and harmless files.

    python bench/scanners.py [--scanner NAME]...

Each scanner is installed in an environment of its own, and runs there in one process over all files, each under a path
of its own with the file's own name. A file is *caught* if the scanner reports any problem in it, of any level; a file
that it cannot read, or does not know, is told apart, because such scanners say "clean" about it, or skip it. Nothing is
loaded. Comity's answer is that of the default policy.

The files that execute are made twice: with a call of `io.open`, as in the tests, and with one of `os.system`, which
every list of dangerous names has.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import harness
from attackers import executing_files as corpus
from attackers.executing_files import ExecutingFile, executing_files
from comity.formats.inspect import inspect
from comity.trust.evidence import FoundFile
from comity.trust.policy import SafetyRule
from comity.trust.rows.content import refused_content
from support.environments import python_with
from support.harmless_files import harmless_files
from support.real_files import installed_files

REQUIREMENTS: Final[Mapping[str, tuple[str, ...]]] = {
    "picklescan": ("picklescan==1.0.5", "numpy==2.3.5"),
    "fickling": ("fickling==0.1.12", "typing_extensions"),
    "modelscan": ("modelscan==0.8.8",),
}
PROGRAMS: Final[Mapping[str, str]] = {
    "picklescan": """
from picklescan.scanner import scan_file_path
def scan(path):
    found = scan_file_path(path)
    if found.issues_count:
        return "found"
    return "unread" if found.scan_err or not found.scanned_files else "clean"
""",
    "fickling": """
import fickling
from fickling.analysis import Severity, check_safety
from fickling.fickle import StackedPickle
def scan(path):
    with open(path, "rb") as file:
        stacked = StackedPickle.load(file)
    severities = [check_safety(pickled).severity for pickled in stacked]
    if not severities:
        return "unread"
    return "clean" if max(severities) <= Severity.LIKELY_SAFE else "found"
""",
    "modelscan": """
from modelscan.modelscan import ModelScan
def scan(path):
    told = ModelScan().scan(path)
    if told["summary"]["total_issues"]:
        return "found"
    return "unread" if told.get("errors") or not told["summary"]["scanned"]["total_scanned"] else "clean"
""",
}
DRIVER: Final = """
import json, logging, os, sys
logging.disable(logging.CRITICAL)
out = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    path = json.loads(line)
    try:
        answer = scan(path)
    except BaseException as error:
        answer = "unread"
    print(json.dumps([path, answer]), file=out, flush=True)
"""


MARKER: Final = "/nonexistent/ran"


class Runs:
    """An object whose pickle calls `os.system`."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f": > {self.marker}",)


def text_call(marker: str) -> bytes:
    """As the corpus writes a call in ASCII."""
    return b"cposix\nsystem\n(V: > " + marker.encode() + b"\ntR."


def corpora() -> dict[str, list[ExecutingFile]]:
    """The files that execute, by the function that they call."""
    made = {"io.open": list(executing_files(MARKER))}
    with patch.object(corpus, "Opens", Runs), patch.object(corpus, "_text_call", text_call):
        made["os.system"] = list(executing_files(MARKER))
    return made


def write(folder: Path, files: Sequence[tuple[str, bytes]]) -> list[Path]:
    paths = []
    for number, (name, data) in enumerate(files):
        path = folder / str(number) / Path(name).name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        paths.append(path)
    return paths


def answers(scanner: str, paths: Sequence[Path]) -> dict[str, str]:
    """By path: `found`, `clean`, or `unread`. A process that dies at a file leaves it unread, and another goes on."""
    python, told = python_with(*REQUIREMENTS[scanner]), dict[str, str]()
    subprocess.run([python, "-I", "-c", PROGRAMS[scanner]], check=True)  # it is whole
    while left := [str(path) for path in paths if str(path) not in told]:
        asked = "".join(json.dumps(path) + "\n" for path in left)
        program = [python, "-I", "-c", PROGRAMS[scanner] + DRIVER]
        done = subprocess.run(program, input=asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        told |= dict(json.loads(line) for line in done.stdout.splitlines())
        if len(told) < len(paths):
            told[next(path for path in left if path not in told)] = "unread"
    return told


def own_answer(name: str, data: bytes) -> str:
    seen = inspect(io.BytesIO(data), name, len(data))
    return (
        "found" if list(refused_content(SafetyRule(), FoundFile(name, len(data), None, inspection=seen))) else "clean"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scanner", action="append", choices=sorted(REQUIREMENTS), help="only this one")
    chosen = parser.parse_args().scanner or list(REQUIREMENTS)
    executing, harmless = corpora(), [*harmless_files(), *installed_files(of_each=60)]
    result: dict[str, object] = {"files": {**{call: len(files) for call, files in executing.items()}}}
    with tempfile.TemporaryDirectory() as scratch:
        bad = {call: write(Path(scratch, call), [(f.path, f.data) for f in files]) for call, files in executing.items()}
        good = write(Path(scratch, "harmless"), harmless)
        for scanner in chosen:
            told = answers(scanner, [*itertools.chain(*bad.values()), *good])
            said = {call: [told[str(path)] for path in paths] for call, paths in bad.items()}
            result[scanner] = rows(said, [told[str(path)] for path in good], executing)
    own = {call: [own_answer(file.path, file.data) for file in files] for call, files in executing.items()}
    result["comity"] = rows(own, [own_answer(*file) for file in harmless], executing)
    print(json.dumps(result, indent=1))
    harness.write("scanners", **result)


def rows(
    bad: Mapping[str, Sequence[str]], good: Sequence[str], executing: Mapping[str, Sequence[ExecutingFile]]
) -> dict[str, object]:
    """What one scanner said of the corpora, and of each family of the files that execute."""
    said: dict[str, object] = {"harmless": dict(Counter(good))}
    for call, given in bad.items():
        families: dict[str, Counter[str]] = {}
        for file, answer in zip(executing[call], given, strict=True):
            families.setdefault(file.name.partition(":")[0], Counter())[answer] += 1
        said[call] = {"all": dict(Counter(given)), **{name: dict(count) for name, count in families.items()}}
    return said


if __name__ == "__main__":
    main()
