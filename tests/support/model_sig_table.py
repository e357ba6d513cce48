"""The findings of each tool in the same tampered folders: the table in `docs/model-signing.md`.

`PYTHONPATH=tests python -m support.model_sig_table` writes the table again; a test fails where it differs.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from comity.verifier import main as verifier
from support import model_sig
from support.environments import python_with
from support.model_sig_tampers import TAMPERS, UNTOUCHED, Tamper, Untouched, into_cache, job, write_keys

REFERENCE: Final = ("model-signing==1.1.1", "pyOpenSSL")
DRIVER: Final = Path(__file__).parent / "stock_model_signing.py"
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "model-signing.md"
NAME: Final = "model_signing 1.1.1"


@dataclass(frozen=True)
class Said:
    """The result for one folder by each tool."""

    what: Tamper | Untouched
    reference: bool
    reference_said: str
    comity: int
    comity_said: str


def reference(jobs: Sequence[Sequence[str]]) -> list[tuple[bool, str]]:
    """Whether the reference tool succeeded at each job, and its output. Skips the test where pip cannot get it."""
    python = python_with(*REFERENCE)
    done = subprocess.run([python, str(DRIVER)], input=json.dumps(jobs), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [(worked, said) for worked, said in json.loads(done.stdout)]


def compare(root: Path) -> list[Said]:
    """Sign every folder by the reference tool, tamper, and have both tools verify the same bytes."""
    write_keys(root)
    cases: list[Tamper | Untouched] = [*TAMPERS, *UNTOUCHED]
    folders = [root / str(number) / "m" for number in range(len(cases))]
    for case, folder in zip(cases, folders, strict=True):
        model_sig.folder(folder, _files(case))
        (folder / "model.sig").unlink()
    signing = [job(case.signing.sign, root, folder) for case, folder in zip(cases, folders, strict=True)]
    for (signed, said), line in zip(reference(signing), signing, strict=True):
        assert signed, f"{line}: {said}"
    for number, case in enumerate(cases):
        if isinstance(case, Tamper):
            case.change(folders[number])
        elif case.cached:
            folders[number] = into_cache(folders[number])
    verifying = [job(case.signing.verify, root, folder) for case, folder in zip(cases, folders, strict=True)]
    found = reference(verifying)
    return [
        Said(case, *answer, *comity(root, folder)) for case, folder, answer in zip(cases, folders, found, strict=True)
    ]


def _files(case: Tamper | Untouched) -> dict[str, bytes]:
    if isinstance(case, Tamper):
        return dict(case.files)
    return {path: data for path, data in model_sig.FILES.items() if data or "shards" not in case.signed}


def comity(root: Path, folder: Path) -> tuple[int, str]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = verifier([str(folder), "--policy", str(root / "policy.toml")])
    return status, out.getvalue()


def table(found: Sequence[Said]) -> str:
    """Two tables: changes after signing, and folders that were not changed."""
    return "\n".join(
        f"| {title} | {NAME} | Comity |\n|---|---|---|\n"
        + "".join(_row(said) for said in found if isinstance(said.what, kind))
        for title, kind in (("after signing, …", Tamper), ("nothing was done after signing", Untouched))
    )


def _row(said: Said) -> str:
    what = said.what.done if isinstance(said.what, Tamper) else said.what.signed
    return f"| {what} | {_reference(said)} | {_comity(said)} |\n"


def _reference(said: Said) -> str:
    wrong = said.reference is isinstance(said.what, Tamper)
    text = "accepts" if said.reference else "refuses"
    return f"**{text}**" if wrong else text


def _comity(said: Said) -> str:
    text = {0: "accepts", 3: "refuses", 5: "not checked"}[said.comity]
    wrong = (said.comity == 0) is isinstance(said.what, Tamper)
    text = f"**{text}**" if wrong else text
    return f"{text}: {said.what.finding}" if said.what.finding and said.comity else text


def document(text: str, found: Sequence[Said]) -> str:
    """The page with the current tables."""
    marked = r"(<!-- generated: what each tool finds -->\n).*?(<!-- end -->)"
    page, count = re.subn(marked, lambda match: match[1] + table(found) + match[2], text, flags=re.DOTALL)
    assert count == 1
    return page


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        found = compare(Path(root))
    DOCUMENT.write_text(document(DOCUMENT.read_text("utf-8"), found), "utf-8")


if __name__ == "__main__":
    main()
