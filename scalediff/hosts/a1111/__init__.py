"""Automatic1111."""
