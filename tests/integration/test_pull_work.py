"""How much a pull computes: the evidence is parsed, bound and proven once, on short stacks. Counts, no times."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comity_client.evidence.resolve
import comity_client.pull.pull  # noqa: F401  # loaded before it is counted
import pytest
from comity.trust.encoding import Digest
from comity.wire.asking import PATIENCE, AnswerTimes
from comity.wire.calls import Calls
from comity.wire.found import FoundAnswer
from comity.wire.rpc import Rpc
from comity_client.client import Client
from comity_client.home import Home
from support.fakes import FakeFederation, FakeNode, release
from support.own_calls import own_calls
from support.weights import as_tensor
from support.world import identity

FILES = {"config.json": b'{"hidden_size":8}\n', "model.safetensors": as_tensor(bytes(1024 * 1024))}


def test_a_pull_proves_each_line_signature_and_proof_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = release(tmp_path / "source", FILES, by=identity("Swiss AI", "CH"))
    client = Client(Home(tmp_path / "home"))
    with FakeFederation().running() as federation:
        federation.publish(made)
        client.pin(federation.file())
        with own_calls(monkeypatch) as work:
            pulled = client.pull("swiss-ai/tiny", to=tmp_path / "model")
    assert pulled.verdict.accepted
    assert (pulled.files, len(work.included)) == (2, len(federation.nodes) + 1), (
        "a publication, and a hold of each node"
    )
    assert 1 <= work.named["bind_nodes"] <= 2
    assert set(work.parsed.values()) == {1}
    assert set(work.included.values()) == {1}
    assert set(work.signatures.values()) == {1}
    assert work.mean_stack < 12.5


@dataclass
class Called:
    """Calls of nodes: their paths, the bytes of their answers, and how many were made one after the other."""

    paths: list[str] = field(default_factory=list)
    received: int = 0
    chain: int = 0
    _begun: int = 0
    _free: int = 0

    def begin(self, path: str) -> int:
        self.paths.append(path.rpartition("/")[2])
        self._begun += 1
        return self._begun

    def end(self, number: int) -> None:
        """A call that began after the end of the last one of the chain adds to it."""
        if number > self._free:
            self.chain, self._free = self.chain + 1, self._begun


@contextmanager
def called(monkeypatch: pytest.MonkeyPatch) -> Iterator[Called]:
    found, stream, unary = Called(), Calls.stream, Calls.unary

    async def counted_stream(self: Calls, rpc: Rpc, *asked: Any, **bounds: Any) -> AsyncGenerator[Any, None]:
        number = found.begin(rpc.path)
        try:
            async with aclosing(stream(self, rpc, *asked, **bounds)) as answer:
                async for message in answer:
                    found.received += len(message) if isinstance(message, bytes) else message.ByteSize()
                    yield message
        finally:
            found.end(number)

    async def counted_unary(self: Calls, rpc: Rpc, request: Any) -> Any:
        number = found.begin(rpc.path)
        try:
            answer = await unary(self, rpc, request)
            found.received += answer.ByteSize()
            return answer
        finally:
            found.end(number)

    with monkeypatch.context() as patched:
        patched.setattr(Calls, "stream", counted_stream)
        patched.setattr(Calls, "unary", counted_unary)
        patched.setattr(AnswerTimes, "patience", lambda *_: PATIENCE)  # a slow machine adds no call
        yield found


def shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, members: int, *, namespaces: Mapping[str, Digest] | None = None
) -> Called:
    """The calls of `show`, in a federation of so many members whose nodes all hold the artifact."""
    made = release(folder / "source", FILES, by=identity("Swiss AI", "CH"))
    client = Client(Home(folder / "home"))
    codes = ("CH", "SG", "ES", "KR", "BR", "KE", "NO", "JP")
    with FakeFederation(codes[:members]).running() as federation:
        federation.publish(made)
        client.pin(federation.file(namespaces))
        with called(monkeypatch) as calls:
            client.show("swiss-ai/tiny@v1")
    return calls


def test_what_show_receives_grows_with_the_nodes_and_not_with_their_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, more, many = (shown(tmp_path / f"{count}", monkeypatch, count).received for count in (2, 4, 8))
    assert many - more < 2.5 * (more - few), "twice as much for twice as many more; four times as much for a square"


def test_questions_that_do_not_depend_on_each_other_are_asked_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is asked about the artifact of a name comes with the first answer; its manifest is asked for then."""
    for folder, namespaces in ("bound", None), ("unbound", dict[str, Digest]()):
        calls = shown(tmp_path / folder, monkeypatch, 3, namespaces=namespaces)
        assert calls.chain <= 2 and Counter(calls.paths) == {"FindArtifact": 3, "GetObject": 1}


def test_a_node_without_common_answers_is_asked_each_question(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object) -> AsyncGenerator[FoundAnswer, None]:
        raise NotImplementedError
        yield

    monkeypatch.setattr(FakeNode, "find", unknown)
    calls = shown(tmp_path, monkeypatch, 3)
    assert Counter(calls.paths) == {"FindArtifact": 3, "Resolve": 12, "GetClaims": 6, "GetObject": 1}
    assert calls.chain <= 6
