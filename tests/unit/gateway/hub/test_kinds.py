"""The list of datasets: which statements of kinds it reads, and which of them list a repository."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from comity.gateway.hub import kinds
from comity.gateway.hub.kinds import DatasetList, StatedDataset, is_listed
from comity.ledger.proven import ProvenLine
from comity.rules.artifact_kind import KindStated
from comity.rules.signing import sign_content
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.trust.names import Name
from comity.trust.statement import Author, Statement, Subject, sign_statement
from comity.trust.statement_kinds import ARTIFACT_KIND
from support.rotations import CLASSICAL
from support.world import identity

OWNER = identity("Owner", algs=CLASSICAL)
STATED = [
    ("b/Questions", "dataset"), ("a/words", "dataset"), ("a/tuned", "adapter"), ("a/later", "sound-bank"),
    ("a/scores", "evaluation-set"), ("c/vectors", "embedding-store"), ("a/model", "model"),
]  # fmt: skip


def stated(name: str, kind: str, artifact: str = "") -> KindStated:
    return KindStated(OWNER.id, Name.parse(f"{name}@v1"), sha256((artifact or name).encode()), kind, 0)


LINES = [
    ProvenLine("a", "a", number, sign_content(stated(*each), OWNER.signer).line, number)
    for number, each in enumerate(STATED, 1)
]


class Proven:
    """The statements of kinds in a ledger, which counts those that it reads."""

    def __init__(self, lines: list[ProvenLine]) -> None:
        self.lines, self.read = lines, 0

    def since(self, number: int, predicates: tuple[str, ...], limit: int) -> list[ProvenLine]:
        assert predicates == (ARTIFACT_KIND,)
        found = [line for line in self.lines if line.number > number][:limit]
        self.read += len(found)
        return found


def listed(proven: Proven) -> DatasetList:
    async def run(work: Any, *given: Any) -> Any:
        return work(*given)

    return DatasetList(SimpleNamespace(tables=SimpleNamespace(proven=proven), run=run))  # type: ignore[arg-type]


async def every(words: str = "", author: str = "", reach: tuple[str, ...] = ("*",), most: int = 2) -> list[str]:
    found, cursor = list[str](), ""
    while True:
        names, cursor = await listed(Proven(LINES)).names(words, author, cursor, most, reach)
        assert len(names) <= most
        found += names
        if not cursor:
            return found


@pytest.mark.parametrize("most", (1, 2, 100))
@pytest.mark.parametrize("step", (1, 2, 256))
async def test_the_list_has_what_a_hub_calls_datasets(monkeypatch: pytest.MonkeyPatch, most: int, step: int) -> None:
    monkeypatch.setattr(kinds, "STEP", step)
    assert await every(most=most) == ["b/questions", "a/words", "a/scores", "c/vectors"]


async def test_words_authors_and_the_reach_of_a_token_narrow_it() -> None:
    assert await every("WORD") == ["a/words"]
    assert await every(author="A") == ["a/words", "a/scores"]
    assert await every(reach=("b/*", "a/words")) == ["b/questions", "a/words"]
    assert await every(reach=()) == []


async def test_one_request_reads_a_limited_number_of_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "STEP", 2)
    monkeypatch.setattr(kinds, "SCANNED", 4)
    proven = Proven(LINES)
    names, cursor = await listed(proven).names("vectors", "", "", 100, ("*",))
    assert (names, cursor, proven.read) == ({}, "4", 4)
    names, cursor = await listed(proven).names("vectors", "", cursor, 100, ("*",))
    assert (list(names), cursor) == (["c/vectors"], "")


async def test_a_statement_that_cannot_be_read_lists_nothing_and_hides_nothing() -> None:
    broken = Statement(ARTIFACT_KIND, (Subject("", sha256(b"x")),), Author("identity", OWNER.id), {"kind": "dataset"})
    lines = [ProvenLine("a", "a", 0, sign_statement(broken, OWNER.signer).line, 1), *LINES[1:2]]
    assert list((await listed(Proven(lines)).names("", "", "", 9, ("*",)))[0]) == ["a/words"]


@pytest.mark.parametrize("cursor", ("x", "-1", "1" * 16, "١"))
async def test_a_cursor_of_another_list_is_refused(cursor: str) -> None:
    with pytest.raises(Malformed) as refused:
        await listed(Proven(LINES)).names("", "", cursor, 1, ("*",))
    assert refused.value.code == "CURSOR"


def item(kind: str, artifact: str) -> dict[str, Any]:
    return {"id": "A/Words", "kind": kind, "_id": sha256(artifact.encode())[:24]}


def test_a_repository_is_listed_by_the_statement_about_what_its_name_means_here() -> None:
    said = {"a/words": StatedDataset(stated("a/words", "dataset", "new"), 3)}
    assert is_listed(item("dataset", "new"), said)
    assert not is_listed(item("dataset", "other version"), said)
    assert not is_listed(item("prompt", "new"), said)
    assert not is_listed(item("evaluation-set", "new"), said)
    assert not is_listed(item("dataset", "new"), {})


def test_the_list_of_models_has_everything_else_also_unknown_kinds() -> None:
    listed_as_models = [kind for _, kind in STATED if is_listed(item(kind, "new"), None)]
    assert listed_as_models == ["adapter", "sound-bank", "model"]
