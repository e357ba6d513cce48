"""Policy files: explained row by row, checked for rules that can never pass, and one to start from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from comity.trust.encoding import sha256
from comity.trust.errors import Conflict
from comity.trust.policy import (
    DEFAULT_REQUIRED,
    CosignerRule,
    Freshness,
    LineageRule,
    Policy,
    SafetyRule,
    UpstreamRule,
    most_cosigners,
)
from comity.trust.policy_file import parse_policy
from comity.trust.verify import verify
from comity_cli.main import command
from comity_client.client import Client
from comity_client.home import Home
from comity_client.policy_text import explain, findings
from comity_client.trust_store import TrustPin
from hypothesis import given, settings
from hypothesis import strategies as st
from support.case import case, nodes
from support.examples import examples
from support.world import found, identity

GOOD = case()
ALL = GOOD.policy
SWISS_AI, OTHER = identity("Swiss AI", "CH").id, identity("Other").id
STRICT = replace(
    ALL,
    bindings={"swiss-ai": SWISS_AI},
    rotations={SWISS_AI: sha256(b"rotation")},
    cosigners=CosignerRule(3, 2, ("publisher", "US"), post_quantum=True),
    refuse_from=frozenset({OTHER}),
    safety=SafetyRule(paths=("lib/*.py",), formats=frozenset({"safetensors"})),
    documents=("card",),
    upstream=UpstreamRule(2),
    freshness=Freshness(1_795_000_000, 7 * 86_400),
    lineage=LineageRule(by_digest=True, no_conflicts=True),
    require=("artifact", "bytes", "signatures", "transparency", "cosigners", "licence"),
)
GOLDEN = f"""\
Pinned members  [pin]
  Only these members count, as epoch 0 of federation {ALL.pins[0].federation[:16]} lists them: Institute CH (CH), \
Institute SG (SG), Institute ES (ES), Institute KR (KR). The charter is pinned to body {ALL.pins[0].digest[:16]}; \
charters that come with an artifact are ignored.
Accepted publishers  [publishers]
  Only models of these publishers are accepted, under any name: {SWISS_AI[:16]}.
  swiss-ai/… belongs to publisher {SWISS_AI[:16]}.
  The names do not affect acceptance while accept lists publishers.
  For publisher {SWISS_AI[:16]} rotation {sha256(b"rotation")[:16]} is pinned: signatures of older keys count only if \
they were logged before it.
  What a publisher signed after its key was lost, as it says itself, is refused.
Required cosigners  [cosigners]
  At least 3 members other than the operator of the log must have cosigned the log with the statement.
  They must be in at least 2 jurisdictions.
  Members in the jurisdiction of the publisher, or of the operator of the log, do not count.
  Members in these jurisdictions, or that declare to be in reach of their law, do not count: US.
  Only signatures that are secure without classical cryptography count.
Licences  [licences]
  The licence that the publisher claims must be one of: apache-2.0.
Lineage  [lineage]
  A parent that is named without a digest fails the row lineage.
  Licences that conflict along the lineage, as claimed, fail the row lineage.
Executable content  [safety]
  Files with executable content, or with invalid headers, are refused.
  Accepted nevertheless: chat-template, a Jinja template that formats every conversation.
  Accepted with any content: lib/*.py.
  Only files of these formats are accepted: safetensors.
Documents  [documents]
  The publisher must name these documents, and they must be here: card.
Approvals of officers  [approvals]
  No approval is required.
Mirrored artifacts without a publication  [upstream]
  An artifact that no accepted publisher published counts if nodes of 2 members mirrored the same bytes from one \
commit of its upstream.
Advisories  [advisories]
  An advisory by one of these refuses the artifact: {OTHER[:16]}. Others are only shown.
Freshness  [time]
  Evaluated as of 2026-11-18T11:06:40Z: cosignatures must be from the 7 days before. No clock is read: update this \
date when you review the policy.
Rows that must pass  [rows]
  Required to pass: artifact (What is it); bytes (Are these the bytes that were published); signatures (Is there \
a valid signature of a publisher); transparency (Is it in a public log); cosigners (Who cosigned that log); licence \
(Under which licence is it).
"""


def told(policy: Policy) -> str:
    lines = [
        line for rule in explain(policy) for line in (f"{rule.title}  [{rule.table}]", *(f"  {s}" for s in rule.says))
    ]
    return "\n".join(line for line in lines if not line.startswith("  Only shown"))


def test_a_strict_policy_is_explained_word_for_word() -> None:
    assert told(STRICT) == GOLDEN.rstrip("\n")


def test_rules_that_a_policy_leaves_out_are_named_too() -> None:
    text = told(Policy(cosigners=CosignerRule(0)))
    for words in (
        "No federation is pinned",
        "No publisher is listed",
        "No cosignature by another member",
        "Any licence",
    ):
        assert words in text
    for words in (
        "Advisories are only shown",
        "The lineage is only shown",
        "The age of the evidence is not limited",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("policy", "row", "why"),
    [
        (replace(ALL, pins=()), "cosigners", "no charter is pinned"),
        (replace(ALL, cosigners=CosignerRule(4)), "cosigners", "at most 3 in 3"),
        (replace(ALL, cosigners=CosignerRule(3, outside=("ES",))), "cosigners", "at most 3 in 3"),
        (replace(ALL, cosigners=CosignerRule(1, 4)), "cosigners", "at most 3 in 3"),
        (
            replace(ALL, publishers=frozenset(), pins=(found(nodes()).body,), require=("key policy",)),
            "key policy",
            "no publisher is named",
        ),
    ],
)
def test_rules_that_can_never_pass_are_found(policy: Policy, row: str, why: str) -> None:
    never = [each for each in findings(policy) if each.kind == "never"]
    if "ES" in policy.cosigners.outside:
        assert never == []  # the log of the one who is excluded leaves the three others
    else:
        assert [(each.row, why in each.text) for each in never if each.row == row] == [(row, True)]


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (replace(ALL, bindings={"other": OTHER}), "does not list"),
        (replace(ALL, rotations={OTHER: sha256(b"r")}), "which is not accepted"),
        (replace(ALL, cosigners=CosignerRule(2, 0, ("US",))), "which has no pinned member"),
        (replace(ALL, require=DEFAULT_REQUIRED), "rows.require does not list licence"),
        (replace(ALL, lineage=LineageRule(by_digest=True)), "rows.require does not list lineage"),
    ],
)
def test_rules_without_effect_are_found(policy: Policy, words: str) -> None:
    assert any(words in each.text for each in findings(policy) if each.kind == "idle")


@given(
    at_least=st.integers(0, 5),
    jurisdictions=st.integers(0, 5),
    outside=st.lists(st.sampled_from(["publisher", "CH", "SG", "ES", "KR", "US"]), unique=True).map(tuple),
)
@settings(max_examples=examples(60))
def test_a_rule_that_is_reported_as_impossible_is_never_met(
    at_least: int, jurisdictions: int, outside: tuple[str, ...]
) -> None:
    policy = replace(ALL, cosigners=CosignerRule(at_least, jurisdictions, outside))
    if most_cosigners(policy.cosigners, policy.pins) is not None:
        assert verify(GOOD.evidence, policy).row("cosigners").state != "pass"


# The command


def comity(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments], standalone_mode=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    return Client(Home.default())


def test_a_new_policy_has_the_users_pins_and_can_be_met(home: Client, tmp_path: Path) -> None:
    home.pin(GOOD.federation.encode())
    file = tmp_path / "carried" / "ministry.toml"
    file.parent.mkdir()
    assert comity("policy", "new", "--out", file).exception is None
    policy = home.policy(file)
    assert [body.digest for body in policy.pins] == [GOOD.federation.body.digest]
    checked = comity("policy", "check", file, "--json")
    assert checked.return_value == 0
    assert json.loads(checked.stdout)["can_be_met"] is True
    assert verify(GOOD.evidence, policy).exit_status == 0
    again = comity("policy", "new", "--out", file)
    assert again.exception is not None
    assert "exists" in str(again.exception)


def test_a_second_policy_beside_the_first_shares_its_federation_file(home: Client, tmp_path: Path) -> None:
    pin = home.pin(GOOD.federation.encode())
    federation = tmp_path / f"federation-{pin.id[:8]}.json"
    for name in ("first.toml", "second.toml"):
        assert comity("policy", "new", "--out", tmp_path / name).exception is None
    assert home.policy(tmp_path / "second.toml").pins == home.policy(tmp_path / "first.toml").pins
    federation.write_bytes(b"{}")
    refused = comity("policy", "new", "--out", tmp_path / "third.toml")
    assert isinstance(refused.exception, Conflict)
    assert federation.read_bytes() == b"{}"
    assert not (tmp_path / "third.toml").exists()


def test_a_new_policy_under_a_charter_without_publishers_says_what_to_add(home: Client, tmp_path: Path) -> None:
    home.pin(found(nodes(3), {}).encode())
    made = comity("policy", "new", "--out", tmp_path / "p.toml")
    assert "list a publisher in [publishers] accept" in made.output
    assert "comity show NAME" in made.output


def test_a_new_policy_without_pins_says_that_nothing_could_pass(home: Client, tmp_path: Path) -> None:
    file = tmp_path / "empty.toml"
    made = comity("policy", "new", "--out", file)
    assert "no artifact can pass" in made.output
    assert "comity policy new --out OTHER.toml" in made.output
    checked = comity("policy", "check", file)
    assert checked.return_value == 4
    assert "can never pass: cosigners" in checked.output


def test_json_explains_the_same(home: Client, tmp_path: Path) -> None:
    GOOD.write(tmp_path)
    document = json.loads(comity("policy", "explain", tmp_path / "policy.toml", "--json").stdout)
    assert document["policy"] == sha256((tmp_path / "policy.toml").read_bytes())
    assert [rule["title"] for rule in document["rules"]] == [rule.title for rule in explain(GOOD.policy)]


def test_a_pin_that_does_not_hold_is_refused(home: Client, tmp_path: Path) -> None:
    GOOD.write(tmp_path)
    file = tmp_path / "policy.toml"
    file.write_text(file.read_text().replace("[[pin]]", f'[[pin]]\nbody = "{sha256(b"other")}"', 1))
    ran = comity("policy", "check", file)
    assert getattr(ran.exception, "exit_status", None) == 3


def test_a_copied_federation_file_is_the_pinned_one(home: Client, tmp_path: Path) -> None:
    pin: TrustPin = home.pin(GOOD.federation.encode())
    comity("policy", "new", "--out", tmp_path / "p.toml")
    assert (tmp_path / f"federation-{pin.id[:8]}.json").read_bytes() == GOOD.federation.encode()


def test_a_rule_about_officers_is_explained_word_for_word() -> None:
    text = (
        f'[time]\nas_of = 2026-11-18T00:00:00Z\n[approvals]\nscope = "hospital"\nat_least = 2\n'
        f'of = ["Anna", "security"]\nfour_eyes = true\nmax_days = 90\nlogged = true\nconditions = true\n'
        f'[approvals.officers]\nAnna = "{OTHER}"\nBen = "{OTHER[::-1]}"\nCarla = "{"c" * 64}"\n'
        '[approvals.roles]\nsecurity = ["Ben"]\n'
    )
    policy = parse_policy(text.encode(), lambda _: b"")
    (rule,) = (rule for rule in explain(policy) if rule.table == "approvals")
    assert rule.says == (
        "At least 2 of these must approve the artifact for the scope hospital: Anna, security. One person counts once.",
        "An approval counts if it is in force at 2026-11-18T00:00:00Z; no clock is read, and an end that is not in the "
        "evidence is not seen.",
        f"Anna signs as {OTHER[:16]}.",
        f"Ben signs as {OTHER[::-1][:16]}.",
        "Carla signs as cccccccccccccccc.",
        "security is filled by one of Ben.",
        "An officer who published the artifact, or has a key of its publisher, does not count.",
        "An approval for more than 90 days does not count.",
        "An approval counts only if it is in a log of a pinned member.",
        "An approval counts only under conditions whose text is here.",
    )
    assert any("'Carla'" in finding.text for finding in findings(policy) if finding.row == "approvals")
