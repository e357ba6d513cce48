"""Records of an index of files, their head, and who may have signed it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from comity.rules.file_records import (
    FILES_TOGETHER,
    MAX_LOGS,
    MAX_NAME,
    MAX_RECORD,
    FileIndexState,
    FileRecord,
    check_state,
    listed_logs,
    next_head,
    read_records,
    sign_state,
)
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, Untrusted
from comity.trust.statement import MAX_LINE
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.file_indexes import head_of, state_of
from support.world import Node, identity, node

ARTIFACT = sha256(b"artifact")
RECORDS = st.builds(
    FileRecord,
    st.sampled_from((0, 1)),
    st.binary(min_size=32, max_size=32).map(lambda data: Digest(data.hex())),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.binary(min_size=1, max_size=4).map(lambda data: data * 16),
)


def ours() -> Node:
    return node(identity("CH"), "ours.example")


def theirs() -> Node:
    return node(identity("SG"), "theirs.example")


@settings(max_examples=examples(60))
@given(st.lists(RECORDS, max_size=4), st.data())
def test_records_are_read_as_they_were_written_and_a_part_of_one_is_none(made: list[FileRecord], data: Any) -> None:
    encoded = [each.encode() for each in made]
    joined = b"".join(encoded)
    assert list(read_records(joined)) == list(zip(made, encoded, strict=True))
    cut = data.draw(st.integers(0, len(joined)))
    whole = [each for at, each in enumerate(made) if len(b"".join(encoded[: at + 1])) <= cut]
    assert [record for record, _ in read_records(joined[:cut])] == whole


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(FileRecord(2, ARTIFACT, "a/b@v1", bytes(16)).encode(), id="whose"),
        pytest.param(FileRecord(0, ARTIFACT, "a/b@v1", b"").encode(), id="no files"),
        pytest.param(FileRecord(0, ARTIFACT, "", bytes(16) * (FILES_TOGETHER + 1)).encode(), id="too many files"),
        pytest.param(bytes(33) + (MAX_NAME + 1).to_bytes(2, "big") + bytes(600), id="a long name"),
    ],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        list(read_records(data))


def test_the_largest_record_has_a_bound_and_a_long_name_is_cut_within_no_character() -> None:
    made = FileRecord(0, ARTIFACT, "ü" * MAX_NAME, bytes(16) * FILES_TOGETHER)
    assert len(made.encode()) == MAX_RECORD
    ((read, _),) = read_records(replace(made, name="x" + made.name).encode())
    assert read.name == "x" + "ü" * (MAX_NAME // 2 - 1)


def test_a_head_says_which_records_in_which_order() -> None:
    first, second = (FileRecord(0, ARTIFACT, name, bytes(16)).encode() for name in ("a", "b"))
    heads = {head_of(each) for each in ([], [first], [second], [first, second], [second, first], [first + second])}
    assert len(heads) == 6
    assert next_head(head_of([first]), second) == head_of([first, second])


def test_a_state_is_of_the_node_that_signed_it() -> None:
    line = state_of(ours(), [])
    state, signer = check_state(line, [theirs().record, ours().record])
    assert (state.records, state.complete, signer) == (0, True, ours().record)
    for nodes in ([], [theirs().record]):
        with pytest.raises(Untrusted) as refused:
            check_state(line, nodes)
        assert refused.value.code == "FILE-INDEX-SIGNER"
    forged = sign_state(state, theirs().online)  # it names one node, and another one signed it
    with pytest.raises(Untrusted):
        check_state(forged, [ours().record, theirs().record])


def test_a_state_with_less_of_a_log_or_an_earlier_time_is_older() -> None:
    def state(time: int, **logs: int) -> FileIndexState:
        return FileIndexState(ours().record.node, ARTIFACT, 1, 0, 0, time, tuple(logs.items()))

    now = state(10, a=5, b=5)
    assert [each.older_than(now) for each in (now, state(11, a=5), state(10, a=6, b=5, c=1))] == [False] * 3
    assert [each.older_than(now) for each in (state(9, a=5, b=5), state(11, a=4, b=6))] == [True] * 2


def test_a_statement_has_room_for_the_logs_that_it_lists() -> None:
    sizes = {f"{number:03}.{'x' * 250}": number for number in range(1_000)}
    listed = listed_logs(sizes)
    assert listed and min(size for _, size in listed) == 1_000 - len(listed)
    state = FileIndexState(ours().record.node, ARTIFACT, 1, 0, 0, 1, listed)
    assert len(sign_state(state, ours().online)) <= MAX_LINE
    assert len(listed_logs({str(number): number for number in range(2_000)})) == MAX_LOGS
    assert listed_logs({"a": 1, "b": 2}) == (("a", 1), ("b", 2))
