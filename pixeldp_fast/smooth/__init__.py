"""Smoothed models and their certificates."""
