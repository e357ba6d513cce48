r"""The `rotated` statement: an identity changes its keys, by its recovery keys alone, and stays the same identity.

It names the state that it leaves (`prev`, a digest over its keys and recovery digests) and is signed
by a majority of the recovery keys of that state, which it reveals, and by every key of the new one, so that nobody
claims a key that they do not hold. Statements count by their signatures wherever they are found; no log, vote or clock
decides. Who holds a majority of the recovery keys *is* the identity. What several of them make together is on the next
page (`chain`). Source: protocol, section 3.

In the 65,535 bytes of a log line new keys and used recovery keys together can be seven hybrid ones. An identity with
seven recovery keys, the most there may be, reveals four of them and gets three new keys.


Chains of rotations: what all the `rotated` statements at hand make of one beginning.

    inception --rotated 1--> state --rotated 2--> state
                                \--rotated 2'--> state      a dispute: two different rotations of one state

Nobody settles a dispute but people, each for themselves, by what they pin. Source: protocol, section 3.


Identities that change their keys and stay who they are: the statement, and what a pile of them leads to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from comity.trust.encoding import Digest, Fields, Json, b64decode, b64encode, canonical, sha256, short
from comity.trust.errors import ComityError, Malformed, Untrusted
from comity.trust.evidence import Remark
from comity.trust.identity import MAX_KEYS, Inception, KeySet, Signed, read_key_set
from comity.trust.keys import PublicKey, Signer, VerifyingKey
from comity.trust.statement import Author, Entry, Envelope, Statement, Subject, sign_statement
from comity.trust.tlog.merkle import HASH_SIZE, MAX_SIZE
from comity.trust.tlog.note import check_name

MAX_CUTS: Final = 32


@dataclass(frozen=True, slots=True)
class LogCut:
    """How long a log was, and its root, when keys were retired: what stands below `size` was said before."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        check_name(self.origin)
        if not 1 <= self.size <= MAX_SIZE or len(self.root) != HASH_SIZE:
            raise Malformed("cut is malformed", why="a size of at least 1, and a root of 32 bytes")

    @classmethod
    def from_json(cls, value: Json) -> LogCut:
        fields = Fields(value, "cut")
        cut = cls(fields.text("origin", most=255), fields.integer("size"), b64decode(fields.take("root")))
        fields.done()
        return cut

    def to_json(self) -> dict[str, Json]:
        return {"origin": self.origin, "size": self.size, "root": b64encode(self.root)}


@dataclass(frozen=True, slots=True)
class KeyState:
    """By which keys an identity speaks, and which recovery keys (their ids) may change that.

    `seq` counts the rotations that led here; None where a charter lists the state without saying.
    """

    identity: Digest
    keys: KeySet
    recovery: tuple[Digest, ...]
    home: str = ""
    seq: int | None = None

    @classmethod
    def of_inception(cls, inception: Inception) -> KeyState:
        return cls(inception.id, inception.keys, inception.recovery, inception.home, 0)

    @property
    def digest(self) -> Digest:
        """What a rotation calls the state that it leaves. The order of keys and of recovery keys means nothing."""
        document: dict[str, Json] = {
            "identity": self.identity,
            "keys": sorted(key.id for key in self.keys.keys),
            "threshold": self.keys.threshold,
            "recovery": sorted(self.recovery),
        }
        return sha256(canonical(document))


@dataclass(frozen=True, slots=True)
class Rotation:
    """What changes. `seq` is 1 for the first rotation of an identity; an empty `home` leaves the home log as it is.

    `cut` says how long logs were at this moment; a log that it does not name is cut at 0. Raises Malformed.
    """

    identity: Digest
    seq: int
    prev: Digest
    keys: KeySet
    recovery: tuple[Digest, ...]
    home: str = ""
    cut: tuple[LogCut, ...] = ()

    def __post_init__(self) -> None:
        if self.seq < 1 or len(self.cut) > MAX_CUTS or len({cut.origin for cut in self.cut}) != len(self.cut):
            raise Malformed("rotation is malformed", why=f"seq is at least 1; at most {MAX_CUTS} cuts, one a log")
        if len(self.recovery) > MAX_KEYS or len(set(self.recovery)) != len(self.recovery):
            raise Malformed("rotation is malformed", why=f"at most {MAX_KEYS} recovery digests, each once")
        if self.home:
            check_name(self.home)

    @property
    def digest(self) -> Digest:
        """What a policy pins. The recovery keys that were used are no part of it."""
        return sha256(canonical({"identity": self.identity, **self.to_json()}))

    def to_json(self) -> dict[str, Json]:
        return {
            "seq": self.seq,
            "prev": self.prev,
            "keys": [key.to_json() for key in self.keys.keys],
            "threshold": self.keys.threshold,
            "recovery": list(self.recovery),
            "home": self.home,
            "cut": [cut.to_json() for cut in self.cut],
        }

    def cut_of(self, origin: str) -> LogCut | None:
        return next((cut for cut in self.cut if cut.origin == origin), None)


def rotate(before: KeyState, rotation: Rotation, recovery: Sequence[Signer], new: Sequence[Signer]) -> Entry:
    """The `rotated` statement by which `before` becomes what `rotation` says.

    Args:
        recovery: more than half of the recovery keys of `before`; they are revealed, and spent.
        new: every key of the new state, in any order.

    Raises Malformed beyond the size of a line, Untrusted (ROTATION) for what nobody would accept.
    """
    entry = sign_statement(rotation_statement(rotation, [signer.public for signer in recovery]), *recovery, *new)
    check_rotation(entry, before)
    return entry


def rotation_statement(rotation: Rotation, used: Iterable[VerifyingKey]) -> Statement:
    """What is signed, where the signers are not in one place. `used` are the recovery keys that will sign it."""
    body = {**rotation.to_json(), "used": [key.to_json() for key in used]}
    return Statement("rotated", (Subject("", rotation.identity),), Author("identity", rotation.identity), body)


def parse_rotation(entry: Entry) -> tuple[Rotation, tuple[VerifyingKey, ...]]:
    """Read a `rotated` statement and the recovery keys that it reveals; nothing is proven. Raises Malformed."""
    statement = entry.statement
    if statement.predicate != "rotated" or statement.by is None or statement.by.kind != "identity":
        raise Malformed("rotation is malformed", why="not a rotated statement of an identity")
    fields = statement.fields()
    used = tuple(VerifyingKey.from_json(item) for item in fields.items("used", least=1, most=MAX_KEYS))
    rotation = Rotation(
        identity=statement.by.id,
        seq=fields.integer("seq", least=1),
        prev=fields.digest("prev"),
        keys=read_key_set(fields),
        recovery=fields.digests("recovery", most=MAX_KEYS),
        home=fields.text("home", least=0, most=255),
        cut=tuple(LogCut.from_json(item) for item in fields.items("cut", most=MAX_CUTS)),
    )
    fields.done()
    if statement.sole_subject() != rotation.identity:
        raise Malformed("rotation is malformed", why="its subject is not the identity that speaks")
    return rotation, used


def check_rotation(entry: Entry, before: KeyState, *, signed: Signed = KeySet.signed) -> KeyState:
    """The state after a `rotated` statement that is valid in `before`. Raises Malformed/Untrusted (ROTATION).

    Not checked: whether another valid one leaves the same state (`follow` does), and when or where it was logged.

    Args:
        signed: `KeySet.signed`, but in simulations of many members.
    """
    rotation, used = parse_rotation(entry)
    after = state_after(rotation, used, before)
    if not rotation_signed(rotation, used, entry.envelope, signed=signed):
        raise _refused("not signed by each recovery key that it uses and each new key, and no other")
    return after


def state_after(rotation: Rotation, used: Sequence[VerifyingKey], before: KeyState) -> KeyState:
    """The state after a rotation that is lawful in `before`, whoever signed it. Raises Untrusted (ROTATION)."""
    if (rotation.identity, rotation.prev) != (before.identity, before.digest):
        raise _refused("it leaves another state")
    if before.seq is not None and rotation.seq != before.seq + 1:
        raise _refused(f"it is number {rotation.seq}, the next one is {before.seq + 1}")
    revealed = {key.id for key in used}
    if not revealed <= set(before.recovery):
        raise _refused("a key that it uses is no recovery key of this state")
    if 2 * len(revealed) <= len(before.recovery):
        raise _refused(f"{len(revealed)} of {len(before.recovery)} recovery keys are no majority")
    if revealed & set(rotation.recovery):
        raise _refused("a recovery key that was revealed is spent")
    halves = [half.id for key in (*used, *rotation.keys.keys) for half in key.halves]
    if len(set(halves)) != len(halves):
        raise _refused("one key in two roles")
    return KeyState(before.identity, rotation.keys, rotation.recovery, rotation.home or before.home, rotation.seq)


def rotation_signed(
    rotation: Rotation, used: Sequence[VerifyingKey], envelope: Envelope, *, signed: Signed = KeySet.signed
) -> bool:
    """Whether each recovery key that a rotation uses and each new key, and no other, signed this envelope of it."""
    new = [half for key in rotation.keys.keys for half in key.halves]
    return signed(KeySet(tuple(used), len(used)), envelope, new)


def _refused(why: str) -> Untrusted:
    return Untrusted("rotation refused", why=why, code="ROTATION")


@dataclass(frozen=True, slots=True)
class RotationStep:
    """One valid rotation, with the states before and after it; `post_quantum` where the recovery keys it uses are."""

    before: KeyState
    rotation: Rotation
    after: KeyState
    entry: Entry
    post_quantum: bool


@dataclass(frozen=True, slots=True)
class RotationChain:
    """All that valid rotations make of `start`. Only `follow` makes one.

    `steps` are all of them, on every branch; more statements only ever add steps. It answers two questions. *Who speaks
    for the identity from now on?* `states`: the way that is nowhere in dispute, which ends before a fork. *Whose was
    that signature?* `reached`: every state on every branch, so that a rotation which turns up later can start a
    dispute, but never make a stranger of somebody whose signature held before (I4).
    """

    start: KeyState
    steps: tuple[RotationStep, ...]
    leaving: Mapping[KeyState, tuple[RotationStep, ...]] = field(init=False, repr=False, compare=False)
    """The steps from each state that was left."""
    reached: tuple[KeyState, ...] = field(init=False, repr=False, compare=False)
    """Every state on every branch, `start` first, each once."""
    post_quantum: frozenset[KeyState] = field(init=False, repr=False, compare=False)
    """The states whose keys, and the recovery keys that led there, would stand without classical cryptography."""
    _listing: Mapping[Digest, Mapping[VerifyingKey, list[int]]] = field(init=False, repr=False, compare=False)
    """By a half's id the keys that begin with it, and the places in `reached` of the states that list them."""

    def __post_init__(self) -> None:
        leaving: dict[KeyState, tuple[RotationStep, ...]] = {}
        for step in self.steps:
            leaving[step.before] = (*leaving.get(step.before, ()), step)
        reached = tuple(dict.fromkeys((self.start, *(step.after for step in self.steps))))
        firm = closure([self.start], lambda state: [s.after for s in leaving.get(state, ()) if s.post_quantum])
        listing: dict[Digest, dict[VerifyingKey, list[int]]] = {}
        for place, key in ((place, key) for place, state in enumerate(reached) for key in state.keys.keys):
            listing.setdefault(key.halves[0].id, {}).setdefault(key, []).append(place)
        object.__setattr__(self, "leaving", leaving)
        object.__setattr__(self, "reached", reached)
        object.__setattr__(self, "post_quantum", frozenset(state for state in firm if state.keys.post_quantum))
        object.__setattr__(self, "_listing", listing)

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
        """The statements that lead through `states`."""
        return tuple(step.entry for step in self._undisputed())

    @property
    def disputes(self) -> tuple[tuple[Entry, Entry], ...]:
        """Pairs of different rotations that leave one state."""
        forks = self.leaving.values()
        return tuple((first.entry, other.entry) for first, *others in forks for other in others)

    def signers(self, envelope: Envelope, beside: Collection[PublicKey] = ()) -> tuple[KeyState, ...]:
        """The states on any branch whose keys signed `envelope`, as `Envelope.signed_by` says.

        Signatures are verified once, however many states list their keys: a hostile identity may have thousands.
        """
        present = {signature.keyid for signature in envelope.signatures}
        whole: dict[int, list[VerifyingKey]] = {}
        for half in present:
            for key, places in self._listing.get(half, {}).items():
                if present.issuperset(each.id for each in key.halves):
                    for place in places:
                        whole.setdefault(place, []).append(key)
        others = {key.id for key in beside}
        fitting = [
            self.reached[place]
            for place, keys in sorted(whole.items())
            if len(keys) >= self.reached[place].keys.threshold
            and present == others.union(half.id for key in keys for half in key.halves)
        ]
        return tuple(fitting) if fitting and fitting[0].keys.signed(envelope, beside) else ()

    def signed(self, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool:
        return bool(self.signers(envelope, beside))

    def _undisputed(self) -> list[RotationStep]:
        way, at = list[RotationStep](), self.start
        while len(steps := self.leaving.get(at, ())) == 1:
            way += steps
            at = way[-1].after
        return way


@dataclass(frozen=True, slots=True)
class SigningStates:
    """Which states of a chain signed one envelope, with the keys `beside` them: asked once, for every answer costs
    signature checks."""

    envelope: Envelope
    beside: tuple[PublicKey, ...]
    signers: tuple[KeyState, ...]
    post_quantum: bool
    """Whether one of them would stand without classical cryptography."""

    @classmethod
    def of(cls, chain: RotationChain, envelope: Envelope, beside: Collection[PublicKey] = ()) -> SigningStates:
        signers = chain.signers(envelope, beside)
        return cls(envelope, tuple(beside), signers, not chain.post_quantum.isdisjoint(signers))

    def signed(self, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool:
        return envelope is self.envelope and tuple(beside) == self.beside and bool(self.signers)


def closure(start: Iterable[KeyState], further: Callable[[KeyState], Iterable[KeyState]]) -> frozenset[KeyState]:
    """`start`, and all that is found by going `further` from there."""
    found = set(start)
    ahead = list(found)
    while ahead:
        fresh = set(further(ahead.pop())) - found
        found |= fresh
        ahead += fresh
    return frozenset(found)


def follow(start: KeyState, entries: Iterable[Entry], *, signed: Signed = KeySet.signed) -> RotationChain:
    """Order the rotations among `entries` that lead on from `start`.

    In whatever order and however often they come, the result is the same; what is not valid counts for nothing. It
    never fails and always ends: rotations are numbered on, so that no state is reached a second time by the same way.

    What it costs: signatures are judged only of statements that say they leave a state that was proven, each until one
    envelope of it holds. Copies of a valid one cost nothing, however many and however padded; of what never holds, each
    envelope costs one look at one signature. Who gives the entries bounds how many there are.
    """
    leaving: dict[str, dict[Digest, list[Entry]]] = {}
    for entry in sorted({entry.digest: entry for entry in entries}.values(), key=lambda entry: entry.digest):
        if entry.statement.predicate == "rotated" and entry.statement.by == Author("identity", start.identity):
            envelopes = leaving.setdefault(_state_left(entry), {})
            envelopes.setdefault(entry.statement_digest, []).append(entry)
    if not leaving:
        return RotationChain(start, ())
    reached = {(start.digest, start.seq): start}
    ahead, steps = [start], list[RotationStep]()
    for before in ahead:  # grows below
        for step in _steps(before, leaving.get(before.digest, {}).values(), signed):
            after = reached.setdefault((step.after.digest, step.after.seq), step.after)
            ahead += [after] if after is step.after else []
            steps.append(replace(step, after=after))
    return RotationChain(start, tuple(steps))


def _steps(before: KeyState, statements: Iterable[Sequence[Entry]], signed: Signed) -> list[RotationStep]:
    """The different rotations of `before` among `statements`, each the envelopes of one; one that is there twice, by
    other recovery keys, is one."""
    found: dict[Digest, RotationStep] = {}
    for envelopes in statements:
        step = _step(before, envelopes, signed)
        if step is not None:
            known = found.setdefault(step.rotation.digest, step)
            post_quantum = known.post_quantum or step.post_quantum
            found[step.rotation.digest] = replace(known, post_quantum=post_quantum)
    return [found[digest] for digest in sorted(found)]


def _step(before: KeyState, envelopes: Sequence[Entry], signed: Signed) -> RotationStep | None:
    """The step that one statement is, by the first of its envelopes that holds; None where it is no rotation of this
    state, whoever wrote it. What it says is read once."""
    try:
        rotation, used = parse_rotation(envelopes[0])
        after = state_after(rotation, used, before)
        for entry in envelopes:
            if rotation_signed(rotation, used, entry.envelope, signed=signed):
                return RotationStep(before, rotation, after, entry, all(key.post_quantum for key in used))
    except ComityError:
        pass
    return None


def _state_left(entry: Entry) -> str:
    """The state that a `rotated` statement says it leaves, to sort by; anything at all in a malformed one."""
    return str(entry.statement.body.get("prev"))


class RotationChains:
    """What identities' rotations among `entries` lead to."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._rotations: dict[Author, list[Entry]] = {}
        self._followed: dict[KeyState, RotationChain] = {}
        for entry in entries:
            if entry.statement.predicate == "rotated" and entry.statement.by is not None:
                self._rotations.setdefault(entry.statement.by, []).append(entry)

    def follow(self, start: KeyState) -> RotationChain:
        if start not in self._followed:
            self._followed[start] = follow(start, self._rotations.get(Author("identity", start.identity), ()))
        return self._followed[start]

    def disputes(self, identities: Container[Digest]) -> tuple[tuple[Entry, Entry], ...]:
        """Pairs of rotations of one state, on the ways of `identities` that were followed so far."""
        chains = [chain for start, chain in self._followed.items() if start.identity in identities]
        pairs = [pair for chain in chains for pair in chain.disputes]
        return tuple({(first.digest, other.digest): (first, other) for first, other in pairs}.values())

    def notes(self) -> tuple[Remark, ...]:
        """Of rotations that lead on from no state of their identity, as far as it was followed."""
        used = {step.entry.statement_digest for chain in self._followed.values() for step in chain.steps}
        known = {Author("identity", start.identity) for start in self._followed}
        mine = [entry for by, entries in self._rotations.items() if by in known for entry in entries]
        strays = [entry for entry in mine if entry.statement_digest not in used]
        return tuple(
            Remark(f"rotated {short(entry.digest)} leads on from no keys known here", entry.digest) for entry in strays
        )
