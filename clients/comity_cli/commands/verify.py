"""`comity verify`."""

from __future__ import annotations

import json
from pathlib import Path

import click
from comity.trust.verdict import Verdict

from comity_cli import verdicts
from comity_cli.command import Command, client, examples, output


@examples(
    "comity verify ./apertus-8b",
    "comity verify ./apertus-8b --policy ministry.toml --report evidence.json",
    "python -m comity.verifier ./apertus-8b --policy ministry.toml",
)
@click.command(cls=Command, name="verify", short_help="Check an artifact and its evidence, offline.")
@click.argument("target", metavar="DIR|REF")
@click.option("--policy", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Judge by this TOML file.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the verdict as JSON here.")
@click.option("--facts", is_flag=True, help="Show what each row rests on.")
def command(target: str, policy: Path | None, report: Path | None, facts: bool) -> int:
    """Hash every file of DIR (or of what REF was pulled to), and judge it with the evidence beside it. No network, no
    clock. Without --policy your pinned federations decide.

    Exit status: 0 accepted, 3 verification failed, 4 policy not met, 5 evidence missing, 8 partial.
    """
    out = output()
    folder = Path(target)
    subject: Path | str = folder if folder.exists() else target
    with out.progress("hashing", _size(folder)) as progress:
        api = client()
        verdict = api.verify(subject, policy=api.policy(policy), on_hashed=progress.advance)
    if report is not None:
        report.write_text(_document(verdict) + "\n")
    verdicts.show(out, verdict, facts=facts)
    if report is not None:
        out.say(f"Report: {report}")
    if out.as_json:
        click.echo(_document(verdict))
    return verdict.exit_status


def _document(verdict: Verdict) -> str:
    return json.dumps(verdict.to_json(), indent=1)  # in ASCII: file names may hold what no encoding knows


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
