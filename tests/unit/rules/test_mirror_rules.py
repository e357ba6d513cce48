"""Mirror rules: which rule decides, what they need to know for it, and what is refused."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from click.testing import CliRunner
from comity.content.blobs import FolderStore
from comity.node.replication.wanted import StatementAges, WantedArtifacts
from comity.node.settings import Replication
from comity.node.threads import Pools
from comity.rules.artifact_pins import Pin
from comity.rules.copy_counts import CopyPolicy
from comity.rules.mirror_rules import (
    ACTIONS,
    MAX_AGE_HOURS,
    Action,
    MirrorClaim,
    MirrorContents,
    MirrorDecision,
    MirrorRule,
    MirrorRules,
    parse_mirror_rules,
)
from comity.trust.claims import MirrorEvidence
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed, NotFound
from comity.trust.statements import Published
from comity_cli.commands import mirror
from comity_cli.main import command
from comity_cli.output import Output
from hypothesis import given
from hypothesis import strategies as st
from support.case import case

GOOD = case()
PUBLISHED = Published.parse(GOOD.publication.statement)
CONTENTS = MirrorContents(5_000, frozenset({"safetensors", "json"}))
RULES = b"""
default = "skip"

[[rule]]
name = "no adapters"
do = "skip"
repositories = ["*/*-lora", "lab/tmp-?"]

[[rule]]
name = "small ones"
do = "copy"
max_bytes = 10_000
formats = [".SafeTensors"]

[[rule]]
name = "open ones of the hub"
do = "copy"
organisations = ["Google"]
licences = ["Apache-2.0"]
"""
NO_AGES = cast(StatementAges, None)
ONE = 'default = "skip"\n[[rule]]\nname = "a"\n'


def claim(repository: str = "lab/model", licence: str = "mit", version: str = "v1") -> MirrorClaim:
    organisation = repository[3:].partition("/")[0] if repository.startswith("hf:") else ""
    return MirrorClaim(repository, version, None, licence, organisation)


def rules(text: bytes = RULES) -> MirrorRules:
    return parse_mirror_rules(text)


def test_the_first_rule_that_fits_decides() -> None:
    found, large = rules(), MirrorContents(10_001, frozenset({"safetensors"}))
    assert found.decide(claim("lab/x-LoRA")) == MirrorDecision(False, "no adapters")
    assert found.decide(claim("lab/tmp-1")) == MirrorDecision(False, "no adapters")
    assert found.decide(claim(), CONTENTS) == MirrorDecision(True, "small ones")
    assert found.decide(claim(), large) == MirrorDecision(False)
    decision = found.decide(claim("hf:google/x", "apache-2.0"), large)
    assert decision == MirrorDecision(True, "open ones of the hub")


def test_contents_are_asked_for_only_where_a_rule_depends_on_them() -> None:
    found = rules()
    assert found.decide(claim("lab/x-lora")) is not None
    assert found.decide(claim()) is None


def test_a_star_does_not_cross_a_slash_and_a_point_is_a_point() -> None:
    found = rules(f'{ONE}do = "copy"\nrepositories = ["lab/*.v"]\nversions = ["1.*"]\n'.encode())
    for repository, version, copied in (("lab/a.v", "1.0", True), ("lab/axv", "1.0", False), ("lab/a.v", "110", False)):
        assert found.decide(claim(repository, version=version)) == MirrorDecision(copied, "a" if copied else "")


def test_the_name_alone_tells_whether_a_rule_may_copy() -> None:
    assert rules().may_copy("lab/model")
    assert not rules().may_copy("lab/x-lora")
    only = rules(f'{ONE}do = "copy"\nrepositories = ["lab/*"]\n'.encode())
    assert (only.may_copy("lab/x"), only.may_copy("other/x")) == (True, False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        'default = "all"',
        "default = 1",
        'default = "skip"\nrules = []',
        'default = "skip"\nrule = 1',
        'default = "skip"\n[[rule]]\ndo = "copy"',
        f'{ONE}do = "delete"',
        f'{ONE}do = "copy"\nrepository = ["a/b"]',
        f'{ONE}do = "copy"\nrepositories = []',
        f'{ONE}do = "copy"\nrepositories = ["a/(b|c)"]',
        f'{ONE}do = "copy"\nrepositories = ["a/*b*c*d*e*f"]',
        f'{ONE}do = "copy"\npublishers = ["51aa"]',
        f'{ONE}do = "copy"\nmax_bytes = -1',
        f'{ONE}do = "copy"\nmin_bytes = 2\nmax_bytes = 1',
        f'{ONE}do = "copy"\nmin_age_hours = -1',
        f'{ONE}do = "copy"\nmax_age_hours = 87841',
        f'{ONE}do = "copy"\nmin_age_hours = 2\nmax_age_hours = 1',
        f'{ONE}do = "copy"\n[[rule]]\nname = "a"\ndo = "skip"',
        "default = 'skip'\n# \xff",
    ],
)
def test_invalid_rules_are_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        rules(text.encode("latin-1"))
    assert refused.value.code == "MIRROR-RULES"


def test_a_young_artifact_waits_unless_another_rule_copies_it() -> None:
    aged = f'{ONE}do = "copy"\nmin_age_hours = 2\n[[rule]]\nname = "b"\ndo = "copy"\nrepositories = ["lab/now"]\n'
    found = rules(aged.encode())
    assert found.need_age
    assert found.decide(claim()) == MirrorDecision(False, "a", 7_200.0)
    assert found.decide(claim(), None, 7_199.0) == MirrorDecision(False, "a", 1.0)
    assert found.decide(claim(), None, 7_200.0) == MirrorDecision(True, "a")
    assert found.decide(claim("lab/now")) == MirrorDecision(True, "b")


def test_an_artifact_older_than_a_rule_goes_to_the_next_one_without_waiting() -> None:
    found = rules(f'{ONE}do = "copy"\nmax_age_hours = 1\n'.encode())
    assert found.decide(claim(), None, 3_600.0) == MirrorDecision(True, "a")
    assert found.decide(claim(), None, 3_601.0) == MirrorDecision(False)
    assert rules(f'{ONE}do = "skip"\nmin_age_hours = 1\n'.encode()).decide(claim()) == MirrorDecision(False)
    late = f'{ONE}do = "copy"\nmin_age_hours = 9\n[[rule]]\nname = "b"\ndo = "skip"\n'.encode()
    assert rules(late).decide(claim(), None, 3_600.0) == MirrorDecision(False, "a", 8 * 3_600.0)


def test_an_artifact_skipped_while_young_waits_for_the_end_of_that_age() -> None:
    found = rules(f'{ONE}do = "skip"\nmax_age_hours = 1\n[[rule]]\nname = "b"\ndo = "copy"\n'.encode())
    assert found.decide(claim(), None, 3_600.0) == MirrorDecision(False, "b", 1.0)
    assert found.decide(claim(), None, 3_601.0) == MirrorDecision(True, "b")
    then_default = b'default = "copy"\n[[rule]]\nname = "a"\ndo = "skip"\nmax_age_hours = 1\n'
    assert rules(then_default).decide(claim()) == MirrorDecision(False, "", 3_601.0)


def test_a_later_copy_depends_on_contents_that_a_later_rule_reads() -> None:
    late = f'{ONE}do = "skip"\nmax_age_hours = 1\n[[rule]]\nname = "b"\ndo = "copy"\nmax_bytes = 5000\n'
    found = rules(late.encode())
    assert found.decide(claim()) is None
    assert found.decide(claim(), CONTENTS) == MirrorDecision(False, "b", 3_601.0)
    assert found.decide(claim(), replace(CONTENTS, size=5_001)) == MirrorDecision(False, "a")


def fits_at(rule: MirrorRule, age: float) -> bool:
    return rule.min_age_hours * 3_600 <= age and (
        rule.max_age_hours == MAX_AGE_HOURS or age <= rule.max_age_hours * 3_600
    )


@pytest.mark.parametrize("default", ACTIONS)
def test_an_artifact_waits_for_the_first_age_at_which_it_is_copied(default: Action) -> None:
    """All pairs of rules with limits of up to two hours, at the ages around each limit."""
    limits = [(least, most) for most in (0, 1, 2, MAX_AGE_HOURS) for least in (0, 1, 2) if least <= most]
    kinds = [(do, *limit) for do in ACTIONS for limit in limits]
    ages = [3_600 * hour + second for hour in range(3) for second in (0, 1)]
    for pair in itertools.product(kinds, repeat=2):
        made = [
            MirrorRule(str(n), do, min_age_hours=least, max_age_hours=most) for n, (do, least, most) in enumerate(pair)
        ]
        decided = {}
        for age in ages:
            rule = next((rule for rule in made if fits_at(rule, age)), None)
            decided[age] = MirrorDecision((rule.do if rule else default) == "copy", rule.name if rule else "")
        for age in ages:
            later = [MirrorDecision(False, decided[at].rule, at - age) for at in ages if at > age and decided[at].copy]
            expected = decided[age] if decided[age].copy or not later else later[0]
            assert MirrorRules(tuple(made), default).decide(claim(), None, age) == expected, (pair, age)


def test_ages_in_rules_for_other_artifacts_change_nothing() -> None:
    others = 'do = "copy"\nrepositories = ["other/*"]\n'
    found = rules(f'{ONE}{others}max_age_hours = 1\n[[rule]]\nname = "b"\n{others}min_age_hours = 1\n'.encode())
    assert found.decide(claim()) == MirrorDecision(False)


@given(st.text(st.sampled_from("ab/*?.-"), min_size=1, max_size=12), st.text(st.sampled_from("ab/.-"), max_size=12))
def test_a_pattern_without_wildcards_fits_itself_alone(pattern: str, name: str) -> None:
    try:
        found = rules(f'{ONE}do = "copy"\nrepositories = ["{pattern}"]\n'.encode())
    except Malformed:
        return
    decision = found.decide(claim(name))
    assert decision is not None
    if not {"*", "?"} & set(pattern):
        assert decision.copy == (name == pattern)


async def test_a_node_copies_by_its_rules_and_reads_a_manifest_only_if_they_need_it(tmp_path: Path) -> None:
    file = tmp_path / "mirror.toml"

    def wanted(text: str) -> WantedArtifacts:
        file.write_text(text)
        return WantedArtifacts(Replication(rules=file), FolderStore(tmp_path / "blobs"), Pools(), NO_AGES, {})

    assert (await wanted(f'{ONE}do = "copy"\npublishers = ["{PUBLISHED.by}"]\n').decide(PUBLISHED, 1)).copy
    assert not (await wanted('default = "skip"\n').decide(PUBLISHED, 1)).copy
    assert not (await wanted(f'{ONE}do = "copy"\nmax_bytes = 9000000\n').decide(PUBLISHED, 1)).copy  # no manifest


async def test_wanted_artifacts_are_copied_only_for_members_that_a_rule_names(tmp_path: Path) -> None:
    friend, stranger = sha256(b"friend"), sha256(b"stranger")
    file = tmp_path / "mirror.toml"
    file.write_text(ONE + f'do = "copy"\nwanted_by = ["{friend}"]\nrepositories = ["{PUBLISHED.name.namespace}/*"]\n')
    found = WantedArtifacts(Replication(rules=file), FolderStore(tmp_path / "blobs"), Pools(), NO_AGES, {})
    assert found.answered == {friend}
    assert not (await found.decide(PUBLISHED, 1)).copy
    found.asked = {PUBLISHED.artifact: frozenset({stranger})}
    assert not (await found.decide(PUBLISHED, 1)).copy
    found.asked = {PUBLISHED.artifact: frozenset({stranger, friend})}
    assert (await found.decide(PUBLISHED, 1)).copy
    found.asked = {sha256(b"another"): frozenset({friend})}
    assert not (await found.decide(PUBLISHED, 1)).copy


async def test_artifacts_that_the_operator_pinned_are_copied_against_the_rules(tmp_path: Path) -> None:
    found = WantedArtifacts(Replication(mirror="none"), FolderStore(tmp_path / "blobs"), Pools(), NO_AGES, {})
    assert not (await found.decide(PUBLISHED, 1)).copy
    found.pins[PUBLISHED.artifact] = Pin(PUBLISHED.artifact, "", CopyPolicy(1, 1))
    assert (await found.decide(PUBLISHED, 1)).copy


async def test_without_rules_the_patterns_decide_as_before(tmp_path: Path) -> None:
    found = WantedArtifacts(Replication(mirror=("swiss-ai/*",)), FolderStore(tmp_path / "blobs"), Pools(), NO_AGES, {})
    assert (await found.decide(PUBLISHED, 1)).copy
    assert not WantedArtifacts(Replication(mirror="none"), FolderStore(tmp_path / "b"), Pools(), NO_AGES, {}).may_want(
        "a/b"
    )


def test_a_file_of_rules_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        WantedArtifacts(
            Replication(rules=tmp_path / "mirror.toml"), FolderStore(tmp_path / "blobs"), Pools(), NO_AGES, {}
        )
    with pytest.raises(ValueError, match="exclude one another"):
        Replication(rules=tmp_path / "mirror.toml", mirror="none")


def ran(home: Path, *arguments: str) -> Any:
    invoked = ["mirror", "rules", *arguments, "--node", str(home)]
    return CliRunner().invoke(command, invoked, obj=Output(), standalone_mode=False)


def test_rules_are_added_listed_and_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "node.toml").write_text("[replication]\n")
    assert "comity mirror rules add" in ran(tmp_path, "ls").exception.hint
    one = ("add", 'the "institute"', "--do", "copy", "--repository", "swiss-ai/*", "--max-bytes", "99999999")
    added = ran(tmp_path, *one)
    assert added.exit_code == 0, added.output
    assert 'rules = "mirror.toml"' in added.output
    assert ran(tmp_path, "add", "rest", "--do", "skip").exit_code == 0
    assert ran(tmp_path, "add", "rest", "--do", "skip").exception.code == "MIRROR-RULES"
    listed = json.loads(ran(tmp_path, "ls", "--json").stdout)
    assert (listed["default"], [rule["name"] for rule in listed["rules"]]) == ("skip", ['the "institute"', "rest"])
    info = SimpleNamespace(
        artifact=GOOD.artifact,
        current=SimpleNamespace(published=PUBLISHED),
        manifest=SimpleNamespace(size=5_000, files=[SimpleNamespace(path="model.safetensors")]),
        mirroring=MirrorEvidence((), (), ()),
    )
    monkeypatch.setattr(mirror, "client", lambda: SimpleNamespace(show=lambda reference: info))
    (decision,) = json.loads(ran(tmp_path, "check", "swiss-ai/tiny@v1", "--json").stdout)["decisions"]
    assert (decision["name"], decision["copy"], decision["rule"]) == ("swiss-ai/tiny@v1", True, 'the "institute"')
    assert ran(tmp_path, "add", "late", "--do", "copy", "--min-age-hours", "5").exit_code == 0
    (tmp_path / "mirror.toml").write_text(f'{ONE}do = "copy"\nmin_age_hours = 5\n')
    assert "copied in 3 h, by rule 'a'" in ran(tmp_path, "check", "swiss-ai/tiny@v1", "--age-hours", "2").output
