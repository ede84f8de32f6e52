"""The settings: one table, and everything that is derived from it."""
