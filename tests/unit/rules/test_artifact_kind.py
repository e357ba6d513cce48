"""The kind of an artifact: who may state it, which statement counts, and what is not read as a known kind."""

from __future__ import annotations

import itertools

import pytest
from comity.rules.artifact_kind import (
    ADAPTER,
    ARTIFACT_KINDS,
    DATASET,
    EMBEDDING_STORE,
    EVALUATION_SET,
    HUB_DATASETS,
    HUB_MODELS,
    MAX_KIND,
    MAX_TRAINED_ON,
    MODEL,
    PROMPT,
    Bases,
    KindStated,
    bases,
    check_kind,
    claimed_kind,
    hub_types,
    kind_of,
    kind_text,
    kinds_to_prove,
    newest_kind,
    next_statement,
    require_hub_type,
    stated_by,
    training_parents,
)
from comity.rules.corrections import MAX_NUMBER
from comity.rules.signing import sign_content
from comity.trust.claims import read_claims
from comity.trust.encoding import Digest, sha256
from comity.trust.errors import Malformed, NotFound
from comity.trust.evidence import EvidenceReader, InclusionEvidence
from comity.trust.key_validity import KeyCircumstances
from comity.trust.names import Name
from comity.trust.statement import Author, Entry, Statement, Subject
from comity.trust.statement_kinds import ARTIFACT_KIND
from comity.trust.statements import Advisory, Compromise, Parent
from hypothesis import given
from hypothesis import strategies as st
from support.case import case, filled, nodes
from support.rotations import CLASSICAL, of
from support.several_keys import several_keys
from support.world import Identity, Log, identity

OWNER, STRANGER = identity("Owner", algs=CLASSICAL), identity("Stranger", algs=CLASSICAL)
NAME = Name.parse("inst/questions@v1")
ARTIFACT, OTHER = sha256(b"artifact"), sha256(b"other")


def said(kind: str, number: int = 0, by: Identity = OWNER, artifact: Digest = ARTIFACT) -> KindStated:
    return KindStated(by.id, NAME, artifact, kind, number)


def line(stated: KindStated, signer: Identity = OWNER) -> Entry:
    return sign_content(stated, signer.signer)


def claimed(*entries: Entry) -> str:
    return claimed_kind(circumstances(*entries), OWNER.id, ARTIFACT)


def circumstances(*entries: Entry, proofs: tuple[InclusionEvidence, ...] = ()) -> KeyCircumstances:
    """With the charter and the nodes of a case."""
    good = case()
    lines = (OWNER.entry.line, STRANGER.entry.line, *(entry.line for entry in entries))
    claims = read_claims((*lines, *good.claims), ARTIFACT)
    return KeyCircumstances(claims, proofs, claims.bound(good.policy.pins), good.policy, {}, EvidenceReader())


def lost_from(log: Log, index: int) -> Entry:
    """The notice that the key of the owner was lost at an entry of a log."""
    lost = Compromise(OWNER.signer.public.id, log.origin, index)
    notice = Advisory(Author("identity", OWNER.id), OWNER.id, "key-compromise", "critical", "the laptop is gone", lost)
    return sign_content(notice, OWNER.signer)


def test_an_artifact_of_which_nothing_is_stated_is_a_model() -> None:
    assert claimed() == MODEL
    assert kind_of(()) == MODEL


def test_its_publisher_states_its_kind() -> None:
    assert claimed(line(said(DATASET))) == DATASET


def test_a_stranger_changes_nothing() -> None:
    assert claimed(line(said(DATASET)), line(said(PROMPT, 9, STRANGER), STRANGER)) == DATASET
    assert claimed(line(said(PROMPT, 0, STRANGER), STRANGER)) == MODEL


def test_a_statement_that_its_author_did_not_sign_does_not_count() -> None:
    assert claimed(line(said(DATASET), STRANGER)) == MODEL


def test_a_statement_about_another_artifact_does_not_count() -> None:
    assert claimed(line(said(DATASET, artifact=OTHER))) == MODEL
    assert stated_by([line(said(DATASET, artifact=OTHER))], OWNER.id, ARTIFACT) == ()


def test_a_correction_counts_in_every_order_of_arrival() -> None:
    entries = line(said(DATASET)), line(said(ADAPTER, 1)), line(said(PROMPT, 2))
    assert {claimed(*order) for order in itertools.permutations(entries)} == {PROMPT}


def test_of_contradictions_with_one_number_none_counts_until_it_is_corrected() -> None:
    first = (said(DATASET, 3), said(PROMPT, 3), said(ADAPTER, 2))
    assert kind_of(first) == MODEL
    assert newest_kind(first) is None
    assert kind_of((*first, said(DATASET, 4))) == DATASET


def test_an_unknown_word_is_kept_as_it_is_and_marked_for_people() -> None:
    assert claimed(line(said("sound-bank"))) == "sound-bank"
    assert kind_text("sound-bank") == "sound-bank (not a kind that this version knows)"
    assert kind_text(DATASET) == DATASET


@pytest.mark.parametrize(
    "text", ("", "Dataset", "data set", "-a", "a-", "a--b", "a\n", "1a", "a" * (MAX_KIND + 1), "é")
)
def test_a_word_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(Malformed) as refused:
        check_kind(text)
    assert refused.value.code == "BAD-KIND"


def test_the_known_kinds_have_the_form() -> None:
    assert [check_kind(kind) for kind in ARTIFACT_KINDS] == list(ARTIFACT_KINDS)


@pytest.mark.parametrize(
    "body",
    (
        {"kind": "Dataset", "name": str(NAME), "number": 0},
        {"kind": "dataset", "name": str(NAME), "number": MAX_NUMBER + 1},
        {"kind": "dataset", "name": str(NAME), "number": -1},
        {"kind": "dataset", "name": "no name", "number": 0},
        {"kind": "dataset", "name": str(NAME)},
        {"kind": "dataset", "name": str(NAME), "number": 0, "more": 1},
    ),
)
def test_a_malformed_statement_is_refused(body: dict[str, str | int]) -> None:
    by = Author("identity", OWNER.id)
    with pytest.raises(Malformed):
        KindStated.parse(Statement(ARTIFACT_KIND, (Subject("", ARTIFACT),), by, body))


def test_what_is_proven_to_be_as_new_as_the_loss_of_its_key_decides_no_kind() -> None:
    """A thief cannot change what the owner of the key stated before, and states nothing alone."""
    log = filled(nodes(4)[0])
    first, stolen = line(said(DATASET)), line(said(PROMPT, 9))
    for entry in (first, stolen):
        log.append(entry.line)
    notice = lost_from(log, log.lines.index(stolen.line))
    proofs = tuple(log.proof(entry.line) for entry in (first, stolen))

    def kind(*entries: Entry, proofs: tuple[InclusionEvidence, ...] = proofs) -> str:
        return claimed_kind(circumstances(*entries, proofs=proofs), OWNER.id, ARTIFACT)

    assert kind(first, stolen) == PROMPT, "without the notice it is a correction"
    assert kind(first, stolen, notice) == DATASET
    assert kind(stolen, notice) == MODEL
    assert kind(first, stolen, notice, proofs=proofs[:1]) == DATASET, "where nothing proves the position of the stolen"
    assert kind(first, notice, proofs=()) == DATASET, "where nothing else is stated"


def test_a_key_that_was_not_lost_corrects_what_a_lost_one_may_have_stated() -> None:
    log = filled(nodes(4)[0])
    after, rotated = of(OWNER).to("kinds second")
    stolen, again = line(said(PROMPT, MAX_NUMBER)), sign_content(said(DATASET), after.keys[0])
    assert claimed(stolen, rotated, again, lost_from(log, 0)) == DATASET


@pytest.mark.parametrize(("stolen", "number"), ((7, 8), (MAX_NUMBER, MAX_NUMBER)))
def test_what_a_lost_key_stated_uses_up_no_corrections_and_is_corrected_with_a_higher_number(
    stolen: int, number: int
) -> None:
    lost = [said(PROMPT, stolen)]
    assert next_statement((), said(DATASET), lost) == said(DATASET, number)
    assert next_statement((), said(MODEL), lost) == said(MODEL, number)
    assert next_statement([said(DATASET, 2)], said(DATASET), lost) is None
    assert next_statement((), said(MODEL)) is None


def test_only_what_a_lost_key_signed_is_to_be_proven_and_the_first_statements_before_others() -> None:
    log = filled(nodes(4)[0])
    entries = [line(said(DATASET, number)) for number in (3, 1, 2)]
    assert kinds_to_prove(circumstances(*entries).claims, OWNER.id, ARTIFACT) == ()
    wanted = kinds_to_prove(circumstances(*entries, lost_from(log, 0)).claims, OWNER.id, ARTIFACT)
    assert [KindStated.parse(entry.statement).number for entry in wanted] == [1, 2, 3]


def test_what_the_other_keys_of_a_publisher_state_that_lost_one_counts_as_before() -> None:
    several = several_keys()
    one, two, lost = several.keys
    stated = KindStated(several.id, NAME, ARTIFACT, DATASET, 0)
    for signers, decides in (((one, two), False), ((one, lost), True), ((one, two, lost), True)):
        entry = sign_content(stated, *signers)
        claims = circumstances(several.entry, several.lost, entry).claims
        assert kinds_to_prove(claims, several.id, ARTIFACT) == (entry,) * decides


def test_a_malformed_statement_hides_no_other_one() -> None:
    by = Author("identity", OWNER.id)
    broken = Statement(ARTIFACT_KIND, (Subject("", ARTIFACT),), by, {"kind": "X"})
    entry = Entry(b"", line(said(DATASET)).envelope, broken)
    assert stated_by([entry, line(said(DATASET))], OWNER.id, ARTIFACT) == (said(DATASET),)


@given(st.lists(st.tuples(st.sampled_from(ARTIFACT_KINDS), st.integers(0, 3)), max_size=6))
def test_what_the_next_statement_states_counts(earlier: list[tuple[str, int]]) -> None:
    before = [said(*each) for each in earlier]
    for wanted in ARTIFACT_KINDS:
        following = next_statement(before, said(wanted))
        assert (following is None) == (kind_of(before) == wanted)
        assert kind_of([*before, *([following] if following else [])]) == wanted


def test_a_publisher_corrects_a_kind_so_many_times() -> None:
    with pytest.raises(Malformed) as refused:
        next_statement([said(DATASET, MAX_NUMBER)], said(PROMPT))
    assert refused.value.code == "KIND-CORRECTIONS"


def test_what_is_signed_is_read_as_it_was_made() -> None:
    assert KindStated.parse(line(said(DATASET, 1)).statement) == said(DATASET, 1)


def test_each_known_kind_has_one_type_of_repository_at_a_hub_and_an_unknown_one_has_both() -> None:
    datasets = {kind for kind in ARTIFACT_KINDS if hub_types(kind) == (HUB_DATASETS,)}
    assert datasets == {DATASET, EMBEDDING_STORE, EVALUATION_SET}
    assert {hub_types(kind) for kind in ARTIFACT_KINDS} == {(HUB_DATASETS,), (HUB_MODELS,)}
    assert hub_types("sound-bank") == (HUB_MODELS, HUB_DATASETS)


@pytest.mark.parametrize(
    ("kind", "asked", "right"),
    ((DATASET, HUB_MODELS, "/api/datasets/inst/a and /datasets/inst/a/resolve/"),
     (MODEL, HUB_DATASETS, "/api/models/inst/a and /inst/a/resolve/")),
)  # fmt: skip
def test_the_wrong_type_of_repository_is_refused_and_the_right_one_named(kind: str, asked: str, right: str) -> None:
    require_hub_type("inst/a", kind, hub_types(kind)[0])
    with pytest.raises(NotFound) as refused:
        require_hub_type("inst/a", kind, asked)
    assert refused.value.code == "OTHER-KIND"
    assert right in (refused.value.hint or "")


def test_an_unknown_kind_is_answered_as_either_type() -> None:
    for asked in (HUB_MODELS, HUB_DATASETS):
        require_hub_type("inst/a", "sound-bank", asked)


BASE, TUNED = Parent("adapter", "inst/base@v1", ARTIFACT), Parent("finetune", "inst/tuned@v1", OTHER)


def test_the_base_of_an_adapter_is_the_parent_to_which_it_is_one() -> None:
    assert bases(ADAPTER, (TUNED, BASE, BASE)) == Bases((BASE,))
    assert bases(MODEL, (TUNED, BASE)) == Bases((BASE,))
    assert bases(MODEL, (TUNED,)) == Bases()
    assert bases(ADAPTER, (TUNED,)) == Bases((TUNED,))


def test_a_base_that_is_named_without_a_digest_is_not_chosen() -> None:
    assert bases(ADAPTER, (Parent("adapter", "inst/base"), BASE)) == Bases((BASE,), ("inst/base",))


def test_training_data_are_the_parents_of_training_with_a_digest_each_once_and_few() -> None:
    digests = [sha256(b"%d" % number) for number in range(MAX_TRAINED_ON + 2)]
    many = [Parent("finetune", f"inst/rows-{number}@v1", digest) for number, digest in enumerate(digests)]
    others = [Parent("adapter", "inst/base@v1", ARTIFACT), Parent("quantized", "inst/base@v1", ARTIFACT),
              Parent("finetune", "inst/unknown@v1")]  # fmt: skip
    distilled = Parent("distilled", "inst/words@v1", OTHER)
    assert training_parents([*others, distilled, distilled]) == (distilled,)
    assert training_parents([*others, *many]) == tuple(many[:MAX_TRAINED_ON])
