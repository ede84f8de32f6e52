"""Mirrors launch.py: the version that goes into infotext, and the parsed command line."""

from modules.shared_cmd_options import cmd_opts as args

VERSION = "v1.10.1-pocket"  # the release whose contract the pocket host mirrors


def git_tag() -> str:
    return VERSION


def commit_hash() -> str:
    return "<none>"


__all__ = ["args", "commit_hash", "git_tag"]
