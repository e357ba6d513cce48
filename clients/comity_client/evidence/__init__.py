"""Evidence about artifacts: gather statements from nodes, verify them against the pins, resolve names, read logs."""
