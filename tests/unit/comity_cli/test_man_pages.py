"""Manual pages: one for each command, from its help, without a warning of the formatter."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from comity_cli.main import COMMANDS
from support.tools import needs

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module", name="man")
def _man() -> ModuleType:
    spec = importlib.util.spec_from_file_location("man_pages", ROOT / "docs" / "man_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_has_a_page_with_its_options_and_examples(man: ModuleType) -> None:
    pages = dict(man.pages())
    assert {"comity.1", "comity-keys-rotate.1", *(f"comity-{name}.1" for name in COMMANDS)} <= set(pages)
    pull = pages["comity-pull.1"]
    for part in (".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH EXAMPLES", r"\-\-exclude", "3 verification failed"):
        assert part in pull, part


@pytest.mark.parametrize(("text", "shown"), [(".so /etc/passwd", r"\&.so"), ("'x", r"\&'x"), (r"a\fB", r"a\efB")])
def test_no_text_is_read_as_a_formatting_request(man: ModuleType, text: str, shown: str) -> None:
    assert man.escaped(text).startswith(shown)


def test_the_formatter_finds_nothing_wrong(man: ModuleType, tmp_path: Path) -> None:
    groff = needs("groff", unlock="apt-get install groff-base")
    assert man.write(tmp_path) > len(COMMANDS)
    pages = sorted((tmp_path / "man1").iterdir())
    ran = subprocess.run([groff, "-man", "-Tutf8", "-ww", "-z", *pages], capture_output=True, text=True, check=True)
    assert ran.stderr == ""  # each line begins with the name of the page
