"""A founding that goes from founder to founder in one file: what is believed of it, and when it is complete."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from comity.federation_file import read_federation
from comity.trust.encoding import b64encode
from comity.trust.errors import ComityError, Conflict, Malformed, Untrusted
from comity_client.founding import consent_to, draft_genesis, seal_federation
from comity_client.founding_file import (
    MAX_FOUNDING,
    Founding,
    gather_founding,
    install_federation,
    is_founding,
    parse_founding,
    read_founding,
)
from support.federation import NodeHome, make_home


@pytest.fixture(scope="module", name="homes")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> list[NodeHome]:
    folder = tmp_path_factory.mktemp("founders")
    return [make_home(folder / str(number), number) for number in range(4)]


def begun(homes: list[NodeHome], *signers: NodeHome) -> Founding:
    founding = gather_founding([home.card for home in homes])
    for signer in signers:
        founding = founding.with_consent(consent_to(founding.body, signer.directory))
    return founding


def test_the_file_goes_round_until_all_have_signed(homes: list[NodeHome]) -> None:
    founding = begun(homes[:3])
    for number, home in enumerate(homes[:3]):
        assert len(founding.missing) == 3 - number
        founding = parse_founding(founding.encode())
        founding = founding.with_consent(consent_to(founding.body, home.directory))
    assert founding.missing == ()
    sealed = founding.seal()
    assert sealed.body == draft_genesis([home.card for home in homes[:3]])
    assert {node.record.name for node in sealed.nodes} == {home.name for home in homes[:3]}


def test_files_that_two_founders_signed_at_the_same_time_fit_together(homes: list[NodeHome]) -> None:
    one, other = begun(homes[:2], homes[0]), begun(homes[:2], homes[1])
    assert gather_founding([], [one, other]).missing == ()
    assert gather_founding([homes[0].card], [other, one]) == gather_founding([], [one, other])


def test_one_more_founder_makes_another_charter_which_nobody_has_signed(homes: list[NodeHome]) -> None:
    signed = begun(homes[:2], *homes[:2])
    grown = gather_founding([homes[2].card], [signed])
    assert len(grown.body.members) == 3 and len(grown.missing) == 3


def test_a_founding_that_not_all_signed_is_no_federation(homes: list[NodeHome]) -> None:
    with pytest.raises(Untrusted) as caught:
        begun(homes[:2], homes[0]).seal()
    assert homes[1].card.inception.label in caught.value.why


def test_a_consent_counts_for_exactly_the_charter_that_its_member_signed(homes: list[NodeHome]) -> None:
    small, large = begun(homes[:2], homes[0]), begun(homes[:3])
    ((_, line),) = small.consents
    assert large.with_consent(line).consents == ()
    assert small.with_consent(b"{}").consents == small.consents
    document = json.loads(small.encode())
    document["charter"] = b64encode(large.body.data)
    with pytest.raises(Untrusted):  # cards of two, a charter of three
        parse_founding(json.dumps(document).encode())


def test_two_charters_with_the_same_members_are_a_choice_for_people(homes: list[NodeHome]) -> None:
    ours = begun(homes[:2], homes[0])
    cards = [home.card for home in homes[:2]]
    policy = replace(ours.body.policy, min_copies=1)
    theirs = replace(ours, body=draft_genesis(cards, policy), consents=())
    with pytest.raises(Conflict) as caught:
        gather_founding([], [ours, theirs])
    assert caught.value.code == "FOUNDING"


def test_a_founder_with_two_cards_is_told_so(homes: list[NodeHome]) -> None:
    card = homes[0].card
    with pytest.raises(Conflict):
        gather_founding([card, replace(card, open=("elsewhere.example:7444",))])


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[" * 10_000, b'{"schema":"comity/founding/v1"}', b" " * (MAX_FOUNDING + 1)]
)
def test_a_file_that_is_no_founding_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ComityError):
        parse_founding(data)
    file = tmp_path / "file"
    file.write_bytes(data)
    if len(data) <= MAX_FOUNDING:
        assert is_founding(file) == (b"founding" in data)
    else:
        with pytest.raises(Malformed):
            read_founding(file)


def test_a_node_takes_the_federation_that_its_member_signed_and_no_other(homes: list[NodeHome], tmp_path: Path) -> None:
    first, second = homes[0].directory, homes[1].directory
    file, target = tmp_path / "founding.json", first / "federation.json"
    file.write_bytes(begun(homes[:2], homes[0]).encode())
    with pytest.raises(Untrusted):
        install_federation(first, file)
    founding = begun(homes[:2], *homes[:2])
    file.write_bytes(founding.encode())
    with pytest.raises(Untrusted) as caught:
        install_federation(homes[2].directory, file)
    assert caught.value.code == "NOT-MY-SEAT"
    assert not target.exists()
    try:
        install_federation(first, file)
        assert read_federation(target) == founding.seal()
        install_federation(first, file)  # a node that starts again
        other = begun(homes[:3], *homes[:3])
        sealed = seal_federation(other.body, [line for _, line in other.consents], other.cards)
        (tmp_path / "federation.json").write_bytes(sealed.encode())
        with pytest.raises(Conflict):
            install_federation(first, tmp_path / "federation.json")
        install_federation(second, tmp_path / "federation.json")
    finally:
        target.unlink(missing_ok=True)
        (second / "federation.json").unlink(missing_ok=True)
