"""Retention rules: which copies may be removed, and why all others stay."""

from __future__ import annotations

import itertools

import pytest
from comity.rules.retention import (
    MAX_DAYS,
    MAX_VERSIONS,
    NamedArtifact,
    RetentionDecision,
    RetentionRules,
    parse_retention_rules,
)
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed

PUBLISHER = sha256(b"publisher")
RULES = """
keep = ["lab/base", "lab/old-nightly@v1*"]
[[rule]]
name = "nightly"
repositories = ["lab/*-nightly"]
keep_versions = 3
keep_days = 90
[[rule]]
name = "lab"
repositories = ["lab/*"]
keep_days = 10
"""


def named(text: str) -> NamedArtifact:
    repository, _, version = text.partition("@")
    return NamedArtifact(repository, version, PUBLISHER)


def why(rules: RetentionRules, *names: str, days: int = 1_000, newest: bool = False) -> str:
    """The reason why a copy is kept."""
    decision = rules.decide([named(name) for name in names], days, lambda *_: newest)
    assert not decision.goes
    return decision.why


def test_a_copy_is_removed_when_every_limit_of_its_rule_is_passed() -> None:
    rules = parse_retention_rules(RULES.encode())
    assert rules.decide([named("lab/x-nightly@v1")], 90, lambda *_: False).goes
    assert why(rules, "lab/x-nightly@v1", days=89) == "held for 89 of 90 days"
    assert why(rules, "lab/x-nightly@v1", newest=True) == "one of the newest 3 of lab/x-nightly"
    assert rules.decide([named("LAB/x@v1")], 10, lambda *_: True) == RetentionDecision(
        True, "beyond the rule 'lab'", "lab"
    )


def test_a_rule_that_keeps_versions_only_ignores_ages() -> None:
    rules = parse_retention_rules(b'[[rule]]\nname = "a"\nrepositories = ["lab/*"]\nkeep_versions = 2')
    asked = list[tuple[NamedArtifact, int]]()

    def is_newest(name: NamedArtifact, versions: int) -> bool:
        asked.append((name, versions))
        return name.version == "v2"

    assert rules.decide([named("lab/x@v1")], 0, is_newest).goes
    assert not rules.decide([named("lab/x@v2")], 100_000, is_newest).goes
    assert asked == [(named("lab/x@v1"), 2), (named("lab/x@v2"), 2)]


def test_a_copy_stays_if_any_of_its_names_keeps_it() -> None:
    rules = parse_retention_rules(RULES.encode())
    for keeping in ("lab/base@v1", "other/x@v1", "lab/x-nightly@v1"):
        for names in itertools.permutations(("lab/x@v1", "lab/y@v1", keeping)):
            stays = rules.decide([named(name) for name in names], 89, lambda *_: False)
            assert not stays.goes, names
    assert rules.decide([named("lab/x@v1"), named("lab/y@v1")], 89, lambda *_: False).goes


def test_limits_are_read_at_their_bounds() -> None:
    for key, most in (("keep_versions", MAX_VERSIONS), ("keep_days", MAX_DAYS)):
        for number in (1, 2, most):
            text = f'[[rule]]\nname = "a"\nrepositories = ["a/*"]\n{key} = {number}'
            (rule,) = parse_retention_rules(text.encode()).rules
            assert {rule.keep_versions, rule.keep_days} == {number, None}


def test_a_pin_or_a_name_without_a_rule_keeps_a_copy() -> None:
    rules = parse_retention_rules(RULES.encode())
    assert why(rules, "lab/x@v1", "lab/base@v7") == "lab/base@v7 is to be kept"
    assert why(rules, "lab/old-nightly@v1.2") == "lab/old-nightly@v1.2 is to be kept"
    assert why(rules, "lab/x@v1", "other/x@v1") == "no rule fits other/x"
    assert why(rules) == "nobody published it under a name"


def test_without_rules_nothing_is_removed() -> None:
    assert not parse_retention_rules(b"").decide([named("lab/x@v1")], 1_000, lambda *_: False).goes


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        ("unknown = 1", "unknown key"),
        ("rule = 1", "tables"),
        ("rule = [1]", "must be a table"),
        ('[[rule]]\nrepositories = ["a/*"]\nkeep_days = 1', "needs a name"),
        ('[[rule]]\nname = "a"\nkeep_days = 1', "must be a list"),
        ('[[rule]]\nname = "a"\nrepositories = ["a/*"]', "keep_versions or keep_days"),
        ('[[rule]]\nname = "a"\nrepositories = ["a/*"]\nkeep_days = 0', "from 1 to"),
        (f'[[rule]]\nname = "a"\nrepositories = ["a/*"]\nkeep_days = {MAX_DAYS + 1}', "from 1 to"),
        ('[[rule]]\nname = "a"\nrepositories = ["a/*"]\nkeep_days = 1.0', "from 1 to"),
        ('[[rule]]\nname = "a"\nrepositories = ["a/*"]\nkeep_versions = true', "from 1 to"),
        ('[[rule]]\nname = "a"\nrepositories = ["a/*@v1"]\nkeep_days = 1', "no pattern"),
        ('[[rule]]\nname = "a"\nrepositories = ["*****"]\nkeep_days = 1', "stars"),
        ('[[rule]]\nname = "a"\nrepositories = ["a/*"]\nkeep_days = 1\n' * 2, "one name"),
        ('keep = "a"', "must be a list"),
        ('keep = ["a/b@"]', "no pattern"),
        ("\udcff", "utf-8"),
    ],
)
def test_invalid_rules_are_refused(toml: str, why: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse_retention_rules(toml.encode("utf-8", "surrogateescape"))
    assert refused.value.code == "RETENTION-RULES"
    assert why in refused.value.why
