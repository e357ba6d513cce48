"""An artifact that was published again is listed once: in a search, and among the statements about it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
from click.testing import CliRunner
from comity.trust.encoding import Digest, sha256
from comity_cli.commands import search, show
from comity_cli.main import command
from comity_client.evidence.artifact_info import ArtifactInfo, ArtifactStatement
from comity_client.evidence.known_since import KnownSince
from comity_client.evidence.search import FoundArtifacts

ARTIFACT, PUBLISHER = sha256(b"artifact"), sha256(b"publisher")


def day(number: int) -> KnownSince:
    return KnownSince(number * 86_400, "claimed", 2)


def hit(licence: str, *, proven: bool = True, publisher: Digest = PUBLISHER) -> FoundArtifacts:
    return FoundArtifacts("inst/model@v1", ARTIFACT, publisher, "Inst", licence, proven)


def test_a_search_shows_the_same_bytes_under_one_name_once(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [hit("mit", proven=False), hit("Apache-2.0"), hit("mit", publisher=sha256(b"another"))]
    found[:2] = [replace(found[0], known_since=day(2)), replace(found[1], known_since=day(1))]
    monkeypatch.setattr(search, "client", lambda: SimpleNamespace(search=lambda text, limit, kind: found))
    rows = CliRunner().invoke(command, ["search", "model"]).stdout.splitlines()[1:]
    assert len(rows) == 2, "another publisher is another row"
    assert "mit / Apache-2.0" in rows[0]
    assert [row.split("  ")[-2:] for row in rows] == [["verified here", "1970-01-02"], ["verified here", "-"]]


def test_statements_of_one_kind_and_author_are_one_row_with_all_indexes_and_the_first_day() -> None:
    said = (
        ArtifactStatement("published", "Inst", (("node-ch/log", 3),), day(5)),
        ArtifactStatement("hold", "node-ch", (("node-ch/log", 4),)),
        ArtifactStatement("published", "Inst", (("node-ch/log", 9), ("node-es/log", 2)), day(3)),
    )
    assert show._statements(cast(ArtifactInfo, SimpleNamespace(said=said))) == [
        ("published", "Inst", "1970-01-04", "node-ch/log #3, node-ch/log #9, node-es/log #2"),
        ("hold", "node-ch", "-", "node-ch/log #4"),
    ]
