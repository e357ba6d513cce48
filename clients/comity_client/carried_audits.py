"""Audits by file: challenges are carried to a node that no network reaches, and its answers back.

    challenges   {"schema":"comity/audit-challenges/v2","challenges":[{artifact, auditor, federation, index, nonce,
                 numbers, prover}, …]}
    answers      {"schema":"comity/audit-answers/v1","answers":[{line, paths}, …],"refused":[{artifact, why}, …]}

Both are canonical JSON. Neither file is secret, and neither is believed: the other node decides which challenges it
answers, and this node checks each answer with its own copy. `refused` is for people: it proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from comity.rules.audit import MAX_CHALLENGED, AuditChallenge
from comity.trust.encoding import Digest, Fields, Json, b64decode, b64encode, canonical, parse_canonical
from comity.trust.errors import ComityError
from comity.trust.frozen import frozen
from comity.trust.statement import MAX_LINE
from comity.wire.audit import AuditOrder, AuditReply, ChallengeRequest
from comity.wire.client import NodeClient

from comity_client.own_node import AUDIT_TIMEOUT, ask_own_node

if TYPE_CHECKING:
    from comity.wire.audit import CheckedCopy

CHALLENGES: Final = "comity/audit-challenges/v2"
ANSWERS: Final = "comity/audit-answers/v1"
MAX_CHALLENGES: Final = 256
MAX_FILE: Final = 32 * 1024**2
MAX_PATH: Final = 64
"""Hashes of one Merkle path."""
MAX_WHY: Final = 1_000
_NOT_ANSWERED: Final = frozenset({"AUDITORS-ONLY", "AUDIT-PARTIES", "NOT-HELD", "WITHDRAWING"})
_NOT_RECORDED: Final = frozenset({"NO-CHALLENGE", "AUDIT-FAILED", "AUDIT-OLD-FORM", "NOT-COMPARED"})


@frozen
class RefusedChallenge:
    """A challenge that the node did not answer, as the answers file says it."""

    artifact: Digest
    why: str


@frozen
class CarriedAnswers:
    answers: tuple[AuditReply, ...]
    refused: tuple[RefusedChallenge, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> CarriedAnswers:
        """Inverse of `encode`. Raises Malformed."""
        fields = Fields(parse_canonical(data, limit=MAX_FILE, what="audit answers"), "audit answers")
        fields.constant("schema", ANSWERS)
        answers = tuple(map(_answer, fields.items("answers", most=MAX_CHALLENGES)))
        refused = tuple(map(_refused, fields.items("refused", most=MAX_CHALLENGES)))
        fields.done()
        return cls(answers, refused)

    def encode(self) -> bytes:
        answers: list[Json] = [
            {
                "line": answer.line.decode("ascii"),
                "paths": [b64encode(b"".join(path)) for path in answer.paths],
            }
            for answer in self.answers
        ]
        refused: list[Json] = [{"artifact": item.artifact, "why": item.why[:MAX_WHY]} for item in self.refused]
        return canonical({"answers": answers, "refused": refused, "schema": ANSWERS})


def encode_challenges(orders: Sequence[AuditOrder]) -> bytes:
    listed: list[Json] = [
        {
            "artifact": order.challenge.artifact,
            "auditor": order.challenge.auditor,
            "federation": order.federation,
            "index": order.challenge.pieces,
            "nonce": order.challenge.nonce,
            "numbers": list(order.challenge.numbers),
            "prover": order.challenge.prover,
        }
        for order in orders
    ]
    return canonical({"challenges": listed, "schema": CHALLENGES})


def parse_challenges(data: bytes) -> tuple[AuditOrder, ...]:
    """Inverse of `encode_challenges`. Raises Malformed."""
    fields = Fields(parse_canonical(data, limit=MAX_FILE, what="audit challenges"), "audit challenges")
    fields.constant("schema", CHALLENGES)
    found = tuple(map(_challenge, fields.items("challenges", most=MAX_CHALLENGES)))
    fields.done()
    return found


def ask_challenges(socket: Path, request: ChallengeRequest) -> tuple[AuditOrder, ...]:
    """Have the node of this machine draw challenges. Raises NotFound (NO-SUCH-NODE, NOT-HELD)."""
    return ask_own_node(socket, lambda node: node.audits.challenges(request), timeout=AUDIT_TIMEOUT)


def answer_challenges(socket: Path, orders: Sequence[AuditOrder]) -> CarriedAnswers:
    """Have the node of this machine answer each challenge, one after the other."""

    async def answer(node: NodeClient) -> CarriedAnswers:
        answers: list[AuditReply] = []
        refused: list[RefusedChallenge] = []
        for order in orders:
            try:
                answers.append(await node.audits.answer_carried(order))
            except ComityError as error:
                if error.code not in _NOT_ANSWERED:
                    raise
                refused.append(RefusedChallenge(order.challenge.artifact, f"{error.what}: {error.why}"[:MAX_WHY]))
        return CarriedAnswers(tuple(answers), tuple(refused))

    return ask_own_node(socket, answer, timeout=AUDIT_TIMEOUT)


def check_answers(socket: Path, answers: CarriedAnswers) -> tuple[list[CheckedCopy], list[ComityError]]:
    """Have the node of this machine check each answer. Returns the results that it recorded, and for each other answer
    why it proves nothing."""

    async def check(node: NodeClient) -> tuple[list[CheckedCopy], list[ComityError]]:
        found: list[CheckedCopy] = []
        nothing: list[ComityError] = []
        for answer in answers.answers:
            try:
                found.append(await node.audits.check_answer(answer))
            except ComityError as error:
                if error.code not in _NOT_RECORDED:
                    raise
                nothing.append(error)
        return found, nothing

    return ask_own_node(socket, check, timeout=AUDIT_TIMEOUT)


def _challenge(item: Json) -> AuditOrder:
    fields = Fields(item, "audit challenge")
    numbers = tuple(
        Fields({"number": number}, "audit challenge").integer("number")
        for number in fields.items("numbers", least=1, most=MAX_CHALLENGED)
    )
    challenge = AuditChallenge(
        fields.digest("auditor"),
        fields.digest("prover"),
        fields.digest("artifact"),
        fields.digest("index"),
        fields.digest("nonce"),
        numbers,
    )
    order = AuditOrder(fields.digest("federation"), challenge)
    fields.done()
    return order


def _answer(item: Json) -> AuditReply:
    fields = Fields(item, "audit answer")
    line = fields.text("line", least=1, most=MAX_LINE)
    if not line.isascii():
        raise fields.error("'line' must be a line of a log")
    paths = tuple(_path(path, fields) for path in fields.items("paths", most=MAX_CHALLENGED))
    fields.done()
    return AuditReply(line.encode("ascii"), paths)


def _path(item: Json, fields: Fields) -> tuple[bytes, ...]:
    data = b64decode(item)
    if len(data) % 32 or len(data) > 32 * MAX_PATH:
        raise fields.error(f"a path must be at most {MAX_PATH} hashes")
    return tuple(data[at : at + 32] for at in range(0, len(data), 32))


def _refused(item: Json) -> RefusedChallenge:
    fields = Fields(item, "refused challenge")
    refused = RefusedChallenge(fields.digest("artifact"), fields.text("why", least=0, most=MAX_WHY))
    fields.done()
    return refused
