"""Triton's kernels as Python on the CPU where there is no GPU; called before anything imports Triton."""

from __future__ import annotations

import os

import torch


def prepare() -> None:
    """Switch Triton to its interpreter, and mend what stands in our way there."""
    if torch.cuda.is_available():
        return
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        import triton.runtime.interpreter as interpreter
    except ImportError:
        return
    dot = interpreter.InterpreterBuilder.create_dot

    def create_dot(self, a, b, *rest):
        """The interpreter keeps bf16 as its bits in uint16 and multiplies those."""
        return dot(self, _as_fp32(interpreter, a), _as_fp32(interpreter, b), *rest)

    prepared = set()
    launch, patch = interpreter.GridExecutor.__call__, interpreter._patch_lang

    def launched(self, *args, **kwargs):
        prepared.clear()
        return launch(self, *args, **kwargs)

    def call(self, *args, **kwargs):
        """It prepares Triton's language anew for each call that a kernel makes: 9 of 10 seconds. Once is enough."""
        if self.fn.__module__ not in prepared:
            prepared.add(self.fn.__module__)
            patch(self.fn)
        return self.rewrite()(*args, **kwargs)

    interpreter.InterpreterBuilder.create_dot = create_dot
    interpreter.GridExecutor.__call__ = launched
    interpreter.InterpretedFunction.__call__ = call


def _as_fp32(interpreter, x):
    if x.dtype.scalar != interpreter.tl.bfloat16:
        return x
    bits = x.data.astype("uint32") << 16
    return interpreter.TensorHandle(bits.view("float32"), interpreter.tl.float32)
