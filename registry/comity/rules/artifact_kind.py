"""The kind of an artifact: a model, unless its publisher states another kind.

    {"by":{"identity":"51aa…"},"kind":"dataset","name":"inst/questions@v1","number":0}

`published` cannot say it: a reader refuses a member that it does not know, so that an older node would not read the
publication at all. A statement of a kind that is new to a node is kept, mirrored and shown as unknown, and the
publication is what it was before.

Only what the publisher of an artifact states counts, so that nobody changes the kind of another one's artifact. The
statement with the highest number counts, whatever the order in which statements arrive; where statements with that
number contradict each other, none counts. What a lost key may have signed decides nothing where the publisher stated a
kind with other keys, or is proven to have stated one before the loss (`comity.trust.key_validity`). A word that this
version does not know is kept and shown as it is given, and never stands for a known one. No verdict depends on the
kind: it says where an artifact is listed, and not what is in its files. Source: protocol, section 5.

A Hub has two types of repositories for what is published here: models and datasets. Each kind that this version knows
is of one of them (`hub_types`), so that a client that asks for the wrong type is told the right one. An unknown kind is
answered as either, because nothing here can say that one of them is wrong.

Some artifacts are of no use alone: an adapter is loaded into the model of which it was made. `bases` are the parents
that are needed beside it, as its publisher names them by digest. Other relations of lineage, such as `finetune`, say
where an artifact comes from, and nothing that is needed to use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, ClassVar, Final

from comity.rules.corrections import MAX_NUMBER, newest, next_number
from comity.trust.authorship import judge_author
from comity.trust.claims import ParsedClaims
from comity.trust.codec import JsonNumber, JsonRead
from comity.trust.content import ById, Content, SubjectDigest
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed, NotFound
from comity.trust.frozen import frozen
from comity.trust.key_validity import KeyCircumstances, compromise_notices, loss_rank, signed_before_loss
from comity.trust.names import Name
from comity.trust.rotation import RotationChain
from comity.trust.statement import Author, Entry, Subject
from comity.trust.statement_kinds import ARTIFACT_KIND
from comity.trust.statements import Parent

MODEL: Final = "model"
ADAPTER: Final = "adapter"
DATASET: Final = "dataset"
EMBEDDING_STORE: Final = "embedding-store"
EVALUATION_SET: Final = "evaluation-set"
PROMPT: Final = "prompt"
TOKENIZER: Final = "tokenizer"
ARTIFACT_KINDS: Final = (MODEL, ADAPTER, DATASET, EMBEDDING_STORE, EVALUATION_SET, PROMPT, TOKENIZER)
"""The kinds that this version knows."""
HUB_MODELS: Final = "model"
HUB_DATASETS: Final = "dataset"
"""Types of repositories of a Hub, as `repo_type` of huggingface_hub has them."""
DATASET_KINDS: Final = frozenset({DATASET, EMBEDDING_STORE, EVALUATION_SET})
"""Kinds that a Hub has as datasets: data that programs read, and no weights or rules for one model."""
MAX_KIND: Final = 40
MAX_TRAINED_ON: Final = 8
"""Datasets of one model that are looked for."""
MAX_PROVEN: Final = 32
"""Statements of the kind of one artifact whose position in a log is asked for."""
_WORD: Final = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*\Z")


def check_kind(text: str) -> str:
    """Return `text` if it has the form of a kind, known or not. Raises Malformed (BAD-KIND)."""
    if len(text) > MAX_KIND or not _WORD.match(text):
        why = f"a kind has small letters, digits and single hyphens, at most {MAX_KIND} characters"
        hint = f"known kinds: {', '.join(ARTIFACT_KINDS)}"
        raise Malformed(f"no kind of artifact: {text[:MAX_KIND]!r}", why=why, hint=hint, code="BAD-KIND")
    return text


def kind_text(kind: str) -> str:
    """A kind for people: one that this version does not know is marked."""
    return kind if kind in ARTIFACT_KINDS else f"{kind} (not a kind that this version knows)"


def hub_types(kind: str) -> tuple[str, ...]:
    """The types of repositories by which a Hub answers for this kind, the one by which it is listed first."""
    if kind in DATASET_KINDS:
        return (HUB_DATASETS,)
    return (HUB_MODELS,) if kind in ARTIFACT_KINDS else (HUB_MODELS, HUB_DATASETS)


def require_hub_type(name: str, kind: str, asked: str) -> None:
    """Raises NotFound (OTHER-KIND), with the right addresses, if a Hub does not answer for this kind as repositories of
    the type `asked`.

    Args:
        name: the name of the repository.
    """
    if asked in (types := hub_types(kind)):
        return
    right = types[0]
    place = f"{right}s/" if right != HUB_MODELS else ""
    raise NotFound(
        f"{name} is no {asked}",
        why=f'its kind is {kind}: ask for it with repo_type="{right}"',
        hint=f"its addresses are /api/{right}s/{name} and /{place}{name}/resolve/…",
        code="OTHER-KIND",
    )


@frozen
class KindStated(Content):
    """A publisher states the kind of an artifact that it published. Source: protocol, section 5.

        {"by":{"identity":"51aa…"},"kind":"dataset","name":"inst/questions@v1","number":0}

    It counts if its author published the artifact. The statement with the highest number counts.
    """

    predicate: ClassVar = ARTIFACT_KIND
    by: ById
    name: Annotated[Name, JsonRead(Name.parse, "name")]
    artifact: SubjectDigest
    kind: Annotated[str, JsonRead(check_kind, _WORD, most=MAX_KIND), "One of the known kinds, or another word."]
    number: Annotated[int, JsonNumber(0, MAX_NUMBER), "Counts the corrections of this publisher for this artifact."]

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject(str(self.name), self.artifact),)


def stated_by(entries: Iterable[Entry], publisher: Digest, artifact: Digest) -> tuple[KindStated, ...]:
    """What a publisher states of the kind of an artifact, among these statements; those that cannot be read do not
    count. That their author signed them is the caller's to prove."""
    found = []
    for entry in entries:
        statement = entry.statement
        if statement.predicate != ARTIFACT_KIND or statement.by is None or statement.by.id != publisher:
            continue
        try:
            stated = KindStated.parse(statement)
        except Malformed:
            continue
        if stated.artifact == artifact:
            found.append(stated)
    return tuple(found)


def newest_kind(stated: Iterable[KindStated]) -> KindStated | None:
    """The statement that counts, of those of one publisher about one artifact; None if none does."""
    return newest(stated, lambda each: each.kind)


def kind_of(stated: Iterable[KindStated]) -> str:
    """The kind of an artifact, of which its publisher states this."""
    counts = newest_kind(stated)
    return counts.kind if counts else MODEL


def claimed_kind(given: KeyCircumstances, publisher: Digest, artifact: Digest) -> str:
    """The kind of an artifact, by those statements of its publisher among the claims whose signature is proven. What a
    lost key may have signed counts only where nothing else is stated, and not at all if it is proven to be as new as
    the loss."""
    ranked: dict[int, list[Entry]] = {}
    for entry, chain in _signed(given.claims, publisher, artifact):
        ranked.setdefault(loss_rank(signed_before_loss(entry, publisher, chain, given)), []).append(entry)
    ranked.pop(loss_rank(False), None)
    return kind_of(stated_by(ranked[max(ranked)] if ranked else (), publisher, artifact))


def kinds_to_prove(claims: ParsedClaims, publisher: Digest, artifact: Digest) -> tuple[Entry, ...]:
    """The statements of the kind whose position in a log decides: those that keys signed of which the publisher reports
    the loss. At most `MAX_PROVEN`, those that were corrected least often first: they are the older ones."""
    lost = by_lost_keys(claims, publisher, artifact)
    stated = [(each.number, entry) for entry in lost for each in stated_by([entry], publisher, artifact)]
    return tuple(entry for _, entry in sorted(stated, key=lambda each: each[0])[:MAX_PROVEN])


def by_lost_keys(claims: ParsedClaims, publisher: Digest, artifact: Digest) -> tuple[Entry, ...]:
    """The statements of the kind by keys of which the publisher reports the loss."""
    signed = _signed(claims, publisher, artifact)
    return tuple(entry for entry, chain in signed if compromise_notices(claims, publisher, chain, entry.envelope))


def _signed(claims: ParsedClaims, publisher: Digest, artifact: Digest) -> list[tuple[Entry, RotationChain]]:
    """The statements of the kind that are proven to be by the publisher, with its keys."""
    keys = claims.keys_of(publisher, None)
    judged = ((entry, judge_author(entry, keys).chain) for entry in claims.about(artifact, ARTIFACT_KIND))
    own = Author("identity", publisher)
    return [(entry, chain) for entry, chain in judged if chain is not None and entry.statement.by == own]


def next_statement(
    stated: Iterable[KindStated], wanted: KindStated, lost: Iterable[KindStated] = ()
) -> KindStated | None:
    """The statement by which a publisher states a kind, after it stated these; None if that kind counts already. Raises
    Malformed (KIND-CORRECTIONS) after too many corrections.

    Args:
        wanted: the statement, whose number does not matter.
        lost: what keys stated of which the publisher reports the loss. They use up none of its corrections; the
            statement has a higher number than they have, if there is one, for readers who know nothing of the loss.
    """
    said, stolen = tuple(stated), tuple(lost)
    if (said or not stolen) and kind_of(said) == wanted.kind:
        return None
    number = next_number(said)
    if number > MAX_NUMBER:
        why = f"its kind was stated {number} times"
        hint = "publish it under a new version, with another file"
        raise Malformed(f"{wanted.name} keeps its kind", why=why, hint=hint, code="KIND-CORRECTIONS")
    number = min(max(number, next_number(stolen)), MAX_NUMBER)
    return KindStated(wanted.by, wanted.name, wanted.artifact, wanted.kind, number)


@frozen
class Bases:
    """What an artifact needs beside it. `named` are the parents of which its publisher names the digest; `unknown` are
    the names of those without one: nothing says which bytes were meant, so none is chosen for a reader."""

    named: tuple[Parent, ...] = ()
    unknown: tuple[str, ...] = ()


def bases(kind: str, lineage: Iterable[Parent]) -> Bases:
    """The parents without which an artifact cannot be used: those to which it is an adapter. Of an artifact that is
    stated to be an adapter, and names no parent by this relation, all parents.

    Args:
        lineage: as the publication has it that counts.
    """
    parents = tuple(lineage)
    needed = [parent for parent in parents if parent.relation == _ADAPTER_OF]
    if not needed and kind == ADAPTER:
        needed = list(parents)
    named = {parent.digest: parent for parent in needed if parent.digest is not None}
    return Bases(tuple(named.values()), tuple(parent.name for parent in needed if parent.digest is None))


def training_parents(lineage: Iterable[Parent]) -> tuple[Parent, ...]:
    """The parents on which a model was trained if they are datasets, as its publisher names them by digest, each once:
    at most `MAX_TRAINED_ON`. That they are is for the reader to prove, by what their own publishers state."""
    named = (each for each in lineage if each.relation in _TRAINED_BY and each.digest is not None)
    return tuple(dict.fromkeys(named))[:MAX_TRAINED_ON]


_ADAPTER_OF: Final = "adapter"
"""The relation of lineage by which an artifact is an adapter to its parent."""
_TRAINED_BY: Final = frozenset({"finetune", "distilled"})
"""The relations of lineage by which weights were trained with a parent."""
