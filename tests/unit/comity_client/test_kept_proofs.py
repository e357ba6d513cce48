"""Proofs that an earlier pull left: of the names that were pulled alone, and nothing where the folder is damaged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from comity.trust.claims import Publication
from comity.trust.encoding import Digest, sha256
from comity.trust.evidence import PACK, InclusionEvidence, proof_name
from comity.trust.names import Name
from comity_client.kept_proofs import kept_proofs

LINE, COMMIT = sha256(b"line"), "0" * 40


def publication(name: str, line: Digest = LINE) -> Publication:
    published = SimpleNamespace(name=Name.parse(name))
    return cast(Publication, SimpleNamespace(entry=SimpleNamespace(digest=line), published=published))


@pytest.fixture
def pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the proofs of `a/b@v1` in the user's cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--a--b"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/v1").write_text(COMMIT)
    folder = repository / "snapshots" / COMMIT / PACK / "proofs"
    folder.mkdir(parents=True)
    (folder / proof_name(LINE, "node/log")).write_bytes(b"a proof")
    return folder


def test_proofs_of_the_lines_that_are_asked_for_are_found(pulled: Path) -> None:
    assert kept_proofs([publication("a/b@v1")]) == (InclusionEvidence(LINE, b"a proof"),)
    assert kept_proofs([publication("a/b@v1", sha256(b"another"))]) == ()
    assert kept_proofs([publication("a/b@v2"), publication("other/b@v1")]) == ()
    assert kept_proofs([]) == ()


def test_a_folder_that_cannot_be_read_proves_nothing(pulled: Path) -> None:
    (pulled.parents[3] / "refs/v1").write_bytes(b"x" * 100_000)
    assert kept_proofs([publication("a/b@v1")]) == ()
