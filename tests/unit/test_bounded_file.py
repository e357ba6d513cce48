"""Files are read up to a bound, and each way to fail has its own kind of error."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.bounded_file import read_at_most, read_bounded
from comity.trust.errors import Malformed, NotFound, Unavailable


def test_a_file_of_the_bound_is_read_and_a_longer_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345678")
    assert read_bounded(file, 8) == b"12345678"
    assert read_at_most(file, 3) == b"123"
    with pytest.raises(Malformed, match="file is too large: more than 7 bytes"):
        read_bounded(file, 7)


def test_a_file_that_is_not_there_is_not_found_and_one_that_cannot_be_read_is_not_available(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no file") as missing:
        read_bounded(tmp_path / "file", 8, hint="comity init --help")
    assert missing.value.hint == "comity init --help"
    with pytest.raises(Unavailable, match="cannot be read") as unreadable:
        read_bounded(tmp_path, 8)
    assert unreadable.value.code == "UNAVAILABLE"
