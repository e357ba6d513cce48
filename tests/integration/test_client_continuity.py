"""A plan is checked at nodes of a federation: what they say of a kit is found, each link with how it is known."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comity.content.kept_plan_checks import KeptPlanCheck, kept_plan_checks
from comity.rules.continuity.facts import PastCheck, PastDrill
from comity.rules.kits.description import KIT_FILE, KitWeightFile, KitWeights
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Conflict, Malformed, NotFound, Unavailable
from comity.trust.evaluation import EvaluationCriteria, EvaluationResults, Threshold
from comity_cli.commands.continuity import command
from comity_cli.commands.continuity_plan import EXIT, checker_of
from comity_client import webhook_events
from comity_client.approving import ApprovalEnding, ApprovalTerms
from comity_client.client import Client
from comity_client.continuity.gather import ContinuityChecker
from comity_client.continuity.kit_facts import kit_facts
from comity_client.home import Home
from comity_client.publishers import Publisher
from support.fakes import FakeFederation
from support.kits import WEIGHT_FILE, a_kit
from support.run_command import printed, refused, run, said
from support.webhook_receiver import receiving

NAME, SCOPE, DAY = "lab/chat@v1", "ministry-interior", 86_400
LOCK = "requirements.lock"
NOW = int(time.time())


@pytest.fixture
def client(tmp_path: Path, federation: FakeFederation, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(webhook_events, "PAUSES", (0.0,))
    client = Client(Home(tmp_path / "home"))
    client.pin(federation.file({}))
    return client


@pytest.fixture
def owner(client: Client) -> Publisher:
    return client.new_publisher("Ministry", "CH", "node-ch.example/log")


def kit_folder(folder: Path) -> Path:
    """A kit whose files have their paths as their content, but for the lock, which names the one wheel."""
    kit = a_kit()
    wheel = next(part for part in kit.parts if part.path.startswith("wheels/"))
    lock = f"engine==1.0 \\\n    --hash=sha256:{wheel.sha256}\n".encode()
    parts = tuple(
        replace(part, sha256=sha256(lock), size=len(lock)) if part.path == LOCK else part for part in kit.parts
    )
    kit = replace(kit, parts=parts, weights=(KitWeights("", "", (KitWeightFile(WEIGHT_FILE, "tiny.gguf"),)),))
    for part in kit.parts:
        path = folder / part.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lock if part.path == LOCK else part.path.encode())
    (folder / KIT_FILE).write_bytes(kit.encode())
    return folder


@pytest.fixture
def kit(tmp_path: Path, client: Client, owner: Publisher) -> Digest:
    return client.publish(kit_folder(tmp_path / "kit"), NAME, publisher=owner, licence="Apache-2.0").artifact


@pytest.fixture
def plan(tmp_path: Path, client: Client, owner: Publisher, kit: Digest) -> Path:
    """A plan that names a policy, its kit, and its evaluator and officer: the owner."""
    (tmp_path / "federation.json").write_bytes(client.pins()[0].federation.encode())
    pins = 'schema = "comity/policy/v1"\n[[pin]]\nfile = "federation.json"\n'
    policy = f'{pins}[publishers]\naccept = ["{owner.id}"]\n[safety]\nallow = ["wheels/*", "engine/*", "weights/*"]\n'
    (tmp_path / "policy.toml").write_text(policy + '[rows]\nrequire = ["artifact", "bytes", "signatures"]\n')
    file = tmp_path / "plan.toml"
    file.write_text(
        f"""\
schema = "comity/continuity-plan/v1"
owner = "{owner.id}"
name = "Ministry"
until = 2999-12-31
[policy]
file = "policy.toml"
sha256 = "{sha256((tmp_path / "policy.toml").read_bytes())}"
[[service]]
name = "chat"
in_use = {{ kind = "external", vendor = "Example AI Inc.", jurisdiction = "US" }}
must_survive = ["jurisdiction:US", "dns"]
longest_outage = 60
[[service.fallback]]
kit = {{ name = "{NAME}", artifact = "{kit}" }}
evaluation = {{ by = "{owner.id}", suite = "letters", metric = "pass_rate", at_least = "0.9", within_days = 180 }}
approval = {{ scope = "{SCOPE}", by = ["{owner.id}"] }}
machines = {{ own = {{ memory_gib = 8, disk_gib = 20, platform = "linux/x86_64" }} }}
copies = {{ outside = 1, tested_within_days = 7 }}
checked_within_days = 7
drilled_within_days = 90
"""
    )
    return file


def evaluate(client: Client, owner: Publisher, folder: Path, value: str) -> None:
    """Announced first, at the same node as the result."""
    criteria = EvaluationCriteria("letters", "1", (Threshold("pass_rate", ">=", "0.9"),), 10, "0" * 32)
    client.announce_evaluation(NAME, criteria.digest, by=owner)
    (folder / "results.json").write_bytes(EvaluationResults(criteria, (value,), int(time.time())).encode())
    client.vouch(NAME, "evaluated", document=folder / "results.json", by=owner)


def approve(client: Client, owner: Publisher) -> None:
    now = int(time.time())
    approvals = client.approvals()
    approvals.approve(approvals.subject(NAME), ApprovalTerms(SCOPE, now - DAY, now + 90 * DAY), by=owner)


def links(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The links of the only service and its fallback that do not hold, by kind."""
    (service,) = document["services"]
    every = [*service["links"], *service["fallbacks"][0]["links"]]
    return {link["kind"]: link for link in every if link["state"] != "green"}


def held(document: dict[str, Any]) -> dict[str, str]:
    """How each subject that holds is known."""
    (service,) = document["services"]
    every = [*service["links"], *service["fallbacks"][0]["links"]]
    return {link["subject"]: link["basis"] for link in every if link["state"] == "green"}


def test_what_nodes_say_of_a_kit_is_found_and_each_gap_is_named(
    tmp_path: Path, client: Client, owner: Publisher, plan: Path
) -> None:
    before = links(printed(command, "check", plan, status=10))
    assert {"plan-unsigned", "evaluation-missing", "approval-missing", "never-checked", "never-drilled"} <= set(before)
    said(command, "sign", plan)
    evaluate(client, owner, tmp_path, "0.95")
    approve(client, owner)
    document = printed(command, "check", plan, status=10)
    assert set(links(document)) == {"never-checked", "never-drilled", "copies-untested"}
    assert held(document) == {
        "plan": "verified here",
        "kit": "verified here",
        "parts": "verified here",
        "evaluation": "claimed",
        "approval": "verified here",
        "machines": "claimed",
    }
    assert links(document)["never-checked"]["hint"].startswith("comity kit check sha256:")
    client.approvals().end(client.approvals().subject(NAME), ApprovalEnding(SCOPE, int(time.time()) - 5, ""), by=owner)
    assert "ended-approval" in links(printed(command, "check", plan, status=10))


def test_a_later_warning_and_a_later_result_are_found(
    tmp_path: Path, client: Client, owner: Publisher, plan: Path
) -> None:
    evaluate(client, owner, tmp_path, "0.5")
    client.advise(NAME, "yank", "low", "it answers in the wrong language", publisher=owner)
    assert {"evaluation-below", "kit-withdrawn"} <= set(links(printed(command, "check", plan, status=10)))


def test_a_changed_plan_and_a_changed_policy_are_named(plan: Path) -> None:
    said(command, "sign", plan)
    policy = plan.with_name("policy.toml")
    policy.write_bytes(policy.read_bytes() + b"# looser\n")
    assert "policy-changed" in links(printed(command, "check", plan, status=10))
    assert "another policy" in str(refused(command, "sign", plan))
    plan.write_text(plan.read_text().replace("longest_outage = 60", "longest_outage = 61"))
    assert {"policy-changed", "plan-changed"} <= set(links(printed(command, "check", plan, status=10)))


def test_a_kit_that_no_node_knows_is_red_and_silent_nodes_are_no_answer(
    client: Client, federation: FakeFederation, plan: Path, kit: Digest
) -> None:
    plan.write_text(plan.read_text().replace(kit, "ab" * 32))
    assert "kit-unknown" in links(printed(command, "check", plan, status=10))
    for node in federation.nodes:
        federation.kill(node.node.record.name)
    assert isinstance(refused(command, "check", plan), Unavailable)


def test_a_receiver_is_told_once_of_each_colour(tmp_path: Path, plan: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + "A" * 43 + "=")
    secret.chmod(0o600)
    words = ("check", plan, "--secret", secret, "--notify")
    with receiving(500) as down:
        document = printed(command, *words, down.url, status=10)
        assert document["told"] == [] and "500" in document["untold_because"]
    with receiving() as receiver:
        assert printed(command, *words, receiver.url, status=10)["told"] == ["chat"]
        assert printed(command, *words, receiver.url, status=10)["told"] == []
    ((_, body),) = receiver.got
    event = json.loads(body)
    (service,) = event["data"]["services"]
    assert (event["type"], service["before"], service["now"]) == ("dev.comity.continuity.v1", "green", "red")


def test_a_page_and_metrics_are_written(tmp_path: Path, plan: Path) -> None:
    page, metrics = tmp_path / "page.html", tmp_path / "file.prom"
    run(command, "check", plan, "--html", page, "--metrics", metrics)
    text = page.read_text()
    assert "<script" not in text and NAME in text and "the kit was never checked on this machine" in text
    assert 'comity_continuity_service_state{service="chat"} 2' in metrics.read_text()


def test_the_result_is_kept_in_the_home_of_a_node_and_nowhere_else(tmp_path: Path, plan: Path) -> None:
    node = tmp_path / "node"
    node.mkdir()
    assert refused(command, "check", plan, "--keep", node).code == "NO-HOME"
    (node / "node.toml").touch()
    document = printed(command, "check", plan, "--keep", node, status=10)
    (kept,) = kept_plan_checks(node)
    assert isinstance(kept, KeptPlanCheck) and document["kept"] == str(next((node / "continuity").iterdir()))
    assert (kept.plan, kept.signer, kept.services[0].state) == (document["plan"], None, "red")
    assert "plan-unsigned" in [link.kind for link in kept.missing]


def test_a_plan_is_begun_filled_in_and_shown(
    tmp_path: Path, federation: FakeFederation, owner: Publisher, kit: Digest
) -> None:
    file = tmp_path / "new.toml"
    document = printed(command, "new", "--as", "Ministry", "--service", "chat", "--kit", NAME, "--out", file)
    assert document["owner"] == owner.id and kit in file.read_text() and NAME in file.read_text()
    assert isinstance(refused(command, "new", "--as", "Ministry", "--service", "chat", "--out", file), Conflict)
    assert isinstance(refused(command, "check", file), Malformed)
    text = file.read_text()
    for line in ("evaluation = ", "approval = "):
        text = "\n".join(each for each in text.splitlines() if not each.startswith(line)) + "\n"
    file.write_text(text.replace("REPLACE-THIS", "somebody"))
    assert printed(command, "show", file)["services"][0]["kits"] == [NAME]
    said(command, "sign", file, "--node", federation.nodes[0].node.record.name)


def test_only_its_owner_signs_a_plan(client: Client, plan: Path, owner: Publisher) -> None:
    plan.write_text(plan.read_text().replace(f'owner = "{owner.id}"', f'owner = "{"ab" * 32}"'))
    assert isinstance(refused(command, "sign", plan), NotFound)


def test_drills_and_checks_that_are_kept_count_and_the_rest_is_asked_again(
    client: Client, owner: Publisher, plan: Path
) -> None:
    """From Python: what was tried is asked by the digest of `kit.json`, and by the service."""

    class Tried:
        def __init__(self) -> None:
            self.asked: list[object] = []

        def check(self, kit: Digest) -> PastCheck:
            self.asked.append(kit)
            return PastCheck("passed", NOW, NOW)

        def drill(self, service: str, artifact: Digest) -> PastDrill:
            self.asked.append((service, artifact))
            return PastDrill(True, NOW, 61, "", checker.plan.digest, checker.plan.services[0].must_survive)

    said(command, "sign", plan)
    tried, checker = Tried(), checker_of(client, plan, None)
    found = replace(checker, past=tried).check().services[0]
    assert isinstance(checker, ContinuityChecker) and found.chosen.minutes == 2
    (fallback,) = checker.plan.services[0].fallbacks
    facts = client.user.run(
        lambda session: kit_facts(client.user, session, fallback, checker.policy, NOW, checker.read_lock)
    )
    assert facts is not None and tried.asked == [facts.description, ("chat", fallback.kit.artifact)]
    assert {"never-checked", "never-drilled"}.isdisjoint(link.kind for link in found.problems)
    assert EXIT[found.state] == 10


@pytest.mark.slow
def test_a_drill_ends_at_the_link_that_the_check_names_and_in_its_words(
    tmp_path: Path, client: Client, owner: Publisher, plan: Path
) -> None:
    def drilled() -> dict[str, Any]:
        report = printed(command, "drill", "chat", "--plan", plan, "--out", tmp_path / "drill.json", status=1)["report"]
        assert isinstance(report, dict)
        return report

    def check() -> dict[str, dict[str, Any]]:
        return links(printed(command, "check", plan, status=10))

    before, report = check(), drilled()
    assert report["link"] == "evaluation-missing" and report["reason"].startswith(before["evaluation-missing"]["text"])
    assert {each["link"] for each in report["findings"]} == set(before)
    assert [each["phase"] for each in report["phases"]] == ["cut", "plan", "restore"]
    said(command, "sign", plan)
    evaluate(client, owner, tmp_path, "0.95")
    approve(client, owner)
    report = drilled()
    assert [each["phase"] for each in report["phases"]][:3] == ["cut", "plan", "pull"] and not report["passed"]
    client.approvals().end(client.approvals().subject(NAME), ApprovalEnding(SCOPE, int(time.time()) - 5, ""), by=owner)
    assert drilled()["link"] == "ended-approval"
    client.advise(NAME, "yank", "low", "it answers in the wrong language", publisher=owner)
    assert (drilled()["link"], "ended-approval" in drilled()["reason"]) == ("kit-withdrawn", True)
    assert check()["drill-failed"]["text"].endswith(drilled()["reason"])
