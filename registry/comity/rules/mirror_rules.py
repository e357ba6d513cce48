"""Rules by which a node decides which artifacts it copies: an ordered list, of which the first that fits decides. Pure.

    default = "skip"                   # what no rule decides: "copy" or "skip"
    quota_bytes = 20_000_000_000_000   # what all rules and the default together may copy

    [[rule]]
    name = "no adapters of the lab"    # how the rule is named in explanations; each once
    do = "skip"                        # "copy" or "skip"
    repositories = ["lab/*-lora"]      # patterns of namespace/name, or hf:org/name for what was mirrored from the Hub
    versions = ["v1.*"]                # patterns of the version; of a mirrored repository, of the commit
    publishers = ["51aa…"]             # 64 hex digits each; nobody for what was mirrored
    organisations = ["google"]         # the upstream organisation of what was mirrored
    licences = ["apache-2.0"]          # as the publisher or the upstream's card claims it, in any case of letters
    formats = ["safetensors"]          # suffixes: at least one file has one of them
    wanted_by = ["51aa…"]              # members whose nodes ask for copies of it now (`rules.artifact_pins`)
    min_bytes = 0                      # the sum of the sizes of its files
    max_bytes = 200_000_000_000
    min_age_hours = 72                 # since this node verified the publication, not since a time that somebody claims
    max_age_hours = 8_760
    quota_bytes = 5_000_000_000_000    # what this rule may copy; only with do = "copy"

A rule fits if each of its conditions does; a rule without conditions fits everything. `*` and `?` are the only
wildcards. What a rule looks at are claims of publishers and nodes, except for the paths and sizes in a manifest, and
ages. An artifact that is copied only at a greater age waits for it: because of the `min_age_hours` of the rule that
copies it, or because of the `max_age_hours` of one that skips it. Rules decide what is copied from now on: they remove
nothing.

Quotas bound how many bytes the rules copy, each and in all. An artifact is charged to the rule that copies it before
its first byte is fetched, with the size of all its files. So what is fetched is never more than what was charged, and
charges never pass a quota: a copy waits if it does not fit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from comity.rules.rule_file import name_pattern, read_rule_file, read_texts
from comity.trust.artifact import Manifest
from comity.trust.encoding import Digest, parse_digest
from comity.trust.errors import ComityError, Malformed
from comity.trust.frozen import frozen
from comity.trust.names import UPSTREAM
from comity.trust.statements import Published
from comity.trust.upstream import Observed

MAX_SIZE: Final = 2**53
MAX_AGE_HOURS: Final = 10 * 366 * 24
HOUR_SECONDS: Final = 3_600
Action = Literal["copy", "skip"]
ACTIONS: Final[tuple[Action, ...]] = ("copy", "skip")
_KEYS: Final = frozenset(
    {"name", "do", "repositories", "versions", "publishers", "organisations", "licences", "formats"}
    | {"min_bytes", "max_bytes", "min_age_hours", "max_age_hours", "quota_bytes", "wanted_by"}
)
WARN_SHARE: Final = 0.8
"""The share of a quota from which operators are warned."""
ALL: Final = ""
"""Names the quota of all rules and the default together."""


@frozen
class MirrorClaim:
    """What the statement about an artifact says. `publisher` is None and `organisation` set for what was mirrored.
    `wanted_by` are the members that ask for copies of it now and are to be answered now."""

    repository: str
    version: str
    publisher: Digest | None
    licence: str
    organisation: str = ""
    wanted_by: frozenset[Digest] = frozenset()

    @classmethod
    def of(cls, claimed: Published | Observed) -> MirrorClaim:
        repository, _, version = str(claimed.name).rpartition("@")
        if isinstance(claimed, Published):
            return cls(repository, version, claimed.by, claimed.licence.spdx)
        organisation = repository.removeprefix(UPSTREAM).partition("/")[0]
        return cls(repository, version, None, claimed.conditions.licence, organisation)


@frozen
class MirrorContents:
    """What the manifest says: the sum of the sizes, and the suffixes of the files in lower case."""

    size: int
    suffixes: frozenset[str]

    @classmethod
    def of(cls, manifest: Manifest) -> MirrorContents:
        names = (entry.path.rpartition("/")[2] for entry in manifest.files)
        return cls(manifest.size, frozenset(name.rpartition(".")[2].lower() for name in names if "." in name))


@frozen
class MirrorRule:
    """One rule. An empty condition is none; patterns are matched without regard to case."""

    name: str
    do: Action
    repositories: re.Pattern[str] | None = None
    versions: re.Pattern[str] | None = None
    publishers: frozenset[str] = frozenset()
    organisations: frozenset[str] = frozenset()
    licences: frozenset[str] = frozenset()
    formats: frozenset[str] = frozenset()
    wanted_by: frozenset[str] = frozenset()
    min_bytes: int = 0
    max_bytes: int = MAX_SIZE
    min_age_hours: int = 0
    max_age_hours: int = MAX_AGE_HOURS
    quota_bytes: int | None = None

    @property
    def changes(self) -> tuple[int, ...]:
        """The ages, in seconds, from which on the rule fits or fits no more; empty if it fits at every age."""
        first = (self.min_age_hours * HOUR_SECONDS,) if self.min_age_hours else ()
        return first if self.max_age_hours == MAX_AGE_HOURS else (*first, self.max_age_hours * HOUR_SECONDS + 1)

    @property
    def needs_contents(self) -> bool:
        return bool(self.formats) or self.min_bytes > 0 or self.max_bytes < MAX_SIZE

    def fits_claim(self, claim: MirrorClaim) -> bool:
        return (
            (self.repositories is None or self.repositories.match(claim.repository) is not None)
            and (self.versions is None or self.versions.match(claim.version) is not None)
            and (not self.publishers or claim.publisher in self.publishers)
            and (not self.organisations or claim.organisation.lower() in self.organisations)
            and (not self.licences or claim.licence.lower() in self.licences)
            and (not self.wanted_by or not self.wanted_by.isdisjoint(claim.wanted_by))
        )

    def fits_contents(self, contents: MirrorContents) -> bool:
        fits = self.min_bytes <= contents.size <= self.max_bytes
        return fits and (not self.formats or not self.formats.isdisjoint(contents.suffixes))

    def fits_age(self, age: float) -> bool:
        """Whether an artifact of this age, in seconds, is neither too young nor too old."""
        is_young_enough = self.max_age_hours == MAX_AGE_HOURS or age <= self.max_age_hours * HOUR_SECONDS
        return is_young_enough and age >= self.min_age_hours * HOUR_SECONDS


@frozen
class MirrorDecision:
    """`rule` is the name of the rule that decided; empty for the default. An artifact that is not copied yet and will
    be at a greater age has the seconds until then in `wait`, and the rule that will copy it."""

    copy: bool
    rule: str = ""
    wait: float = 0.0


@frozen
class MirrorRules:
    rules: tuple[MirrorRule, ...]
    default: Action
    quota_bytes: int | None = None

    @property
    def quotas(self) -> dict[str, int]:
        """The quotas in bytes by the name of the rule, and that of all together as `ALL`."""
        total = {} if self.quota_bytes is None else {ALL: self.quota_bytes}
        return total | {rule.name: rule.quota_bytes for rule in self.rules if rule.quota_bytes is not None}

    @property
    def need_age(self) -> bool:
        return any(rule.changes for rule in self.rules)

    def decide(
        self, claim: MirrorClaim, contents: MirrorContents | None = None, age: float = 0.0
    ) -> MirrorDecision | None:
        """The decision of the first rule that fits, or else when one will copy; None if that depends on the contents,
        and these are not given.

        Args:
            age: seconds since the node verified the publication.
        """
        now = self._decide_at(claim, contents, age)
        if now is None or now.copy:
            return now
        changes = {at for rule in self.rules for at in rule.changes if at > age and rule.fits_claim(claim)}
        for moment in sorted(changes):
            then = self._decide_at(claim, contents, moment)
            if then is None:
                return None
            if then.copy:
                return MirrorDecision(False, then.rule, moment - age)
        return now

    def _decide_at(self, claim: MirrorClaim, contents: MirrorContents | None, age: float) -> MirrorDecision | None:
        """What the rules and the default decide at one age."""
        for rule in self.rules:
            if not (rule.fits_age(age) and rule.fits_claim(claim)):
                continue
            if rule.needs_contents:
                if contents is None:
                    return None
                if not rule.fits_contents(contents):
                    continue
            return MirrorDecision(rule.do == "copy", rule.name)
        return MirrorDecision(self.default == "copy")

    @property
    def answered(self) -> frozenset[str]:
        """The members for which some rule copies what they ask for."""
        return frozenset[str]().union(*(rule.wanted_by for rule in self.rules if rule.do == "copy"))

    def may_copy(self, repository: str) -> bool:
        """Whether some version of the repository could be copied, by its name alone."""
        for rule in self.rules:
            if rule.repositories is not None and not rule.repositories.match(repository):
                continue
            if rule.do == "copy":
                return True
            if rule == MirrorRule(rule.name, rule.do, rule.repositories):
                return False  # nothing but the name counts, and it fits
        return self.default == "copy"


def parse_mirror_rules(data: bytes) -> MirrorRules:
    """Read the TOML. Raises Malformed (MIRROR-RULES)."""
    document, rules = read_rule_file(data, {"default", "quota_bytes"}, _KEYS, _rule, _malformed)
    return MirrorRules(rules, _action(document.get("default"), "default"), _quota(document, "all rules"))


def _rule(name: str, item: Mapping[str, Any]) -> MirrorRule:
    least = _number(item, "min_bytes", 0, MAX_SIZE, name)
    most = _number(item, "max_bytes", MAX_SIZE, MAX_SIZE, name)
    if least > most:
        raise _malformed(f"rule {name!r}: min_bytes is larger than max_bytes")
    youngest = _number(item, "min_age_hours", 0, MAX_AGE_HOURS, name)
    oldest = _number(item, "max_age_hours", MAX_AGE_HOURS, MAX_AGE_HOURS, name)
    if youngest > oldest:
        raise _malformed(f"rule {name!r}: min_age_hours is larger than max_age_hours")
    if (quota := _quota(item, name)) is not None and item.get("do") != "copy":
        raise _malformed(f'rule {name!r}: quota_bytes needs do = "copy"')
    return MirrorRule(
        name=name,
        do=_action(item.get("do"), f"rule {name!r}: do"),
        repositories=_patterns(item, "repositories", name),
        versions=_patterns(item, "versions", name),
        publishers=frozenset(_identity(text, name) for text in _texts(item, "publishers", name)),
        organisations=frozenset(text.lower() for text in _texts(item, "organisations", name)),
        licences=frozenset(text.lower() for text in _texts(item, "licences", name)),
        wanted_by=frozenset(_identity(text, name) for text in _texts(item, "wanted_by", name)),
        formats=frozenset(text.lower().removeprefix(".") for text in _texts(item, "formats", name)),
        min_bytes=least,
        max_bytes=most,
        min_age_hours=youngest,
        max_age_hours=oldest,
        quota_bytes=quota,
    )


def _action(value: object, what: str) -> Action:
    if value == "copy":
        return "copy"
    if value == "skip":
        return "skip"
    raise _malformed(f'{what} must be "copy" or "skip"')


def _number(item: Mapping[str, Any], key: str, default: int, most: int, name: str) -> int:
    value = item.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise _malformed(f"rule {name!r}: {key} must be a whole number from 0 to {most}")
    return value


def _quota(item: Mapping[str, Any], name: str) -> int | None:
    return _number(item, "quota_bytes", 0, MAX_SIZE, name) if "quota_bytes" in item else None


def _texts(item: Mapping[str, Any], key: str, name: str) -> Sequence[str]:
    value = item.get(key)
    if value is None:
        return ()
    try:
        return read_texts(value)
    except Malformed as error:
        raise _malformed(f"rule {name!r}: {key} {error.why}") from error


def _patterns(item: Mapping[str, Any], key: str, name: str) -> re.Pattern[str] | None:
    texts = _texts(item, key, name)
    try:
        return name_pattern(texts) if texts else None
    except Malformed as error:
        raise _malformed(f"rule {name!r}: {key} {error.why}") from error


def _identity(text: str, name: str) -> str:
    try:
        return parse_digest(text)
    except ComityError as error:
        raise _malformed(f"rule {name!r}: a publisher or member is 64 hex digits") from error


def _malformed(why: str) -> Malformed:
    hint = "see docs/operations/copies.md, on mirror rules"
    return Malformed("the mirror rules are malformed", why=why, hint=hint, code="MIRROR-RULES")


@frozen
class QuotaUse:
    """`rule` is `ALL` for what all rules copy together."""

    rule: str
    used: int
    limit: int

    @property
    def nearly_full(self) -> bool:
        return self.used >= WARN_SHARE * self.limit

    def __str__(self) -> str:
        return f"mirror rule {self.rule!r}" if self.rule else "all that is mirrored"


class MirrorQuotas:
    """The quotas and what is charged to them. Not thread-safe."""

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = dict(limits)
        self._used: Counter[str] = Counter()

    def __bool__(self) -> bool:
        """Whether there is any quota."""
        return bool(self._limits)

    def load(self, used: Mapping[str, int]) -> None:
        """Set what is charged, by the name of the rule; the empty name stands for the default here."""
        self._used = Counter(used)

    def charge(self, rule: str, change: int) -> None:
        """Charge bytes to a rule, or take some back. Not refused: call `exceeded` before."""
        self._used[rule] += change

    def exceeded(self, rule: str, more: int) -> QuotaUse | None:
        """The quota that `more` bytes for a rule would pass; None if they fit."""
        return next((use for use in self._concerned(rule) if more > 0 and use.used + more > use.limit), None)

    def room(self, rule: str) -> int | None:
        """Bytes that a rule may still copy; None without a limit."""
        return min((max(0, use.limit - use.used) for use in self._concerned(rule)), default=None)

    def uses(self) -> Iterator[QuotaUse]:
        """Each quota, that of all first."""
        for rule in sorted(self._limits):
            yield self._use(rule)

    def _concerned(self, rule: str) -> Iterator[QuotaUse]:
        for name in dict.fromkeys((rule, ALL)):
            if name in self._limits:
                yield self._use(name)

    def _use(self, rule: str) -> QuotaUse:
        used = sum(self._used.values()) if rule == ALL else self._used[rule]
        return QuotaUse(rule, used, self._limits[rule])
