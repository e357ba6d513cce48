"""Attacks by one member that speaks with others' words: challenges and answers passed on, lines of others logged again,
one thing under two names, and addresses of machines that are not its own.
"""

from __future__ import annotations

import base64
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from support.lying_node import NotHere, Question
from support.raw_bytes import message, parsed

from attackers.answers import located
from attackers.attacker import Target, Victim, attacker
from attackers.calling import calling
from attackers.copy_claims import ended, failed
from attackers.forging import (
    Author,
    Holder,
    Identity,
    RawKey,
    Release,
    b64,
    canonical,
    envelope,
    key_id,
    named,
    opened,
    pae,
    sha256,
)
from attackers.hostile_node import HostileNode
from attackers.records import RawNode
from attackers.space_claims import claimed as large
from attackers.space_claims import publish

NODE = Holder({"node": "2" * 64}, (RawKey.of_seed("no node"),))
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256: (r, s) and (r, ORDER - s) are both signatures of the same bytes."""


def addresses(author: Author, origin: str, mutual: Sequence[str], open_: Sequence[str]) -> bytes:
    body = {"mutual": list(mutual), "open": list(open_)}
    return author.say("addresses", (origin, author.by["node"]), body)


def hold(author: Author, artifact: str, published: dict[str, Any]) -> bytes:
    """A claim of a copy, as a publication names the manifest and the piece index."""
    documents = {name: published[name] for name in ("manifest", "pieces")}
    return author.say("hold", ("", artifact), documents, [documents["manifest"], documents["pieces"]])


@dataclass(frozen=True)
class Challenge:
    """What an auditor asks the hostile node. Older versions leave out auditor, prover and federation."""

    data: bytes
    artifact: str
    index: str
    nonce: str
    lease: int
    auditor: str
    federation: str

    @classmethod
    def of(cls, question: Question) -> Challenge:
        raw = {field: question.fields.get(field, [b""])[0] for field in (1, 2, 3, 6, 8)}
        texts = {field: value.hex() for field, value in raw.items() if isinstance(value, bytes)}
        sent = message(*((field, value) for field, values in question.fields.items() for value in values))
        return cls(sent, texts[1], texts[2], texts[3], question.number(5), texts[6], texts[8])

    def readdressed(self, auditor: str, prover: str) -> bytes:
        """The same challenge as if `auditor` asked `prover`. The last value of a field counts."""
        return self.data + message((6, bytes.fromhex(auditor)), (7, bytes.fromhex(prover)))

    def answer(self, node: Author, auditor: str, said: dict[str, Any]) -> bytes:
        """A signed answer with the nonce, records and hashes of another one."""
        body = {"auditor": auditor, "challenge": self.nonce, "index": self.index, "lease": self.lease}
        body |= {name: said[name] for name in ("nonce", "pieces", "time")}
        if self.federation:
            body["federation"] = self.federation
        return node.say("audit-answer", ("", self.artifact), body)


def claimed(target: Target) -> list[str]:
    """Claim copies of all known artifacts, with the documents that their publications name. Returns those claimed."""
    found = []
    for artifact in target.known.artifacts:
        published = _published(target, artifact)
        if published:
            target.member.say(hold(target.member.node, artifact, published))
            found.append(artifact)
    return found


def _published(target: Target, artifact: str) -> dict[str, Any]:
    """What a publication or an observation says about an artifact; empty if no victim has one."""
    for victim in target.victims:
        with calling(target, victim) as caller:
            for answer in caller.ask("GetClaims", (1, bytes.fromhex(artifact))):
                for line in answer.get(3, []):
                    said = opened(line)["predicate"] if isinstance(line, bytes) else {}
                    if "manifest" in said and "pieces" in said:
                        return dict(said)
    return {}


def answering_audits(target: Target, lie: Callable[[HostileNode, Question], Iterable[bytes]]) -> None:
    """Claim copies, wait until each victim has audited one, and go on while the others work."""
    asked = threading.Semaphore(0)

    def counted(node: HostileNode, question: Question) -> Iterable[bytes]:
        asked.release()
        return lie(node, question)

    target.member.lies["Audit"] = counted
    claimed(target)
    deadline = time.monotonic() + 15
    for _ in target.victims:
        asked.acquire(timeout=max(0.0, deadline - time.monotonic()))
    target.hold()


def _others_answer(target: Target, victim: Victim, request: bytes) -> tuple[dict[str, Any], list[bytes]] | None:
    """What a victim answers to a challenge of the hostile node: its statement, and the Merkle paths."""
    with calling(target, victim, identity=target.member.identity) as caller:
        for answer in caller.ask("Audit", *_fields(request)):
            line, *_ = answer[1]
            assert isinstance(line, bytes)
            return opened(line)["predicate"], [path for path in answer.get(2, []) if isinstance(path, bytes)]
    return None


def _fields(request: bytes) -> list[tuple[int, int | bytes | str]]:
    return [(field, value) for field, values in parsed(request).items() for value in values]


@attacker(
    "challenges of an audit passed on to another holder",
    "M4",
    by="member",
    emits=lambda: [hold(NODE, "0" * 64, {"manifest": {"digest": "0" * 64, "size": 1},
                                         "pieces": {"digest": "1" * 64, "size": 1}})],
)  # fmt: skip
def relayed_challenges(target: Target) -> None:
    """It has no byte of any copy: another holder reads its own, and its hashes are signed as the hostile node's."""
    turn = itertools.count()

    def lie(node: HostileNode, question: Question) -> Iterable[bytes]:
        challenge = Challenge.of(question)
        guessed = target.victims[next(turn) % len(target.victims)].node
        auditor = challenge.auditor or guessed
        for victim in target.victims:
            if victim.node == auditor:
                continue
            for request in (challenge.readdressed(node.node_id, victim.node), challenge.data):
                told = _others_answer(target, victim, request)
                if told is not None:
                    said, paths = told
                    line = challenge.answer(node.node, auditor, said)
                    return [message((1, line), *((2, path) for path in paths))]
        raise NotHere

    answering_audits(target, lie)


@attacker("the first answer to an audit, repeated for every later one", "own", by="member")
def repeated_answers(target: Target) -> None:
    """Answers that honest holders gave to the hostile node, signed once, and given to every challenge."""
    kept: dict[str, list[bytes]] = {}

    def lie(node: HostileNode, question: Question) -> Iterable[bytes]:
        challenge = Challenge.of(question)
        if challenge.artifact not in kept:
            victim = next(each for each in target.victims if each.node != challenge.auditor)
            told = _others_answer(target, victim, challenge.readdressed(node.node_id, victim.node))
            if told is None:
                raise NotHere
            line = challenge.answer(node.node, challenge.auditor or victim.node, told[0])
            kept[challenge.artifact] = [message((1, line), *((2, path) for path in told[1]))]
        return kept[challenge.artifact]

    answering_audits(target, lie)


@attacker("answers to audits in the form of an older version", "own", by="member")
def older_answers(target: Target) -> None:
    """Without a federation, as before the hashes were bound to it. They may neither count nor be an accusation."""

    def lie(node: HostileNode, question: Question) -> Iterable[bytes]:
        challenge = Challenge.of(question)
        record = base64.b64encode((4).to_bytes(4, "big") + bytes(32)).decode()
        numbers = list(question.data(4))  # packed, and each below 128 in these artifacts
        said = {"nonce": "3" * 64, "pieces": [[number, record, "4" * 64] for number in numbers], "time": 1}
        older = Challenge(b"", challenge.artifact, challenge.index, challenge.nonce, 0, challenge.auditor, "")
        return [message((1, older.answer(node.node, challenge.auditor or "5" * 64, said)))]

    answering_audits(target, lie)


@attacker("correct answers of the others, shown as failed audits", "own", by="member")
def answers_as_failures(target: Target) -> None:
    """It audits every copy of the others, and logs each correct answer, which the holder signed, as a wrong one."""
    member, today = target.member, int(time.time()) // 86_400
    for artifact in target.known.artifacts:
        published = _published(target, artifact)
        for victim in target.victims if published else ():
            nonce = sha256(f"{artifact}{victim.node}".encode())
            fields = [(1, bytes.fromhex(artifact)), (2, bytes.fromhex(published["pieces"]["digest"])),
                      (3, bytes.fromhex(nonce)), (4, bytes((0,)))]  # fmt: skip
            parties = [(6, member.node_id), (7, victim.node), (8, target.known.federation)]
            request = message(*fields, *((field, bytes.fromhex(name)) for field, name in parties))
            with calling(target, victim, identity=member.identity) as caller:
                for answer in caller.ask("Audit", *_fields(request)):
                    line, *_ = answer[1]
                    assert isinstance(line, bytes)
                    for reason in ("digest", "record", "signature"):
                        member.say(_accusation(member.node, artifact, victim.node, nonce, published, reason, line))
                    member.say(failed(member.node, artifact, victim.node, today, answer=line.decode()))


def _accusation(
    node: Author, artifact: str, prover: str, nonce: str, published: dict[str, Any], reason: str, line: bytes
) -> bytes:
    found = {"answer": line.decode(), "index": published["pieces"]["digest"], "lease": 0, "node": prover,
             "nonce": nonce, "numbers": [0], "piece": 0, "reason": reason, "time": int(time.time())}  # fmt: skip
    return node.say("audited", ("", artifact), {"failed": found})


class Bystanders:
    """Machines of others, at `127.20.n.1`, that nobody of the federation has a reason to call. `target.knocks` has the
    time of each connection to them."""

    def __init__(self, target: Target, count: int) -> None:
        self._listening = [socket.create_server((f"127.20.{number}.1", 0)) for number in range(1, count + 1)]
        self.addresses = [f"{host}:{port}" for host, port in (each.getsockname() for each in self._listening)]
        for each in self._listening:
            threading.Thread(target=_accept, args=(each, target.knocks), daemon=True).start()

    @property
    def ports(self) -> list[int]:
        return [each.getsockname()[1] for each in self._listening]

    def close(self) -> None:
        for each in self._listening:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _accept(listening: socket.socket, knocks: list[float]) -> None:
    with suppress(OSError):
        while True:
            near, _ = listening.accept()
            knocks.append(time.monotonic())
            near.close()


def announcing(target: Target, lines: Iterable[bytes], pause: float = 0.5) -> None:
    """Say one line, and the others one after the other while the others work."""
    first, *rest = lines
    target.member.say(first)
    target.ready.set()
    for line in rest:
        if target.ended.wait(pause):
            return
        target.member.say(line)
    target.hold()


@attacker(
    "a line of addresses that lead to machines of others",
    "M3",
    by="member",
    emits=lambda: [addresses(NODE, "x.example/log", ["127.20.1.1:1"], ["[::1]:1"])],
)
def addresses_of_bystanders(target: Target) -> None:
    member = target.member
    with ExitStack() as stack:
        others = Bystanders(target, 16)
        stack.callback(others.close)
        listed = others.addresses
        announcing(
            target,
            (
                addresses(member.node, f"{member.log.origin} {turn}", listed[turn % 9 :][:8], listed[: 8 - turn % 2])
                for turn in range(60)
            ),
        )


@attacker("names and spellings of this machine as addresses of its node", "own", by="member")
def spellings_of_this_machine(target: Target) -> None:
    member = target.member
    with ExitStack() as stack:
        listening = socket.create_server(("127.0.0.1", 0))
        stack.callback(listening.close)
        threading.Thread(target=_accept, args=(listening, target.knocks), daemon=True).start()
        port = listening.getsockname()[1]
        hosts = ("localhost", "LOCALHOST", "127.1", "2130706433", "0x7f000001", "0", "127.0.0.1", "127.2.3.4")
        more = (
            "[::ffff:127.0.0.1]",
            "[::1]",
            "[::]",
            "0177.0.0.1",
            "localhost.localdomain",
            "ip6-localhost",
            "0.0.0.0",
        )
        told = [f"{host}:{port}" for host in (*hosts, *more)]
        announcing(
            target,
            (
                addresses(member.node, f"{member.log.origin} {turn}", told[turn % 8 :][:8], told[::-1][turn % 8 :][:8])
                for turn in range(60)
            ),
        )


@attacker("the addresses of the others' nodes, announced as its own", "own", by="member")
def addresses_of_victims(target: Target) -> None:
    member, mutual = target.member, [victim.mutual for victim in target.victims]
    open_ = [victim.open for victim in target.victims]
    announcing(
        target,
        (addresses(member.node, f"{member.log.origin} {turn}", mutual[turn % 3 :], open_[::-1]) for turn in range(60)),
    )


@attacker("files of thirty artifacts at machines of others", "own", by="member")
def files_at_bystanders(target: Target) -> None:
    """Publications that fit its share, and are large enough to be read by HTTPS: their files are located elsewhere."""
    member, who = target.member, Identity.made("somebody with large files")
    releases = [large(20 << 20, f"elsewhere {number}") for number in range(30)]
    with ExitStack() as stack:
        others = Bystanders(target, 8)
        stack.callback(others.close)
        turn = itertools.count()

        def locations(node: HostileNode, question: Question) -> Iterable[bytes]:
            url = f"https://{others.addresses[next(turn) % 8]}/{next(turn)}"
            return [message((1, message((1, ("https-range", "s3-presigned")[next(turn) % 2]), (2, url))))]

        member.lies |= {"ListLocations": locations, "Read": HostileNode.silent}
        publish(target, releases, [who])
        for each in releases:
            published = {"manifest": named(each.manifest), "pieces": named(each.pieces)}
            member.say(hold(member.node, sha256(each.manifest), published))
        target.hold()


@attacker("lines of the others about copies and addresses, logged again", "own", by="member")
def lines_logged_again(target: Target) -> None:
    """All lines of the others' logs, the oldest last; and withdrawals of their claims, by the hostile node."""
    member, claims = target.member, 0
    for victim in target.victims:
        with calling(target, victim) as caller:
            lines = caller.lines(victim.origin)
        for index, line in reversed(list(enumerate(lines))):
            kind = opened(line)["predicateType"].split(":")[2] if _is_statement(line) else ""
            member.say(line)
            if kind in ("hold", "holds"):
                claims += 1
                for subject in opened(line)["subject"]:
                    member.say(ended(member.node, subject["digest"]["sha256"], index))
    assert claims, "the others hold nothing"


def _is_statement(line: bytes) -> bool:
    try:
        return "predicateType" in opened(line)
    except (ValueError, KeyError):
        return False


@attacker(
    "lines of the others with signatures added, removed and turned",
    "own",
    by="member",
    emits=lambda: list(twins(Identity.made("somebody").advise("0" * 64, "x"), RawKey.of_seed("more"))),
)
def other_envelopes(target: Target) -> None:
    """Other envelopes of public statements, in its own log and submitted to every victim before the next statements."""
    own = RawKey.of_seed("of the hostile member")
    for victim in target.victims:
        with calling(target, victim) as caller:
            lines = [line for line in caller.lines(victim.origin) if _is_statement(line)]
            turned = [twin for line in lines[:40] for twin in twins(line, own)]
            target.member.say(*turned)
            for twin in turned[:60]:
                caller.submit([twin])


def twins(line: bytes, more: RawKey) -> Iterator[bytes]:
    """Other envelopes of the statement in a line: a stranger's signature beside the others, one doubled, one half
    of a key missing, the other one of two ECDSA signatures, and other encodings of the same JSON."""
    said = json.loads(line)
    payload, signatures = base64.b64decode(said["payload"]), said["signatures"]
    pairs = [(each["keyid"], base64.b64decode(each["sig"])) for each in signatures]
    yield envelope(payload, [*pairs, (key_id(more), more.sign(pae(payload)))])
    yield envelope(payload, [*pairs, pairs[0]])
    if len(pairs) > 1:
        yield envelope(payload, pairs[:1])
        yield envelope(payload, pairs[1:])
    yield envelope(payload, [(keyid, _other(signature)) for keyid, signature in pairs])
    yield json.dumps(said).encode()
    yield canonical(said | {"payload": said["payload"].rstrip("=")})
    respaced = json.dumps(json.loads(payload)).encode()
    yield canonical(said | {"payload": b64(respaced)})


def _other(signature: bytes) -> bytes:
    """The other signature of the same bytes, if it is one of P-256; else one with another last bit."""
    if len(signature) == 64:
        r, s = signature[:32], int.from_bytes(signature[32:], "big")
        return r + ((ORDER - s) % ORDER).to_bytes(32, "big")
    return signature[:-1] + bytes((signature[-1] ^ 1,))


SPELLINGS = ("{} ", "{}\u200b", "\u2066{}\u2069", "{}\u00ad", "{}\u3164")
"""A name with a space at its end, a character without width, isolated directions, a soft hyphen, a blank letter."""


@attacker("nodes with the names of the others in other spellings", "own", by="member")
def other_spellings(target: Target) -> None:
    """Records of nodes that do not run, whose names look like the others', and whose logs have the others' origins."""
    member = target.member
    for number, victim in enumerate(target.victims):
        for at, form in enumerate(SPELLINGS):
            member.say(RawNode(f"spelled-{number}-{at}", form.format(victim.name)).record(member.member))
        for at, name in enumerate((victim.name.upper(), victim.name.replace("e", "\u0435"), victim.origin)):
            node = RawNode(f"alike-{number}-{at}", name)
            member.say(node.record(member.member), node.addresses([victim.mutual], [victim.open]))
        who = Identity.made(f"spelled {number}")
        name = target.known.bound.partition("@")[0]
        member.say(who.inception)
        for spelled in (name.upper(), name.replace("e", "\u0435"), f"{name}\u200b", name.replace("/", "\u2215", 1)):
            release = Release(f"another {spelled}".encode())
            member.say(who.publish(f"{spelled}@v1", release), objects=release.objects)


@attacker("claims of others' artifacts in the answers of its node", "own", by="member")
def claims_of_others(target: Target) -> None:
    """It answers about each artifact with true lines about another one, at indexes of its own log."""
    lines: list[bytes] = []
    for artifact in target.known.artifacts:
        for victim in target.victims:
            with calling(target, victim) as caller:
                for answer in caller.ask("GetClaims", (1, bytes.fromhex(artifact))):
                    lines += [line for line in answer.get(3, []) if isinstance(line, bytes)]

    def lie(node: HostileNode, question: Question) -> Iterator[bytes]:
        for index, line in enumerate(lines[::-1]):
            yield located(node.log.origin, index, line)

    for call in ("GetClaims", "Resolve"):
        target.member.lies[call] = lie
    target.hold()
