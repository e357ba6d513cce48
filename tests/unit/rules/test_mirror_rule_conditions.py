"""Each condition of a mirror rule and each quota at its bounds, and what of a statement and a manifest they look at."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.rules.mirror_rules import (
    ALL,
    MAX_AGE_HOURS,
    MAX_SIZE,
    MirrorClaim,
    MirrorContents,
    MirrorDecision,
    MirrorQuotas,
    MirrorRules,
    QuotaUse,
    parse_mirror_rules,
)
from comity.trust.artifact import FileEntry, Manifest
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity.trust.statements import Published
from comity.trust.upstream import Conditions, Observed
from support.case import case, nodes
from support.observations import COMMIT, observation

GOOD = case()
PUBLISHED = Published.parse(GOOD.publication.statement)
OBSERVED = Observed.parse(observation(nodes(1)[0], GOOD.artifact).statement)
LAB, FRIEND, STRANGER = sha256(b"lab"), sha256(b"friend"), sha256(b"stranger")
CLAIM = MirrorClaim("hf:Google/Gemma", "V1.0", LAB, "Apache-2.0", "Google", frozenset({FRIEND}))
CONTENTS = MirrorContents(1_000, frozenset({"gguf", "json"}))


def rules(*tables: str, default: str = "skip", top: str = "") -> MirrorRules:
    listed = "".join(f'[[rule]]\nname = "{number}"\n{table}\n' for number, table in enumerate(tables))
    return parse_mirror_rules(f'default = "{default}"\n{top}\n{listed}'.encode())


def fits(condition: str, claim: MirrorClaim = CLAIM, contents: MirrorContents = CONTENTS) -> bool:
    decided = rules(f'do = "copy"\n{condition}').decide(claim, contents)
    assert decided is not None
    return decided.copy


def why(*tables: str, top: str = "") -> str:
    with pytest.raises(Malformed) as refused:
        rules(*tables, top=top)
    assert refused.value.code == "MIRROR-RULES"
    return refused.value.why


@pytest.mark.parametrize(
    ("fitting", "other"),
    [
        ('repositories = ["hf:google/*"]', 'repositories = ["google/*"]'),
        ('versions = ["v1.?"]', 'versions = ["v2.?"]'),
        (f'publishers = ["{STRANGER}", "{LAB}"]', f'publishers = ["{STRANGER}"]'),
        ('organisations = ["x", "GOOGLE"]', 'organisations = ["x"]'),
        ('licences = ["x", "apache-2.0"]', 'licences = ["apache"]'),
        (f'wanted_by = ["{STRANGER}", "{FRIEND}"]', f'wanted_by = ["{STRANGER}"]'),
        ('formats = ["safetensors", ".GGUF"]', 'formats = ["safetensors"]'),
        ("min_bytes = 1000", "min_bytes = 1001"),
        ("max_bytes = 1000", "max_bytes = 999"),
    ],
)
def test_a_rule_fits_where_each_of_its_conditions_does(fitting: str, other: str) -> None:
    assert (fits(""), fits(fitting), fits(other)) == (True, True, False)
    for also in ("min_age_hours = 0", 'formats = ["json"]', 'licences = ["apache-2.0"]'):
        if also.partition(" ")[0] not in fitting:
            assert fits(f"{fitting}\n{also}") and not fits(f"{other}\n{also}")


def test_a_mirrored_artifact_has_no_publisher_and_a_published_one_no_upstream() -> None:
    mirrored = replace(OBSERVED, conditions=Conditions(licence="Gemma"))
    assert MirrorClaim.of(mirrored) == MirrorClaim("hf:org/tiny", COMMIT, None, "Gemma", "org")
    assert MirrorClaim.of(OBSERVED).licence == ""
    assert MirrorClaim.of(PUBLISHED) == MirrorClaim("swiss-ai/tiny", "v1", PUBLISHED.by, "Apache-2.0")
    assert not fits(f'publishers = ["{LAB}"]', replace(CLAIM, publisher=None))
    assert not fits('organisations = ["google"]', replace(CLAIM, organisation=""))


def test_contents_are_the_sizes_and_the_suffixes_of_the_names_of_files() -> None:
    paths = ("a/model.GGUF", "b.d/README", "LICENSE", "x.tar.gz", ".hidden")
    manifest = Manifest.of(FileEntry(path, 5, sha256(path.encode())) for path in paths)
    assert MirrorContents.of(manifest) == MirrorContents(25, frozenset({"gguf", "gz", "hidden"}))


@pytest.mark.parametrize(
    "condition", ['formats = ["gguf"]', "min_bytes = 1", f"max_bytes = {MAX_SIZE - 1}", f"max_bytes = {2**40}"]
)
def test_a_rule_about_contents_is_decided_by_contents_alone(condition: str) -> None:
    about, claim = f'do = "copy"\n{condition}', replace(CLAIM, repository="lab/x")
    assert rules(about).decide(claim) is None
    assert rules(about).decide(claim, CONTENTS) == MirrorDecision(True, "0")
    assert rules('do = "skip"\nrepositories = ["lab/*"]', about).decide(claim) == MirrorDecision(False, "0")
    assert rules(f'{about}\nversions = ["none"]').decide(claim) == MirrorDecision(False)


def test_sizes_at_their_bounds_are_no_condition() -> None:
    anything = f'do = "copy"\nmin_bytes = 0\nmax_bytes = {MAX_SIZE}\nmin_age_hours = 0\nmax_age_hours = {MAX_AGE_HOURS}'
    assert rules(anything).decide(CLAIM) == MirrorDecision(True, "0")
    assert rules(anything).decide(CLAIM, None, 1e12) == MirrorDecision(True, "0")
    assert not rules(anything).need_age
    for aged in ("min_age_hours = 1", "max_age_hours = 0", f"max_age_hours = {MAX_AGE_HOURS - 1}"):
        assert rules('do = "skip"', f'do = "copy"\n{aged}').need_age


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("min_bytes", MAX_SIZE),
        ("max_bytes", MAX_SIZE),
        ("quota_bytes", MAX_SIZE),
        ("min_age_hours", MAX_AGE_HOURS),
        ("max_age_hours", MAX_AGE_HOURS),
    ],
)
def test_numbers_are_read_at_their_bounds_and_refused_beyond_them(key: str, most: int) -> None:
    for good in (0, 1, most):
        assert rules(f'do = "copy"\n{key} = {good}')
    for bad in (-1, most + 1, "true", "1.0", '"1"'):
        assert f"rule '0': {key} must be a whole number from 0 to {most}" == why(f'do = "copy"\n{key} = {bad}')


def test_conditions_that_contradict_one_another_are_refused_and_a_single_value_is_not() -> None:
    assert rules('do = "copy"\nmin_bytes = 5\nmax_bytes = 5\nmin_age_hours = 5\nmax_age_hours = 5')
    assert "min_bytes is larger" in why('do = "copy"\nmin_bytes = 6\nmax_bytes = 5')
    assert "min_age_hours is larger" in why('do = "copy"\nmin_age_hours = 6\nmax_age_hours = 5')
    assert 'quota_bytes needs do = "copy"' in why('do = "skip"\nquota_bytes = 0')
    assert "64 hex digits" in why('do = "copy"\nwanted_by = ["51AA"]')
    assert "all rules" in why(top="quota_bytes = -1")


@pytest.mark.parametrize("key", ["repositories", "versions", "publishers", "organisations", "licences", "formats"])
def test_an_empty_list_as_a_condition_is_refused(key: str) -> None:
    assert why(f'do = "copy"\n{key} = []').startswith(f"rule '0': {key} must be a list")


def test_a_name_may_be_copied_if_a_rule_or_the_default_copies_it() -> None:
    only_lab, maybe = 'repositories = ["lab/*"]\n', "max_bytes = 5\n"
    for tables, default, copied in [
        (('do = "copy"\n' + only_lab,), "skip", True),
        (('do = "copy"\nrepositories = ["other/*"]',), "skip", False),
        (('do = "skip"\n' + only_lab,), "copy", False),
        (('do = "skip"\nrepositories = ["other/*"]',), "copy", True),
        (('do = "skip"',), "copy", False),
        (('do = "skip"\n' + maybe,), "copy", True),
        (('do = "skip"\n' + maybe, 'do = "copy"'), "skip", True),
        (('do = "skip"', 'do = "copy"'), "copy", False),
        (('do = "copy"\n' + maybe,), "skip", True),
    ]:
        assert rules(*tables, default=default).may_copy("lab/x") == copied, tables


def test_only_rules_that_copy_answer_members() -> None:
    tables = (f'do = "copy"\nwanted_by = ["{LAB}"]', f'do = "skip"\nwanted_by = ["{STRANGER}"]', 'do = "copy"')
    assert rules(*tables, f'do = "copy"\nwanted_by = ["{FRIEND}"]').answered == {LAB, FRIEND}


def test_quotas_are_those_of_rules_and_of_all_together() -> None:
    found = rules('do = "copy"\nquota_bytes = 0', 'do = "copy"', top="quota_bytes = 7")
    assert found.quotas == {ALL: 7, "0": 0}
    assert rules('do = "copy"').quotas == {}
    assert (bool(MirrorQuotas(found.quotas)), bool(MirrorQuotas({}))) == (True, False)


def test_a_rule_may_copy_up_to_the_rest_of_its_own_quota_and_of_the_common_one() -> None:
    quotas = MirrorQuotas({ALL: 10, "a": 6})
    assert [quotas.room(rule) for rule in ("a", "b", ALL)] == [6, 10, 10]
    quotas.charge("b", 5)
    assert [quotas.room(rule) for rule in ("a", "b", ALL)] == [5, 5, 5]
    quotas.charge("a", 4)
    assert [quotas.room(rule) for rule in ("a", "b", ALL)] == [1, 1, 1]
    assert list(quotas.uses()) == [QuotaUse(ALL, 9, 10), QuotaUse("a", 4, 6)]
    assert [quotas.exceeded("a", more) for more in (1, 2, 3)] == [None, QuotaUse(ALL, 9, 10), QuotaUse("a", 4, 6)]
    assert [quotas.exceeded("b", more) for more in (1, 2)] == [None, QuotaUse(ALL, 9, 10)]
    quotas.charge("a", -4)
    assert quotas.room("a") == 5


def test_reduced_quotas_refuse_only_artifacts_that_need_space() -> None:
    quotas = MirrorQuotas({"a": 3, "b": 5})
    quotas.load({"a": 4, "gone": 100})
    assert (quotas.room("a"), quotas.room("b"), quotas.room("gone"), quotas.room(ALL)) == (0, 5, None, None)
    assert (quotas.exceeded("a", 0), quotas.exceeded("a", -1)) == (None, None)
    assert quotas.exceeded("a", 1) == QuotaUse("a", 4, 3)
    assert [use.rule for use in MirrorQuotas({"b": 1, "a": 1, ALL: 1}).uses()] == [ALL, "a", "b"]


def test_a_quota_is_named_and_nearly_full_from_four_fifths_on() -> None:
    assert (str(QuotaUse("a", 0, 1)), str(QuotaUse(ALL, 0, 1))) == ("mirror rule 'a'", "all that is mirrored")
    assert [QuotaUse("a", used, 10).nearly_full for used in (7, 8, 10)] == [False, True, True]
