"""Lists of the Hub: how much one request makes the node read, hold and compare."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from comity.content.gateway_tokens import Token
from comity.gateway.hub.catalogue import SEARCHES, RepositoryList
from comity.gateway.hub.routes import LARGE_VIEWS, LIST_PAGE, MANY_FILES, MAX_LISTED_FILES, HubRoutes
from comity.node.settings import Gateway
from comity.node.threads import Pools
from comity.trust.encoding import sha256
from starlette.requests import Request

NAMES = sorted(
    ["a/x", "a/xy", "a-b/x", "b/y", "hf:a/z", "hf:c/x", "lab/one", "lab/two", "z/last"]
    + [f"many/name-{number:05}" for number in range(3_000)]
)


class Names:
    """The proven names of a ledger, which counts those that it reads."""

    def __init__(self) -> None:
        self.read = 0

    def names_with(self, words: Sequence[str], most: int) -> list[str] | None:
        found = [name for name in NAMES if all(word in name for word in words)]
        return found if len(found) <= most and max(map(len, words), default=0) >= 3 else None

    def repositories(self, after: str, prefix: str, limit: int) -> list[str]:
        found = [name for name in NAMES if name > after and name.startswith(prefix)][:limit]
        self.read += len(found)
        return found

    def names_in_turn(self, after: str, limit: int) -> list[str]:
        found = sorted({name.removeprefix("hf:") for name in NAMES})
        self.read += limit
        return [name for name in found if name > after][:limit]

    def name_places(self, names: Sequence[str]) -> dict[str, tuple[int, str]]:
        return {name: (0, name) for name in names}


class Threads:
    def __init__(self, proven: Names) -> None:
        self.tables = SimpleNamespace(proven=proven)

    async def run(self, work: Any, *given: Any) -> Any:
        return work(*given)


def listed(proven: Names) -> RepositoryList:
    return RepositoryList(Threads(proven))  # type: ignore[arg-type]


async def every(reach: Sequence[str], words: str = "", author: str = "", most: int = 7) -> list[str]:
    """All pages of a list."""
    found, cursor = list[str](), ""
    while True:
        names, cursor = await listed(Names()).names(words, author, cursor, most, reach)
        found += names
        if not cursor:
            return found


async def test_a_reader_without_a_token_makes_the_node_read_no_name() -> None:
    proven = Names()
    assert await listed(proven).names("", "", "", 100, ()) == ([], "")
    assert proven.read == 0


async def test_a_token_makes_the_node_read_only_names_within_its_reach() -> None:
    proven = Names()
    assert await listed(proven).names("", "", "", 100, ("lab/*", "z/last")) == (["lab/one", "lab/two", "z/last"], "")
    assert proven.read <= 4


@pytest.mark.parametrize("words", ["", "x", "name-0001", "last"])
@pytest.mark.parametrize("author", ["", "a", "many"])
@pytest.mark.parametrize(
    "reach",
    [
        ("*",),
        (),
        ("a/*",),
        ("A/X", "c/x"),
        ("a/x", "a/xy", "a-b/*", "a/*", "a/z"),
        ("z/*", "many/name-00017", "many/name-0001"),
        ("a/x", "*"),
    ],
)
async def test_a_list_has_the_names_within_the_reach_of_the_token(
    reach: tuple[str, ...], author: str, words: str
) -> None:
    token = Token("id", "ci", reach, 0, sha256(b""))
    names = sorted(name.removeprefix("hf:") for name in NAMES)
    wanted = [name for name in names if words in name and name.startswith(f"{author}/" if author else "")]
    assert await every(reach, words, author, 500) == [name for name in wanted if token.allows(name)]


class Items:
    """Repositories of which each has many files."""

    def __init__(self, files: int) -> None:
        self._files = [{"rfilename": str(number)} for number in range(files)]

    async def items(self, names: Sequence[str], *, siblings: bool) -> list[dict[str, Any]]:
        return [
            {"id": name, "kind": "model", "tags": [], **({"siblings": self._files} if siblings else {})}
            for name in names
        ]


class Held:
    """A ledger whose calls wait, and the largest number of concurrent calls."""

    def __init__(self) -> None:
        self.tables = SimpleNamespace(proven=Names())
        self.go_on = asyncio.Event()
        self.running = self.most = 0

    async def run(self, work: Any, *given: Any) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.go_on.wait()
        self.running -= 1
        return work(*given)


@pytest.fixture
def pools() -> Iterator[Pools]:
    made = Pools()
    yield made
    made.close()


def hub_of(repositories: RepositoryList, items: Any, pools: Pools) -> HubRoutes:
    async def reach(request: Request) -> tuple[str, ...]:
        return ("*",)

    access: Any = SimpleNamespace(reach=reach)
    others: Any = None
    return HubRoutes(Gateway(url="http://a"), pools, repositories, items, others, access, others)


def asking(query: str, host: str = "192.0.2.1") -> Request:
    address = {"type": "http", "method": "GET", "path": "/api/models", "raw_path": b"/api/models", "headers": []}
    return Request({**address, "query_string": query.encode(), "client": (host, 1)})


async def test_readers_of_lists_do_not_take_every_thread_of_the_ledger(pools: Pools) -> None:
    """Each may read 20,000 names; the node signs and copies with the same threads."""
    ledger = Held()
    hub = hub_of(RepositoryList(ledger), Items(0), pools)  # type: ignore[arg-type]
    lists = [asyncio.create_task(hub.repositories(asking("search=zq"))) for _ in range(40)]
    for _ in range(10):
        await asyncio.sleep(0)
    ledger.go_on.set()
    assert [answer.status_code for answer in await asyncio.gather(*lists)] == [200] * 40
    assert ledger.most <= SEARCHES


@pytest.mark.parametrize(("files", "at_once"), [(MANY_FILES, LARGE_VIEWS), (MANY_FILES - 1, 20)])
async def test_views_of_large_artifacts_do_not_take_every_thread(
    files: int, at_once: int, pools: Pools, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, running, most = asyncio.Event(), list[object](), list[int]()

    async def hashing(work: Any) -> Any:
        running.append(work)
        most.append(len(running))
        await go_on.wait()
        running.remove(work)
        return work()

    monkeypatch.setattr(pools, "hashing", hashing)
    hub = hub_of(listed(Names()), Items(0), pools)
    snapshot: Any = SimpleNamespace(
        manifest=SimpleNamespace(files=[None] * files), commit="c" * 40, notices=(), continues=None
    )
    views = [asyncio.create_task(hub._json(asking(""), snapshot, list)) for _ in range(20)]
    for _ in range(10):
        await asyncio.sleep(0)
    go_on.set()
    assert [bytes(answer.body) for answer in await asyncio.gather(*views)] == [b"[]"] * 20
    assert max(most) == at_once


async def test_a_list_with_files_ends_its_page_after_many_files(pools: Pools) -> None:
    """One artifact of many files under many names would be a gigabyte."""
    hub = hub_of(listed(Names()), Items(MAX_LISTED_FILES // 4), pools)
    seen, query = list[str](), "author=many&full=true"
    for _ in range(2):
        answer = await hub.repositories(asking(query))
        found = json.loads(bytes(answer.body))
        assert sum(len(item["siblings"]) for item in found) == MAX_LISTED_FILES
        seen += [item["id"] for item in found]
        query = urlsplit(answer.headers["Link"].partition(">")[0].removeprefix("<")).query
        assert parse_qs(query)["full"] == ["true"]
    assert seen == [f"many/name-{number:05}" for number in range(8)]
    assert len(seen) < LIST_PAGE
