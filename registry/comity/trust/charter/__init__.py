"""The charter of a federation: its members, its epochs, and what proves that a quorum decided the next epoch.

    document      the charter body of one epoch, the quorum, what each body must keep of the previous one
    votes         statements about a charter, such as votes, drafts and consents
    certificate   the statements that make a body the successor of another one; the genesis
    federation    reading the federation file: all bodies with their certificates, and the nodes with their records

Pure functions over bytes and frozen values: the same statements give the same result everywhere. Making drafts and
certificates, deciding what a key may sign, and the tally of votes are rules beside the kernel (`comity.rules`). Source:
protocol, section 7.
"""
