"""Installations: each package runs with what its extra installs, and the wheel has the right files."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support.derivations import write_safetensors
from support.installed import closure, requirements, run_with_only

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

BASE = frozenset(Requirement(text).name for text in PROJECT["dependencies"])
GGUF, NODE, OIDC, OTEL, PKCS11, POSTGRES, S3, SCAN, SIGSTORE = (
    frozenset(Requirement(text).name for text in PROJECT["optional-dependencies"][extra])
    for extra in ("gguf", "node", "oidc", "otel", "pkcs11", "postgres", "s3", "scan", "sigstore")
)
PACKAGES = {  # a package, and what may be installed for it; the first that fits
    "registry/comity/trust": frozenset({"cryptography"}),
    "registry/comity/rules": frozenset({"cryptography"}),
    "registry/comity/formats": frozenset[str](),
    "registry/comity/evidence_pack.py": frozenset[str](),
    "registry/comity/verifier.py": frozenset[str](),
    "registry/comity/v1": BASE,
    "registry/comity/content/s3": BASE | S3,
    "registry/comity/upstream/s3_prefix": BASE | S3,
    "registry/comity/addons/derivation": BASE | GGUF,
    "registry/comity/addons/mldcat": BASE | NODE,
    "registry/comity/addons/oci": BASE | NODE,
    "registry/comity/addons/wheel_index": BASE | NODE,
    "registry/comity/ledger/postgres.py": BASE | NODE | POSTGRES,
    "registry/comity/ledger": BASE | NODE,
    "registry/comity/node/telemetry.py": BASE | NODE | OTEL,
    "registry/comity/node": BASE | NODE,
    "registry/comity/gateway/console/oidc": BASE | NODE | OIDC,
    "registry/comity/gateway": BASE | NODE,
    "registry": BASE,
    "clients/comity_client/signing/pkcs11.py": BASE | PKCS11,
    "clients/comity_client/scan_child.py": SCAN,
    "clients/comity_client/pull/model_sig.py": BASE | SIGSTORE,
    "clients": BASE,
}
PROVIDERS = {
    "alembic": "alembic",
    "authlib": "authlib",
    "boto3": "boto3",
    "botocore": "boto3",  # boto3's own dependency, released with it
    "click": "click",
    "cryptography": "cryptography",
    "filelock": "filelock",
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "gguf": "gguf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "grpc_reflection": "grpcio-reflection",
    "grpc_status": "grpcio-status",
    "huggingface_hub": "huggingface-hub",
    "jinja2": "jinja2",
    "joserfc": "joserfc",
    "license_expression": "license-expression",
    "markdown_it": "markdown-it-py",
    "markupsafe": "jinja2",  # Jinja's own dependency, released by the same people
    "numpy": "numpy",
    "opentelemetry": "opentelemetry-sdk",
    "packaging": "packaging",
    "picklescan": "picklescan",
    "pkcs11": "python-pkcs11",
    "psycopg": "psycopg",
    "prometheus_client": "prometheus-client",
    "pydantic": "pydantic",
    "rich": "rich",
    "sigstore": "sigstore",
    "sqlalchemy": "sqlalchemy",
    "starlette": "starlette",
    "structlog": "structlog",
    "uvicorn": "uvicorn",
}


def _sources() -> Iterator[Path]:
    for folder in ("registry/comity", "clients/comity_client", "clients/comity_cli"):
        yield from (path for path in (ROOT / folder).rglob("*.py"))


def _imported(node: ast.AST) -> Iterator[str]:
    """Third-party modules imported at run time below `node`; imports for the type checker only are left out.
    Expressions contain no imports, so they are not searched.
    """
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "google" else [node.module]
    yield from filter(_is_third_party, names)
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield from _imported(child)


def _is_third_party(name: str) -> bool:
    top = name.partition(".")[0]
    return top not in sys.stdlib_module_names and not top.startswith("comity")


_IMPORT = re.compile(r"^\s*(?:import|from)\s+([\w.]+)", re.MULTILINE)
"""The first words of each import, and of some sentences; the formatter leaves one import in a line."""


@functools.cache
def _providers(path: Path) -> frozenset[str]:
    """A module is parsed only if a line of its text may import a module that is neither ours nor Python's."""
    text = path.read_text()
    if not any(map(_is_third_party, _IMPORT.findall(text))):
        return frozenset()
    found = set()
    for name in _imported(ast.parse(text)):
        wanted = ".".join(name.split(".")[:2]) if name.startswith("google.") else name.partition(".")[0]
        found.add(PROVIDERS.get(wanted, f"(nobody provides {name})"))
    return frozenset(found)


def test_each_package_imports_only_what_its_extra_installs() -> None:
    excess = {}
    for path in _sources():
        relative = path.relative_to(ROOT).as_posix()
        allowed = next(brought for package, brought in PACKAGES.items() if relative.startswith(package))
        if more := _providers(path) - allowed:
            excess[relative] = more
    assert not excess


def test_every_requirement_is_imported_somewhere() -> None:
    imported = {"httptools"}.union(*map(_providers, _sources()))  # uvicorn's parser, which it does not require
    assert not (BASE | GGUF | NODE | OIDC | PKCS11 | POSTGRES | S3 | SCAN) - imported


def test_the_verifier_needs_cryptography_and_nothing_else() -> None:
    ran = run_with_only([Requirement("cryptography")], "import comity.verifier; comity.verifier.main(['--help'])")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "--policy" in ran.stdout


def test_a_light_installation_has_the_client_and_every_command() -> None:
    code = """
import comity_client, comity_cli.main as cli
for name in cli.COMMANDS:
    try:
        cli.command.main([name, "--help"], standalone_mode=False)
    except ModuleNotFoundError as error:
        raise SystemExit(f"{name}: {error}")
"""
    ran = run_with_only(requirements("comity"), code)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Usage" in ran.stdout


def test_a_light_installation_says_how_to_get_a_node(tmp_path: Path) -> None:
    (tmp_path / "node.toml").touch()
    code = f"import comity_cli.main as cli; cli.main(['serve', '--dir', {str(tmp_path)!r}])"
    ran = run_with_only(requirements("comity"), code)
    assert ran.returncode == 5
    assert "pip install 'comity[node]'" in ran.stderr


def test_an_installation_without_a_driver_says_how_to_get_postgresql() -> None:
    code = """
from types import SimpleNamespace
from comity.node.home import ledger_backing
try:
    ledger_backing(SimpleNamespace(storage=SimpleNamespace(database="postgresql:///comity")))
except Exception as error:
    print(error.hint)
"""
    ran = run_with_only(requirements("comity", ["node"]), code)
    assert (ran.stdout, ran.stderr) == ("pip install 'comity[node,postgres]'\n", "")


def test_a_light_installation_says_how_to_use_a_token(tmp_path: Path) -> None:
    described = 'schema = "comity/token-key/v1"\nmodule = "m"\ntoken = "t"\nkey = "k"\npin_file = "pin"\nvotes = "v"\n'
    (tmp_path / "governance.toml").write_text(described)
    arguments = ["init", "--jurisdiction", "CH", "--org", "X", "--name", "node-x.example", "--dir", str(tmp_path / "x")]
    code = f"import comity_cli.main as cli; cli.main({[*arguments, '--token', str(tmp_path / 'governance.toml')]!r})"
    ran = run_with_only(requirements("comity"), code)
    assert ran.returncode == 5
    assert "pip install 'comity[pkcs11]'" in ran.stderr


@pytest.mark.parametrize(("dtype", "width", "said"), [("F32", 4, "EXACT (same-weights)"), ("F16", 2, "comity[gguf]")])
def test_a_light_installation_compares_copies_and_says_how_to_compare_casts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, width: int, said: str
) -> None:
    write_safetensors(tmp_path / "parent" / "m.safetensors", [("a", "F32", (2,), bytes(8))])
    write_safetensors(tmp_path / "child" / "n.safetensors", [("a", dtype, (2,), bytes(2 * width))])
    monkeypatch.setenv("COMITY_HOME", str(tmp_path / "home"))
    arguments = ["derive", "check", str(tmp_path / "child"), str(tmp_path / "parent")]
    code = f"import comity_cli.main as cli; cli.main({arguments!r})"
    ran = run_with_only(requirements("comity"), code)
    assert said in ran.stdout + ran.stderr
    assert ran.returncode == (0 if dtype == "F32" else 5)


def test_the_declared_requirements_are_the_installed_ones() -> None:
    """The tests above would judge the old requirements of an editable installation made before pyproject.toml
    changed.
    """
    declared = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert declared == {requirement.name for requirement in requirements("comity")}
    assert {"boto3", "sqlalchemy"} <= closure(requirements("comity", ["node", "s3"]))


@pytest.mark.slow
def test_wheel_and_sdist_hold_the_sources_and_nothing_else(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    (sdist,) = tmp_path.glob("*.tar.gz")
    packed = set(zipfile.ZipFile(wheel).namelist())
    sources = {f"{p.relative_to(ROOT / p.relative_to(ROOT).parts[0]).as_posix()}" for p in _sources()}
    assert sources <= packed
    assert {"comity/py.typed", "comity_client/py.typed", "comity_cli/py.typed"} <= packed
    data = {"comity/v1/node_pb2.pyi", "comity/ledger/migrations/script.py.mako", "comity_client/pages/report.html"}
    assert data <= packed
    assert {name.partition("/")[0] for name in packed} == {
        "comity",
        "comity_client",
        "comity_cli",
        f"comity-{PROJECT['version']}.dist-info",
        f"comity-{PROJECT['version']}.data",
    }
    pages = {Path(name).name for name in packed if "/share/man/man1/" in name}
    assert {"comity.1", "comity-pull.1", "comity-token-new.1"} <= pages
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "proto/comity/v1/node.proto", "tests/conftest.py"} <= names
    assert not [name for name in (*packed, *names) if "__pycache__" in name or ".venv" in name or "/keys/" in name]
