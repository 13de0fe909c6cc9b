"""A second implementation of everything that a record claims, in mpmath, to check the first.

It shares no formula with `stats` and `bounds`: a stored number is compared with its definition, not
with another computation of the same closed form. It needs mpmath (extra `verify`).
"""
