"""A PKCS#11 token in software, one for the whole test process: the library reads its configuration only once."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from support.tools import missing, needs

UNLOCK = "apt-get install softhsm2"
MODULES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so")
PIN = "583920"
LABEL = "comity-tests"


@dataclass(frozen=True)
class Token:
    """An initialised token in which a test makes the key pairs that it needs."""

    module: str
    label: str
    pin: str

    def make(self, key: str, curve: str) -> None:
        """A key pair called `key`, on `curve`: secp256r1, secp384r1, or the object identifier of Ed25519."""
        import pkcs11
        from pkcs11.util import ec

        kind = pkcs11.KeyType.EC if curve.startswith("secp") else pkcs11.KeyType.EC_EDWARDS
        attributes = {pkcs11.Attribute.EC_PARAMS: ec.encode_named_curve_parameters(curve)}
        with pkcs11.lib(self.module).get_token(token_label=self.label).open(rw=True, user_pin=self.pin) as session:
            session.create_domain_parameters(kind, attributes, local=True).generate_keypair(store=True, label=key)


@functools.cache
def token() -> Token:
    """The process's token. Skips the test where SoftHSM is not installed."""
    program = needs("softhsm2-util", unlock=UNLOCK)
    module = next((path for path in MODULES if Path(path).is_file()), None)
    if module is None:
        missing(f"no libsofthsm2.so in {', '.join(MODULES)}; unlock: {UNLOCK}")
    folder = Path(tempfile.mkdtemp(prefix="comity-softhsm-"))
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\nlog.level = ERROR\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    command = [program, "--init-token", "--free", "--label", LABEL, "--so-pin", "000000", "--pin", PIN]
    subprocess.run(command, check=True, capture_output=True)
    return Token(module, LABEL, PIN)
