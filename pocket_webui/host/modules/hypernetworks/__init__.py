"""Mirrors modules/hypernetworks/."""
