"""The rows of a verdict, one function each: a question, its state, and what the answer rests on.

The numbers are the steps of `verify`, which calls these in order and knows nothing about wording.
"""
