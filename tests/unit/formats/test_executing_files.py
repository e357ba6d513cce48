"""No file that executes when it is loaded is clean: the corpus of `attackers.executing_files`, by its bytes alone."""

from __future__ import annotations

import io

from attackers.executing_files import ExecutingFile, executing_files
from comity.formats.inspect import inspect
from comity.formats.loaders import FORMATS as RULES
from comity.formats.loaders import LOADERS
from comity.trust.evidence import FORMATS, KINDS, FoundFile, kind_of
from comity.trust.policy import SafetyRule
from comity.trust.rows.content import refused_content

MARKER = "/nonexistent/ran"


def refused(file: ExecutingFile) -> list[str]:
    seen = inspect(io.BytesIO(file.data), file.path, len(file.data))
    assert {kind_of(active) for active in seen.active} <= set(KINDS), seen
    "".join((*seen.active, *seen.malformed)).encode()  # a report can be written
    return list(refused_content(SafetyRule(), FoundFile(file.path, len(file.data), None, inspection=seen)))


def test_no_file_that_executes_meets_the_default_policy() -> None:
    assert [file.name for file in executing_files(MARKER) if not refused(file)] == []


def test_the_corpus_is_large_and_every_file_has_a_loader() -> None:
    files = list(executing_files(MARKER))
    assert len({file.name for file in files}) == len(files) >= 150
    assert sum(bool(file.loader) for file in files) >= 150


def test_the_table_of_loaders_names_readings_and_formats_that_are_known() -> None:
    assert set(RULES) == FORMATS
    assert {reading for loader in LOADERS for reading in loader.readings} <= FORMATS
