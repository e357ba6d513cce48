"""The parts of the console without a node: cards, copies, the map, and templates given hostile texts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import pytest
from comity.content.gateway_tokens import Token
from comity.content.kept_plan_checks import KeptPlanCheck, UnreadPlanCheck
from comity.gateway.console.artifact import CopyTest, CopyView, issuers
from comity.gateway.console.cards import MAX_CARD, card_html
from comity.gateway.console.copies import CopyHolders
from comity.gateway.console.decided import DecidedChange
from comity.gateway.console.languages import LANGUAGES
from comity.gateway.console.member_map import GAP, PLACES, TILE, federation_map, map_image, tiles
from comity.gateway.console.node_pages import TokenView, WaitingWork, sent_by_caller
from comity.gateway.console.proposals import CharterDifference, CharterSide, PendingVote, ProposalView
from comity.gateway.console.sessions import BrowserSession
from comity.gateway.console.state import (
    LOST_KEY,
    STATEMENTS,
    Alert,
    FrontEndView,
    MemberView,
    NodeView,
    Severity,
    StateReader,
    lost_key_alerts,
    most_urgent_first,
    peer_state,
)
from comity.gateway.console.words import day, environment, moment
from comity.node.config import SettingOrigin
from comity.node.copies.index import CopiesIndex, CopyChanges, HoldFact
from comity.node.lost_keys import FoundLostKeys, LostKey
from comity.node.maintenance.membership_costs import LEAST_SECONDS, PriceList, membership_costs
from comity.node.maintenance.settings_shown import ShownSetting
from comity.rules.copy_counts import CopyPolicy
from comity.trust.charter.document import Member
from comity.trust.encoding import LAST_TIME, Digest, short
from comity.trust.errors import NotFound
from comity.trust.evidence import Row, RowFact
from comity.trust.places import COUNTRIES
from comity.trust.statement import SideObject
from comity.trust.statement_kinds import KNOWN_PREDICATES
from comity.trust.statements import Compromise
from comity.wire.node import ReplicaCounts
from comity.wire.node_status import (
    LackingArtifact,
    MemberCopies,
    NodeStatus,
    PeerStatus,
    Quota,
    ReplicationStatus,
    ServedStatus,
    StoreStatus,
)
from support.console import HOSTILE, HOSTILE_CARDS, check_page, read_page
from support.continuity_facts import NOW, all_facts, checked, some_facts
from support.world import identity

RULE = CopyPolicy(2, 2)


def member(number: int, jurisdiction: str) -> Member:
    inception = identity(f"member {number}").inception
    return Member(inception.id, f"member {number}", jurisdiction, inception.keys, ())


def holders() -> CopyHolders:
    return CopyHolders([member(0, "CH"), member(1, "CH"), member(2, "ES"), member(3, "SG")])


def test_copies_in_one_jurisdiction_do_not_meet_a_rule_of_two() -> None:
    found = holders()
    assert not found.meets(0b0011, RULE)
    assert found.meets(0b0101, RULE)
    assert not found.meets(0b0100, RULE)


def test_copies_on_one_cloud_do_not_meet_a_rule_of_two_reaches() -> None:
    members = [member(0, "CH"), member(1, "ES"), member(2, "SG")]
    cloud = {seat.id: (seat.jurisdiction, "US") for seat in members[:2]}
    rule = CopyPolicy(2, 2, 2)
    assert not CopyHolders(members, cloud).meets(0b011, rule)
    assert not CopyHolders(members, cloud).meets(0b111, rule)  # the third one declares nothing
    assert CopyHolders(members, cloud | {members[2].id: ("SG",)}).meets(0b101, rule)


def test_the_loss_of_a_member_is_counted_by_what_it_leaves() -> None:
    found, sets = holders(), {0b0101: 3, 0b1101: 2, 0b0100: 4, 0: 1}
    counts = found.count(sets, RULE)
    assert (counts.total, counts.enough, counts.short, counts.none) == (10, 5, 5, 1)
    loss = found.loss(sets, RULE, found.bit(found.members[2]))
    assert (loss.newly_short, loss.lost) == (3, 4)
    assert loss.after.enough == 2
    assert found.loss(sets, RULE, found.where("CH")).newly_short == 3
    assert found.where("XX") == 0


def test_a_reader_of_changes_knows_when_it_missed_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.node.copies.index.MAX_CHANGES", 3)
    copies, side = CopiesIndex(tmp_path / "copies.sqlite", "own", lambda: 1), SideObject(Digest("c" * 64), 1)
    facts = [HoldFact(Digest(f"{n:064x}"), "log", Digest("e" * 64), n, side, side) for n in range(5)]
    copies.add(facts[:2])
    assert copies.changes(0, 1) == CopyChanges((facts[0].artifact,), 1, False)
    assert copies.changes(1, 9) == CopyChanges((facts[1].artifact,), 2, False)
    copies.add(facts[2:])
    assert copies.changes(2, 9).artifacts == tuple(fact.artifact for fact in facts[2:])
    assert copies.changes(1, 9) == CopyChanges((), 5, True)
    copies.begin_again("own")
    assert copies.changes(5, 9).missed
    assert copies.changes(copies.change_position, 9) == CopyChanges((), 6, False)
    copies.close()


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_of_audits_stay_text(text: str) -> None:
    outcomes = ("passed", "missed", text)
    tests = tuple(CopyTest(text, False, 20_000, outcome, 3, True) for outcome in outcomes)
    copy = CopyView(text, text, "claimed", assessed="failed", tests=tests)
    template = environment("en").from_string("{% import 'parts.html' as p with context %}{{ p.tests(copy) }}")
    page = read_page(template.render(copy=copy, reader=OfReader()))
    assert {name for name, _ in page.elements} <= {"div", "span"}
    assert not copy.counts


@pytest.mark.parametrize("card", HOSTILE_CARDS)
def test_no_text_of_a_card_becomes_markup_of_its_own(card: bytes) -> None:
    page = read_page(str(card_html(card)))
    allowed = {"p", "ul", "ol", "li", "blockquote", "table", "thead", "tbody", "tr", "th", "td", "em", "strong", "a"}
    allowed |= {"span", "div", "pre", "code", "br", "hr", "h3", "h4", "h5", "h6"}
    assert {name for name, _ in page.elements} <= allowed
    for name, attributes in page.elements:
        assert set(attributes) <= {"href", "rel", "class", "tabindex", "role"}
        if name == "a":
            assert re.match(r"https?://", attributes["href"])
            assert "noopener" in attributes["rel"]


def test_a_card_keeps_what_its_author_meant() -> None:
    page = read_page(
        str(card_html(b"---\nlicense: mit\n---\n# Title\n\nA *good* [page](https://a.example/b).\n\n- one\n"))
    )
    assert ("h3", {}) in page.elements
    assert ("a", {"href": "https://a.example/b", "rel": "nofollow noopener noreferrer ugc"}) in page.elements
    assert "license" not in page.text
    assert "Title" in page.text


@pytest.mark.parametrize("mark", ["\u202e", "\u2066", "\u061c", "\u200f"])
@pytest.mark.parametrize(
    "written",
    ["{}", "&#x{:x};", "&#{};", "a `{}` b", "```\n{}\n```", "    {}", "[a&#x{:x};](https://a.example)", "&rlm;"],
)
def test_a_card_turns_no_text_around_however_the_mark_is_written(mark: str, written: str) -> None:
    text = written.format(ord(mark) if "&" in written else mark)
    page = read_page(str(card_html(f"# one\n\n{text} two\n".encode())))
    assert "one" in page.text
    assert not re.search("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", str(card_html(f"{text} two".encode())))


def test_a_card_is_cut_at_its_bound() -> None:
    assert len(card_html(b"a" * 10_000_000)) < MAX_CARD + 100


def test_the_parser_of_cards_is_loaded_with_the_first_card() -> None:
    script = "import sys, comity.gateway.console.cards; print('markdown_it' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_a_time_after_the_last_date_is_no_error_of_a_page() -> None:
    """A peer may claim any time; none of them may break a page."""
    assert (day(LAST_TIME), moment(LAST_TIME)) == ("9999-12-31", "9999-12-31 23:59 UTC")
    assert (day(LAST_TIME + 1), moment(LAST_TIME + 1)) == (f"second {LAST_TIME + 1}", f"second {LAST_TIME + 1}")


def test_every_country_of_the_map_is_one_and_stands_alone() -> None:
    assert set(PLACES) <= COUNTRIES | {"XK"}
    assert len(set(PLACES.values())) == len(PLACES)


def view(name: str, jurisdiction: str, state: Any) -> MemberView:
    node = NodeView(name, f"{name}/log", state)
    return MemberView(Digest("0" * 64), name, jurisdiction, True, state == "here", (node,), 1, 0, 0, 0)


def test_the_map_says_in_text_what_its_colours_say() -> None:
    members = [view("a", "CH", "here"), view("b", "ES", "down"), view("c", "mars", "up"), view("d", "CH", "unknown")]
    picture = str(map_image(tiles(members, {"ES": ("b: does not answer",)}, {"ES": "3 days"}), "Map"))
    page = read_page(picture)
    assert "does not answer" in page.text
    assert "✕" in page.text
    assert "?" in page.text
    assert "style" not in {name for _, attributes in page.elements for name in attributes}


def size_of_map(*jurisdictions: str) -> tuple[int, int]:
    members = [view(code, code, "up") for code in jurisdictions]
    ((_, svg), *_) = read_page(str(map_image(tiles(members, {}, {}), "Map"))).elements
    left, top, width, height = (int(number) for number in svg["viewbox"].split())
    assert (svg["width"], svg["height"]) == (str(width), str(height))
    for code in set(jurisdictions) & set(PLACES):
        column, row = PLACES[code]
        assert left <= column * (TILE + GAP) <= left + width - TILE and top <= row * (TILE + GAP) <= top + height - TILE
    return width, height


def test_the_map_is_as_large_as_what_it_shows() -> None:
    one, neighbours, continents = size_of_map("CH"), size_of_map("CH", "FR"), size_of_map("CH", "BR", "KR")
    assert one < neighbours < continents
    assert one[0] * 3 < continents[0]
    assert size_of_map("mars", "venus")[0] < continents[0]
    assert map_image([], "Map") == ""


def test_lines_of_the_map_lie_in_the_picture() -> None:
    members = [view("a", "CA", "here"), view("b", "JP", "up"), view("c", "US", "up")]
    picture = read_page(str(map_image(tiles(members, {}, {}), "Map")))
    top = int(picture.found("svg")[0]["viewbox"].split()[1])
    for link in picture.found("path"):
        _, begin, _, bend, _, end = (int(number) for number in re.findall(r"-?\d+", link["d"]))
        peak = min((1 - at) ** 2 * begin + 2 * at * (1 - at) * bend + at**2 * end for at in (n / 50 for n in range(51)))
        assert top <= peak


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_in_the_map_stay_text(text: str) -> None:
    members = [view(text, text[:40] or "x", "here")]
    page = read_page(str(map_image(tiles(members, {text[:40]: (text,)}, {text[:40]: text}), text)))
    assert {name for name, _ in page.elements} <= {"svg", "g", "rect", "path", "title", "text"}


class OfReader:
    """The functions of a reader that a template calls."""

    language, chosen, prefix = "en", False, ""
    session: Any = None

    def field(self, name: str) -> str:
        return ""

    def in_language(self, language: str) -> str:
        return f"?lang={language}"


def shown(template: str, **values: Any) -> str:
    common = {"reader": OfReader(), "link": lambda path, **query: path, "languages": LANGUAGES, "node": "node"}
    common |= {"statements": STATEMENTS, "log_id": lambda vkey: "0" * 16, "state": None, "signs_in": True}
    return environment("en").get_template(template).render(**{**common, **values})


def proposal_of(text: str) -> ProposalView:
    vote = PendingVote(text, "intent", text, text, False)
    change = CharterDifference("member", text, CharterSide(text, (text,)), None)
    return ProposalView(Digest("a" * 64), 2, text, text, (text,), (text,), 3, 4, (change,), (vote,), text)


def decided_of(text: str, seen: int | None = None) -> DecidedChange:
    return DecidedChange(1, Digest("5" * 64), proposal_of(text).changes, (text,), seen)


def test_a_decided_change_names_its_date_and_its_voters() -> None:
    page = shown("proposals.html", proposals=[], decided=[decided_of("Institute CH", 86_400)], state=OfState())
    assert "Institute CH" in page and "1970-01-02" in page and "No change of the charter is open" in page
    assert "no date is proven here" in shown("proposals.html", proposals=[], decided=[decided_of("x")], state=OfState())
    assert "What was decided" not in shown("proposals.html", proposals=[], decided=[], state=OfState())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_proposals_stay_text(text: str) -> None:
    check_page(shown("proposals.html", proposals=[proposal_of(text)], decided=[decided_of(text)], state=OfState()))


@pytest.mark.parametrize(
    ("template", "values", "invented"),
    [
        ("proposals.html", {"proposals": [], "decided": []}, "No change of the charter is open"),
        ("compute.html", {"page": None, "closed": False}, "No offer is open"),
        ("descent.html", {"counted": None, "shares": None}, "are being counted"),
    ],
)
@pytest.mark.parametrize("writer", ["publish.example.org:7444", ""])
def test_a_front_end_says_what_it_does_not_know(
    template: str, values: Mapping[str, Any], invented: str, writer: str
) -> None:
    state = OfState()
    state.front_end = FrontEndView(True, writer)
    page = read_page(shown(template, state=state, signs_in=False, **values))
    assert "Only the process that writes the logs of this node knows" in page.text
    assert writer in page.text
    assert not any(text in page.text for text in (invented, "Sign in"))


def continuity(check: KeptPlanCheck, now: float = NOW) -> str:
    state = OfState()
    state.now = int(now)
    return shown("continuity.html", checks=[check], unread=[], state=state, reader=signed_in("ada"))


def test_a_check_of_a_plan_is_a_table_whose_colours_are_words_until_it_is_stale() -> None:
    check = KeptPlanCheck.of(checked(all_facts(some_facts(drill=None))))
    text = " ".join(read_page(continuity(check)).text.split())
    assert "Amber: would be replaced, with gaps" in text and "Green: would be replaced" in text
    assert "the service was never drilled with this kit" in text and "never drilled" in text and "at most 60" in text
    assert check.plan in text and str(check.signer) in text and "Stale" not in text
    stale = continuity(check, NOW + 3 * 86_400)
    assert "What it found is not known to hold now" in stale
    assert not any(f'class="basis {kind}"' in stale for kind in ("here", "bad"))


def test_without_a_plan_the_page_says_how_one_is_checked() -> None:
    page = shown("continuity.html", checks=[], unread=[], state=OfState(), reader=signed_in("ada"))
    assert "comity continuity check plan.toml --keep HOME" in page and "<table" not in page


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_of_a_kept_check_stay_text(text: str) -> None:
    check = KeptPlanCheck.of(checked(all_facts(some_facts(drill=None))))
    (gap,) = check.services[0].missing
    link = replace(gap, text=text, by=text, hint=text, basis="claimed")
    service = replace(check.services[0], name=text, used_by=(text,), replaced_by=text, where=text, missing=(link,))
    check_page(continuity(replace(check, name=text, missing=(link,), services=(service,))))
    unread = [UnreadPlanCheck(Path(text.replace("/", "-").replace("\x00", "")), text)]
    check_page(shown("continuity.html", checks=[], unread=unread, state=OfState(), reader=signed_in(text)))


def test_costs_are_shown_where_prices_are_stated_and_otherwise_how_to_state_them() -> None:
    prices = PriceList("CHF", Decimal(150), {"kwh": Decimal("0.27"), "hour": Decimal(95)})
    status = NodeStatus("test", "node/log", 0, (), (), StoreStatus(1, 10**12, None, 0), 0, 0, (), ())
    costs = membership_costs(status, 10**12, prices)
    page = shown("costs.html", costs=costs, least=LEAST_SECONDS, state=OfState(), reader=signed_in("ada"))
    text = " ".join(read_page(page).text.split())
    assert "Energy1,314 kWhstated by the operator0.27 CHF355 CHF" in text
    assert "Together, of what has a price" in text and "Measured for less than a week" in text
    none = shown("costs.html", costs=None, least=LEAST_SECONDS, state=OfState(), reader=signed_in("ada"))
    assert "comity costs --prices prices.toml --node HOME" in none and "<table" not in none


def test_the_map_of_a_front_end_does_not_say_that_nobody_was_asked() -> None:
    state: Any = SimpleNamespace(members=[view("b", "ES", "unknown")], now=0, front_end=FrontEndView(True, ""))
    assert "The writer knows" in read_page(str(federation_map(state, "en"))).text
    state.front_end = None
    assert "Not asked yet" in read_page(str(federation_map(state, "en"))).text


def signed_in(who: str) -> OfReader:
    reader = OfReader()
    reader.session = BrowserSession("0011", who, "operator", "oidc", 0, True, "form-key")
    return reader


def part(call: str, **values: Any) -> str:
    """What a macro of `parts.html` makes."""
    called = '{% import "parts.html" as parts with context %}{{ parts.' + call + " }}"
    return environment("en").from_string(called).render(state=OfState(), **values)


def test_what_is_only_claimed_has_no_green_mark() -> None:
    assert "basis here" in part('row_state("pass")') and "basis here" not in part('row_state("pass", true)')
    assert "Passed" in part('row_state("pass", true)')


@pytest.mark.parametrize(
    ("seen", "error", "state", "words"),
    [(0, "", "unknown", "Not asked yet"), (0, "refused", "down", "Does not answer"), (5, "", "down", "last seen")],
)
def test_a_peer_that_does_not_answer_has_one_state_on_all_pages(seen: int, error: str, state: str, words: str) -> None:
    peer = PeerStatus("n", "CH", "a:1", False, seen, 0, error)
    assert peer_state(peer) == state
    assert words in part("node_state(member, 9)", member={"state": peer_state(peer), "last_seen": seen})


def test_a_draft_with_an_objection_is_nobodys_turn_because_of_it() -> None:
    stopped = replace(proposal_of("text"), pending=())
    assert "because of the objection" in shown("proposals.html", proposals=[stopped], decided=[], state=OfState())
    agreed = replace(stopped, objection="")
    assert "Nobody has to act now" in shown("proposals.html", proposals=[agreed], decided=[], state=OfState())


@pytest.mark.parametrize(
    ("subject", "kind", "shown"),
    [
        ("offer", "", "une offre de machines"),
        ("charter", "", "la charte"),
        ("a key of A [0011]", LOST_KEY, "une clé de A [0011]"),
        ("a/b@v1", "", "a/b@v1"),
        ("", "", "–"),
    ],
)
def test_what_an_entry_is_about_is_in_the_language_of_the_page(subject: str, kind: str, shown: str) -> None:
    called = '{% import "parts.html" as parts with context %}{{ parts.subject(subject, kind) }}'
    assert environment("fr").from_string(called).render(state=None, subject=subject, kind=kind) == shown


def test_an_address_without_a_page_is_said_in_the_language_of_the_reader() -> None:
    missing = NotFound("no such address", code="NO-SUCH-ROUTE")
    assert "No page has this address" in read_page(shown("error.html", error=missing)).text
    assert "no such artifact" in read_page(shown("error.html", error=NotFound("no such artifact"))).text


def test_a_warning_names_its_author_where_the_sentence_says_whose_word_it_is() -> None:
    by, other = Digest("ab" * 32), Digest("cd" * 32)
    states = cast(StateReader, SimpleNamespace(authors=lambda found: dict.fromkeys(found, "Institute CH (CH)")))
    row = Row(
        "disputes and advisories", "fail", "", 13, facts=(RowFact("a", "claimed", by), RowFact("b", "claimed", "A"))
    )
    named = StateReader.namer(states, issuers([row]))
    assert named(f"yank (high): wrong, says {by}") == "yank (high): wrong, says Institute CH (CH)"
    assert named(f"yank (high): wrong says {short(by)}; 1 in all").endswith("says Institute CH (CH); 1 in all")
    assert (named(by), named(other), named("its publisher")) == ("Institute CH (CH)", other, "its publisher")
    assert named(f"the parent is {by}") == f"the parent is {by}"
    assert StateReader.namer(states, [])(f"says {by}") == f"says {by}"


ORIGINS: tuple[Literal["default", "file", "environment"], ...] = ("default", "file", "environment")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_on_the_pages_of_the_node_stay_text(text: str) -> None:
    digest, reader = Digest("a" * 64), signed_in(text)
    lacking = tuple(LackingArtifact(digest, text, state, text, text, 5) for state in ("copying", "waits", "paused"))
    report = NodeStatus(
        software=text,
        origin=text,
        started=0,
        peers=(PeerStatus(text, text, text, False, 1, 2, text, True),),
        logs=(),
        store=StoreStatus(1, 2, None, 0),
        holds=1,
        misbehaviour=0,
        quotas=(Quota(text, 1, 2),),
        warnings=(text,),
        served=(ServedStatus(text, digest, 5),),
        replication=ReplicationStatus(
            ReplicaCounts(1, 3), lacking=lacking, members=(MemberCopies(digest, text, 1, 2, None, 3, text),)
        ),
    )
    waiting = WaitingWork((proposal_of(text),), 1, 1, 1)
    sent = sent_by_caller(report)
    values = {"report": report, "sent": sent, "received": [(text, 1)], "sent_in_all": 5, "reserve": 1}
    values |= {"peer_state": peer_state}
    check_page(shown("node.html", reader=reader, state=OfState(), waiting=waiting, **values))
    check_page(shown("waiting.html", reader=reader, state=OfState(), waiting=waiting))
    own = reader.session
    other = replace(own, id="0022")
    check_page(shown("sessions.html", reader=reader, state=OfState(), own=own, sessions=[(own, 0), (other, 9)]))
    check_page(shown("sign_in.html", reader=OfReader(), key=text))
    settings = [ShownSetting(text, text, SettingOrigin(kind, text)) for kind in ORIGINS]
    check_page(shown("settings.html", reader=reader, settings=settings, changed=True))
    token = Token("0011", text, (text,), 0, digest, 5)
    views = [TokenView(token, 5, True), TokenView(replace(token, expires=0), 0, False)]
    check_page(shown("tokens.html", reader=reader, tokens=views, made=token, secret=text, now=9))


class OfState:
    governance, alerts, now, situation = None, (), 0, "running"
    front_end: FrontEndView | None = None


def test_alerts_are_shown_with_the_most_urgent_first() -> None:
    kinds: tuple[Severity, ...] = ("notice", "warning", "alarm")
    shown_alerts = [Alert(kind, f"{kind} {number}", {}) for number in (1, 2) for kind in kinds]
    assert [alert.text for alert in most_urgent_first(shown_alerts)] == [
        f"{kind} {number}" for kind in ("alarm", "warning", "notice") for number in (1, 2)
    ]


@pytest.mark.parametrize("publishers", [2, 20, 21])
def test_a_publisher_with_many_lost_keys_has_one_alert(publishers: int) -> None:
    """Also where its reports alone are more than the alerts that are shown."""
    who = [Digest(f"{number:064x}") for number in range(publishers)]
    lost = [LostKey(each, "Lab", Compromise(each, "a/log", index), "", 1) for each in who for index in range(30)]
    shown = [*lost_key_alerts(FoundLostKeys(tuple(lost)))]
    assert [alert.link.partition("=")[2] for alert in shown if alert.link] == who[:20]
    assert any(not alert.link for alert in shown) == (publishers > 20)


def test_every_kind_of_statement_has_a_label_and_every_label_a_kind() -> None:
    assert set(STATEMENTS) == KNOWN_PREDICATES | {LOST_KEY}
