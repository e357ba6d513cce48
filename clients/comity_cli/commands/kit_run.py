"""`comity kit check|run|evaluate`: kits on this machine, whose engines have no network."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click
from comity.content import durable
from comity.trust.encoding import Digest
from comity.trust.errors import PolicyNotMet, Untrusted
from comity.trust.exit_statuses import OK, PARTIAL, VERIFICATION_FAILED
from comity.trust.frozen import frozen

from comity_cli import verdicts
from comity_cli.command import Command, connected_client, examples, output, user
from comity_cli.document import document
from comity_cli.files import FILE, FOLDER, out_option
from comity_cli.following import follow, show_cache_basis
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from comity.rules.kits.cases import KitCase
    from comity.trust.policy import Policy
    from comity_client.kits.asking import CaseResult, CaseResults
    from comity_client.kits.check import CheckedRow, KitFolder
    from comity_client.kits.engine import RunningEngine
    from comity_client.kits.install import InstalledKit

POLICY: Final = click.option("--policy", type=FILE, help="Judge the evidence of the kit by this policy (TOML).")
_STATUSES: Final = {"passed": OK, "failed": VERIFICATION_FAILED, "partial": PARTIAL}
_MARKS: Final = {"passed": ("✓", "green"), "failed": ("✗", "red"), "not checked": ("!", "yellow")}


@frozen
class KitCheckRow:
    """One check, and what it found."""

    name: Literal["evidence", "parts", "lock", "image", "install", "engine", "self-test"]
    state: Literal["passed", "failed", "not checked"]
    summary: str


@document("kit-check")
class KitCheckDocument:
    """A check of a kit, as `comity kit check --json` prints it.

    `kit` is the SHA-256 of `kit.json`. `state` is partial if something could not be checked on this machine. Times are
    POSIX seconds; `last_passed`: when this kit last passed here.
    """

    folder: Path
    name: str
    kit: Digest
    artifact: Digest | None
    state: Literal["passed", "failed", "partial"]
    at: int
    last_passed: int | None
    rows: tuple[KitCheckRow, ...]


@document("kit-run")
class KitRunDocument:
    """A kit that is served, as `comity kit run --json` prints it once it is.

    `kit` is the SHA-256 of `kit.json`. `isolated`: the engine has no network. `self_test`: cases that passed, all of
    them.
    """

    folder: Path
    name: str
    kit: Digest
    base_url: str
    isolated: bool
    proof: str
    ready_seconds: float
    self_test: int


@document("kit-evaluation")
class KitEvaluationDocument:
    """The samples of a kit, asked, as `comity kit evaluate --json` prints it.

    `kit` is the SHA-256 of `kit.json`, `dataset` that of `samples.json`. `pass_rate` is rounded down.
    """

    folder: Path
    file: Path
    name: str
    kit: Digest
    dataset: Digest
    isolated: bool
    samples: int
    passed: int
    pass_rate: str


@examples("comity kit check ./smollm2-chat", "comity kit check ./smollm2-chat --policy ministry.toml --json")
@click.command(cls=Command, name="check", short_help="Check a kit, and run its self-test without a network.")
@click.argument("folder", metavar="DIR", type=FOLDER)
@POLICY
def check(folder: Path, policy: Path | None) -> int:
    """Check the kit in DIR: its evidence, if it is published; its parts, by their digests; its lock; that it installs
    from its own wheels; that its engine starts; and that it answers its self-test as expected. All of that without a
    network: what was done with one, where the system allows no other way, is not checked. This runs the engine, which
    sees no file but its own where the kernel can refuse the others.

    The result is kept in your home with its time.

    Exit status: 0 passed, 3 a check failed, 8 something could not be checked on this machine.
    """
    from comity_client.kits.check import CheckOptions, check_kit
    from comity_client.kits.install import kit_cache
    from comity_client.kits.kept_checks import keep_check

    out, person = output(), user()
    with out.progress("hashing", 0) as bar:
        options = CheckOptions(_policy(policy), kit_cache(), on_row=_show_row, on_hashed=bar.advance)
        checked = asyncio.run(check_kit(folder, options))
    kept = keep_check(person.home, checked)
    rows = tuple(KitCheckRow(row.name, row.state, row.summary) for row in checked.rows)  # type: ignore[arg-type]
    found = (checked.name, checked.kit, checked.artifact, checked.state, checked.at, kept.last_passed)
    out.answer(KitCheckDocument(folder, *found, rows))  # type: ignore[arg-type]
    place = shlex.quote(str(folder))
    if checked.state == "passed":
        out.done(f"{checked.name}: it runs here without a network")
        out.hint(f"comity kit run {place}")
    elif checked.state == "partial":
        out.warn(f"{checked.name}: not all of it could be checked here")
        out.hint("check it on a Linux machine that allows network namespaces")
    else:
        out.warn(f"{checked.name}: do not rely on it")
        out.hint("pull it again, or tell its publisher what failed")
    return _STATUSES[checked.state]


def _show_row(row: CheckedRow) -> None:
    out = output()
    out.prose(f"{row.state}: {row.summary}", first=f"{out.mark(*_MARKS[row.state])} {row.name:<10} ", rest=" " * 13)


@examples(
    "comity kit run ch-ministry/smollm2-chat@v1 --policy ministry.toml",
    "comity kit run ./smollm2-chat --port 8080",
)
@click.command(cls=Command, name="run", short_help="Install and serve a kit, whose engine has no network.")
@click.argument("what", metavar="NAME@VERSION|DIR")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of this machine. Default: a free one.")
@POLICY
def run(what: str, port: int, policy: Path | None) -> int:
    """Pull a kit, or take the one in DIR; verify it, install it, start its engine, ask its self-test, and serve it at
    127.0.0.1 until it is interrupted. The engine has no network: connections to the port are passed on to it. A kit in
    DIR without evidence is run only without --policy.

    Exit status: 0 it was served and you stopped it, 3 a part or an answer is not as the kit says, 4 short of your
    policy, 5 not to be had, or the engine does not run, 130 interrupted before it was served.
    """
    out = output()
    folder = Path(what) if Path(what).is_dir() else _pulled(out, what, policy)
    found = _accepted(out, folder, policy)
    asyncio.run(_serve(out, found, port))
    out.say("stopped")
    return OK


def _pulled(out: Output, reference: str, policy: Path | None) -> Path:
    from comity_client.kits.install import kit_cache

    if "@" not in reference and not reference.startswith("sha256:"):
        raise click.UsageError("name a version, NAME@VERSION, so that the same kit is run each time; or a folder")
    folder = kit_cache() / "pulled" / reference.replace("/", "--")
    durable.make_folders(folder.parent, mode=0o700)
    with follow(out, "pulling") as on_event, connected_client() as api:
        pulled = api.pull(reference, to=folder, policy=api.policy(policy) if policy else None, on_event=on_event)
    if pulled.cache is not None:
        show_cache_basis(out, pulled.cache, "hashed again with its evidence", time.time())
    out.done(f"{pulled.title}: verified")
    verdicts.warn(out, pulled.verdict, kinds=("key-compromise",))  # the other kinds were printed as events
    return pulled.folder


def _accepted(out: Output, folder: Path, policy: Path | None) -> KitFolder:
    """The kit in a folder, hashed, whole, and accepted by the policy where there is evidence. Raises PolicyNotMet,
    Untrusted, and as `kit_folder` does."""
    from comity.trust.evidence import EvidenceReader
    from comity_client.kits.check import KitFolder, hash_kit, judge_kit, require_whole, why_not

    found, reader = KitFolder.read(folder), EvidenceReader()
    with out.progress("hashing", found.size) as bar:
        evidence = hash_kit(folder, bar.advance, reader)
    require_whole(found, evidence)
    place = shlex.quote(str(folder))
    if evidence.manifest is None:
        if policy is not None:
            hint = f"comity kit run {place}, without a policy, if you built it yourself"
            raise PolicyNotMet("the kit has no evidence beside it", why="a policy was given", hint=hint, code="NO-PACK")
        out.warn("no evidence is beside the kit: it runs because you name its folder")
        return found
    judged = judge_kit(evidence, _policy(policy), reader)
    if not judged.accepted:
        kind = PolicyNotMet if judged.exit_status != VERIFICATION_FAILED else Untrusted
        by = f" --policy {shlex.quote(str(policy))}" if policy else ""
        hint = f"comity verify {place}{by}"
        raise kind("the kit is not accepted", why=why_not(judged), hint=hint, code="KIT-NOT-ACCEPTED")
    return found


async def _serve(out: Output, found: KitFolder, port: int) -> None:
    """Serve until a signal asks to stop. Raises Unavailable (KIT-ENGINE) if the engine ends before."""
    from comity.rules.kits.description import SELFTEST_FILE
    from comity_client.kits.asking import ask_cases
    from comity_client.kits.engine import running_engine

    cases = found.cases(SELFTEST_FILE).cases
    installed = await _install(out, found)
    async with running_engine(found.folder, found.kit, installed, port=port) as running:
        _show_engine(out, running)
        results = await ask_cases(running.base_url, cases)
        _require_answers(results, found)
        out.done(f"self-test: {plural(results.passed, 'answer')} as expected")
        ended, stopped = asyncio.ensure_future(running.ended()), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):  # before it is said that it is served until one comes
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        _show_served(out, found, running, cases)
        both: set[asyncio.Future[Any]] = {ended, asyncio.ensure_future(stopped.wait())}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            raise ended.result()
        for each in both:
            each.cancel()


async def _install(out: Output, found: KitFolder) -> InstalledKit:
    from comity_client.kits.install import install_kit, kit_cache

    with out.waiting("installing"):
        installed = await asyncio.to_thread(install_kit, found.folder, found.kit, kit_cache())
    out.done(f"{'installed before' if installed.reused else 'installed'}, in {installed.proof}")
    return installed


def _show_engine(out: Output, running: RunningEngine) -> None:
    if running.isolated:
        out.done(f"{running.ready_seconds:.1f} s until the engine was ready, in {running.proof}")
    else:
        out.warn(f"the engine has {running.proof}")


def _require_answers(results: CaseResults, found: KitFolder) -> None:
    from comity_client.kits.check import in_words

    if results.failed:
        first = results.failed[0]
        why = f"{len(results.failed)} of {len(results.results)} cases; {first.name}: {in_words(first.problems)}"
        hint = f"comity kit check {shlex.quote(str(found.folder))}"
        raise Untrusted("the engine does not answer as the kit says", why=why, hint=hint, code="KIT-SELF-TEST")


def _show_served(out: Output, found: KitFolder, running: RunningEngine, cases: Sequence[KitCase]) -> None:
    url = running.base_url
    out.say(f"\n{found.kit.name} is served at {url} until you press Ctrl-C.\n")
    out.say(f"  {_curl(url, next((case for case in cases if case.body), cases[0]))}")
    if found.kit.service != "other":
        out.say(f'  openai.OpenAI(base_url="{url}/v1", api_key="none")')
    known = (found.folder, found.kit.name, found.digest, url, running.isolated, running.proof, running.ready_seconds)
    out.answer(KitRunDocument(*known, len(cases)))


def _curl(url: str, case: KitCase) -> str:
    body = f" -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(case.body))}" if case.body else ""
    return f"curl {shlex.quote(url + case.path)}{body}"


@examples("comity kit evaluate ./smollm2-chat", "comity kit evaluate ./smollm2-chat --out results.json --json")
@click.command(cls=Command, name="evaluate", short_help="Ask the samples of a kit, and write its pass rate.")
@click.argument("folder", metavar="DIR", type=FOLDER)
@out_option("results.json")
@POLICY
def evaluate(folder: Path, target: Path, policy: Path | None) -> int:
    """Install the kit in DIR, start its engine without a network, ask every case of its samples.json, and write which
    passed. The share of passed cases is the metric pass_rate of an evaluation whose data set is that file.

    Exit status: 0 the samples were asked, whatever the share, 3 a part is not as the kit says, 4 short of your policy,
    5 the kit has no samples, or its engine does not run.
    """
    from comity.bounded_file import read_bounded
    from comity.rules.kits.cases import MAX_CASES_FILE
    from comity.rules.kits.description import SAMPLES_FILE
    from comity.trust.encoding import sha256
    from comity_client.kits.asking import KitResults

    out = output()
    found = _accepted(out, folder, policy)
    dataset = sha256(read_bounded(folder / SAMPLES_FILE, MAX_CASES_FILE, hint="a kit with samples"))
    results, isolated = asyncio.run(_evaluated(out, found, found.cases(SAMPLES_FILE).cases))
    measured = KitResults.of(found.digest, dataset, int(time.time()), isolated, results)
    durable.write_file(target, measured.encode(), mode=0o644, point="kit")
    for failed in results.failed[:10]:
        out.fact(failed.name, failed.problems[0])
    count = len(results.results)
    out.done(f"pass_rate {results.pass_rate}: {results.passed} of {plural(count, 'sample')}; {target} has each")
    known = (found.kit.name, found.digest, dataset, isolated, count, results.passed, results.pass_rate)
    out.answer(KitEvaluationDocument(folder, target, *known))
    out.hint(f"comity evaluation report REF --criteria criteria.json --results {shlex.quote(str(target))}")
    return OK


async def _evaluated(out: Output, found: KitFolder, cases: Sequence[KitCase]) -> tuple[CaseResults, bool]:
    from comity_client.kits.asking import ask_cases
    from comity_client.kits.engine import running_engine

    installed = await _install(out, found)
    async with running_engine(found.folder, found.kit, installed) as running:
        _show_engine(out, running)
        done = 0

        def tell(result: CaseResult) -> None:
            nonlocal done
            done += 1
            if done % 25 == 0:
                out.say(f"  {done} of {len(cases)}")

        return await ask_cases(running.base_url, cases, on_result=tell), running.isolated


def _policy(file: Path | None) -> Policy:
    """The policy of the file, or that of this user."""
    from comity.verifier import load_policy

    person = user()
    return load_policy(file) if file else person.policy(person.pins())
