"""The links of a continuity plan: each thing that can be wrong with one, how bad that is, and what to do about it.

A link that holds is green. *Red*: nothing shows that the fallback works, or something shows that it does not. *Amber*:
it works as far as is known, and something about it is old, ends soon, was never tried, or is said by somebody only.
Nothing that is unknown is green.

A drill begins with the same links. It ends at one that is red, but for those of subjects that it tries again itself;
its report lists the others. Source: docs/continuity.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal

from comity.rules.continuity.facts import Basis
from comity.trust.frozen import frozen

State = Literal["green", "amber", "red"]
GREEN: Final = "green"
AMBER: Final = "amber"
RED: Final = "red"
STATES: Final[tuple[State, ...]] = (GREEN, AMBER, RED)
"""From the best to the worst."""

SUBJECTS: Final = (
    "plan", "service", "kit", "parts", "weights", "check", "evaluation", "approval", "machines", "copies", "drill",
)  # fmt: skip
"""What a link is about, in the order of tables."""


TRIED_AGAIN: Final = ("check", "drill")
"""The subjects that a drill tries again: what was found of them before it ends no drill."""


def worst(states: Iterable[State]) -> State:
    """The worst of some states; green if there are none."""
    return max(states, key=STATES.index, default=GREEN)


@frozen
class LinkKind:
    """Something that can be wrong. `hint` is the next command: `{kit}`, `{name}`, `{plan}`, `{service}` and `{record}`
    are filled in."""

    subject: str
    state: State
    means: str
    hint: str = ""


_BUILD: Final = "comity kit build DIR"
_SIGN: Final = "comity continuity sign {plan}"
_WEIGHTS: Final = "comity show {weights}"
_GRANT: Final = "comity grant show {record}"
_SHOW: Final = "comity show sha256:{kit}"
_CHECK: Final = "comity kit check sha256:{kit}"
_COPIES: Final = "comity copies sha256:{kit}"
_PIN: Final = "comity pin add sha256:{kit} --at-least N"
_DRILL: Final = "comity continuity drill {service} --plan {plan}"
_EDIT: Final = "edit {plan}; comity continuity sign {plan}"
_EVALUATION: Final = "comity evaluation announce sha256:{kit} criteria.json"
_APPROVE: Final = "comity approve sha256:{kit} --scope {scope}"

LINK_KINDS: Final[Mapping[str, LinkKind]] = {
    "plan-unsigned": LinkKind("plan", AMBER, "nobody signed the plan", _SIGN),
    "plan-changed": LinkKind("plan", RED, "the plan was changed after it was signed", _SIGN),
    "plan-signature-invalid": LinkKind("plan", RED, "the signature of the plan does not verify", _SIGN),
    "plan-signer-other": LinkKind("plan", RED, "somebody else than the owner signed the plan", _SIGN),
    "plan-key-lost": LinkKind("plan", RED, "the key that signed the plan was lost or retired", _SIGN),
    "plan-over": LinkKind("plan", RED, "the plan's last day is over", _EDIT),
    "plan-ends-soon": LinkKind("plan", AMBER, "the plan ends within 30 days", _EDIT),
    "policy-missing": LinkKind("plan", RED, "the plan's policy file is not beside it", _EDIT),
    "policy-changed": LinkKind("plan", RED, "the policy file is not the one that the plan names", _EDIT),
    "vendor-not-covered": LinkKind(
        "service", AMBER, "the plan does not survive the law under which its vendor is", _EDIT
    ),
    "kit-unknown": LinkKind("kit", RED, "no node that answered knows the kit", "comity publish DIR {name}"),
    "nodes-silent": LinkKind("kit", RED, "no node answered, so nothing is known of the kit", "comity status"),
    "kit-refused": LinkKind("kit", RED, "the policy refuses the kit", _SHOW),
    "kit-unproven": LinkKind("kit", RED, "evidence that the policy requires is missing", _SHOW),
    "kit-withdrawn": LinkKind("kit", RED, "its publisher withdrew the kit", _SHOW),
    "kit-superseded": LinkKind("kit", AMBER, "its publisher has a newer version", _SHOW),
    "kit-malware": LinkKind("kit", RED, "its publisher or a member warns of malware in the kit", _SHOW),
    "kit-vulnerable": LinkKind("kit", AMBER, "its publisher or a member warns of a vulnerability", _SHOW),
    "kit-warned": LinkKind("kit", AMBER, "somebody who is no member warns about the kit", _SHOW),
    "publisher-key-lost": LinkKind("kit", RED, "its publisher reports that the key was lost that signed it", _SHOW),
    "not-a-kit": LinkKind("parts", RED, "the artifact has no kit.json", _BUILD),
    "kit-unreadable": LinkKind("parts", RED, "its kit.json cannot be read", _BUILD),
    "contents-unread": LinkKind("parts", RED, "no node gave its kit.json", _COPIES),
    "parts-wrong": LinkKind("parts", RED, "parts are missing, or are not those of its kit.json", _BUILD),
    "package-index-in-the-way": LinkKind(
        "parts", RED, "its lock and its wheels do not fit, or it has no hashes", _BUILD
    ),
    "lock-unread": LinkKind("parts", AMBER, "no node gave its lock file", _COPIES),
    "address-in-the-way": LinkKind("parts", AMBER, "its command or environment names an outside address", _CHECK),
    "weights-withdrawn": LinkKind("weights", RED, "its weights were withdrawn, or hold malware", _WEIGHTS),
    "weights-warned": LinkKind("weights", AMBER, "there is a warning about its weights", _WEIGHTS),
    "weights-unknown": LinkKind("weights", AMBER, "no node knows the artifact of its weights", _WEIGHTS),
    "never-checked": LinkKind("check", RED, "the kit was never checked on this machine", _CHECK),
    "check-failed": LinkKind("check", RED, "the last check of the kit failed", _CHECK),
    "check-partial": LinkKind("check", AMBER, "the last check could not try everything", _CHECK),
    "check-stale": LinkKind("check", AMBER, "the last passed check is older than the plan allows", _CHECK),
    "evaluation-missing": LinkKind("evaluation", RED, "the evaluator states no such result", _EVALUATION),
    "evaluation-by-other": LinkKind("evaluation", RED, "only somebody else evaluated the kit", _EVALUATION),
    "evaluation-below": LinkKind("evaluation", RED, "the result is below what the plan asks for", _EVALUATION),
    "evaluation-not-first": LinkKind("evaluation", RED, "it was not announced before its result", _EVALUATION),
    "evaluation-unproven": LinkKind("evaluation", AMBER, "no log here proves that it was announced first", _SHOW),
    "evaluation-old": LinkKind("evaluation", AMBER, "the result is older than the plan allows", _EVALUATION),
    "approval-missing": LinkKind("approval", RED, "too few of the officers approved the kit", _APPROVE),
    "ended-approval": LinkKind("approval", RED, "an approval was ended, and too few are left", _APPROVE),
    "approval-over": LinkKind("approval", RED, "an approval ran out, and too few are left", _APPROVE),
    "approval-ends-soon": LinkKind("approval", AMBER, "the approvals run out within 14 days", _APPROVE),
    "machines-too-small": LinkKind("machines", RED, "the machines are smaller than the kit needs", _EDIT),
    "platform-other": LinkKind("machines", RED, "the kit is for another platform than the machines", _EDIT),
    "record-unknown": LinkKind("machines", RED, "no node knows this offer, grant or pact", "comity grant ls"),
    "record-unproven": LinkKind("machines", RED, "its chain is not proven", "comity offer show {record} --json"),
    "withdrawn-offer": LinkKind("machines", RED, "the offer was withdrawn", "comity offer ls"),
    "offer-only": LinkKind("machines", AMBER, "an offer promises nothing yet", "comity grant request {record}"),
    "grant-lapsed": LinkKind("machines", RED, "it lapsed, or was given back", _GRANT),
    "grant-not-accepted": LinkKind("machines", AMBER, "it is not accepted yet", "comity grant accept {record}"),
    "grant-of-other": LinkKind("machines", RED, "it is granted to somebody else", _GRANT),
    "grant-over": LinkKind("machines", RED, "its time is over", _GRANT),
    "grant-not-begun": LinkKind("machines", RED, "its time has not begun", _GRANT),
    "grant-used-up": LinkKind("machines", RED, "nothing of it is left", _GRANT),
    "grant-ends-soon": LinkKind("machines", AMBER, "it ends within 30 days", _GRANT),
    "grant-defaulted": LinkKind("machines", RED, "its grantee said that it was not honoured", _GRANT),
    "provider-in-reach": LinkKind("machines", RED, "a party that the plan must survive takes the machines", _EDIT),
    "hardware-root": LinkKind(
        "machines", RED, "the machines are attested under a root that the plan must survive", _EDIT
    ),
    "hardware-unknown": LinkKind(
        "machines", AMBER, "nobody here knows under whose root the machines are attested", "comity offer show {record}"
    ),
    "copies-none": LinkKind("copies", RED, "nobody has a copy", _PIN),
    "copies-unknown": LinkKind("copies", RED, "no node said who has copies", "comity status"),
    "copies-inside": LinkKind("copies", RED, "all copies are with parties that the plan must survive", _PIN),
    "copies-few": LinkKind("copies", AMBER, "fewer copies are outside than the plan asks for", _PIN),
    "copies-silent": LinkKind("copies", RED, "no node with a copy outside answers", "comity status"),
    "copy-silent": LinkKind("copies", AMBER, "too few nodes with a copy outside answer", "comity status"),
    "copy-failed": LinkKind("copies", AMBER, "a copy failed an audit, or was withdrawn", _COPIES),
    "copies-untested": LinkKind("copies", AMBER, "too few copies outside were tested lately", _COPIES),
    "dns-in-the-way": LinkKind("copies", RED, "the nodes with copies outside are found by DNS only", _EDIT),
    "never-drilled": LinkKind("drill", AMBER, "the service was never drilled with this kit", _DRILL),
    "drill-failed": LinkKind("drill", RED, "the last drill failed", _DRILL),
    "drill-slow": LinkKind("drill", RED, "the last drill took longer than the longest outage", _DRILL),
    "drill-stale": LinkKind("drill", AMBER, "the last drill is older than the plan allows", _DRILL),
    "drill-narrow": LinkKind("drill", AMBER, "the last drill did not cut off all parties", _DRILL),
}  # fmt: skip
"""By name, which is the API of scripts."""


@frozen
class Link:
    """A link and its state. `kind` is a name of `LINK_KINDS`, or empty if it holds; `by`: who says it, if somebody
    does; `hint`: the next command."""

    subject: str
    kind: str
    state: State
    text: str
    basis: Basis
    by: str = ""
    hint: str = ""

    @property
    def ends_drill(self) -> bool:
        """Whether a drill ends before it pulls anything, because this link does not hold."""
        return self.state == RED and self.subject not in TRIED_AGAIN


def describe_link(kind: str, found: str = "") -> str:
    """What a kind of link means, and what was found."""
    means = LINK_KINDS[kind].means
    return means if found in ("", means) else found if found.startswith(f"{means}: ") else f"{means}: {found}"
