"""Signatures that were found good or bad already: each deliberation asks for the same ones again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from typing import Final

from comity.trust.digest import Digest, sha256
from comity.trust.dsse import Envelope
from comity.trust.identity import KeySet
from comity.trust.keys import PublicKey

MAX_REMEMBERED: Final = 65_536


class Memo:
    """`KeySet.signed` with a memory. An answer depends on what is asked alone. Thread-safe enough: a
    lost race asks once more."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[KeySet, Digest, tuple[PublicKey, ...]], bool] = OrderedDict()

    def signed(self, keys: KeySet, envelope: Envelope, beside: Collection[PublicKey] = ()) -> bool:
        asked = keys, sha256(envelope.encode()), tuple(beside)
        known = self._known.get(asked)
        if known is None:
            known = self._known[asked] = keys.signed(envelope, beside)
            while len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return known
