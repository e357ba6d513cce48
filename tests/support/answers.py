"""What each way to an artifact answers: refused or accepted, with which words and rows, and what it says of copies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path

import httpx2
from comity.rules.copy_counts import FAILED, PASSED
from comity.trust.encoding import Digest
from comity.trust.errors import ComityError
from comity.trust.evidence import Verdict
from comity.trust.policy import Policy
from comity_client.client import Client
from comity_client.events import Event, PolicyJudged
from support.waiting import PATIENCE

OF_FILES = ("bytes", "file safety")
"""Rows about files: a pull has them all and inspects them, a gateway serves one after the other."""
PAGE = {"Accept": "text/html"}
IMAGE = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
WITHDRAWN = "this node withdrew its copy"
FAILED_TESTS = "failed its tests"


@dataclass(frozen=True)
class Answer:
    """What one way to an artifact says: refused with these words, or accepted (None); its rows, if it shows any."""

    refusal: str | None
    rows: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class CopyAnswer:
    """What is said of the copy of one member: whether it is claimed, withdrawn and why, or has failed its tests; and of
    its tests, by whom and with what result."""

    state: str
    tests: frozenset[tuple[str, str]] = frozenset()


Copies = dict[str, CopyAnswer]
"""By the name of the member."""


def rows_of(verdict: Verdict) -> tuple[tuple[str, str], ...]:
    return tuple((row.state, plain(row.summary)) for row in verdict.rows if row.name not in (*OF_FILES, "replicas"))


def plain(text: str) -> str:
    """Without the time of the judgement: a gateway judges approvals at its own time."""
    return re.sub(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z", "TIME", " ".join(text.split()))


def by_pull(client: Client, policy: Policy, name: str, to: Path) -> tuple[Answer, Verdict | None]:
    """What a pull says; without a verdict where no version is resolved."""
    judged: list[PolicyJudged] = []

    def note(event: Event) -> None:
        if isinstance(event, PolicyJudged):
            judged.append(event)

    refusal = None
    try:
        client.pull(name, to=to, policy=policy, on_event=note)
    except ComityError as error:
        refusal = plain(error.why)
    verdict = judged[-1].verdict if judged else None
    return Answer(refusal, rows_of(verdict) if verdict else ()), verdict


_LABELS = re.compile(' data-label="[^"]*"')
"""For narrow windows, where rows are shown as cards."""
_CHECKS = re.compile(r'<table class="checks">.*?</table>', re.S)
_ROW = re.compile(
    r'<th scope="row">[^<]*</th><td><span class="basis (\w+)">.*?</td>\s*<td><span(?: lang="en")?>(.*?)</span>', re.S
)
_STATES = {"here": "pass", "claimed": "pass", "bad": "fail", "unknown": ""}
"""By the class of a mark in the console: a row of claims alone passes too; one mark is for unknown and not-checked."""


def _console_rows(page: str, verdict: Verdict) -> tuple[tuple[str, str], ...]:
    shown = _ROW.findall(_CHECKS.search(page)[0])  # type: ignore[index]
    names = [row.name for row in verdict.rows if row.name != "replicas"]
    return tuple(
        (_STATES[state], plain(unescape(text)))
        for name, (state, text) in zip(names, shown, strict=True)
        if name not in OF_FILES
    )


_COPIES = re.compile(r"<caption>Copies by member and jurisdiction</caption>.*?</table>", re.S)
_COPY = re.compile(
    r'<tr><th scope="row">(.*?)</th><td>[A-Z]+</td>\s*<td>(.*?)</td>\s*<td>(.*?)</td>\s*<td>(.*?)</td>', re.S
)
_TEST = re.compile(
    r'<div><span class="basis \w+">.*?&nbsp;(.*?)</span>(?: <span(?: lang="en")?>(.*?)</span>)?'
    r'.*?<span class="small">[^,]*, (by this node|by .*?)(?:, \d+ pieces?)?</span></div>',
    re.S,
)


def _console_copies(page: str, own: str) -> Copies:
    found: Copies = {}
    for member, state, _, tests in _COPY.findall(_COPIES.search(page)[0]):  # type: ignore[index]
        results = {
            (own if by == "by this node" else unescape(by.removeprefix("by ")), failure or _OUTCOMES[outcome])
            for outcome, failure, by in _TEST.findall(tests)
        }
        found[unescape(member)] = CopyAnswer(unescape(state).strip(), frozenset(results))
    return found


_OUTCOMES = {"Passed": PASSED, "No answer": "missed"}


@dataclass(frozen=True)
class GatewayAnswers:
    """What the gateway of one node answers about one revision, by door. `copies`: what its console says, if it shows
    the artifact; `served`: by file, nothing where it gives it, else its words; `commit`: that of the revision."""

    doors: dict[str, Answer]
    copies: Copies | None
    served: dict[str, str]
    commit: str


async def by_gateway(url: str, own: str, name: str, verdict: Verdict | None) -> GatewayAnswers:
    """Ask every door. `own`: the member of the node."""
    repository, _, version = name.partition("@")
    version = version or "main"
    answers: dict[str, Answer] = {}
    async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE) as http:
        model = await http.get(f"/api/models/{repository}/revision/{version}")
        answers["Hub API"] = _answer(model)
        config = await http.get(f"/{repository}/resolve/{version}/config.json")
        answers["a file"] = Answer(None) if WITHDRAWN in config.text else _answer(config)
        image = await http.get(
            f"/v2/{repository}/manifests/{'latest' if version == 'main' else version}", headers=IMAGE
        )
        answers["OCI"] = _answer(image)
        served = {}
        if image.status_code == 200:
            for layer in image.json()["layers"]:
                path = layer["annotations"]["org.opencontainers.image.title"]
                for door, address in (
                    ("Hub", f"/{repository}/resolve/{version}/{path}"),
                    ("OCI", f"/v2/{repository}/blobs/{layer['digest']}"),
                ):
                    file = await http.get(address)
                    served[f"{door} {path}"] = "" if file.status_code == 200 else plain(file.text)
        page = await http.get(f"/{repository}/tree/{version}", headers=PAGE)
    copies = None
    if page.status_code == 200 and verdict is not None:
        shown = _LABELS.sub("", page.text)
        answers["console"] = Answer(None, _console_rows(shown, verdict))
        copies = _console_copies(shown, own)
    else:
        answers["console"] = _answer(page)
    return GatewayAnswers(answers, copies, served, model.json()["sha"] if model.status_code == 200 else "")


def _answer(response: httpx2.Response) -> Answer:
    return Answer(None if response.status_code == 200 else plain(unescape(response.text)))


def differences(pull: Answer, others: dict[str, Answer]) -> Iterator[str]:
    """What other doors say that a pull does not, or in other words."""
    for door, answer in others.items():
        if (answer.refusal is None) != (pull.refusal is None):
            yield f"{door}: {answer.refusal} against {pull.refusal}"
        elif pull.refusal is not None and pull.refusal not in (answer.refusal or ""):
            yield f"{door}: other words: {answer.refusal} against {pull.refusal}"
        for (state, text), row in zip(answer.rows, pull.rows, strict=False):
            if text != row[1] or state not in ("", row[0]):
                yield f"{door}: {state} {text} against {row}"


def by_whereis(client: Client, name: str) -> Copies:
    """Of a test, the member whose node says so."""
    found, replicas = {}, client.whereis(name)
    members = {each.node: each.member for each in replicas}
    for each in replicas:
        state = f"withdrawn: {each.withdrawn}" if each.withdrawn else "yes" if each.claimed else "not known"
        tests = frozenset((members[audit.auditor], audit.result.outcome) for audit in each.audits)
        found[each.member] = CopyAnswer(state, tests)
    return found


def by_copies(client: Client, node: str, artifact: Digest) -> Copies:
    """What `comity copies` and `comity audit ls` show, as one node says it."""
    listed = client.copies(node, artifact)
    found: Copies = {}
    for copy in (copy for each in listed.artifacts for copy in each.copies):
        state = f"withdrawn: {copy.copy.withdrawn}" if copy.copy.withdrawn else "yes"
        tests = frozenset((listed.names[result.auditor], result.outcome) for result in copy.results)
        found[listed.names[copy.copy.member]] = CopyAnswer(FAILED_TESTS if copy.state == FAILED else state, tests)
    return found


def claims_of(copies: Copies) -> dict[str, str]:
    """Who claims a copy and who withdrew one, whatever tests make of it."""
    return {who: "yes" if answer.state == FAILED_TESTS else answer.state for who, answer in copies.items()}


def audits_of(copies: Copies) -> dict[str, frozenset[tuple[str, str]]]:
    return {who: answer.tests for who, answer in copies.items()}


def by_verdict(verdict: Verdict) -> dict[str, str]:
    """What the row *replicas* says: by member."""
    row = verdict.row("replicas")
    said = {fact.by.rpartition(" (")[0]: fact.text for fact in row.facts}
    words = "withdrew its copy, in its own log: "
    return {who: f"withdrawn: {text.removeprefix(words)}" if words in text else "yes" for who, text in said.items()}


def together(said: list[Copies]) -> Copies:
    """What several nodes say: a node shows the tests of the own member before they are in its log."""
    found: Copies = {}
    for copies in said:
        for member, answer in copies.items():
            known = found.get(member, answer)
            found[member] = CopyAnswer(answer.state, known.tests | answer.tests)
    return found
