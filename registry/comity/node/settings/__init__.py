"""The settings of a node, one by one.

value_types  what a value may be
sections     each setting with its default and meaning
sources      the file, the environment and the command line, read and merged
origins      where a value comes from
"""
