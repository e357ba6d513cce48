"""No real file of the kinds that repositories of models hold is refused by the default policy."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import PurePosixPath

import pytest
from comity.formats.inspect import inspect
from comity.trust.evidence import FoundFile, Inspection
from comity.trust.policy import SafetyRule
from comity.trust.rows.content import refused_content
from support.harmless_files import harmless_files
from support.real_files import installed_files, packaged_files


def refused(files: Iterable[tuple[str, bytes]]) -> tuple[list[tuple[str, Inspection]], list[str]]:
    """The files that the default policy refuses, and the paths of all."""
    found, paths = [], []
    for path, data in files:
        seen = inspect(io.BytesIO(data), path, len(data))
        paths.append(path)
        if list(refused_content(SafetyRule(), FoundFile(path, len(data), None, inspection=seen))):
            found.append((path, seen))
    return found, paths


def test_no_file_of_an_ordinary_repository_is_refused() -> None:
    found, paths = refused(harmless_files())
    assert found == []
    assert len(paths) >= 50


def test_no_file_of_the_installed_packages_is_refused() -> None:
    found, paths = refused(installed_files(of_each=60))
    assert found == []
    assert len(paths) >= 200


@pytest.mark.slow
def test_no_file_of_other_packages_is_refused() -> None:
    found, paths = refused(packaged_files())
    assert found == []
    assert len(paths) >= 300
    assert len({PurePosixPath(path).suffix for path in paths}) >= 15
