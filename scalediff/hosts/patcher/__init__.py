"""Hosts with a model patcher: Forge, Neo, reForge, Classic."""
