"""Deciding together: what members have said about the next charter, whose turn it is, and a member's part in it.

    sitting      what follows from the lines at hand: epochs, drafts, duties, lies
    folder       lines and bodies in a plain folder, to be carried
    gathering    the same from nodes, and back to them
    drafting     the bodies that a person may want to put forward
    plans        what would be signed, in words, before anybody signs
    acts         the plans of a member: draft, reading, consent, leaving
    stranding    why a draft would leave a federation without its quorum
    turns        who must do what next, and by which command
    rotating     new keys for a member, by its recovery keys
    recovery     a vote state that was lost, and the owner's decision about it
    joining      asking to be admitted, and how far that is
    inviting     a federation file from what was verified here
    confirming   whether enough members stand by the newest charter, and how fresh that is
    chamber      all of it for one federation, over nodes or files

Nodes carry lines; nothing is taken on their word. Whatever these rooms do over the network they do from files too.
"""
