"""Installs the wheels of a kit into a virtual environment of its own, without a network.

pip of the running interpreter installs exactly what `requirements.lock` names, each file with its hash, from the folder
`wheels` of the kit and from nowhere else: in an empty network namespace where the system allows one, and never by
running a build. So the installation itself proves that nothing is missing. It is kept by the digest of `kit.json` in
the user's cache:

    kits/<digest>/python-3.11.7/        the environment
    kits/<digest>/python-3.11.7.json    its digest, written once it is complete

An environment without that file, or one that has changed since, is removed and made again.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from comity.bounded_file import read_bounded
from comity.content import durable
from comity.rules.kits.description import LOCK, LOCK_FILE, WHEEL, Kit
from comity.trust.encoding import Digest, Fields, Json, canonical, parse_canonical, printable, sha256
from comity.trust.errors import ComityError, NotFound, OutOfSpace, Unavailable, Untrusted
from comity.trust.frozen import frozen
from comity.verifier import hash_file

from comity_client.kits.fetching import cache_folder
from comity_client.kits.isolation import Isolated, offline
from comity_client.kits.lock import MAX_LOCK, parse_lock, write_lock

INSTALL_SECONDS: Final = 1800
MAX_MARK: Final = 4096
_WHO: Final = "import sys; print(sys.version.split()[0], sys.base_prefix, sep='\\n')"


@frozen
class KitPython:
    """An interpreter, its whole version, and the folder that it is installed in."""

    program: str
    version: str
    prefix: Path


@frozen
class InstalledKit:
    """A Python that has the wheels of a kit.

    Attributes:
        folder: of the environment.
        python: its interpreter.
        prefix: the folder of the interpreter that it is of.
        isolated: whether pip ran without a network.
        proof: how, in words.
        reused: whether it was here, complete and unchanged.
        changed: whether one was here that had changed since it was installed.
    """

    folder: Path
    python: Path
    prefix: Path
    isolated: bool
    proof: str
    reused: bool = False
    changed: bool = False


def kit_cache() -> Path:
    """The user's folder for kits that are installed and pulled: `$XDG_CACHE_HOME/comity/kits`."""
    return cache_folder() / "kits"


def install_kit(folder: Path, kit: Kit, cache: Path) -> InstalledKit:
    """Install the wheels of the kit in `folder`, or take the installation that is in `cache`. Blocking.

    Raises Unavailable (KIT-PLATFORM) if the kit is for other machines, NotFound (KIT-PIP) if this Python has no pip,
    Malformed (KIT-LOCK), Untrusted (KIT-INSTALL) if pip does not find or accept what the lock names, OutOfSpace.
    """
    python = python_for(kit)
    place = cache / sha256(kit.encode())
    with durable.disk_errors("the kit was not installed"):
        durable.make_folders(place, mode=0o700)
        with durable.exclusive(place / ".lock", "the kit was not installed"):
            return _install(folder.resolve(), kit, python, place / f"python-{python.version}")


def python_for(kit: Kit) -> KitPython:
    """An interpreter of this machine for which the kit has wheels: the running one if it is one. Raises Unavailable
    (KIT-PLATFORM)."""
    here = (platform.system().lower(), platform.machine())
    wanted = (kit.platform.os, kit.platform.arch)
    if any(needed not in ("any", found) for needed, found in zip(wanted, here, strict=True)):
        raise _platform(f"it is for {' '.join(wanted)}, and this is {' '.join(here)}")
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    versions = kit.platform.python or (running,)
    others = filter(None, (shutil.which(f"python{version}") for version in versions))
    for program in [sys.executable] if running in versions else others:
        asked = subprocess.run([program, "-I", "-c", _WHO], capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            version, prefix = asked.stdout.splitlines()
            return KitPython(program, version, Path(prefix))
    raise _platform(f"it is for Python {' or '.join(versions)}, which is not on this machine")


def _install(folder: Path, kit: Kit, python: KitPython, target: Path) -> InstalledKit:
    mark = target.with_name(target.name + ".json")
    how = offline([])
    made = InstalledKit(target, target / "bin" / "python", python.prefix, not how.network, how.proof)
    kept = _kept(mark)
    if kept is not None and target.is_dir() and (kept[0], environment_digest(target)) == (python.program, kept[1]):
        return InstalledKit(made.folder, made.python, made.prefix, kept[2], kept[3], reused=True)
    mark.unlink(missing_ok=True)
    if target.exists():
        shutil.rmtree(target)
    try:
        _require_room(folder, kit, target.parent)
        _make(folder, kit, python, target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    digest = environment_digest(target)
    facts: dict[str, Json] = {
        "python": python.program,
        "digest": digest,
        "isolated": made.isolated,
        "proof": made.proof,
    }
    durable.write_file(mark, canonical(facts), point="kit")
    return InstalledKit(made.folder, made.python, made.prefix, made.isolated, made.proof, changed=kept is not None)


def _kept(mark: Path) -> tuple[str, str, bool, str] | None:
    """What the mark of a complete installation says; None without one."""
    try:
        fields = Fields(parse_canonical(read_bounded(mark, MAX_MARK), limit=MAX_MARK, what="mark"), "mark")
        return fields.text("python"), fields.text("digest"), fields.boolean("isolated"), fields.text("proof")
    except ComityError:
        return None


def environment_digest(folder: Path) -> Digest:
    """One digest of all files of an environment: of their paths, bits of execution and bytes; and of its links. Raises
    OSError."""
    lines = sorted(_described(folder, path) for path in _files(folder))
    return sha256("\n".join(lines).encode("utf-8", "surrogateescape"))


def _files(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(folder / entry.name)
            else:
                yield folder / entry.name


def _described(folder: Path, path: Path) -> str:
    mode = path.lstat().st_mode
    name = os.fspath(path.relative_to(folder))
    if stat.S_ISLNK(mode):
        return f"{name}\0link\0{os.fspath(path.readlink())}"
    if not stat.S_ISREG(mode):
        return f"{name}\0special"
    return f"{name}\0{mode & stat.S_IXUSR}\0{hash_file(path, lambda count: None)[1]}"


def _require_room(folder: Path, kit: Kit, disk: Path) -> None:
    """A wheel is an archive: it can be far smaller than what is in it. Raises OutOfSpace, Untrusted (KIT-INSTALL)."""
    needed = 0
    for part in kit.of_kind(WHEEL):
        try:
            with zipfile.ZipFile(folder / part.path) as archive:
                needed += sum(member.file_size for member in archive.infolist())
        except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
            raise _refused(f"{part.path}: {error}") from error
    if needed > shutil.disk_usage(disk).free:
        raise OutOfSpace(
            "the kit was not installed", why=f"its wheels unpack to {needed} bytes", hint="free some space"
        )


def _make(folder: Path, kit: Kit, python: KitPython, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="comity-install-") as scratch:
        made = _run(Isolated([python.program, "-I", "-m", "venv", "--without-pip", str(target)], "", True), scratch)
        if made.returncode:
            raise Unavailable("no virtual environment was made", why=_end_of(made), code="KIT-PLATFORM")
        if not kit.of_kind(LOCK):
            return
        if find_spec("pip") is None:
            why = "the Python that runs comity has no pip"
            raise NotFound("the kit was not installed", why=why, hint="python -m ensurepip", code="KIT-PIP")
        lock = Path(scratch) / LOCK_FILE
        lock.write_bytes(write_lock(parse_lock(read_bounded(folder / LOCK_FILE, MAX_LOCK))))
        ran = _run(offline(_pip(folder, lock, target)), scratch)
        if ran.returncode:
            raise _refused(_end_of(ran))


def _pip(folder: Path, lock: Path, target: Path) -> list[str]:
    pip = [sys.executable, "-I", "-m", "pip", "--isolated", "--no-input", "--disable-pip-version-check"]
    only = ["--no-index", "--find-links", str(folder / "wheels"), "--only-binary", ":all:", "--no-cache-dir"]
    into = ["--python", str(target / "bin" / "python"), "install"]
    return [*pip, *into, *only, "--require-hashes", "-r", str(lock)]


def _run(isolated: Isolated, scratch: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program with nothing of this user's settings. Raises Untrusted (KIT-INSTALL)."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    clean = {**kept, "LANG": "C.UTF-8", "HOME": scratch, "TMPDIR": scratch, "PIP_CONFIG_FILE": os.devnull}
    try:
        return subprocess.run(
            isolated.command, env=clean, cwd=scratch, capture_output=True, timeout=INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise _refused(f"no end within {INSTALL_SECONDS} s") from error


def _end_of(ran: subprocess.CompletedProcess[bytes]) -> str:
    lines = (ran.stderr or ran.stdout).decode("utf-8", "replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("ERROR")] or lines[-3:]
    return printable(" | ".join(line.strip() for line in errors))[:600] or f"exit status {ran.returncode}"


def _platform(why: str) -> Unavailable:
    return Unavailable("the kit does not run on this machine", why=why, code="KIT-PLATFORM")


def _refused(why: str) -> Untrusted:
    return Untrusted("the kit was not installed", why=why, code="KIT-INSTALL")
