"""Repositories of the Hub whose newest commit is imported on a schedule."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from comity.node.importing.followed import FollowedRepositories
from comity.node.importing.importer import Importer
from comity.node.settings import ReadThrough
from comity.trust.errors import NotFound
from comity.upstream.mirror import MirrorOrder
from pydantic import ValidationError


class FakeImporter:
    def __init__(self) -> None:
        self.imported: list[str] = []
        self.renamed: dict[str, str] = {}
        self.gone: set[str] = set()
        self.orders: list[MirrorOrder] = []

    async def pin(self, order: MirrorOrder, counter: object) -> Any:
        name = order.wanted.repository
        if name in self.gone:
            raise NotFound(f"no repository {name}")
        self.orders.append(order)
        return SimpleNamespace(upstream=SimpleNamespace(repository=self.renamed.get(name, name)))

    async def mirror(self, order: MirrorOrder, found: Any, counter: object, observer: object) -> None:
        self.imported.append(found.upstream.repository)


def followed(importer: FakeImporter, why: str = "") -> FollowedRepositories:
    settings = ReadThrough(follow=("org/gone", "org/moved", "org/one"), largest_bytes=7)
    return FollowedRepositories(settings, cast(Importer, importer), lambda: why)


async def test_main_of_each_is_imported_and_a_failure_stops_no_other_and_shows() -> None:
    importer = FakeImporter()
    importer.gone, importer.renamed = {"org/gone"}, {"org/moved": "other/place"}
    found = followed(importer)
    await found.step()
    assert importer.imported == ["org/one"], (
        "a renamed repository is not imported under a name that is not in the settings"
    )
    assert {(order.wanted.revision, order.max_bytes) for order in importer.orders} == {("main", 7)}
    assert [warning.partition(" ")[0] for warning in found.warnings()] == ["hf:org/gone", "hf:org/moved"]
    importer.gone, importer.renamed = set(), {}
    await found.step()
    assert list(found.warnings()) == []


async def test_nothing_is_imported_while_copies_are_paused() -> None:
    importer = FakeImporter()
    await followed(importer, "the disk is full").step()
    assert importer.orders == []


@pytest.mark.parametrize("name", ["org/*", "org", "org/na?e", "a/b/c", ""])
def test_a_followed_repository_is_named_exactly(name: str) -> None:
    with pytest.raises(ValidationError):
        ReadThrough(follow=(name,))
