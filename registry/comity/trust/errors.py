"""The exceptions of Comity, grouped by cause. Every package raises these and no others.

    ComityError                  an operation failed                                     exit 1
      Malformed                  bytes break a format or a limit                         exit 3
      Untrusted                  a hash, signature, proof or rule does not verify        exit 3
        Equivocation             one key signed two statements that exclude each other   exit 3
      PolicyNotMet               authentic, but the owner's policy requires more         exit 4
      Unavailable                not available now: peer, evidence, quorum               exit 5
        NotFound                 not on this node, or does not exist                     exit 5
      Refused                    the caller lacks a certificate, permission or rate      exit 6
      OutOfSpace                 disk or quota                                           exit 7
      Conflict                   the state changed concurrently; try again               exit 1

An error says what happened, why, and the exact next command where there is one. `code` is stable and machine-readable:
the gRPC ErrorInfo reason, the JSON field and the argument of `comity explain`.
"""

from __future__ import annotations

from typing import Self

from comity.trust.exit_statuses import (
    EVIDENCE_MISSING,
    FAILED,
    NO_ROOM,
    POLICY_NOT_MET,
    REFUSED,
    VERIFICATION_FAILED,
)


class ComityError(Exception):
    """Base class of all expected failures.

    Args:
        what: one sentence that says what happened.
        why: the reason, as precise as known.
        hint: the exact next command or step, without a trailing full stop.
        code: stable reason, upper-case words joined by hyphens; by default that of the class.

    Attributes:
        by_node: a node elsewhere said this, so the hint is its advice: a hostile one may advise anything.
        retry_after: seconds after which the same call may succeed, where the node said so; else 0.
    """

    code = "FAILED"
    exit_status = FAILED
    by_node = False
    retry_after = 0.0

    def __init__(self, what: str, *, why: str = "", hint: str = "", code: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what

    def without_traceback(self) -> Self:
        """A new error that says the same, for what keeps errors. A raised error keeps the frames that it went through,
        with all that they had in memory, and those of its causes; each further raise adds frames."""
        copy = type(self).__new__(type(self), *self.args)
        copy.__dict__.update(self.__dict__)
        return copy


class Malformed(ComityError):
    code = "MALFORMED"
    exit_status = VERIFICATION_FAILED


class Untrusted(ComityError):
    code = "UNTRUSTED"
    exit_status = VERIFICATION_FAILED


class Equivocation(Untrusted):
    """Two signed statements that exclude each other. `proof` holds both; anyone can verify it, at any time."""

    code = "EQUIVOCATION"

    def __init__(self, what: str, *, proof: tuple[bytes, ...], why: str = "", hint: str = "") -> None:
        super().__init__(what, why=why, hint=hint)
        self.proof = proof


class PolicyNotMet(ComityError):
    code = "POLICY-NOT-MET"
    exit_status = POLICY_NOT_MET


class Unavailable(ComityError):
    code = "UNAVAILABLE"
    exit_status = EVIDENCE_MISSING


class NotFound(Unavailable):
    code = "NOT-FOUND"


class Refused(ComityError):
    code = "REFUSED"
    exit_status = REFUSED


class OutOfSpace(ComityError):
    code = "OUT-OF-SPACE"
    exit_status = NO_ROOM


class Conflict(ComityError):
    code = "CONFLICT"
