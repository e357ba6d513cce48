"""What a front end follows of its node, how it states the age of its data, and what it refuses."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from comity import v1
from comity.federation_file import Federation
from comity.gateway.front_end import AgeWarning, warning
from comity.ledger.proven import ProvenLine
from comity.node.config import NodeConfig
from comity.node.front_end import (
    SILENT_SECONDS,
    CharterEpochs,
    FollowedNode,
    ShownAge,
    WriterOnly,
    front_end_settings,
)
from comity.node.home import OpenedHome
from comity.node.members import Membership, OwnNode, PeerKey
from comity.node.metrics import Metrics
from comity.rules.charter_drafts import draft
from comity.trust.charter.document import Body, CharterPolicy, quorum
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound, Refused, Unavailable
from comity.trust.identity import KeySet, SignatureCheck
from comity.trust.keys import HybridSigner
from comity.trust.rotation import KeyState, Rotation, rotate
from comity.trust.statement import Entry
from comity.trust.tlog.note import VerifierKey
from comity.wire.services import SERVICES, RefusedServices
from support.world import Identity, found, node, seat, signer

CH, SG, ES, BR = (seat(code, ("ed25519",)) for code in ("CH", "SG", "ES", "BR"))
HOME = """\
[node]
name = "node-a.example"
role = "front-end"
[listen]
mutual = "127.0.0.1:7443"
open = "127.0.0.1:7444"
[storage]
database = "postgresql:///comity"
[gateway]
http = "127.0.0.1:8080"
files = "127.0.0.1:8081"
ranges = "127.0.0.1:8082"
cold = "peers"
"""


@functools.cache
def federation() -> Federation:
    return found([node(who) for who in (CH, SG, ES)])


def start() -> Membership:
    return Membership(OwnNode.parse(CH.entry.line, node(CH).entry.line), federation())


def rotated(who: Identity) -> tuple[HybridSigner, Entry]:
    """New keys of a member, and the rotation to them."""
    state = KeyState.of_inception(who.inception)
    new, recovery = (signer(f"{who.inception.label} {name}", ("ed25519",)) for name in ("new", "recovery"))
    rotation = Rotation(who.id, 1, state.digest, KeySet((new.public,), 1), ())
    return new, rotate(state, rotation, [recovery], [new])


@dataclass
class FakeLedger:
    """The proven tables that a front end follows. `run` and `read` call immediately."""

    rotations: dict[Digest, list[bytes]] = field(default_factory=dict)
    records: list[ProvenLine] = field(default_factory=list)
    number: int = 1
    fails_at: int = 0
    """Which of the next calls fails; 0 for none."""

    def __post_init__(self) -> None:
        proven = SimpleNamespace(
            rotations=lambda member: self.rotations.get(member, []),
            last_number_of=lambda predicates: sum(map(len, self.rotations.values())),
            last_number=lambda: self.number,
            since=self._since,
            by=lambda *given: SimpleNamespace(found=()),
            last_by=lambda *given: None,
            identities=lambda members: {},
        )
        logs = SimpleNamespace(heads=dict)
        self.tables: Any = SimpleNamespace(
            proven=proven, logs=logs, cosignatures=SimpleNamespace(cosigned=self._no_checkpoint)
        )
        self.writer = True

    async def run(self, work: Callable[..., Any], *given: Any) -> Any:
        self.fails_at -= 1
        if self.fails_at == 0:
            raise Unavailable("the ledger does not answer", code="LEDGER-FAILED")
        return work(*given)

    read = run

    def look(self) -> bool:
        """As `LedgerFollower.look`."""
        self.number += 1
        return True

    def _since(self, number: int, predicates: Sequence[str], most: int) -> list[ProvenLine]:
        return [line for line in self.records if line.number > number] if "node-record" in predicates else []

    def _no_checkpoint(self, log: str) -> None:
        raise NotFound("no checkpoint")


class Rotating(Membership):
    """A membership that records whose rotations it was given: each costs signature checks."""

    asked: list[Digest]

    def rotate(self, identity: Digest, entries: Iterable[Entry], *, signed: SignatureCheck = KeySet.signed) -> bool:
        self.asked = [*getattr(self, "asked", []), identity]
        return super().rotate(identity, entries, signed=signed)


@dataclass
class FakeEpochs:
    """As `EpochStore`: `new` are the bodies that the writer stored since the last look."""

    new: list[Body] = field(default_factory=list)

    def reread(self) -> list[Body]:
        found, self.new = self.new, []
        return found


def followed(ledger: FakeLedger, members: Membership, epochs: FakeEpochs | None = None) -> FollowedNode:
    fakes: Any = ledger
    known: Any = epochs or FakeEpochs()
    return FollowedNode(fakes, fakes, members, known, Metrics(), lambda: 1_000.0, lambda: 5.0)


def record_line(number: int, entry: Entry, log: VerifierKey) -> ProvenLine:
    return ProvenLine(log.name, str(log), number, entry.line, number)


async def test_a_rotation_that_the_writer_proved_is_followed_once() -> None:
    members, ledger = Rotating(start().own_node, federation()), FakeLedger()
    front_end = followed(ledger, members)
    await front_end.first_look()
    assert len(members.keys(SG.id)) == 1
    for who in (SG, ES):
        new, entry = rotated(who)
        ledger.rotations[who.id] = [entry.line]
        await front_end.first_look()
        assert [keys.keys for keys in members.keys(who.id)][-1] == (new.public,)
    assert members.asked == [SG.id, ES.id]


async def test_a_node_whose_member_an_epoch_admits_later_is_read_then() -> None:
    members, ledger, epochs = start(), FakeLedger(), FakeEpochs()
    joining = node(BR)
    ledger.records = [record_line(1, joining.entry, joining.record.log)]
    front_end = followed(ledger, members, epochs)
    await front_end.first_look()
    assert members.peer(PeerKey.of(joining.record)) is None
    assert members.body is not None
    seats = [*members.body.members, *(found([joining]).body.members)]
    epochs.new = [draft(members.body, members=seats, policy=CharterPolicy(quorum(len(seats)), 1, 1, 0))]
    await front_end.first_look()
    assert members.peer(PeerKey.of(joining.record)) is not None
    assert members.body.epoch == 1


@pytest.mark.parametrize("call", range(2, 8))
async def test_reads_that_failed_are_repeated_at_the_next_look(call: int) -> None:
    members, ledger, epochs = start(), FakeLedger(), FakeEpochs()
    front_end = followed(ledger, members, epochs)
    await front_end.first_look()
    joining = node(BR)
    ledger.records = [record_line(1, joining.entry, joining.record.log)]
    assert members.body is not None
    seats = [*members.body.members, *(found([joining]).body.members)]
    epochs.new = [draft(members.body, members=seats, policy=CharterPolicy(quorum(len(seats)), 1, 1, 0))]
    ledger.fails_at = call
    with pytest.raises(Unavailable):
        await front_end.first_look()
    ledger.look = lambda: False  # type: ignore[method-assign]
    await front_end.first_look()
    assert members.peer(PeerKey.of(joining.record)) is not None


@pytest.mark.parametrize("code", ["LEDGER-REPLACED", "LEDGER-MOVED", "LEDGER-NEWER", "LEDGER-OLDER", "CHARTER-BRANCH"])
async def test_only_another_start_helps_after_some_errors(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    async def at_once(seconds: float) -> None:
        """Time passes without waiting."""

    ledger = FakeLedger()
    front_end = followed(ledger, start())
    await front_end.first_look()
    answers = iter([Unavailable("away", code="LEDGER-FAILED"), None, Unavailable("gone", code=code)])

    def next_answer() -> bool:
        failure = next(answers)
        if failure is not None:
            raise failure
        return True

    ledger.look = next_answer  # type: ignore[method-assign]
    monkeypatch.setattr("comity.node.front_end.asyncio.sleep", at_once)
    with pytest.raises(Unavailable) as caught:
        await front_end.run()
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (ShownAge(True, 0.5, 86_400), ""),
        (ShownAge(True, SILENT_SECONDS, 86_400), ""),
        (ShownAge(True, SILENT_SECONDS + 1, 86_400), "its ledger does not answer"),
        (ShownAge(False, 0.5, 86_400), "the writer of this node does not run"),
    ],
)
def test_outdated_data_has_a_warning_with_the_time_of_the_last_checkpoint(age: ShownAge, said: str) -> None:
    text = warning(age)
    assert bool(text) == bool(said)
    if said:
        assert said in text and "1970-01-02 00:00:00 UTC" in text
        assert text.isascii() and text.startswith("age; ")
    assert "1970" not in warning(ShownAge(age.writer, age.looked, 0))


@pytest.mark.parametrize(("cache", "warned"), [(b"public, max-age=1", True), (b"max-age=9, immutable", False)])
async def test_immutable_answers_have_no_warning(cache: bytes, warned: bool) -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"cache-control", cache)]})

    async def send(message: Any) -> None:
        sent.append(message)

    unused: Any = None
    await AgeWarning(app, lambda: ShownAge(False, 0.0, 0))({"type": "http"}, unused, send)
    assert (b"x-hf-warning" in dict(sent[0]["headers"])) == warned


def loaded(folder: Path, text: str = HOME) -> NodeConfig:
    (folder / "node.toml").write_text(text)
    return NodeConfig.load(folder / "node.toml", environ={})


def test_a_front_end_fetches_nothing_and_keeps_its_files_apart(tmp_path: Path) -> None:
    config = front_end_settings(loaded(tmp_path))
    gateway = config.gateway
    assert (gateway.cold, gateway.console, gateway.files, gateway.ranges) == ("off", True, "", "")
    assert config.storage.ledger.parent == tmp_path / "data" / "front-end"


def test_a_home_of_a_front_end_is_not_opened_as_a_writer(tmp_path: Path) -> None:
    with pytest.raises(Malformed) as caught:
        OpenedHome.open(loaded(tmp_path), lambda: 0.0)
    assert "front-end" in caught.value.why


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("", "ask the writer of this node"),
        ('[advertise]\nmutual = ["node.example:7443"]\n', "ask the writer of this node: node.example:7443"),
    ],
)
def test_a_refusal_says_where_the_writer_is(tmp_path: Path, more: str, where: str) -> None:
    assert WriterOnly.of(loaded(tmp_path, HOME + more)).refusal().hint == where
    named = HOME.replace('role = "front-end"', 'role = "front-end"\nwriter = "inner.example:1"')
    assert WriterOnly.of(loaded(tmp_path, named + more)).refusal().hint.endswith(": inner.example:1")


def test_every_service_that_is_not_served_is_refused_and_others_are_unknown() -> None:
    modules = [importlib.import_module(f"comity.v1.{found.name}") for found in pkgutil.iter_modules(v1.__path__)]
    known = {
        service.full_name
        for module in modules
        if hasattr(module, "DESCRIPTOR")
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    assert known == SERVICES
    refused = RefusedServices(SERVICES, WriterOnly("").refusal)

    def handled(method: str) -> bool:
        details: Any = SimpleNamespace(method=method, invocation_metadata=())
        return refused.service(details) is not None

    assert all(handled(f"/{service}/AnyCall") for service in known)
    assert not any(handled(f"/{service}/AnyCall") for service in ("comity.v2.LogService", "grpc.health.v1.Health", ""))


async def test_votes_and_drafts_are_at_the_writer() -> None:
    ledger: Any = FakeLedger()
    charter = CharterEpochs(ledger, None, WriterOnly("inner.example:1"))
    for calls in (charter.next_epoch_entries(None), charter.asks()):
        with pytest.raises(Refused) as caught:
            await anext(calls)
        assert caught.value.code == "FRONT-END"
    with pytest.raises(NotFound):
        await anext(charter.epochs(0))
