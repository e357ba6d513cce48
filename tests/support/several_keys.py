"""An identity with three keys, of which two sign; it reports the loss of the third."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from comity.rules.signing import sign_content
from comity.trust.encoding import Digest
from comity.trust.identity import Inception, InceptionStatement, KeySet
from comity.trust.keys import HybridSigner
from comity.trust.statement import Entry
from comity.trust.statements import KEY_COMPROMISE, Advisory, Compromise
from support.world import signer


@dataclass(frozen=True, eq=False)
class SeveralKeys:
    """The keys of the identity; `lost` is its notice, from the first entry of its home log on."""

    inception: Inception
    keys: tuple[HybridSigner, ...]
    entry: Entry
    lost: Entry

    @property
    def id(self) -> Digest:
        return self.inception.id


@functools.cache
def several_keys(label: str = "Several keys") -> SeveralKeys:
    keys = tuple(signer(f"{label} {number}") for number in range(3))
    home = "node-ch.example/log"
    inception = Inception("publisher", KeySet(tuple(key.public for key in keys), 2), (), home, "CH", label)
    lost = Compromise(keys[2].public.id, home, 0)
    notice = Advisory(inception.author, inception.id, KEY_COMPROMISE, "critical", "the laptop is gone", lost)
    entry = sign_content(InceptionStatement(inception), *keys)
    return SeveralKeys(inception, keys, entry, sign_content(notice, *keys[:2]))
