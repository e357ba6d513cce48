r"""Key rotation: the `rotated` statement, and the chains of rotations of an identity.

A rotation replaces the keys of an identity; the identity stays the same. The statement names the state that it
replaces (`prev`, a digest over its keys and recovery digests). A majority of the recovery keys of that state, which
are revealed, and every new key sign it, so that nobody can claim a key that they do not hold. A statement is valid by
its signatures, whatever its source; no log, vote or clock decides. The holder of a majority of the recovery keys
controls the identity. Source: protocol, section 3.

    inception --rotated 1--> state --rotated 2--> state
                                \--rotated 2'--> state      a dispute: two different rotations of one state

No rule settles a dispute; each verifier decides by the rotation that its policy pins.

A log line of 65,535 bytes has space for seven hybrid keys, new keys and used recovery keys together. An identity with
seven recovery keys, the maximum, reveals four of them and gets three new keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Annotated, ClassVar, Final

from comity.trust.codec import JsonBytes, JsonItems, JsonMerged, JsonNumber, JsonObject, JsonRead, JsonText
from comity.trust.content import ById, Content
from comity.trust.encoding import Digest, Json, canonical, sha256, short
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.evidence import Remark
from comity.trust.frozen import frozen
from comity.trust.identity import MAX_KEYS, Inception, KeySet, SignatureCheck
from comity.trust.keys import PublicKey, Signer, VerifyingKey
from comity.trust.statement import Author, Entry, Envelope, Statement, Subject, sign_statement
from comity.trust.statement_kinds import ROTATED
from comity.trust.tlog.merkle import HASH_SIZE, MAX_SIZE
from comity.trust.tlog.note import VerifierKey, check_name

MAX_CUTS: Final = 32
MAX_ROTATIONS: Final = 64
"""The number of the last rotation of an identity."""


@frozen
class LogCut(JsonObject):
    """Size and root of a log when keys were retired: entries below `size` were logged before."""

    origin: Annotated[str, JsonRead(check_name, "origin", most=255)]
    size: Annotated[int, JsonNumber(1)]
    root: Annotated[bytes, JsonBytes(size=HASH_SIZE)]

    def __post_init__(self) -> None:
        check_name(self.origin)
        if not 1 <= self.size <= MAX_SIZE or len(self.root) != HASH_SIZE:
            raise Malformed("cut is malformed", why="expected a size of at least 1 and a root of 32 bytes")


@frozen
class KeyState:
    """The signing keys of an identity, and the ids of the recovery keys that may rotate them.

    `seq` counts the rotations up to this state; None if a charter lists the state without its number.
    """

    identity: Digest
    keys: KeySet
    recovery: tuple[Digest, ...]
    home: str = ""
    seq: int | None = None
    digest: Digest = field(init=False, repr=False, compare=False)
    """By it a rotation names its previous state. The order of keys and recovery keys is ignored."""

    @classmethod
    def of_inception(cls, inception: Inception) -> KeyState:
        return cls(inception.id, inception.keys, inception.recovery, inception.home, 0)

    def __post_init__(self) -> None:
        document: dict[str, Json] = {
            "identity": self.identity,
            "keys": sorted(key.id for key in self.keys.keys),
            "threshold": self.keys.threshold,
            "recovery": sorted(self.recovery),
        }
        object.__setattr__(self, "digest", sha256(canonical(document)))


@frozen
class Rotation(JsonObject):
    """The content of a rotation. `seq` is 1 for the first rotation of an identity. `home` is the verifier key or the
    origin of a log (`home_logs`); an empty one keeps the home log.

    `cut` lists log sizes at the time of the rotation; a log that is not listed is cut at 0. Raises Malformed; with the
    code ROTATIONS-SPENT for a number above MAX_ROTATIONS.
    """

    identity: ById
    seq: Annotated[int, JsonNumber(1)]
    prev: Annotated[Digest, "The key state that it replaces."]
    keys: Annotated[KeySet, JsonMerged()]
    recovery: Annotated[tuple[Digest, ...], JsonItems(MAX_KEYS, once=True)]
    home: Annotated[
        str,
        JsonText(255, 0),
        "The home log of what follows: its verifier key or its origin; empty to keep the one before.",
    ] = ""
    cut: Annotated[tuple[LogCut, ...], JsonItems(MAX_CUTS)] = ()

    def __post_init__(self) -> None:
        if self.seq > MAX_ROTATIONS:
            raise Malformed(
                "an identity cannot rotate its keys so often",
                why=f"this is rotation {self.seq} of {self.identity[:12]}, and the last one has number {MAX_ROTATIONS}",
                hint="make a new identity, and name it in an advisory that the last keys of this one sign",
                code="ROTATIONS-SPENT",
            )
        if self.seq < 1 or len(self.cut) > MAX_CUTS or len({cut.origin for cut in self.cut}) != len(self.cut):
            raise Malformed("rotation is malformed", why=f"seq is at least 1; at most {MAX_CUTS} cuts, one per log")
        if len(self.recovery) > MAX_KEYS or len(set(self.recovery)) != len(self.recovery):
            raise Malformed("rotation is malformed", why=f"at most {MAX_KEYS} recovery digests, each once")
        if "+" in self.home:
            VerifierKey.parse(self.home)
        elif self.home:
            check_name(self.home)

    @property
    def digest(self) -> Digest:
        """The digest that a policy pins. It does not cover the used recovery keys."""
        return sha256(canonical({"identity": self.identity, **self.to_json()}))

    def cut_of(self, origin: str) -> LogCut | None:
        return next((cut for cut in self.cut if cut.origin == origin), None)


def rotate(before: KeyState, rotation: Rotation, recovery: Sequence[Signer], new: Sequence[Signer]) -> Entry:
    """Sign the `rotated` statement that applies `rotation` to the state `before`.

    Args:
        recovery: more than half of the recovery keys of `before`; they are revealed and cannot be used again.
        new: every key of the new state, in any order.

    Raises Malformed if the line is too long, Untrusted (ROTATION) if the rotation is not valid.
    """
    entry = sign_statement(rotation_statement(rotation, [signer.public for signer in recovery]), *recovery, *new)
    check_rotation(entry, before)
    return entry


@frozen
class RotationStatement(Content):
    """The next keys of an identity. `used` are recovery keys, revealed and spent."""

    predicate: ClassVar = ROTATED
    rotation: Annotated[Rotation, JsonMerged()]
    used: Annotated[tuple[VerifyingKey, ...], JsonItems(MAX_KEYS, 1), "Recovery keys, revealed and spent."]

    def subjects(self) -> tuple[Subject, ...]:
        return (Subject("", self.rotation.identity),)

    def check(self, statement: Statement) -> None:
        if statement.subject != self.rotation.identity:
            raise self.malformed("its subject is not its author")


def rotation_statement(rotation: Rotation, used: Iterable[VerifyingKey]) -> Statement:
    """The unsigned statement, for signers on different machines. `used` are the recovery keys that will sign."""
    return RotationStatement(rotation, tuple(used)).statement(Author("identity", rotation.identity))


def parse_rotation(entry: Entry) -> tuple[Rotation, tuple[VerifyingKey, ...]]:
    """Read a `rotated` statement and the recovery keys that it reveals, without verification. Raises Malformed."""
    said = RotationStatement.parse(entry.statement)
    return said.rotation, said.used


def check_rotation(entry: Entry, before: KeyState, *, signed: SignatureCheck = KeySet.signed) -> KeyState:
    """Return the state after a `rotated` statement that is valid in `before`. Raises Malformed/Untrusted (ROTATION).

    Not checked: whether another valid rotation leaves the same state (see `follow`), and when or where it was logged.

    Args:
        signed: verifies signatures; simulations of many members pass a cheaper function.
    """
    rotation, used = parse_rotation(entry)
    after = state_after(rotation, used, before)
    if not rotation_signed(rotation, used, entry.envelope, signed=signed):
        raise _refused("not signed by exactly the recovery keys that it uses and each new key")
    return after


def state_after(rotation: Rotation, used: Sequence[VerifyingKey], before: KeyState) -> KeyState:
    """Return the state after a rotation that is valid in `before`, signatures apart. Raises Untrusted (ROTATION)."""
    if (rotation.identity, rotation.prev) != (before.identity, before.digest):
        raise _refused("its previous state is another one")
    if before.seq is not None and rotation.seq != before.seq + 1:
        raise _refused(f"its number is {rotation.seq}, the next number is {before.seq + 1}")
    revealed = {key.id for key in used}
    if not revealed <= set(before.recovery):
        raise _refused("a used key is not a recovery key of this state")
    if 2 * len(revealed) <= len(before.recovery):
        raise _refused(f"{len(revealed)} of {len(before.recovery)} recovery keys are not a majority")
    if revealed & set(rotation.recovery):
        raise _refused("a recovery key that was revealed cannot be used again")
    halves = [half.id for key in (*used, *rotation.keys.keys) for half in key.halves]
    if len(set(halves)) != len(halves):
        raise _refused("one key has two roles")
    return KeyState(before.identity, rotation.keys, rotation.recovery, rotation.home or before.home, rotation.seq)


def rotation_signed(
    rotation: Rotation, used: Sequence[VerifyingKey], envelope: Envelope, *, signed: SignatureCheck = KeySet.signed
) -> bool:
    """Whether exactly the recovery keys that a rotation uses and all new keys signed this envelope."""
    new = [half for key in rotation.keys.keys for half in key.halves]
    return signed(KeySet(tuple(used), len(used)), envelope, new)


def _refused(why: str) -> Untrusted:
    return Untrusted("rotation refused", why=why, code="ROTATION")


@frozen
class RotationStep:
    """One valid rotation with the states before and after; `post_quantum` if all used recovery keys are."""

    before: KeyState
    rotation: Rotation
    after: KeyState
    entry: Entry
    post_quantum: bool


@frozen
class RotationChain:
    """All valid rotations from `start`. Only `follow` creates a chain.

    `steps` are the rotations on all branches; more statements only add steps. `states` is the undisputed path, which
    ends before the first fork: its last state has the identity's current keys. `reached` is every state on every
    branch, used to attribute signatures: a rotation found later can start a dispute, but never invalidates a signature
    that was valid before (I4).
    """

    start: KeyState
    steps: tuple[RotationStep, ...]
    steps_from: Mapping[KeyState, tuple[RotationStep, ...]] = field(init=False, repr=False, compare=False)
    """The steps from each state that a rotation replaces."""
    reached: tuple[KeyState, ...] = field(init=False, repr=False, compare=False)
    """Every state on every branch, `start` first, each once."""
    post_quantum: frozenset[KeyState] = field(init=False, repr=False, compare=False)
    """The states whose keys, and whose used recovery keys up to there, are secure without classical cryptography."""
    _states_by_key: Mapping[Digest, Mapping[VerifyingKey, list[int]]] = field(init=False, repr=False, compare=False)
    """By the id of a first half: its keys, and the indexes in `reached` of the states that list them."""

    def __post_init__(self) -> None:
        steps_from: dict[KeyState, tuple[RotationStep, ...]] = {}
        for step in self.steps:
            steps_from[step.before] = (*steps_from.get(step.before, ()), step)
        reached = tuple(dict.fromkeys((self.start, *(step.after for step in self.steps))))
        secure = reachable([self.start], lambda state: [s.after for s in steps_from.get(state, ()) if s.post_quantum])
        states_by_key: dict[Digest, dict[VerifyingKey, list[int]]] = {}
        for index, key in ((index, key) for index, state in enumerate(reached) for key in state.keys.keys):
            states_by_key.setdefault(key.halves[0].id, {}).setdefault(key, []).append(index)
        object.__setattr__(self, "steps_from", steps_from)
        object.__setattr__(self, "reached", reached)
        object.__setattr__(self, "post_quantum", frozenset(state for state in secure if state.keys.post_quantum))
        object.__setattr__(self, "_states_by_key", states_by_key)

    @property
    def current(self) -> KeyState:
        """The newest state before any fork."""
        return self.states[-1]

    @property
    def states(self) -> tuple[KeyState, ...]:
        """From `start` to the newest state before any fork."""
        return (self.start, *(step.after for step in self._undisputed()))

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The statements of the rotations between `states`."""
        return tuple(step.entry for step in self._undisputed())

    @property
    def disputes(self) -> tuple[tuple[Entry, Entry], ...]:
        """Pairs of different rotations of one state."""
        forks = self.steps_from.values()
        return tuple((first.entry, other.entry) for first, *others in forks for other in others)

    def signers(
        self,
        envelope: Envelope,
        extra_keys: Collection[PublicKey] = (),
        *,
        check: SignatureCheck = KeySet.signed,
    ) -> tuple[KeyState, ...]:
        """The states on any branch whose keys signed `envelope`, by the rule of `Envelope.signed_by`.

        Each signature is verified once, even if thousands of states of a hostile identity list its key, and states
        whose keys it does not name cost nothing.

        Args:
            check: verifies signatures; simulations pass a cheaper function.
        """
        matching = self.matching(envelope, extra_keys)
        return matching if matching and check(matching[0].keys, envelope, extra_keys) else ()

    def signing_keys(self, envelope: Envelope) -> frozenset[VerifyingKey]:
        """The keys that signed `envelope`, of the states in `signers`: those whose halves it names, because it counts
        only if each of its signatures is valid."""
        present = {signature.keyid for signature in envelope.signatures}
        keys = (key for state in self.signers(envelope) for key in state.keys.keys)
        return frozenset(key for key in keys if present.issuperset(half.id for half in key.halves))

    def matching(self, envelope: Envelope, extra_keys: Collection[PublicKey] = ()) -> tuple[KeyState, ...]:
        """The states whose keys are those that the envelope names, by their ids: no signature is verified."""
        present = {signature.keyid for signature in envelope.signatures}
        complete: dict[int, list[VerifyingKey]] = {}
        for half in present:
            for key, indexes in self._states_by_key.get(half, {}).items():
                if present.issuperset(each.id for each in key.halves):
                    for index in indexes:
                        complete.setdefault(index, []).append(key)
        others = {key.id for key in extra_keys}
        return tuple(
            self.reached[index]
            for index, keys in sorted(complete.items())
            if len(keys) >= self.reached[index].keys.threshold
            and present == others.union(half.id for key in keys for half in key.halves)
        )

    def signed(self, envelope: Envelope, extra_keys: Collection[PublicKey] = ()) -> bool:
        return bool(self.signers(envelope, extra_keys))

    def before(self, rotation: Rotation) -> KeyState | None:
        """The state that a rotation of this identity replaces, by its digest and number; None if no such is reached."""
        states = (state for state in self.reached if state.digest == rotation.prev)
        return next((state for state in states if state.seq in (None, rotation.seq - 1)), None)

    def extended(self, entry: Entry, *, signed: SignatureCheck = KeySet.signed) -> RotationChain:
        """The chain with one more rotation, as `follow` adds it; the same chain if it is not valid here."""
        replaced = [state for state in self.reached if state.digest == _claimed_previous(entry)]
        found = [step for state in replaced if (step := _step(state, (entry,), signed)) is not None]
        reached = {(state.digest, state.seq): state for state in self.reached}
        known = {(step.before, step.rotation.digest) for step in self.steps}
        new = [
            replace(step, after=reached.get((step.after.digest, step.after.seq), step.after))
            for step in found
            if (step.before, step.rotation.digest) not in known
        ]
        return RotationChain(self.start, (*self.steps, *new)) if new else self

    def _undisputed(self) -> list[RotationStep]:
        path, state = list[RotationStep](), self.start
        while len(steps := self.steps_from.get(state, ())) == 1:
            path += steps
            state = path[-1].after
        return path


@frozen
class SigningStates:
    """The states of a chain that signed one envelope together with `extra_keys`. Computed once, because each
    computation verifies signatures."""

    envelope: Envelope
    extra_keys: tuple[PublicKey, ...]
    signers: tuple[KeyState, ...]
    post_quantum: bool
    """Whether one of the signers is secure without classical cryptography."""

    @classmethod
    def of(cls, chain: RotationChain, envelope: Envelope, extra_keys: Collection[PublicKey] = ()) -> SigningStates:
        signers = chain.signers(envelope, extra_keys)
        return cls(envelope, tuple(extra_keys), signers, not chain.post_quantum.isdisjoint(signers))

    def signed(self, envelope: Envelope, extra_keys: Collection[PublicKey] = ()) -> bool:
        return envelope is self.envelope and tuple(extra_keys) == self.extra_keys and bool(self.signers)


def reachable(start: Iterable[KeyState], successors: Callable[[KeyState], Iterable[KeyState]]) -> frozenset[KeyState]:
    """`start`, and all states reachable from it through `successors`."""
    found = set(start)
    queue = list(found)
    while queue:
        added = set(successors(queue.pop())) - found
        found |= added
        queue += added
    return frozenset(found)


def follow(start: KeyState, entries: Iterable[Entry], *, signed: SignatureCheck = KeySet.signed) -> RotationChain:
    """Build the chain of the valid rotations among `entries` that start from `start`.

    The result does not depend on the order of entries or on duplicates; invalid rotations are ignored. Never raises,
    and always ends, because rotations are numbered: no path reaches the same state twice.

    Cost: signatures are verified only for statements that name a proven state as their previous one, per statement
    until one envelope is valid. Further copies of a valid statement cost nothing; each invalid envelope costs one
    signature check. The caller limits the number of entries.
    """
    by_previous: dict[str, dict[Digest, list[Entry]]] = {}
    for entry in sorted({entry.digest: entry for entry in entries}.values(), key=lambda entry: entry.digest):
        if entry.statement.predicate == ROTATED and entry.statement.by == Author("identity", start.identity):
            envelopes = by_previous.setdefault(_claimed_previous(entry), {})
            envelopes.setdefault(entry.statement_digest, []).append(entry)
    if not by_previous:
        return RotationChain(start, ())
    reached = {(start.digest, start.seq): start}
    queue, steps = [start], list[RotationStep]()
    for before in queue:  # the loop appends to the queue
        for step in _steps(before, by_previous.get(before.digest, {}).values(), signed):
            after = reached.setdefault((step.after.digest, step.after.seq), step.after)
            queue += [after] if after is step.after else []
            steps.append(replace(step, after=after))
    return RotationChain(start, tuple(steps))


def _steps(before: KeyState, statements: Iterable[Sequence[Entry]], signed: SignatureCheck) -> list[RotationStep]:
    """The distinct rotations of `before`. Each item of `statements` has the envelopes of one statement; statements of
    one rotation that use different recovery keys count once."""
    found: dict[Digest, RotationStep] = {}
    for envelopes in statements:
        step = _step(before, envelopes, signed)
        if step is not None:
            known = found.setdefault(step.rotation.digest, step)
            post_quantum = known.post_quantum or step.post_quantum
            found[step.rotation.digest] = replace(known, post_quantum=post_quantum)
    return [found[digest] for digest in sorted(found)]


def _step(before: KeyState, envelopes: Sequence[Entry], signed: SignatureCheck) -> RotationStep | None:
    """The step of one statement, from its first valid envelope; None if there is none, or if the statement is not a
    valid rotation of this state. The statement is parsed once."""
    try:
        rotation, used = parse_rotation(envelopes[0])
        after = state_after(rotation, used, before)
        for entry in envelopes:
            if rotation_signed(rotation, used, entry.envelope, signed=signed):
                return RotationStep(before, rotation, after, entry, all(key.post_quantum for key in used))
    except ComityError:
        pass
    return None


def _claimed_previous(entry: Entry) -> str:
    """The previous state that a `rotated` statement claims, as a grouping key; any text if malformed."""
    return str(entry.statement.body.get("prev"))


class RotationChains:
    """The rotation chains of all identities among `entries`; each chain is built once, also for all copies."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._rotations: dict[Author, list[Entry]] = {}
        self._built: dict[KeyState, RotationChain] = {}
        self._followed: dict[KeyState, RotationChain] = {}
        for entry in entries:
            if entry.statement.predicate == ROTATED and entry.statement.by is not None:
                self._rotations.setdefault(entry.statement.by, []).append(entry)

    def copy(self) -> RotationChains:
        """Return the same chains, of which the same were followed. What is followed in one of both is not followed in
        the other, so that remarks do not depend on who else reads the same rotations."""
        copied = RotationChains()
        copied._rotations, copied._built, copied._followed = self._rotations, self._built, dict(self._followed)
        return copied

    def follow(self, start: KeyState) -> RotationChain:
        if start not in self._built:
            self._built[start] = follow(start, self._rotations.get(Author("identity", start.identity), ()))
        return self._followed.setdefault(start, self._built[start])

    def disputes(self, identities: Container[Digest]) -> tuple[tuple[Entry, Entry], ...]:
        """Pairs of different rotations of one state, in the chains of `identities` followed so far."""
        chains = [chain for start, chain in self._followed.items() if start.identity in identities]
        pairs = [pair for chain in chains for pair in chain.disputes]
        return tuple({(first.digest, other.digest): (first, other) for first, other in pairs}.values())

    def remarks(self) -> tuple[Remark, ...]:
        """Remarks on rotations that start from no known state of their identity, for the chains followed so far."""
        used = {step.entry.statement_digest for chain in self._followed.values() for step in chain.steps}
        known = {Author("identity", start.identity) for start in self._followed}
        entries = [entry for by, entries in self._rotations.items() if by in known for entry in entries]
        unused = [entry for entry in entries if entry.statement_digest not in used]
        return tuple(
            Remark(f"rotated {short(entry.digest)} starts from no known keys", entry.digest) for entry in unused
        )
