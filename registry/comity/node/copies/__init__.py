"""Copies of artifacts at all nodes.

index      what the logs say about copies and audits, in a database of its own beside the ledger
counter    how many copies count, by the members of the charter
own_copies what this node's log says about its copies; their pieces
responder  answers challenges of others
auditor    challenges others, and logs the results
pins       keeps pinned artifacts available, asks others for copies, and answers what others ask for
leases, withdrawal, retention   how a copy goes, and which may go
"""
