"""Every kind of statement has a class that reads what it says, and writes the same again."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from comity.rules.signing import sign_content
from comity.rules.statement_readers import CONTENTS, FORMS, read_content
from comity.trust.errors import Malformed
from comity.trust.evaluation import EvaluationAnnounced
from comity.trust.statement import PAYLOAD_TYPE, Entry, Envelope, Statement
from comity.trust.statement_kinds import STATEMENT_KINDS
from support.documents import statements
from support.samples import derived_samples
from support.world import identity

SAMPLES = [(Statement.parse(payload), payload) for payload in statements()]


@pytest.mark.parametrize(("said", "payload"), SAMPLES, ids=[said.predicate for said, _ in SAMPLES])
def test_what_a_statement_says_is_written_as_it_was_read(said: Statement, payload: bytes) -> None:
    content = read_content(Entry(b"", Envelope(PAYLOAD_TYPE, payload, ()), said))
    assert content is not None
    assert replace(content.statement(said.by), objects=said.objects).encode() == payload
    assert type(content).parse(said) == content


def test_every_class_is_a_form_of_a_kind_and_read_by_some_sample() -> None:
    assert Counter(form for forms in FORMS.values() for form in forms) == Counter(CONTENTS)
    assert all(FORMS[kind] for kind in STATEMENT_KINDS)
    read = {type(read_content(Entry(b"", Envelope(PAYLOAD_TYPE, payload, ()), said))) for said, payload in SAMPLES}
    assert read == set(CONTENTS)


def test_a_sample_is_made_from_a_class_where_its_members_may_have_any_value() -> None:
    made = {Statement.parse(payload).predicate for payload in derived_samples()}
    assert {"wanted", "hold-withdrawn", "evaluation-announced"} < made
    assert not made & {"published", "approved"}


def test_what_does_not_read_back_is_not_signed() -> None:
    who = identity("An evaluator", "CH")
    said = EvaluationAnnounced(who.inception.author, who.id, who.id)
    assert EvaluationAnnounced.parse(sign_content(said, who.signer).statement) == said
    with pytest.raises(Malformed):
        sign_content(replace(said, criteria=said.criteria.upper()), who.signer)  # type: ignore[arg-type]
