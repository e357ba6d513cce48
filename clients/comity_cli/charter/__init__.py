"""Shared code of the commands about a federation's charter: options, drafting, output, signing and delivery.

context    the options of a command, and the values they name: home, keys, statements from nodes or folders
changes    the arguments of `comity proposal new`, as a new body
rendering  charters, drafts, duties and changes as text and JSON
signing    shows a plan, asks, signs, and delivers
"""
