"""Mirrors modules/shared_cmd_options.py: `cmd_opts`, here filled by whoever starts the host, not from
sys.argv."""

from modules.cmd_args import parser

cmd_opts = parser.parse_args([])
cmd_opts.webui_is_non_local = False
cmd_opts.disable_extension_access = False

__all__ = ["cmd_opts", "parser"]
