import datetime
from typing import Any

import pytest
from comity.rules.continuity.plan import (
    AgreedMachines,
    ContinuityPlan,
    ExternalService,
    KitReference,
    OwnMachine,
    PlanStatement,
    parse_plan,
)
from comity.rules.parties import Party
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed
from hypothesis import given, settings
from hypothesis import strategies as st
from support.continuity import FALLBACK, PLAN
from support.examples import examples


def _without(line: str) -> bytes:
    assert line in PLAN
    return PLAN.replace(line, "").encode()


def _with(old: str, new: str) -> bytes:
    assert old in PLAN
    return PLAN.replace(old, new).encode()


def test_every_key_of_a_plan_is_read() -> None:
    plan = parse_plan(PLAN.encode())
    assert (plan.owner, plan.name, plan.until) == ("51" * 32, "Ministry of the Interior", datetime.date(2027, 6, 30))
    assert plan.digest == sha256(PLAN.encode())
    assert plan.policy is not None and (plan.policy.name, plan.policy.sha256) == ("policy.toml", "9f" * 32)
    chat, search = plan.services
    assert chat.in_use == ExternalService("Example AI Inc.", "US", "https://api.example/v1")
    assert chat.must_survive == (Party("reach", "US"), Party("dns", ""), Party("package-index", ""))
    assert (chat.longest_outage, chat.used_by) == (60, ("letters to citizens",))
    first, second = chat.fallbacks
    assert first.kit == KitReference("org/smollm2-chat@v1", Digest("77" * 32))
    assert first.machines == OwnMachine(8 << 30, 20 << 30, 0, "linux/x86_64")
    assert first.evaluation is not None and first.evaluation.at_least == "0.9"
    assert first.approval is not None and first.approval.by == ("3c" * 32,)
    assert (first.copies.outside, first.copies.tested_within_days) == (2, 7)
    assert (first.checked_within_days, first.drilled_within_days) == (7, 90)
    assert (
        second.machines == AgreedMachines("pact", Digest("ab" * 32))
        and second.evaluation is None
        and second.approval is None
    )
    assert isinstance(search.in_use, KitReference)
    assert plan.service("chat") is chat and plan.service("nothing") is None


@pytest.mark.parametrize(
    ("data", "place", "right"),
    [
        (b"\xff", "", "not TOML"),
        (b"a = [" + b"[" * 5000, "", "not TOML"),
        (b"#" * (1024 * 1024 + 1), "", "at most"),
        (_with("comity/continuity-plan/v1", "comity/continuity-plan/v2"), "'schema'", "comity/continuity-plan/v1"),
        (_with("51" * 32, "51aa"), "'owner'", "64 hex digits"),
        (_with("until = 2027-06-30", 'until = "2027-06-30"'), "'until'", "a date without quotes"),
        (_with("until = 2027-06-30", "until = 2027-06-30T00:00:00Z"), "'until'", "a date without quotes"),
        (_without('name = "Ministry of the Interior"\n'), "'name'", "is missing"),
        (_with("[policy]\n", "[policy]\nfiles = 1\n"), "policy: ", "did you mean 'file'?"),
        (_with('file = "policy.toml"', 'file = "../policy.toml"'), "policy: 'file'", "without slashes"),
        (_with('name = "chat"', 'name = "Chat!"'), "service 1 'Chat!': 'name'", "small letters"),
        (_with('name = "search"', 'name = "chat"'), "two services have the name 'chat'", "its own"),
        (_with('kind = "external"', 'kind = "vendor"'), "service 1 'chat', in_use: 'kind'", '"external" or "kit"'),
        (_with('jurisdiction = "US"', 'jurisdiction = "us"'), "in_use: 'jurisdiction'", "country code"),
        (_with("https://api.example/v1", "ftp://api.example"), "in_use: 'base_url'", "http(s) URL"),
        (_with('["reach:US", "dns", "package-index"]', "[]"), "'must_survive'", "reach:US"),
        (_with('"reach:US", "dns"', '"reach:usa!", "dns"'), "'must_survive'", "reach:US"),
        (_with('"reach:US", "dns"', '"reach:US", "member:Anna"'), "'must_survive'", "member:ID"),
        (_with('"reach:US", "dns"', '"reach:US", "dsn"'), "'must_survive'", '"dns"'),
        (_with('"reach:US", "dns"', '"reach:US", "dns:x"'), "'must_survive'", '"dns"'),
        (_with("longest_outage = 60", "longest_outage = 0"), "'longest_outage'", "from 1 to"),
        (_with("longest_outage = 60", "longest_outage = true"), "'longest_outage'", "from 1 to"),
        (_with("longest_outage = 60", "longest_outages = 60"), "'longest_outage'", "is missing"),
        (_with(FALLBACK, ""), "service 1 'chat': 'fallback'", "[[fallback]]"),
        (_with("org/smollm2-chat@v1", "org/smollm2-chat"), "service 1 'chat', fallback 1, kit: 'name'", "@v1"),
        (_with("77" * 32, "77"), "fallback 1, kit: 'artifact'", "64 hex digits"),
        (_with('at_least = "0.9"', "at_least = 0.9"), "fallback 1, evaluation: 'at_least'", "a text"),
        (_with('at_least = "0.9"', 'at_least = "nan"'), "fallback 1, evaluation: 'at_least'", "decimal number"),
        (_with("within_days = 180", "within_days = 0"), "evaluation: 'within_days'", "from 1 to"),
        (_with("at_least = 1", "at_least = 2"), "fallback 1, approval: 'at_least'", "from 1 to 1"),
        (_with("ministry-interior", "ministry interior"), "fallback 1, approval: 'scope'", "hospital-bern"),
        (_with('by = ["' + "3c" * 32 + '"]', "by = []"), "fallback 1, approval: 'by'", "at least one"),
        (_with("linux/x86_64", "linux"), "fallback 1, machines, own: 'platform'", "linux/x86_64"),
        (_with("pact = ", 'offer = "x", pact = '), "fallback 2, machines: give one of", "pact"),
        (_with("outside = 2", "outside = 0"), "fallback 1, copies: 'outside'", "from 1 to"),
        (_with("checked_within_days = 7\n", ""), "fallback 1: 'checked_within_days'", "is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_place_and_what_would_be_right(data: bytes, place: str, right: str) -> None:
    with pytest.raises(Malformed) as refused:
        parse_plan(data)
    assert place in str(refused.value) and right in str(refused.value)


def test_a_plan_has_a_bounded_number_of_services() -> None:
    service = PLAN[PLAN.index("[[service]]") :].partition("\n[[service]]\n")[0]
    head = PLAN[: PLAN.index("[[service]]")]
    many = head + "".join(service.replace('"chat"', f'"chat-{n}"') + "\n" for n in range(201))
    with pytest.raises(Malformed, match="1 to 200 tables"):
        parse_plan(many.encode())


def test_a_plan_counts_until_the_end_of_its_last_day() -> None:
    plan = parse_plan(PLAN.encode())
    assert datetime.datetime.fromtimestamp(plan.ends, datetime.UTC).isoformat() == "2027-06-30T23:59:59+00:00"


def test_the_statement_of_a_plan_names_its_file_and_its_end() -> None:
    plan = parse_plan(PLAN.encode())
    said = PlanStatement.of(plan, 1_795_000_000)
    assert PlanStatement.parse(said.statement()) == said
    assert (said.plan, said.by, said.until) == (plan.digest, plan.owner, plan.ends)


_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=examples(200))
@given(st.data())
def test_a_changed_line_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    lines = PLAN.splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    line = lines[number]
    lines[number] = line[: data.draw(st.integers(0, len(line)))] + data.draw(st.text(max_size=10))
    try:
        plan = parse_plan("\n".join(lines).encode())
    except Malformed:
        return
    assert isinstance(plan, ContinuityPlan) and plan.services and all(each.fallbacks for each in plan.services)
