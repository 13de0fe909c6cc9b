"""Measurements of pixeldp_fast, kept in an append-only ledger; run with `python -m bench`."""
