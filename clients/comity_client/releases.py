"""Fetch a release of Comity from a federation: the newest one that a policy accepts and that enough members rebuilt.

Nothing is installed, and nothing of a node calls this: a person runs `comity upgrade fetch`, and then pip.

(1) find      what the name means, and what is said about its artifact
(2) judge     its version, the rebuilds, the advisories, its wheels: refused before the first wheel is fetched
(3) fetch     as any pull, by the policy
(4) check     that its lock pins exactly the wheels that came
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Final

import comity
from comity.bounded_file import read_bounded
from comity.trust.artifact import Manifest
from comity.trust.claims import Publication
from comity.trust.encoding import Digest
from comity.trust.errors import NotFound, PolicyNotMet, Unavailable
from comity.trust.frozen import frozen
from comity.trust.policy import Policy
from comity.trust.resolution import version_order
from comity.trust.statements import INFO, Advisory
from packaging.utils import canonicalize_version

from comity_client.artifact_client import ArtifactClient
from comity_client.events import Advised, OnEvent, ignore_event
from comity_client.evidence.artifact_info import ArtifactInfo
from comity_client.kits.lock import MAX_LOCK, LockedDistribution
from comity_client.release_parts import (
    MAX_RELEASE,
    PRODUCT,
    RELEASE_FILE,
    RELEASE_LOCK,
    InstallingMachine,
    ProductRelease,
    check_lock,
    malformed_release,
    product_wheel,
    read_release_lock,
    unfit,
    wheels_of,
)
from comity_client.vouching import REPRODUCED

MAX_LISTED: Final = 8
WARNING_KINDS: Final = ("yank", "superseded", "vulnerability", "malware")
"""Advisories of its publisher that refuse a release, unless they warn of nothing."""


@frozen
class UpgradeOrder:
    """What is wanted.

    Attributes:
        name: a repository, or one version of it.
        rebuilt_by: how many others must have rebuilt it.
        rebuilders: only these count; empty: the members of the pinned federations.
        older: take an older version than the installed one.
    """

    name: str
    rebuilt_by: int
    rebuilders: frozenset[Digest] = frozenset()
    older: bool = False


@frozen
class JudgedRelease:
    """A release that may be fetched.

    Attributes:
        rebuilt: who says that they rebuilt it and counts, by name.
        warnings: advisories that refuse nothing: of others than its publisher and the policy's issuers.
        withdrawn: versions newer than the installed one that the publisher withdrew.
        installed: it is the newest version, and the installed one; then nothing else was judged.
    """

    title: str
    version: str
    artifact: Digest
    manifest: Manifest
    publisher: str
    rebuilt: tuple[str, ...]
    warnings: tuple[str, ...]
    withdrawn: tuple[str, ...]
    installed: bool


@frozen
class ChangedDistribution:
    """A distribution whose version would be another one; an empty version: it is not installed."""

    name: str
    installed: str
    version: str


@frozen
class FetchedRelease:
    """A release in a folder, verified; nothing of it is installed."""

    judged: JudgedRelease
    folder: Path
    release: ProductRelease
    changes: tuple[ChangedDistribution, ...]


def this_machine() -> InstallingMachine:
    """The machine and the Python that run this."""
    libc, version = platform.libc_ver() if sys.platform == "linux" else ("", "")
    numbers = [int(each) for each in re.findall(r"[0-9]+", version)[:2]] + [0, 0]
    return InstallingMachine(platform.machine(), sys.version_info.minor, (libc, numbers[0], numbers[1]))


def judge_release(
    client: ArtifactClient, order: UpgradeOrder, policy: Policy, machine: InstallingMachine
) -> JudgedRelease:
    """Steps (1) and (2). Raises PolicyNotMet, Malformed (NOT-A-RELEASE), NotFound (NO-WHEEL), and as `show` does."""
    _require_publisher(order.name, policy)
    info = client.show(order.name, policy=policy)
    if info.cache is not None:
        raise Unavailable("no node answers", why="a release is fetched with what nodes say of it now", code="NO-NODES")
    publication = info.publication
    if publication is None:
        raise PolicyNotMet(f"{order.name} has no proven publication", code="NO-PUBLICATION")
    version = publication.published.name.version
    judged = JudgedRelease(
        title=info.title,
        version=version,
        artifact=info.artifact,
        manifest=info.manifest,
        publisher=publication.publisher.display,
        rebuilt=rebuilds(info, publication, order.rebuilders),
        warnings=tuple(_told(each, publication) for each in info.advisories if not _refuses(each, publication, policy)),
        withdrawn=_withdrawn(info),
        installed="@" not in order.name and version == comity.__version__,
    )
    if not judged.installed:
        _require_newer(judged, order)
        _require_unwarned(info, publication, policy)
        _require_rebuilt(judged, order)
        _require_wheels(judged, machine)
    return judged


def _require_publisher(name: str, policy: Policy) -> None:
    """Without it, the first user of the name in this federation would say what is installed."""
    namespace = name.partition("/")[0]
    if not policy.publishers and policy.bound_publisher(namespace) is None:
        raise PolicyNotMet(
            f"the policy does not say who publishes {name}",
            why="a program is taken from nobody whom you did not name",
            hint="write the publisher's id into accept of [publishers] of the policy; see docs/releasing.md",
            code="PUBLISHER-NOT-NAMED",
        )


def rebuilds(info: ArtifactInfo, publication: Publication, named: Iterable[Digest]) -> tuple[str, ...]:
    """Who is proven to say that they rebuilt the artifact, by name, without its publisher: each active member of a
    pinned federation once, or each of those `named`."""
    chosen, found = frozenset(named), dict[Digest, str]()
    for vouch in info.vouches:
        member = vouch.by.member
        behind = member.lineage if member is not None else vouch.by.id
        if vouch.vouched.kind != REPRODUCED or publication.publisher.id in (behind, vouch.by.id):
            continue
        if not chosen.isdisjoint((behind, vouch.by.id)) if chosen else member is not None and member.active:
            found.setdefault(behind, member.name if member is not None else vouch.by.name)
    return tuple(found.values())


def _refuses(advisory: Advisory, publication: Publication, policy: Policy) -> bool:
    if advisory.by.id in policy.refuse_from:
        return True
    own = advisory.by == publication.publisher.author and advisory.kind in WARNING_KINDS
    return advisory.withdraws_for(publication.publisher.id) or (own and advisory.severity != INFO)


def _told(advisory: Advisory, publication: Publication) -> str:
    return str(Advised(advisory, advisory.by == publication.publisher.author))


def _withdrawn(info: ArtifactInfo) -> tuple[str, ...]:
    newer = (each for each in info.versions if version_order(each.version) > version_order(comity.__version__))
    return tuple(sorted({each.version for each in newer if each.withdrawn}, key=version_order))


def _require_newer(found: JudgedRelease, order: UpgradeOrder) -> None:
    if order.older or version_order(found.version) >= version_order(comity.__version__):
        return
    gone = f"; its publisher withdrew {', '.join(found.withdrawn[:MAX_LISTED])}" if found.withdrawn else ""
    raise PolicyNotMet(
        f"{found.title} is older than the installed {comity.__version__}",
        why=f"an older version cannot read what a newer one wrote{gone}",
        hint=f"comity upgrade fetch {found.title} --policy FILE --older, if you want it",
        code="RELEASE-OLDER",
    )


def _require_unwarned(info: ArtifactInfo, publication: Publication, policy: Policy) -> None:
    warned = [_told(each, publication) for each in info.advisories if _refuses(each, publication, policy)]
    if warned:
        raise PolicyNotMet(
            f"there is a warning about {info.title}",
            why="; ".join(warned[:MAX_LISTED]),
            hint=f"comity advisory ls {info.title}",
            code="RELEASE-WARNED",
        )


def _require_rebuilt(found: JudgedRelease, order: UpgradeOrder) -> None:
    if len(found.rebuilt) < order.rebuilt_by:
        who = "of those whom you named" if order.rebuilders else "other members"
        by = f": {', '.join(found.rebuilt)}" if found.rebuilt else ""
        raise PolicyNotMet(
            f"{found.title} was not rebuilt by enough others",
            why=f"{len(found.rebuilt)} {who} say that they built the same bytes{by}; {order.rebuilt_by} must",
            hint="rebuild it, or ask members to: docs/releasing.md",
            code="RELEASE-NOT-REBUILT",
        )


def _require_wheels(found: JudgedRelease, machine: InstallingMachine) -> None:
    wheels = wheels_of(found.manifest)
    product_wheel(wheels, found.version)
    if lacking := unfit(wheels, machine):
        more = f" and {len(lacking) - MAX_LISTED} more" if len(lacking) > MAX_LISTED else ""
        listed = ", ".join(lacking[:MAX_LISTED]) + more
        raise NotFound(
            "the release has no wheels for this machine",
            why=f"none of {listed} for {machine}",
            hint=f"comity search {PRODUCT}, for a release for this machine",
            code="NO-WHEEL",
        )


def fetch_release(
    client: ArtifactClient, judged: JudgedRelease, to: Path, policy: Policy, *, on_event: OnEvent = ignore_event
) -> FetchedRelease:
    """Steps (3) and (4), into the folder `to`. Raises as `ArtifactClient.pull` does; Malformed (NOT-A-RELEASE) if its
    lock is not that of its wheels: the folder then has verified files that are not to be installed."""
    pulled = client.pull(judged.title, to=to, policy=policy, on_event=on_event)
    if pulled.artifact != judged.artifact:
        why = f"it was sha256:{judged.artifact} when it was judged, and is sha256:{pulled.artifact} now"
        raise PolicyNotMet(f"{judged.title} means another artifact", why=why, code="VERSION-DISPUTED")
    lock = read_release_lock(read_bounded(pulled.folder / RELEASE_LOCK, MAX_LOCK))
    check_lock(judged.manifest, lock)
    release = ProductRelease.parse(read_bounded(pulled.folder / RELEASE_FILE, MAX_RELEASE))
    if release.version != judged.version:
        raise malformed_release(f"it is published as {judged.version}, and its {RELEASE_FILE} says {release.version}")
    return FetchedRelease(judged, pulled.folder, release, changes_of(lock))


def changes_of(lock: Iterable[LockedDistribution]) -> tuple[ChangedDistribution, ...]:
    """The distributions of a lock that the environment of this program has in another version, or not at all."""
    changed = []
    for wanted in sorted(lock, key=lambda each: each.name):
        try:
            installed = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            installed = ""
        if canonicalize_version(installed) != canonicalize_version(wanted.version):
            changed.append(ChangedDistribution(wanted.name, installed, wanted.version))
    return tuple(changed)


def install_words(python: str, folder: Path) -> tuple[str, ...]:
    """The command by which pip installs a release, from its folder alone."""
    links, lock = str(folder / "wheels"), str(folder / RELEASE_LOCK)
    return (python, "-m", "pip", "install", "--no-index", "--find-links", links, "--require-hashes", "-r", lock)
