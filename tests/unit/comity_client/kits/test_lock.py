"""What a lock may say, and the words with which other lines are refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from comity.trust.encoding import sha256
from comity.trust.errors import Malformed
from comity_client.kits.lock import MAX_LOCK, MAX_WHEELS, LockedDistribution, parse_lock, write_lock
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples

A, B = sorted([sha256(b"a"), sha256(b"b")])


def refusal(text: str | bytes) -> str:
    with pytest.raises(Malformed) as refused:
        parse_lock(text.encode() if isinstance(text, str) else text)
    assert refused.value.code == "KIT-LOCK"
    return refused.value.why


def test_a_lock_is_read_as_pip_reads_it() -> None:
    more = f"uvicorn[Standard]==1.0 --hash=sha256:{sha256(b'c')}"
    text = f"# of pip\n\nNum.Py==2.4.6 \\\n  --hash=sha256:{B} \\\n  --hash=sha256:{A}  # two\n{more}\n"
    assert parse_lock(text.encode()) == (
        LockedDistribution("num-py", "2.4.6", (), (A, B)),
        LockedDistribution("uvicorn", "1.0", ("standard",), (sha256(b"c"),)),
    )
    assert parse_lock(b"# nothing\n") == ()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("numpy==2.4.6", "line 1: 'numpy==2.4.6' has no hash"),
        (f"numpy>=2 --hash=sha256:{A}", "has no exact version"),
        (f"numpy --hash=sha256:{A}", "has no exact version"),
        (f"numpy==2.* --hash=sha256:{A}", "is no line NAME==VERSION"),
        (f"numpy==x --hash=sha256:{A}", "'x' is no version"),
        ("numpy==2 --hash=md5:0123", "no sha256"),
        (f"numpy==2 --hash=sha256:{A.upper()}", "no sha256"),
        ("--index-url https://evil.example/", "an option of pip"),
        ("-r other.txt", "an option of pip"),
        ("-e .", "an option of pip"),
        (f"numpy @ https://evil.example/x.whl --hash=sha256:{A}", "names a place"),
        ("./numpy.whl", "names a place"),
        (f'numpy==2 ; python_version < "3.12" --hash=sha256:{A}', "has a condition"),
        (f"numpy==2 --hash=sha256:{A} \\", "continues"),
        (f"numpy==2 --hash=sha256:{A} --hash=sha256:{A}", "twice"),
        (f"numpy==2 --hash=sha256:{A}\nNumPy==2 --hash=sha256:{B}", "line 2: numpy is locked twice"),
        (f"a==2 --hash=sha256:{A}\nb==2 --hash=sha256:{A}", "a hash is there twice"),
    ],
)
def test_another_line_is_refused_in_words(line: str, why: str) -> None:
    assert why in refusal(line)


def test_a_distribution_is_locked_once_for_each_condition_where_conditions_are_allowed() -> None:
    old, new = "python_version < '3.12'", 'python_version >= "3.12"'
    text = f"a==2 ; {new} --hash=sha256:{B}\na==1; {old} --hash=sha256:{A}\n"
    found = parse_lock(text.encode(), conditions=True)
    assert [(each.version, each.condition) for each in found] == [("1", 'python_version < "3.12"'), ("2", new)]
    assert parse_lock(write_lock(found), conditions=True) == found
    with pytest.raises(Malformed, match="twice"):
        parse_lock(f"{text}a==3 ; {old} --hash=sha256:{sha256(b'c')}".encode(), conditions=True)
    assert "has a condition" in refusal(text)


def test_bounds_are_kept() -> None:
    assert "bytes" in refusal(b"#" * (MAX_LOCK + 1))
    assert "UTF-8" in refusal(b"\xff")
    hashes = " ".join(f"--hash=sha256:{sha256(str(n).encode())}" for n in range(MAX_WHEELS + 1))
    assert "hashes" in refusal(f"numpy==2 {hashes}")


_LOCKED = st.builds(
    LockedDistribution,
    st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,3})?", fullmatch=True),
    st.from_regex(r"(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)", fullmatch=True),
    st.lists(st.sampled_from(["all", "standard"]), unique=True).map(lambda each: tuple(sorted(each))),
    st.lists(st.binary(max_size=6).map(sha256), min_size=1, max_size=3, unique=True).map(lambda e: tuple(sorted(e))),
)


@settings(max_examples=examples(100))
@given(st.lists(_LOCKED, max_size=4, unique_by=lambda each: each.name))
def test_what_is_written_is_read(locked: list[LockedDistribution]) -> None:
    hashes = [wheel for each in locked for wheel in each.wheels]
    if len(set(hashes)) == len(hashes):
        assert parse_lock(write_lock(locked)) == tuple(sorted(locked, key=lambda each: each.name))


@settings(max_examples=examples(200))
@given(st.text(max_size=60) | st.text("ab=[],.-@;\\ #\n", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    for conditions in (False, True):
        with suppress(Malformed):
            locked = parse_lock(text.encode(errors="replace"), conditions=conditions)
            assert parse_lock(write_lock(locked), conditions=conditions) == locked
