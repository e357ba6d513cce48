"""The row about file safety, and the policy that decides it: authentic files may be refused, and never fail."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from comity.trust.encoding import sha256
from comity.trust.evidence import DEFAULT_ALLOW, KINDS, Inspection, Verdict
from comity.trust.policy import DEFAULT_REQUIRED, SafetyRule
from comity.trust.policy_file import parse_policy
from comity.trust.verify import verify
from support.case import FILES, Case, case

PICKLE = pickle.dumps({"a": 1})
TEMPLATE = b"{{ messages }}"


def with_files(**more: bytes) -> Case:
    """A case whose artifact also has these files, and whose owner names no rows."""
    good = case(files={**FILES, **{name.replace("_dot_", "."): data for name, data in more.items()}})
    rows = good.policy_text[good.policy_text.index("[rows]") :]
    return good.demanding(rows, "")


def row(verdict: Verdict) -> tuple[str, str, int]:
    found = verdict.row("file safety")
    return found.state, found.cause, verdict.exit_status


def test_the_row_is_required_by_default() -> None:
    assert "file safety" in DEFAULT_REQUIRED
    assert row(with_files().verdict()) == ("pass", "", 0)


def test_a_pickle_is_authentic_and_does_not_meet_the_default_policy() -> None:
    verdict = with_files(weights_dot_bin=PICKLE).verdict()
    assert row(verdict) == ("fail", "short", 4)
    assert verdict.row("bytes").state == "pass"
    fact = verdict.row("file safety").facts[0]
    assert fact.text == f"weights.bin: pickle ({KINDS['pickle']})"
    assert (fact.basis, fact.evidence) == ("verified here", sha256(PICKLE))


def test_if_the_owner_does_not_require_the_row_it_fails_and_refuses_nothing() -> None:
    files = with_files(weights_dot_bin=PICKLE)
    lax = files.demanding("[time]", '[rows]\nrequire = ["bytes", "signatures"]\n[time]')
    assert row(lax.verdict()) == ("fail", "short", 0)


@pytest.mark.parametrize(
    "allow", ["pickle", "weights.bin", "*.bin", f"sha256:{sha256(PICKLE)}"], ids=["kind", "path", "pattern", "digest"]
)
def test_files_that_the_owner_allows_are_shown_and_accepted(allow: str) -> None:
    allowed = with_files(weights_dot_bin=PICKLE).demanding("[time]", f'[safety]\nallow = ["{allow}"]\n[time]')
    verdict = allowed.verdict()
    assert row(verdict) == ("pass", "", 0)
    assert verdict.row("file safety").facts[0].text == "weights.bin: pickle, which the policy allows"


def test_another_file_of_that_digest_or_name_is_not_meant() -> None:
    files = with_files(weights_dot_bin=PICKLE)
    for allow in ("other.bin", f"sha256:{sha256(b'other')}", "python"):
        assert row(files.demanding("[time]", f'[safety]\nallow = ["{allow}"]\n[time]').verdict())[0] == "fail"


def test_a_chat_template_is_shown_and_refused_on_request_alone() -> None:
    files = with_files(chat_template_dot_jinja=TEMPLATE)
    shown = files.verdict()
    assert DEFAULT_ALLOW == ("chat-template",)
    assert row(shown) == ("pass", "", 0)
    assert shown.row("file safety").summary.endswith("allowed: chat-template")
    assert row(files.demanding("[time]", "[safety]\nallow = []\n[time]").verdict()) == ("fail", "short", 4)


def test_a_header_that_makes_no_sense_is_refused_and_can_be_allowed_by_path() -> None:
    broken = with_files(broken_dot_gguf=b"GGUF" + bytes(60))
    assert row(broken.verdict()) == ("fail", "short", 4)
    assert row(broken.demanding("[time]", '[safety]\nallow = ["broken.gguf"]\n[time]').verdict()) == ("pass", "", 0)


def test_a_kind_that_is_allowed_allows_no_malformed_header() -> None:
    seen = Inspection("pickle", ("pickle",), ("pickle: the stream ends early",))
    plain = with_files(weights_dot_bin=PICKLE).demanding("[time]", '[safety]\nallow = ["pickle"]\n[time]')
    files = tuple(replace(each, inspection=seen) for each in plain.evidence.files or ())
    found = verify(replace(plain.evidence, files=files), plain.policy).row("file safety")
    assert found.state == "fail"
    said = {fact.text.rpartition(", ")[2] for fact in found.facts if "ends early" in fact.text}
    assert "which the policy allows" not in said and said


def test_formats_that_the_owner_does_not_name_are_refused() -> None:
    some = with_files().demanding("[time]", '[safety]\nformats = ["json", "text"]\n[time]')
    assert row(some.verdict()) == ("fail", "short", 4)
    every = with_files().demanding("[time]", '[safety]\nformats = ["json", "safetensors", "text"]\n[time]')
    assert row(every.verdict()) == ("pass", "", 0)


def test_files_that_were_not_inspected_are_missing_evidence() -> None:
    good = with_files()
    files = tuple(replace(file, inspection=None) for file in good.evidence.files or ())
    verdict = verify(replace(good.evidence, files=files), good.policy)
    assert row(verdict) == ("unknown", "missing", 5)


def test_a_partial_copy_is_judged_by_its_files() -> None:
    good = with_files(weights_dot_bin=PICKLE)
    here = {name: data for name, data in good.files.items() if name != "weights.bin"}
    assert row(replace(good, files=here, partial=True).verdict()) == ("unknown", "partial", 8)
    assert row(replace(good, files={"weights.bin": PICKLE}, partial=True).verdict()) == ("fail", "short", 4)


def test_a_kind_that_is_not_known_here_is_refused() -> None:
    good = with_files()
    files = tuple(replace(file, inspection=Inspection("new", ("quantum",))) for file in good.evidence.files or ())
    verdict = verify(replace(good.evidence, files=files), good.policy)
    assert row(verdict) == ("fail", "short", 4)


def test_the_default_rule_is_the_one_of_an_empty_table() -> None:
    assert parse_policy(b"[safety]", lambda _: b"").safety == SafetyRule()
