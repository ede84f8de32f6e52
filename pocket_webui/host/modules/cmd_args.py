"""Mirrors modules/cmd_args.py: the host's flags, with the defaults of the pocket host."""

import argparse
import os

from modules.paths_internal import data_path, models_path

parser = argparse.ArgumentParser(prog="pocket_webui", add_help=False)
for flag in (
    "api",
    "nowebui",
    "listen",
    "share",
    "lowvram",
    "medvram",
    "no-half",
    "no-half-vae",
    "upcast-sampling",
    "disable-nan-check",
    "disable-console-progressbars",
    "hide-ui-dir-config",
    "freeze-settings",
    "api-server-stop",
    "no-hashing",
    "use-ipex",
    "xformers",
    "opt-channelslast",
    "unix-filenames-sanitization",
):
    parser.add_argument(f"--{flag}", action="store_true")
parser.add_argument("--ckpt", default=None)
parser.add_argument("--ckpt-dir", default=None)
parser.add_argument("--models-dir", default=models_path)
parser.add_argument("--data-dir", default=data_path)
parser.add_argument("--device-id", default=None)
parser.add_argument("--use-cpu", nargs="+", default=[], type=str.lower)
parser.add_argument("--precision", default="full")
parser.add_argument("--port", type=int, default=None)
parser.add_argument("--server-name", default=None)
parser.add_argument("--api-auth", default=None)
parser.add_argument("--filenames-max-length", type=int, default=128)
parser.add_argument("--embeddings-dir", default=os.path.join(data_path, "embeddings"))
parser.add_argument("--ui-config-file", default=os.path.join(data_path, "ui-config.json"))
parser.add_argument("--ui-settings-file", default=os.path.join(data_path, "config.json"))
parser.add_argument("--freeze-settings-in-sections", default=None)
parser.add_argument("--freeze-specific-settings", default=None)
parser.add_argument("--gradio-debug", action="store_true")
parser.add_argument("--subpath", default=None)
