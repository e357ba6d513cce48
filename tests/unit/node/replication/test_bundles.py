"""Loading a bundle: whose logs are taken and in which order, and what becomes of the artifacts that it has."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity.node.replication import bundles as module
from comity.node.replication.bundles import BundleLoading, BundleSource
from comity.node.replication.copy_charges import WAITS
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import ComityError, Conflict, NotFound, Unavailable, Untrusted
from comity.wire.bundle import LoadedArtifact, LoadedCharter, LoadedLog, LoadEnded, LoadWaiting
from comity.wire.client import NodeClient
from comity.wire.log import LogHead

ARTIFACT = sha256(b"artifact")


class Client:
    """The process that serves the disks; `logs_of` are its logs, and `has` the files."""

    def __init__(self) -> None:
        self.logs_of: list[str] = []
        self.has: set[Digest] = {ARTIFACT, sha256(b"weights")}
        self.gone = False

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def read(self, digest: Digest, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        yield b"a byte"
        raise Unavailable("the call was cancelled")

    async def logs(self) -> Sequence[LogHead]:
        return [LogHead(f"{name}.example/log", name, b"note") for name in self.logs_of]

    async def stat(self, digests: Sequence[Digest]) -> list[Any]:
        if self.gone:
            raise Unavailable("the bundle is gone")
        return [SimpleNamespace(have=digest in self.has) for digest in digests]


class Copy:
    def __init__(self, number: int = 0) -> None:
        self.artifact, self.name = (sha256(b"%d" % number) if number else ARTIFACT), f"inst/model-{number}"
        self.manifest = SimpleNamespace(digest=self.artifact)
        self.failures = 0
        self.failure: ComityError | None = None


class Node:
    """A node: logs that it mirrors with their sizes, what following a log teaches it, and its copies."""

    def __init__(self) -> None:
        self.client = Client()
        self.mirrored: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.grows: dict[str, int] = {}
        self.teaches: dict[str, str] = {}
        self.learned: list[str] = []
        self.errors: dict[str, Exception] = {}
        self.frozen_logs: set[str] = set()
        self.order: list[str] = []
        self.kept: list[object] = []
        self.epochs = [1]
        self.next_epochs: list[int | Exception] = []
        self.sources: list[Any] = []
        self.done: dict[Digest, Any] = {}
        self.incomplete: list[Copy] = []
        self.attempts: Callable[[Copy], None] = lambda copy: None
        self.not_listed = 7
        self.withdrawn: set[Digest] = set()
        self.proofs: Exception | None = None

    def loading(self, *, follower: bool = False) -> BundleLoading:
        tables = SimpleNamespace(logs=SimpleNamespace(get=self.get))
        context: Any = SimpleNamespace(
            ledger=SimpleNamespace(run=self.run, tables=tables),
            pools=SimpleNamespace(files=self.run),
            membership=SimpleNamespace(own_node=SimpleNamespace(log="own")),
        )
        made: Any = self
        return BundleLoading(context, made, made if follower else None, made, made, self.sources, self.read_new)

    async def run(self, work: Any, *given: Any) -> Any:
        return work(*given)

    def get(self, log: str) -> Any:
        if log not in self.sizes:
            raise NotFound("no log")
        return SimpleNamespace(size=self.sizes[log], staged=self.sizes[log])

    # the mirror

    def is_mirrored(self, log: str) -> bool:
        return log in self.mirrored

    def parse_head(self, news: Any) -> Any:
        return SimpleNamespace(log=news.log, key=news.log, checkpoint=SimpleNamespace(size=self.grows.get(news.log, 0)))

    async def follow(self, source: Any, head: Any, **_: Any) -> bool:
        self.order.append(head.log)
        if head.log in self.errors:
            raise self.errors[head.log]
        self.sizes[head.log] = self.grows.get(head.log, 0)
        if head.log in self.teaches:
            self.learned.append(self.teaches[head.log])
        return True

    async def agree(self, head: Any) -> bool:
        return bool(self.sizes.get("own", 0) >= head.checkpoint.size)

    async def read_new(self) -> None:
        self.mirrored.update(self.learned)

    # proofs of misbehaviour, the charter, and the intake

    @property
    def misbehaviour(self) -> Node:
        return self

    def frozen(self, key: str) -> bool:
        return key in self.frozen_logs

    async def keep(self, *proof: object) -> None:
        self.kept.append(proof)

    async def fetch(self, client: Client) -> None:
        if self.proofs is not None:
            raise self.proofs

    @property
    def epoch_store(self) -> Any:
        return SimpleNamespace(digests=self.epochs)

    async def fetch_next(self, client: Client) -> None:
        if self.next_epochs:
            step = self.next_epochs.pop(0)
            if isinstance(step, Exception):
                raise step
            self.epochs.append(step)

    async def finish(self, log: str) -> None: ...

    # the copies

    @contextmanager
    def completed(self) -> Iterator[Mapping[Digest, Any]]:
        yield self.done

    async def incomplete_copies(self) -> list[Copy]:
        for copy in list(self.incomplete):
            self.attempts(copy)
        return list(self.incomplete)

    def missing_files(self, copy: Copy) -> list[Any]:
        return [SimpleNamespace(digest=sha256(b"weights"))]

    def retry(self, artifacts: Collection[Digest]) -> None: ...

    async def claim_waiting(self) -> None: ...

    async def absent(self, artifacts: Collection[Digest]) -> set[Digest]:
        left = {copy.artifact for copy in self.incomplete}
        return {artifact for artifact in artifacts if artifact in left or self.done.get(artifact) is None}

    async def has_withdrawn(self, artifact: Digest) -> bool:
        return artifact in self.withdrawn


@pytest.fixture(name="node")
def _node(monkeypatch: pytest.MonkeyPatch) -> Node:
    made = Node()
    monkeypatch.setattr(NodeClient, "operator", lambda socket, timeout: made.client)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.0)
    return made


async def loaded(node: Node, *, follower: bool = False) -> list[Any]:
    return [event async for event in node.loading(follower=follower).load(Path("socket"))]


async def test_an_empty_bundle_is_loaded_at_once(node: Node) -> None:
    assert await loaded(node) == [LoadEnded(True, 7)] and node.sources == []


async def test_one_bundle_is_loaded_at_a_time(node: Node) -> None:
    node.sources.append("another")
    with pytest.raises(Conflict) as raised:
        await loaded(node)
    assert raised.value.code == "LOADING" and node.sources == ["another"]


async def failure_of(source: BundleSource) -> None:
    async for _ in source.read(ARTIFACT, 0, 10):
        pass


async def test_a_bundle_is_a_source_while_it_is_loaded_and_not_after_a_failure(node: Node) -> None:
    stream = node.loading(follower=True).load(Path("socket"))
    assert isinstance(await anext(stream), LoadedCharter)
    (source,) = node.sources
    assert isinstance(source, BundleSource) and source.name == "the bundle" and source.over_https() is None
    with pytest.raises(Unavailable) as retried:
        await failure_of(source)
    await stream.aclose()
    assert node.sources == []
    with pytest.raises(NotFound):  # final: what copies from it does not wait until it is there again
        await failure_of(source)
    assert not isinstance(retried.value, NotFound)
    node.next_epochs = [Unavailable("the bundle is gone")]
    with pytest.raises(Unavailable):
        await loaded(node, follower=True)
    assert node.sources == []


async def test_epochs_are_taken_until_one_is_missing_or_refused(node: Node) -> None:
    node.next_epochs = [2, 3]
    assert (await loaded(node, follower=True))[0] == LoadedCharter(1, 3)
    node.next_epochs = [4, Untrusted("no quorum", code="CERTIFICATE")]
    assert (await loaded(node, follower=True))[0] == LoadedCharter(3, 4, "no quorum", "CERTIFICATE")


async def test_a_log_whose_record_is_in_another_log_follows_that(node: Node) -> None:
    node.client.logs_of = ["c", "b", "a"]
    node.mirrored, node.grows = {"a"}, {"a": 5, "b": 6, "c": 7}
    node.teaches = {"a": "b", "b": "c"}
    events = await loaded(node)
    assert node.order == ["a", "b", "c"]
    assert events[:-1] == [LoadedLog("a", 0, 5, 5), LoadedLog("b", 0, 6, 6), LoadedLog("c", 0, 7, 7)]


async def test_a_log_of_nobody_is_not_taken(node: Node) -> None:
    node.client.logs_of = ["stranger", "a"]
    node.mirrored, node.grows = {"a"}, {"a": 5}
    first, second, _ = await loaded(node)
    assert first == LoadedLog("a", 0, 5, 5)
    assert (second.log, second.code, node.order) == ("stranger", "NOT-A-MEMBER-LOG", ["a"])


@pytest.mark.parametrize(
    ("error", "code"),
    [(Untrusted("a wrong root", code="ROOT-MISMATCH"), "ROOT-MISMATCH"), (TimeoutError(), "DEADLINE")],
)
async def test_a_log_that_fails_does_not_stop_the_others(node: Node, error: Exception, code: str) -> None:
    node.client.logs_of, node.mirrored, node.grows = ["a", "b"], {"a", "b"}, {"a": 5, "b": 6}
    node.errors["a"] = error
    first, second, _ = await loaded(node)
    assert (first.code, first.now, bool(first.why)) == (code, 0, True) and second == LoadedLog("b", 0, 6, 6)


async def test_a_bundle_that_is_gone_ends_the_load(node: Node) -> None:
    node.client.logs_of, node.mirrored = ["a"], {"a"}
    node.errors["a"] = Unavailable("the bundle is gone")
    with pytest.raises(Unavailable):
        await loaded(node)
    assert node.sources == []


async def test_a_log_with_two_histories_is_named(node: Node) -> None:
    node.client.logs_of, node.mirrored, node.grows, node.frozen_logs = ["a"], {"a"}, {"a": 5}, {"a"}
    assert (await loaded(node))[0].code == "LOG-FROZEN"


@pytest.mark.parametrize(("own", "code"), [(5, ""), (6, ""), (4, "OWN-LOG")])
async def test_the_own_log_is_compared_and_never_copied(node: Node, own: int, code: str) -> None:
    node.client.logs_of, node.mirrored, node.grows, node.sizes = ["own"], {"own"}, {"own": 5}, {"own": own}
    event = (await loaded(node))[0]
    assert (event.code, event.now, event.carried, node.order) == (code, own, 5, [])


async def test_proofs_that_cannot_be_read_do_not_stop_the_load(node: Node) -> None:
    node.proofs = Untrusted("no proof")
    assert await loaded(node) == [LoadEnded(True, 7)]


def taken(events: Sequence[Any]) -> list[LoadedArtifact]:
    return [event for event in events if isinstance(event, LoadedArtifact)]


async def test_a_copy_that_becomes_complete_is_told(node: Node) -> None:
    copy = Copy()
    node.incomplete = [copy]

    def attempt(each: Copy) -> None:
        if node.sources:
            each.turns = getattr(each, "turns", 0) + 1  # type: ignore[attr-defined]
            if each.turns > 2:  # type: ignore[attr-defined]
                node.incomplete.remove(each)
                node.done[each.artifact] = each

    node.attempts = attempt
    assert taken(await loaded(node)) == [LoadedArtifact(ARTIFACT, copy.name)]


async def test_a_copy_of_which_the_bundle_has_nothing_is_not_waited_for(node: Node) -> None:
    node.incomplete, node.client.has = [Copy()], set()
    assert taken(await loaded(node)) == []


async def test_a_copy_that_fails_twice_is_told_with_its_reason(node: Node) -> None:
    node.incomplete = [Copy()]

    def attempt(copy: Copy) -> None:
        copy.failures += 1
        copy.failure = Untrusted("other bytes", code="WRONG-BYTES")

    node.attempts = attempt
    assert taken(await loaded(node)) == [LoadedArtifact(ARTIFACT, "inst/model-0", "other bytes", "WRONG-BYTES")]
    assert node.incomplete[0].failures == 3  # the first one may have begun before the bundle was opened


async def test_a_copy_that_waits_for_room_is_told(node: Node) -> None:
    copy, code = Copy(), sorted(WAITS)[0]
    node.incomplete = [copy]

    seen: list[Copy] = []

    def attempt(each: Copy) -> None:
        if seen:
            each.failure = Unavailable("no room", code=code)
            node.incomplete.clear()
        seen.append(each)

    node.attempts = attempt
    (event,) = taken(await loaded(node))
    assert event.code == code


async def test_a_copy_that_was_withdrawn_meanwhile_is_not_waited_for(node: Node) -> None:
    copy = Copy()
    node.incomplete, node.withdrawn = [copy], {ARTIFACT}
    looks = iter(range(100))

    def attempt(each: Copy) -> None:
        if next(looks):
            node.incomplete.clear()

    node.attempts = attempt
    assert taken(await loaded(node)) == []


async def test_a_copy_that_was_completed_meanwhile_is_told_if_the_bundle_has_it(node: Node) -> None:
    here, elsewhere = Copy(), Copy(1)
    node.done = {here.artifact: here, elsewhere.artifact: elsewhere}
    assert taken(await loaded(node)) == [LoadedArtifact(ARTIFACT, here.name)]


async def test_a_call_ends_after_its_time_and_is_not_finished(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", -1.0)
    node.client.logs_of, node.mirrored, node.grows = ["a", "b"], {"a", "b"}, {"a": 5, "b": 6}
    *events, ended = await loaded(node)
    assert events == [LoadedLog("a", 0, 5, 5)] and ended == LoadEnded(False, 7)


async def test_a_bundle_that_is_gone_is_noticed_while_nothing_changes(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.incomplete = [Copy()]
    events: AsyncIterator[Any] = node.loading().load(Path("socket"))
    assert isinstance(await anext(events), LoadWaiting)
    node.client.gone = True
    with pytest.raises(Unavailable):
        await anext(events)
