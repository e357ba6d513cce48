"""Comity: a federated registry of signed open-weight checkpoints. Start reading in `comity.trust`."""

__version__ = "0.1.0"
