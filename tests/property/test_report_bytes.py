"""The same evidence gives the same report: for every kind of statement, in any order, in any process."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import comity
import pytest
from comity.rules.signing import sign_content
from comity.trust.evidence import MODEL_SIG
from comity.trust.report import VerdictReport, summarise_report
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise, Licence, Parent, Vouched
from comity.trust.verify import verify
from comity.verifier import collect_evidence, load_policy
from support.case import Case, advisory, case, nodes, release
from support.derivations import derived_line
from support.observations import observation
from support.world import NOW, identity

CH, SG, ES, KR = nodes(4)
SWISS_AI, LAB, RIVAL = identity("Swiss AI", "CH"), identity("Lab", "ES"), identity("Rival", "SG")
BASE: Final = release(name="swiss-ai/base@v1", files={"model.safetensors": b"base"})
GOOD: Final = case(lineage=(Parent("quantized", "swiss-ai/base@v1", BASE[0].artifact), Parent("merge", "other/base")))
SEEDS: Final = ("0", "1", "424242")


def everything() -> Case:
    """Several statements of each kind, by different authors, true and false."""
    published = release()[0]
    lost = Compromise(SWISS_AI.signer.public.id, SWISS_AI.inception.home, 3)
    text = "the laptop is gone"
    lines = [LAB.entry.line, RIVAL.entry.line, BASE[1].line, b"junk", b"{}"]
    for person in (LAB, RIVAL, SWISS_AI, SG.seat):
        author = person.inception.author
        lines += [
            *advisory(GOOD, by=person, kind="yank"),
            sign_content(Vouched(author, GOOD.artifact, "reproduced", "here"), person.signer).line,
            sign_content(summarise_report(VerdictReport.of(GOOD.verdict(), "1.0"), person.id, NOW), person.signer).line,
            derived_line(GOOD.artifact, BASE[0].artifact, by=person),
            derived_line(GOOD.artifact, by=person, exact=False),
            sign_content(replace(published, by=person.id, licence=Licence("MIT")), person.signer).line,
            sign_content(Advisory(author, SWISS_AI.id, KEY_COMPROMISE, "critical", text, lost), person.signer).line,
        ]
    lines += [observation(node, GOOD.artifact, at=f"https://{at}.example").line for at in "ab" for node in (CH, SG, ES)]
    return GOOD.saying(*lines)


@pytest.mark.slow
def test_order_process_and_folder_change_no_byte(tmp_path: Path) -> None:
    told, expected = everything(), set[bytes]()
    for number, seed in enumerate(SEEDS):
        claims = list(told.claims)
        random.Random(seed).shuffle(claims)
        folder = replace(told, claims=tuple(claims)).write(tmp_path / f"copy-{number}")
        (folder / MODEL_SIG).write_bytes(b"{}")
        policy, report = folder.parent / "policy.toml", folder.parent / "r.json"
        command = [
            sys.executable,
            "-m",
            "comity.verifier",
            str(folder),
            "--policy",
            str(policy),
            "--report",
            str(report),
        ]
        env = {**os.environ, "PYTHONHASHSEED": seed, "TZ": "Pacific/Kiritimati", "LC_ALL": "C"}
        ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode in (0, 4), ran.stdout + ran.stderr
        expected.add(report.read_bytes())
        here = VerdictReport.of(verify(collect_evidence(folder), load_policy(policy)), comity.__version__)
        expected.add(here.encode())
    assert len(expected) == 1
    rows = VerdictReport.parse(expected.pop()).verdict.rows
    said = {row.name: len(row.facts) for row in rows}
    for name in ("policy", "disputes and advisories", "lineage", "documents", "notes"):
        assert said[name] >= 2, said
