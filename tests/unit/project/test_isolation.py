"""The verifier alone: which modules it loads, and that neither a clock nor a network changes its verdict (I4, I9). Real
processes throughout.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.case import case
from support.folder import Folder
from support.installed import closure
from support.tools import missing, needs

REGISTRY = Path(__file__).resolve().parents[3] / "registry"


def package(name: str) -> dict[str, Path]:
    """The modules of a package, by their names."""
    return {
        ".".join(path.relative_to(REGISTRY).with_suffix("").parts).removesuffix(".__init__"): path
        for path in sorted((REGISTRY / "comity" / name).rglob("*.py"))
    }


CORE = {**package("trust"), **package("rules"), **package("formats")}
RULES_OF_ADDONS = {
    *("comity.addons.attestations.envelopes", "comity.addons.attestations.predicates"),
    *(f"comity.addons.hardware.{name}" for name in ("appraisal", "certificates", "devices", "reports")),
}
PURE_MODULES = {**CORE, **{name: path for name, path in package("addons").items() if name in RULES_OF_ADDONS}}
GOOD = case()
MOST_LINES = 14_000
"""Of the kernel. What no verdict needs is a rule beside it (`comity.rules`)."""
LOADED = """
import sys
before = set(sys.modules)
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
print("\\n".join(set(sys.modules) - before))
"""
OUTSIDE_WORLD = {
    *("asyncio", "http", "io", "os", "pathlib", "random", "secrets", "shutil", "signal", "socket", "sqlite3", "ssl"),
    *("subprocess", "sys", "tempfile", "threading", "time", "urllib"),
}


PURE = {
    *("pathlib.PurePosixPath", "urllib.parse.unquote", "urllib.parse.urlsplit"),
    *("io.RawIOBase", "io.SEEK_CUR", "io.SEEK_END", "io.SEEK_SET"),
}
"""What of these modules reads and writes nothing."""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(GOOD.write(tmp_path), GOOD)


def verdict(
    folder: Folder, python: str = sys.executable, *, before: Sequence[str] = (), env: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Exit status and JSON of the verifier, in a process of its own."""
    policy = str(folder.path.parent / "policy.toml")
    command = [*before, python, "-m", "comity.verifier", str(folder.path), "--policy", policy, "--json"]
    done = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def expected() -> tuple[int, str]:
    return 0, json.dumps(GOOD.verdict().to_json(), indent=1) + "\n"


def test_kernel_rules_and_formats_load_cryptography_and_the_standard_library() -> None:
    command = [sys.executable, "-c", LOADED, *CORE, "comity.verifier"]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    top = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    allowed, owners = closure([Requirement("cryptography")]), metadata.packages_distributions()
    brought = {name for name in top if allowed.intersection(map(canonicalize_name, owners.get(name, [])))}
    assert top - brought == {"comity", "_openssl"}  # the latter is made in memory by cryptography
    ours = {name for name in loaded if name.startswith("comity")}
    assert ours == {"comity", "comity.bounded_file", "comity.evidence_pack", "comity.hashing", "comity.verifier", *CORE}


def test_the_verifier_loads_the_whole_kernel_and_no_rule_beside_it() -> None:
    command = [sys.executable, "-c", LOADED, "comity.verifier"]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert {name for name in loaded if name.startswith(("comity.trust", "comity.rules"))} == set(package("trust"))


def test_one_person_can_read_the_kernel_in_a_week() -> None:
    assert sum(len(path.read_text("utf-8").splitlines()) for path in package("trust").values()) <= MOST_LINES


@pytest.mark.parametrize("path", PURE_MODULES.values(), ids=PURE_MODULES)
def test_kernel_rules_and_formats_import_no_input_or_output(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if {f"{node.module}.{alias.name}" for alias in node.names} - PURE:
                imported.add((node.module or "").partition(".")[0])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "input", "print", "eval", "exec", "__import__")
        elif isinstance(node, ast.Attribute):
            assert node.attr not in ("now", "utcnow", "today")
    assert not imported & OUTSIDE_WORLD


@pytest.mark.slow
def test_the_verifier_runs_where_only_cryptography_is_installed(tmp_path: Path, folder: Folder) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    wanted = f"cryptography=={metadata.version('cryptography')}"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted]
    if subprocess.run(pip, capture_output=True, check=False).returncode:
        missing(f"pip cannot install {wanted}; unlock: a package index that pip reaches")
    assert verdict(folder, python, env={"PYTHONPATH": str(REGISTRY)}) == expected()
    folder.flip("config.json")
    assert verdict(folder, python, env={"PYTHONPATH": str(REGISTRY)})[0] == 3


@pytest.mark.parametrize("moment", ["1970-01-02 00:00:00", "2040-01-02 00:00:00"])
def test_no_clock_changes_the_verdict(folder: Folder, moment: str) -> None:
    faketime = needs("faketime", unlock="apt-get install faketime")
    clock = [faketime, moment, sys.executable, "-c", "import time; print(time.gmtime().tm_year)"]
    assert subprocess.run(clock, capture_output=True, text=True, check=True).stdout.strip() == moment[:4]
    assert verdict(folder, before=[faketime, moment]) == expected()


@pytest.mark.netns
def test_no_network_and_no_certificate_authority_is_needed(folder: Folder) -> None:
    unshare, ip = needs("unshare", unlock="apt-get install util-linux"), needs("ip", unlock="apt-get install iproute2")
    alone = [unshare, "--map-root-user", "--net"]
    links = subprocess.run([*alone, ip, "-oneline", "link", "show", "up"], capture_output=True, text=True, check=False)
    if links.returncode:
        missing(f"no network namespace can be made here ({links.stderr.strip()}); unlock: user namespaces, or root")
    assert links.stdout == ""
    nowhere = {"SSL_CERT_FILE": os.devnull, "SSL_CERT_DIR": os.devnull}
    assert verdict(folder, before=alone, env=nowhere) == expected()
    folder.flip("config.json")
    assert verdict(folder, before=alone, env=nowhere)[0] == 3


def test_nothing_of_the_environment_changes_the_verdict(folder: Folder) -> None:
    odd = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "PYTHONHASHSEED": "1", "HOME": "/nonexistent", "PYTHONUTF8": "0"}
    assert verdict(folder, env=odd) == verdict(folder, env={"PYTHONHASHSEED": "2"}) == expected()
