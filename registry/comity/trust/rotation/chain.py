"""Chains of rotations: what all the `rotated` statements at hand make of one beginning.

    inception --rotated 1--> state --rotated 2--> state
                                \\--rotated 2'--> state      a dispute: two different rotations of one state

Nobody settles a dispute but people, each for themselves, by what they pin. Source: protocol, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from comity.trust.digest import Digest, short
from comity.trust.dsse import Envelope
from comity.trust.errors import ComityError
from comity.trust.identity import KeySet, Signed
from comity.trust.keys import PublicKey, VerifyingKey
from comity.trust.remark import Remark
from comity.trust.rotation.statement import KeyState, Rotation, parse_rotation, rotation_signed, state_after
from comity.trust.statement import Author, Entry


@dataclass(frozen=True, slots=True)
class Step:
    """One valid rotation, with the states before and after it; `post_quantum` where the recovery keys it uses are."""

    before: KeyState
    rotation: Rotation
    after: KeyState
    entry: Entry
    post_quantum: bool


@dataclass(frozen=True, slots=True)
class Chain:
    """All that valid rotations make of `start`. Only `follow` makes one.

    `steps` are all of them, on every branch; more statements only ever add steps. It answers two questions. *Who speaks
    for the identity from now on?* `states`: the way that is nowhere in dispute, which ends before a fork. *Whose was
    that signature?* `reached`: every state on every branch, so that a rotation which turns up later can start a
    dispute, but never make a stranger of somebody whose signature held before (I4).
    """

    start: KeyState
    steps: tuple[Step, ...]
    leaving: Mapping[KeyState, tuple[Step, ...]] = field(init=False, repr=False, compare=False)
    """The steps from each state that was left."""
    reached: tuple[KeyState, ...] = field(init=False, repr=False, compare=False)
    """Every state on every branch, `start` first, each once."""
    post_quantum: frozenset[KeyState] = field(init=False, repr=False, compare=False)
    """The states whose keys, and the recovery keys that led there, would stand without classical cryptography."""
    _listing: Mapping[Digest, Mapping[VerifyingKey, list[int]]] = field(init=False, repr=False, compare=False)
    """By a half's id the keys that begin with it, and the places in `reached` of the states that list them."""

    def __post_init__(self) -> None:
        leaving: dict[KeyState, tuple[Step, ...]] = {}
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

    def _undisputed(self) -> list[Step]:
        way, at = list[Step](), self.start
        while len(steps := self.leaving.get(at, ())) == 1:
            way += steps
            at = way[-1].after
        return way


@dataclass(frozen=True, slots=True)
class Heard:
    """Which states of a chain signed one envelope, with the keys `beside` them: asked once, for every answer costs
    signature checks."""

    envelope: Envelope
    beside: tuple[PublicKey, ...]
    signers: tuple[KeyState, ...]
    post_quantum: bool
    """Whether one of them would stand without classical cryptography."""

    @classmethod
    def of(cls, chain: Chain, envelope: Envelope, beside: Collection[PublicKey] = ()) -> Heard:
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


def follow(start: KeyState, entries: Iterable[Entry], *, signed: Signed = KeySet.signed) -> Chain:
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
        return Chain(start, ())
    reached = {(start.digest, start.seq): start}
    ahead, steps = [start], list[Step]()
    for before in ahead:  # grows below
        for step in _steps(before, leaving.get(before.digest, {}).values(), signed):
            after = reached.setdefault((step.after.digest, step.after.seq), step.after)
            ahead += [after] if after is step.after else []
            steps.append(replace(step, after=after))
    return Chain(start, tuple(steps))


def _steps(before: KeyState, statements: Iterable[Sequence[Entry]], signed: Signed) -> list[Step]:
    """The different rotations of `before` among `statements`, each the envelopes of one; one that is there twice, by
    other recovery keys, is one."""
    found: dict[Digest, Step] = {}
    for envelopes in statements:
        step = _step(before, envelopes, signed)
        if step is not None:
            known = found.setdefault(step.rotation.digest, step)
            post_quantum = known.post_quantum or step.post_quantum
            found[step.rotation.digest] = replace(known, post_quantum=post_quantum)
    return [found[digest] for digest in sorted(found)]


def _step(before: KeyState, envelopes: Sequence[Entry], signed: Signed) -> Step | None:
    """The step that one statement is, by the first of its envelopes that holds; None where it is no rotation of this
    state, whoever wrote it. What it says is read once."""
    try:
        rotation, used = parse_rotation(envelopes[0])
        after = state_after(rotation, used, before)
        for entry in envelopes:
            if rotation_signed(rotation, used, entry.envelope, signed=signed):
                return Step(before, rotation, after, entry, all(key.post_quantum for key in used))
    except ComityError:
        pass
    return None


def _state_left(entry: Entry) -> str:
    """The state that a `rotated` statement says it leaves, to sort by; anything at all in a malformed one."""
    return str(entry.statement.body.get("prev"))


class Chains:
    """What identities' rotations among `entries` lead to."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._rotations: dict[Author, list[Entry]] = {}
        self._followed: dict[KeyState, Chain] = {}
        for entry in entries:
            if entry.statement.predicate == "rotated" and entry.statement.by is not None:
                self._rotations.setdefault(entry.statement.by, []).append(entry)

    def follow(self, start: KeyState) -> Chain:
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
