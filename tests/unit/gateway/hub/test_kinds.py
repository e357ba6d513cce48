"""The list of datasets: which publications it reads, and which of them list a repository."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from comity.gateway.hub import kinds
from comity.gateway.hub.kinds import DatasetList, cursor_after, is_listed
from comity.ledger.proven import ListedPublication, NamedPage
from comity.ledger.subject_reads import ProvenPosition
from comity.rules.artifact_kind import DATASET_KINDS
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed

PUBLISHED = [
    ("b/questions", "dataset"), ("a/words", "dataset"), ("a/tuned", "adapter"), ("a/later", "sound-bank"),
    ("a/scores", "evaluation-set"), ("c/vectors", "embedding-store"), ("a/model", "model"),
]  # fmt: skip


def published(turn: int, name: str, kind: str, artifact: str = "") -> ListedPublication:
    return ListedPublication(turn, ProvenPosition(1, turn), f"{name}@v1", sha256((artifact or name).encode()), kind)


ROWS = [published(turn, *each) for turn, each in enumerate(PUBLISHED)]


class Proven:
    """The publications of a ledger, which counts those that it reads."""

    def __init__(self, rows: Sequence[ListedPublication] = ROWS) -> None:
        self.rows, self.read = rows, 0

    def named(
        self, words: Sequence[str], after: tuple[int, int] | None, limit: int, kinds: Collection[str]
    ) -> NamedPage:
        assert kinds == DATASET_KINDS
        found = [row for row in self.rows if row.place > (after or (-1, -1)) and row.kind in kinds][: limit + 1]
        page = tuple(row for row in found if all(word in row.name for word in words))[:limit]
        self.read += len(found[:limit])
        return NamedPage(page, found[limit - 1].place if len(found) > limit else None)


def listed(proven: Proven) -> DatasetList:
    async def run(work: Any, *given: Any) -> Any:
        return work(*given)

    return DatasetList(SimpleNamespace(tables=SimpleNamespace(proven=proven), run=run))  # type: ignore[arg-type]


async def every(words: str = "", author: str = "", reach: tuple[str, ...] = ("*",), most: int = 2) -> list[str]:
    found, cursor = list[str](), ""
    while True:
        names, cursor = await listed(Proven()).names(words, author, cursor, most, reach)
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
    assert await every("v1") == [], "the version is not in the name of a repository"
    assert await every(author="A") == ["a/words", "a/scores"]
    assert await every(reach=("b/*", "a/words")) == ["b/questions", "a/words"]
    assert await every(reach=()) == []


async def test_one_request_reads_a_limited_number_of_publications(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "STEP", 1)
    monkeypatch.setattr(kinds, "STEPS", 2)
    proven = Proven()
    names, cursor = await listed(proven).names("vectors", "", "", 100, ("*",))
    assert (names, cursor, proven.read) == ({}, "1-1", 2)
    names, cursor = await listed(proven).names("vectors", "", cursor, 100, ("*",))
    assert (list(names), cursor) == (["c/vectors"], "")


async def test_a_page_that_ends_with_a_name_goes_on_with_the_next_one() -> None:
    names, _ = await listed(Proven()).names("", "", "", 9, ("*",))
    rest, _ = await listed(Proven()).names("", "", cursor_after(names["a/words"]), 9, ("*",))
    assert list(rest) == ["a/scores", "c/vectors"]


@pytest.mark.parametrize("cursor", ("x", "-1", "1" * 16, "١-1"))
async def test_a_cursor_of_another_list_is_refused(cursor: str) -> None:
    with pytest.raises(Malformed) as refused:
        await listed(Proven()).names("", "", cursor, 1, ("*",))
    assert refused.value.code == "CURSOR"


def item(kind: str, artifact: str) -> dict[str, Any]:
    return {"id": "A/Words", "kind": kind, "_id": sha256(artifact.encode())[:24]}


def test_a_repository_is_listed_by_the_publication_that_its_name_means_here() -> None:
    said = {"a/words": [published(3, "a/words", "dataset", "new")]}
    assert is_listed(item("dataset", "new"), said)
    assert not is_listed(item("dataset", "other version"), said)
    assert not is_listed(item("prompt", "new"), said)
    assert not is_listed(item("evaluation-set", "new"), said)
    assert not is_listed(item("dataset", "new"), {})


async def test_a_dataset_that_a_rival_publishes_under_a_name_hides_none_of_its_owner() -> None:
    rows = [published(1, "a/words", "dataset", "its own"), published(2, "a/words", "dataset", "of a rival")]
    said, _ = await listed(Proven(rows)).names("", "", "", 9, ("*",))
    assert is_listed(item("dataset", "its own"), said)


def test_the_list_of_models_has_everything_else_also_unknown_kinds() -> None:
    listed_as_models = [kind for _, kind in PUBLISHED if is_listed(item(kind, "new"), None)]
    assert listed_as_models == ["adapter", "sound-bank", "model"]
