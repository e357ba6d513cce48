"""What was found on a disk as SARIF, which dashboards of scanners read: one result for each thing that somebody should
look at. Files of accepted artifacts are none.

Rule ids are API: none is given another meaning. Paths are URIs, relative where they were given so; a file in an archive
is below the URI of the archive and `!`. Source: SARIF 2.1.0 (OASIS), 3.14 to 3.49.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from heapq import nsmallest
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote

from comity.trust.encoding import Digest, printable, sha256, short
from comity.trust.frozen import frozen

from comity_client.identify.identify import Identified
from comity_client.identify.match import FolderOf

Level: TypeAlias = Literal["error", "warning", "note"]

SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
MAX_RESULTS: Final = 25_000
"""Results of one run that dashboards take. First come those that are worst."""


@frozen
class SarifRule:
    id: str
    level: Level
    means: str
    do: str


CHANGED: Final = SarifRule(
    "changed-file",
    "error",
    "A file lies at the path of an artifact's file and has other bytes.",
    "Do not use the folder. Fetch the artifact again, or ask who changed the file.",
)
REFUSED: Final = SarifRule(
    "refused-artifact",
    "error",
    "Files are of an artifact that the policy refuses, or that could not be judged.",
    "The message says what is missing. Ask the publisher, or change the policy.",
)
WARNED: Final = SarifRule(
    "warned-artifact",
    "warning",
    "There is a warning about the artifact that files are of.",
    "Read the warning: comity advisory ls.",
)
MISSING: Final = SarifRule(
    "missing-file",
    "warning",
    "A folder has files of an artifact, and not all of them.",
    "Complete it: comity pull into the folder.",
)
UNKNOWN: Final = SarifRule(
    "unknown-file",
    "warning",
    "No node that was asked knows the bytes of the file: nobody there answers for them.",
    "Find out where the file is from.",
)
NAMED: Final = SarifRule(
    "named-file",
    "note",
    "An index of files names an artifact that has the file; nothing here proves it.",
    "Ask the nodes about the file: comity identify without --index.",
)
TENSORS: Final = SarifRule(
    "same-tensors",
    "note",
    "A file that is not published has tensors of an artifact: renamed, in other shards, or beside other ones.",
    "Use the published files, or ask who made this file what was changed.",
)
UNSURE: Final = SarifRule(
    "undecided-file",
    "note",
    "Nothing was found about the file, and nodes said that they left something out.",
    "Ask again later, or pin further federations.",
)
UNREAD: Final = SarifRule(
    "unread-path",
    "note",
    "What is at the path was not read.",
    "The message says why.",
)
RULES: Final = (CHANGED, REFUSED, WARNED, MISSING, UNKNOWN, NAMED, TENSORS, UNSURE, UNREAD)


@frozen
class SarifResult:
    """`about`: the digest of the file or artifact, as its rule has it; empty if there is none."""

    rule: SarifRule
    path: Path
    text: str
    about: str = ""


def sarif_of(found: Identified, version: str, exit_status: int) -> str:
    """The SARIF document: one line of JSON, in ASCII."""
    number = count()
    each_counted = (result for result in _results(found) if next(number) >= 0)
    results = nsmallest(MAX_RESULTS, each_counted, key=lambda result: RULES.index(result.rule))
    notes = [f"{node.node}: {node.problem}" for node in found.nodes if node.problem]
    if (left_out := next(number) - len(results)) > 0:
        notes.append(f"{left_out} further results are left out")
    run: dict[str, Any] = {
        "tool": {"driver": {"name": "comity", "version": version, "rules": [_rule(rule) for rule in RULES]}},
        "invocations": [
            {
                "executionSuccessful": True,
                "exitCode": exit_status,
                "toolExecutionNotifications": [{"level": "warning", "message": _message(text)} for text in notes],
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [_result(result) for result in results[:MAX_RESULTS]],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})


def _results(found: Identified) -> Iterator[SarifResult]:
    matched, artifacts = found.matched, found.artifacts
    for folder in matched.folders:
        yield from _of_folder(folder, artifacts[folder.artifact].title)
    places: list[tuple[Digest, Path]] = [(each.artifact, each.folder) for each in matched.folders]
    places += [(each.artifact, each.file.path) for each in matched.files]
    for artifact, path in places:
        known = artifacts[artifact]
        if known.problem:
            yield SarifResult(REFUSED, path, f"{known.title}: {known.problem}", artifact)
        for warning in known.advised:
            yield SarifResult(WARNED, path, f"{known.title}: {warning}", artifact)
    for rule, files in ((UNKNOWN, matched.unknown), (UNSURE, found.unsure)):
        for file in files:
            digest = file.sha256 or Digest("")
            yield SarifResult(rule, file.path, f"{file.path.name}, SHA-256 {short(digest)}: {rule.means}", digest)
    for same in found.tensors.same:
        title, compared = found.tensors.artifacts[same.artifact].title, same.compared
        what = "the file" if len(same.files) == 1 else f"{len(same.files)} files of this folder"
        for file in same.files:
            text = f"{compared.same} of {compared.tensors} tensors of {what} are those of {title}"
            yield SarifResult(TENSORS, file.path, text, same.artifact)
    for each in found.named:
        text = f"{each.name}, as claimed in the index of {', '.join(each.nodes)}: {NAMED.means}"
        yield SarifResult(NAMED, each.file.path, text, each.artifact)
    for file in found.unread:
        yield SarifResult(UNREAD, file.path, file.problem)


def _of_folder(folder: FolderOf, title: str) -> Iterator[SarifResult]:
    stored = f", stored as {folder.stored_as}" if folder.stored_as else ""
    for rule, paths, text in (
        (CHANGED, folder.changed, "has other bytes than in"),
        (MISSING, folder.missing, "is missing of"),
    ):
        for path in paths:
            place = folder.folder if rule is MISSING else folder.folder / path
            yield SarifResult(rule, place, f"{path} {text} {title}{stored}", f"{folder.artifact}/{path}")


def _rule(rule: SarifRule) -> Mapping[str, Any]:
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.id.split("-")),
        "shortDescription": {"text": rule.means},
        "fullDescription": {"text": rule.means},
        "help": {"text": rule.do},
        "defaultConfiguration": {"level": rule.level},
    }


def _result(result: SarifResult) -> Mapping[str, Any]:
    uri = uri_of(result.path)
    return {
        "ruleId": result.rule.id,
        "ruleIndex": RULES.index(result.rule),
        "level": result.rule.level,
        "message": _message(result.text),
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}}}],
        "partialFingerprints": {"comityIdentify/v1": sha256("\n".join((result.rule.id, uri, result.about)).encode())},
    }


def _message(text: str) -> Mapping[str, str]:
    """Text as it is: in a message, braces would begin a placeholder, and brackets before a parenthesis a link."""
    return {"text": printable(text).replace("{", "{{").replace("}", "}}").replace("](", "] (")}


def uri_of(path: Path) -> str:
    """A URI reference of a path, of any bytes."""
    escaped = quote(os.fsencode(path), safe="/!")
    return f"file://{escaped}" if path.is_absolute() else escaped
