"""Mirrors modules/shared_total_tqdm.py: the console's progress bar over all passes of a job."""

from __future__ import annotations

import tqdm

from modules import shared


class TotalTQDM:
    """Counts sampling steps; silent with `opts.multiple_tqdm` off or console bars disabled."""

    def __init__(self) -> None:
        self._tqdm: tqdm.tqdm | None = None

    def _off(self) -> bool:
        return not shared.opts.multiple_tqdm or shared.cmd_opts.disable_console_progressbars

    def reset(self) -> None:
        self._tqdm = tqdm.tqdm(
            desc="Total progress",
            total=max(shared.state.job_count, 1) * shared.state.sampling_steps,
            position=1,
            file=shared.progress_print_out,
        )

    def update(self) -> None:
        if self._off():
            return
        if self._tqdm is None:
            self.reset()
        self._tqdm.update()  # type: ignore[union-attr]

    def updateTotal(self, new_total: int) -> None:  # noqa: N802 - the host's name
        if self._off():
            return
        if self._tqdm is None:
            self.reset()
        self._tqdm.total = new_total  # type: ignore[union-attr]

    def clear(self) -> None:
        if self._tqdm is not None:
            self._tqdm.refresh()
            self._tqdm.close()
            self._tqdm = None
