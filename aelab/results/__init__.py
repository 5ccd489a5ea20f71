"""Tracked runs as tables, and how a table is written."""
