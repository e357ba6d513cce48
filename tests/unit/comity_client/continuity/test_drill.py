"""The drill against a federation of fake nodes: who is asked, what runs, and at which link it fails, in words."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from comity.rules.continuity.drill_report import PULL, RESTORE, SERVE, DrillReport
from comity.rules.continuity.plan import (
    ContinuityPlan,
    DemandedCopies,
    DemandedEvaluation,
    ExternalService,
    Fallback,
    KitReference,
    OwnMachine,
    Service,
)
from comity.rules.parties import Party
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound
from comity.trust.policy import SafetyRule
from comity_client.client import Client
from comity_client.continuity.drill import DrillOrder, order_drill, rehearse
from comity_client.home import Home
from comity_client.kits.engine import RunningEngine
from support.fakes import FakeFederation, release
from support.small_kit import CAPITAL, SUM, WRONG, write_small_kit

CH = Party("reach", "CH")
NAME = "swiss-ai/small-chat@v1"


@dataclass
class Rehearsal:
    """A federation, a user who pinned it, and what the user's drills say."""

    federation: FakeFederation
    api: Client
    folder: Path
    artifact: str = ""

    def publish(self, mode: str = "good", **of: Any) -> None:
        """Publish a small kit, which every node holds."""
        kit = self.folder / "kit"
        write_small_kit(kit, mode, **of)
        files = {str(path.relative_to(kit)): path.read_bytes() for path in kit.rglob("*") if path.is_file()}
        made = release(self.folder / "source", files, by=self.federation.publisher, name=NAME)
        self.federation.publish(made)
        self.artifact = made.published.artifact

    def order(self, *, cut: tuple[Party, ...] = (CH,), at_least: str = "") -> DrillOrder:
        evaluation = DemandedEvaluation(sha256(b"by"), "letters", "pass_rate", at_least, 9) if at_least else None
        fallback = Fallback(
            KitReference(NAME, sha256(b"") if not self.artifact else self.api.resolve(NAME).artifact),
            OwnMachine(1 << 30, 1 << 30, 0, "linux/x86_64"),
            DemandedCopies(1, 7),
            checked_within_days=7,
            drilled_within_days=90,
            evaluation=evaluation,
        )
        service = Service("chat", ExternalService("Example AI", "CH"), (), cut, 60, (fallback,))
        plan = ContinuityPlan(sha256(b"owner"), "Ministry", date(2030, 1, 1), (service,), sha256(b"plan"))
        policy = replace(self.api.policy(), safety=SafetyRule(paths=("wheels/*", "engine/*")))
        return replace(order_drill(plan, "chat", 1), policy=policy)

    def drill(self, **of: Any) -> DrillReport:
        order = self.order(**of)
        return rehearse(self.api, order, on_phase=lambda phase: None, on_event=lambda event: None)


@pytest.fixture
def rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearsal]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with FakeFederation().running() as federation:
        api = Client(Home(tmp_path / "home"))
        pinned = tmp_path / "federation.json"
        pinned.write_bytes(federation.file())
        api.pin(pinned)
        yield Rehearsal(federation, api, tmp_path)


def test_a_kit_answers_while_no_node_of_the_cut_party_is_asked(rehearsal: Rehearsal) -> None:
    rehearsal.publish(selftest=(CAPITAL, SUM), samples=(CAPITAL, SUM, WRONG))
    order, served = rehearsal.order(at_least="0.6"), list[str]()

    def serve(engine: RunningEngine) -> asyncio.Future[None]:
        served.append(engine.base_url)
        until = asyncio.get_running_loop().create_future()
        until.set_result(None)
        return until

    fallen = next(fake for fake in rehearsal.federation.nodes if "-ch." in fake.node.record.name)
    before = fallen.reads
    report = rehearse(rehearsal.api, order, serve=serve, on_phase=lambda phase: None, on_event=lambda event: None)
    assert (report.reason, report.passed) == ("", True)
    serving = report.phase(SERVE)
    assert serving is not None and served[0] in serving.said
    assert [left.node for left in report.left_out] == [fallen.node.record.name]
    assert len(report.asked) == 3 and fallen.reads == before
    assert report.answered is not None and report.quality is not None and report.answered <= report.quality
    assert (report.self_test.asked, report.samples.passed, report.samples.failed) == (2, 2, ("poet",))
    assert "network namespace" in report.isolation
    assert report.before.partition("\n")[0] in {f"{node}/log" for node in report.asked}
    assert DrillReport.parse(report.encode()) == report


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kit", "of", "phase", "why"),
    [
        ({"mode": "exit"}, {}, "start", "no weights here"),
        ({"selftest": (WRONG,)}, {}, "self-test", "0 of 1 answers"),
        ({"samples": (CAPITAL, WRONG)}, {"at_least": "0.9"}, "samples", "poet failed"),
        ({}, {"at_least": "0.9"}, "samples", "samples.json"),
        ({"others": {"wheels/small_words-1.0-py3-none-any.whl": b"no wheel"}}, {}, "install", "small_words"),
    ],
)
def test_a_drill_fails_at_the_first_link_that_fails(
    rehearsal: Rehearsal, kit: Mapping[str, Any], of: Mapping[str, Any], phase: str, why: str
) -> None:
    rehearsal.publish(**kit)
    report = rehearsal.drill(**of)
    failed = [each for each in report.phases if not each.passed]
    assert [each.phase for each in failed] == [phase]
    assert why in report.reason and report.reason == failed[0].said
    assert report.phases[-1].phase == RESTORE, "what was started has ended"


def test_a_kit_that_nobody_left_has_is_not_pulled(rehearsal: Rehearsal) -> None:
    rehearsal.publish()
    order = rehearsal.order()
    for fake in rehearsal.federation.nodes:
        if "-ch." not in fake.node.record.name:
            rehearsal.federation.kill(fake.node.record.name)
    report = rehearse(rehearsal.api, order, on_phase=lambda phase: None, on_event=lambda event: None)
    assert not report.passed and [each.phase for each in report.phases if not each.passed] == [PULL]


def test_a_party_that_takes_every_node_ends_the_drill_at_once(rehearsal: Rehearsal) -> None:
    rehearsal.publish()
    report = rehearsal.drill(cut=tuple(Party("jurisdiction", code) for code in ("CH", "SG", "ES", "KR")))
    assert "every node" in report.reason and [each.phase for each in report.phases] == ["cut", RESTORE]


def test_an_unknown_service_or_fallback_is_refused(rehearsal: Rehearsal) -> None:
    plan = rehearsal.order().plan
    for service, fallback in (("search", 1), ("chat", 2), ("chat", 0)):
        with pytest.raises(NotFound) as caught:
            order_drill(plan, service, fallback)
        assert caught.value.code == "DRILL-SERVICE"
