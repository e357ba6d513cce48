"""The drill against a federation of fake nodes: who is asked, what runs, and at which link it fails, in words."""

from __future__ import annotations

import asyncio
import itertools
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from comity.rules.continuity.drill_report import PULL, RESTORE, SERVE, DrillReport
from comity.rules.continuity.links import LINK_KINDS
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
from comity.rules.kits.description import KIT_FILE, LOCK_FILE
from comity.rules.parties import Party
from comity.trust.encoding import sha256
from comity.trust.errors import NotFound
from comity.trust.policy import SafetyRule
from comity_client.client import Client
from comity_client.continuity.drill import DrillOrder, _Phases, order_drill, rehearse
from comity_client.home import Home
from comity_client.kits.engine import RunningEngine
from support.fakes import FakeFederation, release
from support.small_kit import CAPITAL, SUM, WHEEL, WRONG, write_small_kit

CH = Party("reach", "CH")
OTHER_ARCH = "aarch64" if platform.machine() == "x86_64" else "x86_64"
NAME = "swiss-ai/small-chat@v1"


def locked(wheel: bytes) -> bytes:
    return f"small-words==1.0 --hash=sha256:{sha256(wheel)}\n".encode()


@dataclass
class Rehearsal:
    """A federation, a user who pinned it, and what the user's drills say."""

    federation: FakeFederation
    api: Client
    folder: Path
    artifact: str = ""

    def publish(
        self, mode: str = "good", *, arch: str = "any", described: bytes = b"", unpublished: str = "", **of: Any
    ) -> None:
        """Publish a small kit for machines of `arch`, without the file `unpublished`. Every node holds it. `described`
        takes the place of its `kit.json`."""
        kit = self.folder / "kit"
        made = write_small_kit(kit, mode, **of)
        (kit / KIT_FILE).write_bytes(described or replace(made, platform=replace(made.platform, arch=arch)).encode())
        (kit / unpublished).unlink() if unpublished else None
        files = {str(path.relative_to(kit)): path.read_bytes() for path in kit.rglob("*") if path.is_file()}
        published = release(self.folder / "source", files, by=self.federation.publisher, name=NAME)
        self.federation.publish(published)
        self.artifact = published.published.artifact

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
        return replace(order_drill(plan, "chat", 1, lambda cut: ()), policy=policy)

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


@pytest.mark.slow
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
    ("kit", "of", "phase", "link", "why"),
    [
        ({"mode": "exit"}, {}, "start", "check-failed", "no weights here"),
        ({"selftest": (WRONG,)}, {}, "self-test", "check-failed", "0 of 1 answers"),
        ({"samples": (CAPITAL, WRONG)}, {"at_least": "0.9"}, "samples", "evaluation-below", "poet failed"),
        ({}, {"at_least": "0.9"}, "samples", "parts-wrong", "samples.json"),
        ({"others": {WHEEL: b"no wheel"}}, {}, "check", "package-index-in-the-way", "small-words 1.0: no wheel has"),
        ({"others": {LOCK_FILE: b"small-words==1.0"}}, {}, "check", "package-index-in-the-way", "has no hash"),
        (
            {"others": {WHEEL: b"none", LOCK_FILE: locked(b"none")}},
            {},
            "install",
            "check-failed",
            "small_words",
        ),
        ({"arch": OTHER_ARCH}, {}, "install", "platform-other", OTHER_ARCH),
        ({"unpublished": WHEEL}, {}, "check", "parts-wrong", f"{WHEEL} is missing"),
        ({"described": b"{}"}, {}, "check", "kit-unreadable", "cannot be used"),
        ({"unpublished": KIT_FILE}, {}, "check", "not-a-kit", KIT_FILE),
        ({}, {"slow": True}, "self-test", "drill-slow", "60 min are allowed"),
    ],
)
def test_a_drill_fails_at_the_first_link_that_fails(
    rehearsal: Rehearsal,
    monkeypatch: pytest.MonkeyPatch,
    kit: Mapping[str, Any],
    of: Mapping[str, Any],
    phase: str,
    link: str,
    why: str,
) -> None:
    rehearsal.publish(**kit)
    if of.get("slow"):
        asked = itertools.count()
        monkeypatch.setattr(_Phases, "now", lambda self: next(asked) * 600_000)
    report = rehearsal.drill(**{name: value for name, value in of.items() if name != "slow"})
    failed = [each for each in report.phases if not each.passed]
    assert [(each.phase, report.link) for each in failed] == [(phase, link)]
    assert why in report.reason and report.reason == failed[0].said and report.reason.startswith(LINK_KINDS[link].means)
    assert report.phases[-1].phase == RESTORE, "what was started has ended"


def test_a_kit_that_nobody_left_has_is_not_pulled(rehearsal: Rehearsal) -> None:
    rehearsal.publish()
    order = rehearsal.order()
    for fake in rehearsal.federation.nodes:
        if "-ch." not in fake.node.record.name:
            rehearsal.federation.kill(fake.node.record.name)
    report = rehearse(rehearsal.api, order, on_phase=lambda phase: None, on_event=lambda event: None)
    assert (report.link, [each.phase for each in report.phases if not each.passed]) == ("copies-silent", [PULL])


def test_a_party_that_takes_every_node_ends_the_drill_at_once(rehearsal: Rehearsal) -> None:
    rehearsal.publish()
    report = rehearsal.drill(cut=tuple(Party("jurisdiction", code) for code in ("CH", "SG", "ES", "KR")))
    assert (
        "every node" in report.reason
        and report.link == "nodes-silent"
        and [each.phase for each in report.phases] == ["cut", RESTORE]
    )


def test_an_unknown_service_or_fallback_is_refused(rehearsal: Rehearsal) -> None:
    plan = rehearsal.order().plan
    for service, fallback in (("search", 1), ("chat", 2), ("chat", 0)):
        with pytest.raises(NotFound) as caught:
            order_drill(plan, service, fallback, lambda cut: ())
        assert caught.value.code == "DRILL-SERVICE"
