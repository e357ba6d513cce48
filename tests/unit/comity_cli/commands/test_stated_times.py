"""Times that members and nodes state: commands show every value, also those outside of the calendar."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from comity.trust.encoding import sha256
from comity.trust.tlog.note import MAX_TIMESTAMP
from comity.wire.limits import INTEGER
from comity_cli.commands import member
from comity_cli.following import show_cache_basis
from comity_cli.main import command
from comity_cli.offers.rendering import when
from comity_cli.output import Output
from comity_client.cache_basis import CacheBasis


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "1970-01-01 00:00Z"),
        (253_402_300_799, "9999-12-31 23:59Z"),
        (MAX_TIMESTAMP, f"second {MAX_TIMESTAMP}"),
    ],
)
def test_an_offer_of_any_time_is_shown(seconds: int, shown: str) -> None:
    assert when(seconds) == shown


def test_a_cosigner_whose_clock_is_wrong_hides_no_copy(capsys: pytest.CaptureFixture[str]) -> None:
    show_cache_basis(Output(), CacheBasis("no answer", MAX_TIMESTAMP), "hashed", 1_800_000_000)
    assert f"last cosigned on day {MAX_TIMESTAMP // 86_400}" in capsys.readouterr().out


@pytest.mark.parametrize(("since", "shown"), [(1_800_000_000, "2027-01-15"), (INTEGER, f"day {INTEGER // 86_400}")])
def test_a_request_to_join_with_any_stated_time_is_listed(
    monkeypatch: pytest.MonkeyPatch, since: int, shown: str
) -> None:
    inception = SimpleNamespace(label="Example Centre", jurisdiction="ES", id=sha256(b"a newcomer"))
    asked: Any = SimpleNamespace(card=SimpleNamespace(inception=inception), since=since)
    context = SimpleNamespace(governance=SimpleNamespace(applicants=lambda: [asked]))
    monkeypatch.setattr(member, "CharterContext", lambda **_: context)
    ran = CliRunner().invoke(command, ["member", "asks"], obj=Output())
    assert ran.exit_code == 0, ran.output
    assert shown in ran.stdout
