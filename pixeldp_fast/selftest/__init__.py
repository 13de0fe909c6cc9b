"""Tests of the randomness that certificates rest on, on the machine that makes it.

Each says with which probability it fails for a perfect source; the suite shows each of them to fail
on planted faults.
"""
