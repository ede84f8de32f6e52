"""Mirrors modules/api/: here only what describes scripts; the routes are the server's."""
