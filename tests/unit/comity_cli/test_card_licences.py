"""The licence that an upstream's card claims: recorded as it is, and marked where it is no SPDX expression."""

from __future__ import annotations

from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.trust.claims import MirrorEvidence, ProvenObservation
from comity.trust.encoding import sha256
from comity.trust.upstream import Conditions, Observed
from comity_cli.mirroring import MirroredItem, card_licence, show_mirroring
from comity_cli.output import Output
from support.case import nodes
from support.observations import observation

(CH,) = nodes(1)
MARK = "not an SPDX expression"


@pytest.mark.parametrize("licence", ["mit", "Apache-2.0", "mit OR apache-2.0", "LicenseRef-Gemma"])
def test_an_spdx_expression_is_shown_without_a_mark(licence: str) -> None:
    assert card_licence(Conditions(licence)) == f"{licence} (claimed by the upstream's card)"


@pytest.mark.parametrize("licence", ["other", "llama3.1 community", "gemma", "mit or", "Ask first, v2"])
def test_any_other_text_of_a_card_is_recorded_and_marked(licence: str, capsys: pytest.CaptureFixture[str]) -> None:
    made = Observed.parse(observation(CH, sha256(b"manifest")).statement)
    signed = sign_content(replace(made, conditions=Conditions(licence)), CH.online)
    seen = ProvenObservation(signed, Observed.parse(signed.statement), ())
    mirroring = MirrorEvidence((seen,), (), ())
    show_mirroring(Output(), mirroring)
    assert f"{licence} (claimed by the upstream's card; {MARK})" in capsys.readouterr().out
    (item,) = MirroredItem.of(mirroring).observations
    assert (item.licence, item.licence_is_listed) == (licence, False)


def test_a_card_without_a_licence_is_not_reported_as_unlisted() -> None:
    assert card_licence(Conditions()) == ""
