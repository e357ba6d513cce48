"""Renders lineage graphs for people: as a text tree, as DOT for other tools, and as one self-contained SVG."""
