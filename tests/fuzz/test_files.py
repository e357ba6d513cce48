"""Mutants and splices of files that execute: none is clean. The same seed gives the same files.

For longer: `python tests/fuzz/files.py --seconds 600`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attackers.executing_files import executing_files
from fuzz.executions import executes
from fuzz.files import MARKER, MAX_SAMPLE, clean_and_executed, is_clean, mutants, splices
from support.examples import examples
from support.harmless_files import harmless_files

TRIED = examples(2000)


def test_the_loaders_execute_what_they_are_asked_about(tmp_path: Path) -> None:
    families = ("pickles", "packed", "tars", "arrays", "torch", "spliced")
    files = [f for f in executing_files(MARKER) if f.name.startswith(families) and len(f.data) <= MAX_SAMPLE]
    missed = {f.name for f in files if not executes(f.data, tmp_path)}
    assert missed == {"arrays: a second array"}  # it takes a program that reads two arrays from one file
    assert len(files) >= 90


def test_harmless_files_execute_nothing(tmp_path: Path) -> None:
    assert [path for path, data in harmless_files() if executes(data, tmp_path)] == []


@pytest.mark.parametrize("made", [mutants, splices])
def test_no_made_file_is_clean_and_executes(made: Callable[[int], Iterator[bytes]], tmp_path: Path) -> None:
    files = list(clean_and_executed(itertools.islice(made(1), TRIED), tmp_path))
    assert [(data.hex(), name, loader) for data, name, loader in files if loader] == []


def test_mutants_reach_what_is_clean(tmp_path: Path) -> None:
    files = clean_and_executed(itertools.islice(mutants(1), TRIED), tmp_path)
    assert any(name for _, name, _ in files)  # else the test above compares nothing


@pytest.mark.parametrize("line", [b"#!/bin/sh\t\n", b"#!/bin/sh \xc3\xa9\n", b"#!\t/bin/sh\n", b"#! /bin/sh -\t\n"])
def test_the_kernel_cuts_the_first_line_of_a_script_at_any_blank(line: bytes, tmp_path: Path) -> None:
    assert executes(line + b": > ran\n", tmp_path) == "script"
    assert not is_clean(line + b": > ran\n", "run")
