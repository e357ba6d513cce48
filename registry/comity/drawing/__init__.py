"""Lineage graphs for people: as a tree of lines, as DOT for other tools, and as one self-contained SVG.

Pure: text in, text out. Names and licences in a graph are strangers' words, so that each form escapes what its readers
would obey, and leaves out what no reader can show.
"""
