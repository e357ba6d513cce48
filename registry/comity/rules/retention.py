"""Retention rules: which copies an operator's node may give up after a time, or when newer versions are held. Pure.

    keep = ["swiss-ai/*", "lab/base@v1"]   # names that are never given up: namespace/name, or namespace/name@version

    [[rule]]
    name = "nightly builds"                  # how the rule is named in explanations and in the log; each once
    repositories = ["lab/*-nightly"]         # patterns of namespace/name, or hf:org/name for what was mirrored
    keep_versions = 3                        # the newest three of each repository and publisher that are held stay
    keep_days = 90                           # and everything that was held for fewer days

The first rule that fits a repository decides. A copy is beyond a rule if all limits that the rule has are passed; it
may go if each of its names is beyond the rule that decides about it. What no rule fits stays for ever. A name that
somebody else gives to an artifact can keep it, and can never remove it.

These rules say what an operator does not need. Whether the federation can do without this copy is another question,
which the node asks for each copy before it goes (`comity.trust.copies`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from comity.rules.rule_file import name_pattern, read_rule_file, read_texts
from comity.trust.encoding import Digest
from comity.trust.errors import Malformed
from comity.trust.frozen import frozen

MAX_VERSIONS: Final = 1_000
MAX_DAYS: Final = 36_500
_KEYS: Final = frozenset({"name", "repositories", "keep_versions", "keep_days"})


@frozen
class NamedArtifact:
    """A name that a publisher, or a node that mirrored it, gives to an artifact.

    Attributes:
        versions: how many publications the repository has of this publisher, if they were counted and are few; else 0.
    """

    repository: str
    version: str
    publisher: Digest
    versions: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        return f"{self.repository}@{self.version}"


@frozen
class RetentionRule:
    """`keep_versions` and `keep_days` are None where the rule has no such limit; it has one at least."""

    name: str
    repositories: re.Pattern[str]
    keep_versions: int | None
    keep_days: int | None


@frozen
class RetentionDecision:
    """Whether a copy may go, and why it may or stays. `rule` decided, empty for none."""

    goes: bool
    why: str
    rule: str = ""


IsNewest = Callable[[NamedArtifact, int], bool]
"""Whether an artifact is one of the newest so many that are held, of its repository and publisher."""


@frozen
class RetentionRules:
    rules: tuple[RetentionRule, ...]
    keep: re.Pattern[str] | None = None

    def decide(self, names: Sequence[NamedArtifact], days: int, is_newest: IsNewest) -> RetentionDecision:
        """About a copy that is held for `days` days, with all names that anybody gives to its artifact."""
        decision = RetentionDecision(False, "nobody published it under a name")
        for named in names:
            decision = self._decide_name(named, days, is_newest)
            if not decision.goes:
                return decision
        return decision

    def _decide_name(self, named: NamedArtifact, days: int, is_newest: IsNewest) -> RetentionDecision:
        if self.keep is not None and (self.keep.match(named.repository) or self.keep.match(named.name)):
            return RetentionDecision(False, f"{named.name} is to be kept")
        rule = next((rule for rule in self.rules if rule.repositories.match(named.repository)), None)
        if rule is None:
            return RetentionDecision(False, f"no rule fits {named.repository}")
        if rule.keep_days is not None and days < rule.keep_days:
            return RetentionDecision(False, f"held for {days} of {rule.keep_days} days", rule.name)
        if rule.keep_versions is not None and is_newest(named, rule.keep_versions):
            return RetentionDecision(False, f"one of the newest {rule.keep_versions} of {named.repository}", rule.name)
        return RetentionDecision(True, f"beyond the rule {rule.name!r}", rule.name)


def parse_retention_rules(data: bytes) -> RetentionRules:
    """Read the TOML. Raises Malformed (RETENTION-RULES)."""
    document, rules = read_rule_file(data, {"keep"}, _KEYS, _rule, _malformed)
    keep = document.get("keep", [])
    return RetentionRules(rules, _patterns(keep, "keep", versions=True) if keep != [] else None)


def _rule(name: str, item: Mapping[str, Any]) -> RetentionRule:
    repositories = _patterns(item.get("repositories"), f"rule {name!r}: repositories")
    versions = _limit(item.get("keep_versions"), MAX_VERSIONS, f"rule {name!r}: keep_versions")
    days = _limit(item.get("keep_days"), MAX_DAYS, f"rule {name!r}: keep_days")
    if versions is None and days is None:
        raise _malformed(f"rule {name!r} needs keep_versions or keep_days")
    return RetentionRule(name, repositories, versions, days)


def _limit(value: object, most: int, what: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _malformed(f"{what} must be a number from 1 to {most}")
    return value


def _patterns(value: object, what: str, *, versions: bool = False) -> re.Pattern[str]:
    try:
        return name_pattern(read_texts(value), versions=versions)
    except Malformed as error:
        raise _malformed(f"{what} {error.why}") from error


def _malformed(why: str) -> Malformed:
    hint = "see docs/operations/copies.md, on retention"
    return Malformed("the retention rules are malformed", why=why, hint=hint, code="RETENTION-RULES")
