"""Tools for the operator of a home, beside its running or stopped node: settings, diagnosis, backup, reports, upgrade.

The command line uses them on the machine of the node. They sign nothing, and print no secret.
"""
