"""What the commands about a federation's charter share: where a member's office is, plans on the screen, and delivery.

office     options of those commands, and what they stand for: a home, keys, lines from nodes or from carried folders
motions    what people type when they would change the charter
charters   a whole charter
rendering  drafts, turns and changes as people read them
signing    a plan is shown, agreed to, signed, and handed over
"""
