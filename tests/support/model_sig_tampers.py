"""Folders that were signed and then changed, one change at a time, to test which tool notices.

Every folder is signed by the reference tool itself, with its default settings, unless the signature itself is tampered
with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from comity.trust.evidence import MODEL_SIG
from comity.trust.keys import PrivateKey
from support.model_sig import (
    FILES,
    KEY,
    PUBLIC,
    Authority,
    flipped,
    listed,
    policy_toml,
    sealed,
    sealed_as_before_v1,
    signed,
    with_second_signature,
)

IGNORED: Final = "notes.txt"
ROOT: Final = Authority.root()
OTHER: Final = PrivateKey.generate("ecdsa-p256")


@dataclass(frozen=True)
class Signing:
    """The arguments by which the reference tool signs and verifies; `{}` is the folder of the keys."""

    sign: tuple[str, ...]
    verify: tuple[str, ...]


def job(words: tuple[str, ...], keys: Path, folder: Path) -> list[str]:
    """One job of `stock_model_signing` about `folder` and the signature in it."""
    *rest, last = [word.replace("{}", str(keys)) for word in words]
    if rest[0] == "api":
        return [*rest, str(folder), str(folder / MODEL_SIG), last]
    line = [word.replace("{folder}", str(folder)) for word in (*rest, last)]
    return [*line, "--signature", str(folder / MODEL_SIG), str(folder)]


BY_KEY: Final = Signing(("sign", "key", "--private_key", "{}/lab.pem"), ("verify", "key", "--public_key", "{}/lab.pub"))
IGNORING: Final = Signing((*BY_KEY.sign, "--ignore-paths", f"{{folder}}/{IGNORED}"), BY_KEY.verify)
IN_SHARDS: Final = Signing(
    ("api", "sign", "shards", "sha256", "{}/lab.pem"), ("api", "verify", "shards", "sha256", "{}/lab.pub")
)


def by_certificate(name: str) -> Signing:
    given = ("--private_key", f"{{}}/{name}.key", "--signing_certificate", f"{{}}/{name}.pem")
    chain, root = ("--certificate_chain", "{}/intermediate.pem"), ("--certificate_chain", "{}/root.pem")
    return Signing(("sign", "certificate", *given, *chain), ("verify", "certificate", *root))


@dataclass(frozen=True)
class Tamper:
    """`done` completes "after signing, …". `finding` is the expected finding of Comity; empty if no tool can notice the
    change, since the format does not record it.
    """

    done: str
    change: Callable[[Path], None]
    finding: str = ""
    signing: Signing = BY_KEY
    files: Mapping[str, bytes] = field(default_factory=lambda: FILES)


def nothing(folder: Path) -> None:
    pass


def write(name: str, data: bytes = b"new\n") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)

    return change


def signature(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        (folder / MODEL_SIG).write_bytes(change((folder / MODEL_SIG).read_bytes()))

    return changed


def flip(folder: Path) -> None:
    data = bytearray((folder / "weights.safetensors").read_bytes())
    data[1000] ^= 1
    (folder / "weights.safetensors").write_bytes(data)


def exchange(folder: Path) -> None:
    one, two = folder / "config.json", folder / "weights.safetensors"
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)


def rename(folder: Path) -> None:
    (folder / "empty.txt").rename(folder / "full.txt")


def link_out(folder: Path) -> None:
    (folder / "config.json").rename(folder.parent / "aside")
    (folder / "config.json").symlink_to(folder.parent / "aside")


def before_v1(_: bytes) -> bytes:
    """As model_signing 0.2 wrote it: the files are subjects, and the serialisation of the list is not named."""
    subjects = [{"name": r.name, "digest": {"sha256": r.digest}} for r in listed().resources]
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://model_signing/Digests/v0.1",
        "predicate": {"unused": ""},
    }
    return sealed(json.dumps(statement).encode())


TAMPERS: Final = (
    Tamper("one bit of the weights is turned", flip, "its bytes are not the signed ones"),
    Tamper("two files exchange their contents", exchange, "its bytes are not the signed ones"),
    Tamper("a file is removed", lambda folder: (folder / "empty.txt").unlink(), "signed, and not here"),
    Tamper("a file is renamed", rename, "full.txt: not signed"),
    Tamper("a file is added", write("extra.py"), "extra.py: not signed"),
    Tamper("an empty file is added", write("__init__.py", b""), "__init__.py: not signed"),
    Tamper(
        "an empty file is added to a folder signed in shards",
        write("__init__.py", b""),
        "__init__.py: not signed",
        IN_SHARDS,
        {k: v for k, v in FILES.items() if v},
    ),
    Tamper("a hook is added under `.git/`", write(".git/hooks/post-checkout"), ".git/hooks/post-checkout: not signed"),
    Tamper(
        "a workflow is added under `.github/`",
        write(".github/workflows/ci.yml"),
        ".github/workflows/ci.yml: not signed",
    ),
    Tamper(
        "`.gitattributes`, there when it was signed, is rewritten",
        write(".gitattributes"),
        ".gitattributes: not signed",
        files={**FILES, ".gitattributes": b"*.bin -text\n"},
    ),
    Tamper(
        "a file is added that the signer asked verifiers to ignore",
        write(IGNORED),
        f"{IGNORED}: not signed; its signer asks verifiers to ignore it",
        IGNORING,
    ),
    Tamper("a file becomes a link to the same bytes elsewhere", link_out, "a link out of the folder"),
    Tamper("one bit of the signature is turned", signature(flipped), "bad signature"),
    Tamper("a second, bogus signature is added", signature(with_second_signature), "a bundle has exactly one"),
    Tamper("another key signs it", signature(lambda _: signed(key=OTHER)), "by an unlisted key"),
    Tamper(
        "it is signed over the faulty encoding of version 0.2",
        signature(lambda _: sealed_as_before_v1(listed().encode())),
        "bad signature",
    ),
    Tamper("it is a signature of version 0.2", signature(before_v1), "before version 1.0 of the format"),
    Tamper(
        "the certificate that signed it ran out four years ago",
        nothing,
        "valid from 2020-01-01 to 2022-01-01",
        by_certificate("expired"),
    ),
    Tamper(
        "a certificate of another authority signs it",
        nothing,
        "the certificate does not verify",
        by_certificate("other"),
    ),
    Tamper("a file is made executable", lambda folder: (folder / "config.json").chmod(0o755)),
    Tamper("an empty folder is added", lambda folder: (folder / "empty").mkdir()),
)


@dataclass(frozen=True)
class Untouched:
    """A folder as it was signed. `finding` is the reason why Comity does not accept it."""

    signed: str
    signing: Signing
    finding: str = ""
    cached: bool = False


def by_api(method: str, algorithm: str) -> Signing:
    """Signed by the API, which is the only way for this, and verified by it with the parameters from the signature."""
    verify = ("api", "verify", "as signed", "", "{}/lab.pub")
    return Signing(("api", "sign", method, algorithm, "{}/lab.pem"), verify)


UNTOUCHED: Final = (
    Untouched("whole files, SHA-256, a key", BY_KEY),
    Untouched("whole files, SHA-256, a certificate", by_certificate("valid")),
    Untouched("the same by a key, in a Hub cache of links", BY_KEY, cached=True),
    Untouched("whole files, BLAKE3", by_api("files", "blake3"), "signed by blake3, which is not computed here"),
    Untouched("whole files, BLAKE2b", by_api("files", "blake2"), "signed by blake2b, which is not computed here"),
    Untouched("shards that are whole files, no empty file among them", by_api("shards", "sha256")),
)


def into_cache(folder: Path) -> Path:
    """The folder moved into a Hub cache: a snapshot of links to blobs, as clients leave it. Returns the snapshot."""
    repository = folder.parent / "models--org--name"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / ("a" * 40)
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in folder.rglob("*") if path.is_file())):
        link = snapshot / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        path.rename(blobs / str(number))
        link.symlink_to(os.path.relpath(blobs / str(number), link.parent))
    return snapshot


def write_keys(home: Path) -> None:
    """Every key and certificate of the signings, and a policy that accepts them."""
    (home / "lab.pem").write_bytes(KEY.to_pem())
    (home / "lab.pub").write_bytes(PUBLIC.pem)
    (home / "root.pem").write_bytes(ROOT.pem)
    intermediate = ROOT.below()
    (home / "intermediate.pem").write_bytes(intermediate.pem)
    leaves = {
        "valid": intermediate.leaf(),
        "expired": intermediate.leaf(years=(2020, 2022)),
        "other": Authority.root().below().leaf(),
    }
    for name, leaf in leaves.items():
        (home / f"{name}.key").write_bytes(leaf.private_pem)
        (home / f"{name}.pem").write_bytes(leaf.pem)
    as_of = "[time]\nas_of = 2026-06-01T00:00:00Z"
    (home / "policy.toml").write_text(policy_toml(f'certificates = ["root.pem"]\n{as_of}'))
