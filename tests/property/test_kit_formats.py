"""Kits and cases: every valid one reads back; changed bytes and any answer raise nothing but Malformed."""

from __future__ import annotations

from contextlib import suppress

import pytest
from comity.rules.kits.cases import KitCases, judge_answer
from comity.rules.kits.contents import kit_problems
from comity.rules.kits.description import Kit
from comity.trust.errors import Malformed
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.kits import a_kit, kits, manifest_of, some_cases


@settings(max_examples=examples(200))
@given(kits())
def test_every_kit_reads_back_and_has_its_files(kit: Kit) -> None:
    assert Kit.parse(kit.encode()) == kit
    assert kit_problems(kit, manifest_of(kit)) == ()


@pytest.mark.parametrize("of", [(Kit.parse, a_kit().encode()), (KitCases.parse, some_cases().encode())])
@settings(max_examples=examples(400))
@given(st.data())
def test_changed_bytes_are_refused_or_read_as_another_value(of: tuple[object, bytes], data: st.DataObject) -> None:
    read, whole = of
    at = data.draw(st.integers(0, len(whole)))
    changed = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 3)) :]
    with suppress(Malformed):
        assert read(changed).encode() == changed  # type: ignore[operator]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["choices", "message", "x"]), inner),
    max_leaves=8,
)


@settings(max_examples=examples(400))
@given(st.integers(), st.binary(max_size=30) | st.builds(lambda value: repr(value).encode(), _JSON))
def test_any_answer_gives_a_judgement(status: int, body: bytes) -> None:
    for case in some_cases().cases:
        assert judge_answer(case, status, body)
