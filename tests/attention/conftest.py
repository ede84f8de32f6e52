"""Tests of this room run on one thread: they are small, and the machine may be busy with something else."""

from __future__ import annotations

import interpreter
import torch

torch.set_num_threads(1)
interpreter.prepare()
