"""Drafts, turns and changes, for people and as JSON."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from comity.trust.encoding import Digest, plain

from comity_cli.node_view import span
from comity_cli.output import Output, plural

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from comity.trust.charter.tally import DraftState
    from comity_client.charter.state import CharterState, Confirmation, PendingAction
    from comity_client.trust_store import CharterChange

_DONE = {"intent": "INTENT", "ratified": "RATIFY", "consented": "consent"}


def show_changes(out: Output, changes: Sequence[CharterChange]) -> None:
    """One change a row. Keys and digests are shortened by whoever made the change."""
    if changes:
        rows = [
            (
                change.what,
                change.name[:16] if change.what == "member" else change.name,
                change.before or "-",
                change.after or "-",
            )
            for change in changes
        ]
        out.table(("what", "name", "before", "after"), rows)


def changes_json(changes: Iterable[CharterChange]) -> list[dict[str, str]]:
    return [asdict(change) for change in changes]


def show_turns(out: Output, found: Sequence[PendingAction]) -> None:
    """Who must do what next, and by which command. What several members owe is said once."""
    owed: dict[tuple[str, int, str], list[str]] = {}
    for turn in found:
        who = f"{turn.name} ({turn.jurisdiction})" if turn.jurisdiction else turn.name
        owed.setdefault((turn.action, turn.round, turn.command), []).append(who)
    if owed:
        out.say("\nWhose turn it is")
    for (action, round_, command), names in owed.items():
        what = _DONE.get(action, action) + (f", round {round_}" if action != "consented" else "")
        out.say(textwrap.fill(plain(f"{what}: {', '.join(names)}"), initial_indent="  ", subsequent_indent="    "))
        out.say(f"      {command} --dir HOME")


def show_drafts(out: Output, sitting: CharterState) -> None:
    """A row for each open draft: by whom, what it changes, and how far it is."""
    rows = []
    for draft in sitting.council.drafts:
        intents, ratified = progress(sitting, draft)
        state = draft.objection or ", ".join(f"consent of {seat.name} missing" for seat in draft.missing) or "open"
        by = _proposer(sitting, draft) or "-"
        rows.append((draft.body.digest[:12], by, summary(sitting, draft), intents, ratified, state))
    if rows:
        out.table(("draft", "by", "changes", "intent", "ratify", "state"), rows)
    else:
        out.say("No draft is open.")


def show_draft(out: Output, sitting: CharterState, draft: DraftState) -> None:
    """All that a draft changes, and what each member has signed of it in which round."""
    out.say(f"Draft of epoch {draft.body.epoch}\n  sha256:{draft.body.digest}")
    out.fact("by", _proposer(sitting, draft) or "nobody yet: only readings are known")
    if draft.text:
        out.fact("they say", draft.text)
    if draft.objection:
        out.warn(f"no honest member signs it: {draft.objection}")
    show_changes(out, changes_of(sitting, draft))
    rounds = sorted({*draft.intents, *draft.ratified})
    rows = [
        (seat.name, seat.jurisdiction, *(_signed(draft, at, seat.id) for at in rounds))
        for seat in sitting.current.active
    ]
    out.table(("member", "jur", *(f"round {at}" for at in rounds)), rows)


def _proposer(sitting: CharterState, draft: DraftState) -> str:
    by = sitting.current.member(draft.by) if draft.by else None
    return by.name if by else ""


def _signed(draft: DraftState, at: int, member: Digest) -> str:
    words = [word for word, rounds in (("INTENT", draft.intents), ("RATIFY", draft.ratified))
             if member in rounds.get(at, ())]  # fmt: skip
    return " ".join(words) or "-"


def turns_json(found: Iterable[PendingAction]) -> list[dict[str, Any]]:
    return [
        {"member": t.member, "name": t.name, "action": t.action, "body": t.body, "round": t.round, "command": t.command}
        for t in found
    ]


def draft_json(sitting: CharterState, draft: DraftState) -> dict[str, Any]:
    return {
        "body": draft.body.digest,
        "epoch": draft.body.epoch,
        "by": draft.by,
        "text": draft.text,
        "intents": {str(at): sorted(members) for at, members in draft.intents.items()},
        "ratified": {str(at): sorted(members) for at, members in draft.ratified.items()},
        "missing_consents": [seat.id for seat in draft.missing],
        "objection": draft.objection,
        "quorum": sitting.current.quorum,
        "changes": changes_json(changes_of(sitting, draft)),
    }


def changes_of(sitting: CharterState, draft: DraftState) -> list[CharterChange]:
    from comity_client.trust_store import body_changes

    return body_changes(sitting.current, draft.body)


def summary(sitting: CharterState, draft: DraftState) -> str:
    """`+ BSC, policy quorum_change`: what a draft changes, in a few words."""
    words = []
    for change in changes_of(sitting, draft):
        sign = "+" if not change.before else "-" if not change.after else "~"
        seat = draft.body.member(Digest(change.name)) or sitting.current.member(Digest(change.name))
        words.append(f"{sign} {seat.name if seat else change.name}")
    return ", ".join(words) or "nothing"


def progress(sitting: CharterState, draft: DraftState) -> tuple[str, str]:
    """How many of the quorum intend, and ratified, in the round in which the draft is farthest."""
    at = max((*draft.ratified, *draft.intents), default=0)
    need, where = sitting.current.quorum, f" (round {at})" if at > 1 else ""
    return (
        f"{len(draft.intents.get(at, ()))} of {need}{where}",
        f"{len(draft.ratified.get(at, ()))} of {need}{where}",
    )


def show_alarms(out: Output, sitting: CharterState) -> None:
    """What everybody should know before they read on: a split, and proven liars."""
    council = sitting.council
    for fork in council.forks:
        epoch, rival = fork.first.body.epoch, fork.second.body.digest[:16]
        if fork.retired:
            out.warn(f"a rival charter of epoch {epoch} ({rival}) was certified by keys that are retired; not a split")
        else:
            out.warn(
                f"FORK: two charters of epoch {epoch} are certified, the rival is {rival}. Governance stands still."
            )
    for lie in council.lies:
        seat = sitting.current.member(lie.member)
        out.warn(
            f"{seat.name if seat else lie.member[:16]} is proven to have lied ({lie.kind}): do not rely on its word"
        )


def alarms_json(sitting: CharterState) -> dict[str, Any]:
    council = sitting.council
    return {
        "stopped": council.stopped,
        "forks": [
            {
                "epoch": f.first.body.epoch,
                "first": f.first.body.digest,
                "second": f.second.body.digest,
                "retired": f.retired,
            }
            for f in council.forks
        ],
        "lies": [{"member": lie.member, "kind": lie.kind} for lie in council.lies],
    }


def show_where_it_stands(out: Output, sitting: CharterState) -> None:
    """`The charter: epoch 3, 5 members, changed by 4 of 5`, and its digest."""
    body = sitting.current
    members = plural(len(body.members), "member")
    out.say(f"The charter: epoch {body.epoch}, {members}, changed by {body.quorum} of {len(body.active)}")
    out.say(f"  sha256:{body.digest}")


def show_confirmation(out: Output, confirmed: Confirmation, now: float) -> None:
    """How far the newest charter is to be trusted to *be* the newest, and how old that is. Old is never a failure.

    Args:
        now: POSIX seconds.
    """
    age = "never" if confirmed.seen is None else f"{span(now - confirmed.seen)} ago"
    stand = f"{confirmed.confirmed} (of {confirmed.needed} needed)"
    out.say(f"  confirmed by {stand} members whose logs others cosigned, the newest {age}")
    for head in confirmed.elsewhere:
        out.warn(f"{head.name} acts under a charter that is unknown here: this one is old, or there is a split")
    if not confirmed.enough:
        out.warn("so it may be old: ask again later, or ask members by another way for a federation file")


def confirmation_json(confirmed: Confirmation | None) -> dict[str, Any] | None:
    if confirmed is None:
        return None
    return {
        "confirmed": confirmed.confirmed,
        "needed": confirmed.needed,
        "enough": confirmed.enough,
        "seen": confirmed.seen,
        "elsewhere": [head.member for head in confirmed.elsewhere],
    }
