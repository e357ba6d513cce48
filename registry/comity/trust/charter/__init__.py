"""The charter of a federation: its members, its epochs, and how a quorum of the members decides the next epoch.

    document      the charter body of one epoch, the quorum, what each body must keep of the previous one, who cosigns
    votes         statements about a charter, such as votes, drafts and consents; which vote a key may sign
    certificate   the statements that make a body the successor of another one; the genesis
    equivocation  pairs of votes that prove a member's equivocation
    tally         the computed state of any set of statements: epochs, drafts, forks, equivocations, duties
    federation    the federation file: all bodies with their certificates, and the nodes whose records members signed

Pure functions over bytes and frozen values: the same statements give the same result everywhere. Source: protocol,
section 7.
"""
