"""Who may call what: every call that a running node lists, made by every kind of caller. Nothing is listed here by
hand: the calls come from the node's server reflection, and their rules from the contract."""

from __future__ import annotations

from pathlib import Path

import pytest
from comity.v1 import access_pb2
from comity.wire.access import Caller, CallRule
from comity.wire.services import CALL_RULES
from support.callers import callers, calls_of, refusal
from support.federation import found, serving

UNDECLARED = "ACCESS-UNDECLARED"


async def test_each_call_is_refused_to_whom_its_rule_does_not_name_and_to_nobody_else(tmp_path: Path) -> None:
    home, peer = found(tmp_path, 2).homes
    home.set("limits", open_calls_per_second=1000.0)
    async with serving(home), callers(home, peer) as who:
        paths = calls_of(await who["operator"].services())
        assert set(paths) == set(CALL_RULES), "a call without a rule, or a rule without a call"
        refusals = {refusal(path, each.caller) for path in paths for each in who.values()} - {""}
        for path in paths:
            for name, each in who.items():
                code, wanted = await each.code(path), refusal(path, each.caller)
                assert code == wanted if wanted else code not in refusals | {UNDECLARED, "PEER-FAULT"}, (path, name)


async def test_a_port_announces_the_services_that_its_callers_may_use(tmp_path: Path) -> None:
    home, peer = found(tmp_path, 2).homes
    async with serving(home), callers(home, peer) as who:
        every = set(calls_of(await who["operator"].services()))
        for each in who.values():
            announced = await each.services()
            usable = {path.split("/")[1] for path in every if not refusal(path, each.caller)}
            assert usable <= set(announced)
        assert "comity.v1.OperatorService" not in await who["stranger"].services()


async def test_a_call_without_its_declaration_is_refused_to_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, peer = found(tmp_path, 2).homes
    home.set("limits", open_calls_per_second=1000.0)
    async with serving(home), callers(home, peer) as who:
        for path in calls_of(await who["operator"].services()):
            with monkeypatch.context() as removed:
                removed.delitem(CALL_RULES, path)
                for name, each in who.items():
                    assert await each.code(path) in (UNDECLARED, "DEADLINE-REQUIRED"), (path, name)


@pytest.mark.parametrize("missing", ["who", "cost", "request_bytes"])
def test_an_incomplete_declaration_is_none(missing: str) -> None:
    whole = access_pb2.CallAccess(who=access_pb2.WHO_ANYONE, cost=access_pb2.COST_LOOKUP, request_bytes=9)
    assert CallRule.of(whole) == CallRule(access_pb2.WHO_ANYONE, 1, 9)
    whole.ClearField(missing)  # type: ignore[arg-type]  # a name of a field
    assert CallRule.of(whole) is None


ANYONE, MEMBER, OPERATOR, SOCKET = (
    Caller("192.0.2.1"),
    Caller("peer", b"certificate"),
    Caller("admin", b"certificate", operator=True),
    Caller("operator", operator=True),
)


@pytest.mark.parametrize(
    ("who", "allowed"),
    [
        (access_pb2.WHO_UNSPECIFIED, ()),
        (access_pb2.WHO_ANYONE, (ANYONE, MEMBER, OPERATOR, SOCKET)),
        (access_pb2.WHO_MEMBER, (MEMBER, OPERATOR)),
        (access_pb2.WHO_OPERATOR, (OPERATOR, SOCKET)),
        (access_pb2.WHO_SOCKET, (SOCKET,)),
        (99, ()),
    ],
)
def test_a_rule_allows_its_callers(who: access_pb2.Who.ValueType, allowed: tuple[Caller, ...]) -> None:
    rule = CallRule(who)
    assert [each for each in (ANYONE, MEMBER, OPERATOR, SOCKET) if rule.allows(each)] == list(allowed)
