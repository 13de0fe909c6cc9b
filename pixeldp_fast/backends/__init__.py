"""Engines: they turn a plan, a mechanism and a reduction into tallies, and know no statistics."""
