"""The own grant of a signer: found only by its grantee, and waited for where the provider has not recorded it yet."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from comity.rules.offers.records import Acceptance
from comity.trust.encoding import sha256
from comity.trust.errors import Refused, Unavailable
from comity_cli.offers import own_grant as module
from comity_cli.offers.own_grant import find_accepted_grant, find_own_grant, request_options, require_own
from support.run_command import run

OWN, OTHER, GRANT = sha256(b"own"), sha256(b"other"), sha256(b"grant")


def found(grantee: str = OWN, state: str = "granted") -> Any:
    grant_state = SimpleNamespace(grant=SimpleNamespace(grantee=grantee), digest=GRANT, state=state)
    return SimpleNamespace(view=SimpleNamespace(state=SimpleNamespace(chain=sha256(b"chain")), bundle="bundle"),
                           grant_state=grant_state)  # fmt: skip


class Context:
    """The options of a command: who signs, and what nodes know of a grant."""

    offline = False
    awaits = False
    answers = found()
    recorded: Any = found(state="accepted")

    def __init__(self, **options: Any) -> None:
        self.signer = SimpleNamespace(identity=options.get("signer", OWN))
        self.offline = bool(options.get("offline"))
        self.offer_client = self
        self.signed: list[tuple[Any, ...]] = []

    def grant(self, name: str) -> Any:
        assert name == "1f2e"
        return type(self).answers

    def awaits_record(self, seen: Any) -> bool:
        return type(self).awaits

    def wait_for_record(self, seen: Any) -> Any:
        if isinstance(type(self).recorded, Exception):
            raise type(self).recorded
        return type(self).recorded

    def sign(self, content: Any, facts: Any, **more: Any) -> None:
        self.signed.append((content, facts, more))


@pytest.fixture(autouse=True)
def _context(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("awaits", "answers", "recorded"):
        monkeypatch.setattr(Context, name, getattr(Context, name))
    monkeypatch.setattr(module, "OfferContext", Context)


def looked(accepted: bool, **options: Any) -> tuple[Any, str]:
    """What is found of `1f2e`, and what is printed meanwhile."""
    got: list[Any] = []

    @click.command()
    def command() -> None:
        got.append((find_accepted_grant if accepted else find_own_grant)("1f2e", **options))

    result = run(command)
    if result.exception:
        raise result.exception
    return got[0], result.output


@pytest.mark.parametrize("accepted", [False, True])
def test_a_grant_is_found_by_its_grantee_alone(monkeypatch: pytest.MonkeyPatch, accepted: bool) -> None:
    own, said = looked(accepted)
    assert own.ids == (OWN, sha256(b"chain"), GRANT) and own.name == GRANT[:12] and said == ""
    with pytest.raises(Refused) as raised:
        looked(accepted, signer=OTHER)
    assert raised.value.code == "NOT-YOURS" and OTHER[:12] in str(raised.value)
    monkeypatch.setattr(Context, "answers", found(OTHER))
    with pytest.raises(Refused):
        looked(accepted)


def test_an_acceptance_that_is_not_recorded_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "awaits", True)
    own, said = looked(True)
    assert own.grant_state.state == "accepted" and "has not recorded the acceptance yet; waiting" in " ".join(
        said.split()
    )
    assert looked(False)[0].grant_state.state == "granted"
    offline, said = looked(True, offline=True)
    assert offline.grant_state.state == "granted" and said == ""


def test_another_state_after_the_wait_is_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Context, "awaits", True)
    monkeypatch.setattr(Context, "recorded", found(OTHER))
    with pytest.raises(Refused):
        looked(True)
    monkeypatch.setattr(Context, "recorded", Unavailable("not recorded", code="NOT-RECORDED"))
    with pytest.raises(Unavailable):
        looked(True)


def test_what_is_signed_is_shown_with_the_facts_of_the_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "grant_facts", lambda view, state: [("of", "an offer")])
    context: Any = Context()
    own = require_own(context, found().view, found().grant_state)
    said = Acceptance(*own.ids)
    own.sign(said, "accepts:", next_command="comity x", by_signer=True, facts=[("now", "8 hours")])
    ((content, facts, more),) = context.signed
    assert content is said and facts == [("of", "an offer"), ("now", "8 hours")]
    assert more == {"title": "accepts:", "known": "bundle", "next_command": "comity x", "by_signer": True}


def options_of(*words: object) -> dict[str, Any] | int:
    got: dict[str, Any] = {}

    @click.command()
    @request_options
    def command(**options: Any) -> None:
        got.update(options)

    result = run(command, *words)
    return got if result.exit_code == 0 else result.exit_code


def test_a_request_names_what_it_wants(tmp_path: Path) -> None:
    assert options_of() == 2
    got = options_of("--want", "a:1", "--want", "b:2:30", "--from-time", "2027-01-01", "--until", "2027-01-02T12:00")
    assert isinstance(got, dict)
    assert got["wants"] == ("a:1", "b:2:30") and got["end"] - got["start"] == 36 * 3600 and got["text"] == ""
    assert options_of("--want", "a:1", "--until", "soon") == 2
