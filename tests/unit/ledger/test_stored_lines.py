"""Lines of logs are stored compressed, and read back unchanged."""

from __future__ import annotations

import pytest
from comity.ledger.stored_lines import line_size, pack_line, unpack_line
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.statement import Envelope, EnvelopeSignature
from hypothesis import example, given
from hypothesis import strategies as st
from support.logs import statement_line

LINE = statement_line(0)

lines = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=60).map(lambda rest: bytes([rest[0] % 3]) + rest[1:] if rest else rest),
    st.tuples(st.integers(0, len(LINE)), st.integers(0, len(LINE)), st.binary(max_size=4)).map(
        lambda cut: LINE[: cut[0]] + cut[2] + LINE[cut[1] :]
    ),
    st.builds(
        lambda payload, sizes: Envelope(
            "application/vnd.in-toto+json",
            payload,
            tuple(EnvelopeSignature(Digest(f"{at:064x}"), bytes(size)) for at, size in enumerate(sizes)),
        ).encode(),
        st.binary(max_size=200),
        st.lists(st.integers(0, 70), max_size=4),
    ),
)


@given(lines)
@example(b"")
@example(b"\x00")
@example(b"\x01")
@example(LINE.replace(b"a", b"A"))
@example(LINE + LINE)
def test_every_line_reads_back_and_costs_at_most_one_byte_more(line: bytes) -> None:
    stored = pack_line(line)
    assert unpack_line(stored) == line
    assert len(stored) <= len(line) + 1
    assert line_size(stored) == len(line)


def test_a_signed_statement_is_stored_in_three_quarters_of_its_bytes() -> None:
    assert len(pack_line(LINE)) < 0.75 * len(LINE)


@pytest.mark.parametrize(
    "line",
    [
        b'{"payload":"","payloadType":"application/vnd.in-toto+json","signatures":[]}',
        LINE.replace(b"in-toto", b"in-tutu"),
        LINE.replace(b'"payload"', b' "payload"', 1),
        LINE.replace(b'"sig":"', b'"sig":"!'),
        LINE[:-1],
    ],
)
def test_another_spelling_of_an_envelope_is_stored_unchanged(line: bytes) -> None:
    assert pack_line(line) == line


@given(st.binary(max_size=120))
def test_stored_bytes_are_a_line_or_are_refused(stored: bytes) -> None:
    try:
        unpack_line(stored)
    except Malformed:
        assert stored[:1] == b"\x01"
        assert line_size(stored) == len(stored)
