"""Glewlwyd as the provider of OpenID Connect: people of its groups sign in to the console."""

from __future__ import annotations

from pathlib import Path

from comity.gateway.console.oidc.provider_sign_in import CALLBACK
from comity.gateway.console.sign_in import PROVIDER_PATH
from comity.node.threads import Pools
from support.glewlwyd import glewlwyd
from support.sign_in_scene import URL, SignInScene


async def test_people_of_a_real_provider_sign_in_by_their_groups(tmp_path: Path) -> None:
    pools = Pools()
    with glewlwyd(tmp_path) as provider:
        provider.set_up(URL + CALLBACK)
        scene = SignInScene(provider.issuer, tmp_path, pools, scopes=())
        people = {
            "operator": provider.add("ada", "Ada Lovelace", "comity-operators", "other"),
            "viewer": provider.add("emmy", "Emmy Noether", "comity-viewers"),
            "": provider.add("kurt", "Kurt Gödel", "other"),
        }
        for role, person in people.items():
            async with scene.browser() as http:
                sent = await http.get(PROVIDER_PATH)
                back = person.visit(sent.headers["Location"])
                done = await http.get(CALLBACK, params=back)
                if role:
                    assert done.status_code == 200, done.text
                    who, found, by = (await http.get("/-/node")).text.split("|")
                    assert (found, by) == (role, "oidc")
                    assert who.startswith({"operator": "Ada", "viewer": "Emmy"}[role])
                else:
                    assert done.headers["X-Error-Code"] == "OIDC-ROLE"
        async with scene.browser() as http:  # a code is used once
            await http.get(PROVIDER_PATH)
            sent = await http.get(PROVIDER_PATH)
            again = {**people["operator"].visit(sent.headers["Location"]), "code": back["code"]}
            assert (await http.get(CALLBACK, params=again)).headers["X-Error-Code"] == "OIDC-PROVIDER"
    async with scene.browser() as http:  # the provider's documents are cached; it issues no further tokens
        sent = await http.get(PROVIDER_PATH)
        assert sent.status_code == 303
    pools.close()
