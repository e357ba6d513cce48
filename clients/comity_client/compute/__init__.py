"""Compute that partners lend each other: which offers can hold a model, the exchange of statements, and the hand-off to
an engine that runs jobs. Comity runs none."""
