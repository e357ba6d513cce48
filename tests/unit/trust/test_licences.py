"""Licences along a lineage: conflicts by the table, and licences that the table does not have."""

from __future__ import annotations

import pytest
from comity.trust.lineage import FAMILY, licence_fit
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("child", "parent", "answer"),
    [
        ("MIT", "Apache-2.0", "fits"),
        ("GPL-3.0-only", "MIT", "fits"),
        ("llama3.1", "CC-BY-4.0", "fits"),
        ("cc-by-sa-4.0", "CC-BY-SA-4.0", "fits"),
        ("gemma", "Gemma", "fits"),
        ("CC-BY-NC-4.0", "CC-BY-NC-4.0", "fits"),
        ("Apache-2.0", "CC-BY-NC-4.0", "conflict"),
        ("Apache-2.0", "GPL-3.0-only", "conflict"),
        ("MIT", "llama3.1", "conflict"),
        ("GPL-3.0-only", "CC-BY-NC-SA-4.0", "conflict"),
        ("CC-BY-4.0", "CC-BY-ND-4.0", "conflict"),
        ("CC-BY-NC-ND-4.0", "CC-BY-NC-ND-4.0", "conflict"),
        ("other", "CC-BY-ND-4.0", "conflict"),
        ("GPL-3.0-or-later", "GPL-2.0-or-later", "unknown"),
        ("GPL-3.0-only", "CC-BY-SA-4.0", "unknown"),
        ("CC-BY-NC-SA-4.0", "CC-BY-NC-4.0", "unknown"),
        ("gemma", "llama3.1", "unknown"),
        ("llama3.1", "CC-BY-NC-4.0", "unknown"),
        ("other", "MIT", "unknown"),
        ("MIT", "other", "unknown"),
        ("other", "other", "unknown"),
        ("MIT OR GPL-3.0-only", "GPL-3.0-only", "unknown"),
        ("", "", "unknown"),
    ],
)
def test_every_answer_is_that_of_the_table(child: str, parent: str, answer: str) -> None:
    found = licence_fit(child, parent)
    assert found.answer == answer
    assert found.why


@pytest.mark.parametrize(
    ("child", "parent", "why"),
    [
        ("other", "GPL-3.0-only", "other is not in the table"),
        ("other", "MIT", "other is not in the table"),
        ("GPL-3.0-only", "other", "other is not in the table"),
        (
            "CC-BY-NC-SA-4.0",
            "CC-BY-NC-4.0",
            "CC-BY-NC-4.0 forbids commercial use, and so does CC-BY-NC-SA-4.0; the table does not say if it is enough",
        ),
        ("gemma", "CC-BY-NC-4.0", "CC-BY-NC-4.0 forbids commercial use; the table does not say if gemma meets this"),
        ("MIT", "llama3.1", "the terms of llama3.1 must be passed on; MIT does not meet this"),
    ],
)
def test_the_reason_names_the_condition_or_the_licence_that_is_not_in_the_table(
    child: str, parent: str, why: str
) -> None:
    assert licence_fit(child, parent).why == why


@given(st.sampled_from(sorted(FAMILY)), st.text(max_size=12).filter(lambda text: text.lower() not in FAMILY))
def test_a_licence_outside_of_the_table_is_never_compatible(listed: str, strange: str) -> None:
    assert licence_fit(listed, strange).answer == "unknown"
    assert licence_fit(strange, listed).answer in ("unknown", "conflict")
    assert licence_fit(strange, strange).answer == "unknown"


@given(*[st.sampled_from(sorted(FAMILY))] * 2)
def test_every_pair_has_an_answer_in_upper_and_lower_case(child: str, parent: str) -> None:
    assert licence_fit(child, parent).answer == licence_fit(child.upper(), parent.upper()).answer
    if FAMILY[parent] == "permissive":
        assert licence_fit(child, parent).answer == "fits"
