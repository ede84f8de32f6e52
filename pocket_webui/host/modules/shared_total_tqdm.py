"""Mirrors modules/shared_total_tqdm.py: the console's progress bar over all passes of a job."""

from __future__ import annotations

import tqdm

from modules import shared


class TotalTQDM:
    """Counts sampling steps; silent with `opts.multiple_tqdm` off or console bars disabled."""

    def __init__(self) -> None:
        self._tqdm: tqdm.tqdm | None = None

    def _bar(self) -> tqdm.tqdm | None:
        """The bar, drawn when first needed; None where there is to be none."""
        if shared.cmd_opts.disable_console_progressbars or not shared.opts.multiple_tqdm:
            return None
        if self._tqdm is None:
            self.reset()
        return self._tqdm

    def reset(self) -> None:
        steps = max(shared.state.job_count, 1) * shared.state.sampling_steps
        self._tqdm = tqdm.tqdm(desc="Total progress", total=steps, position=1, file=shared.progress_print_out)

    def update(self) -> None:
        bar = self._bar()
        if bar is not None:
            bar.update()

    def updateTotal(self, new_total: int) -> None:  # noqa: N802 - the host's name
        bar = self._bar()
        if bar is not None:
            bar.total = new_total

    def clear(self) -> None:
        bar, self._tqdm = self._tqdm, None
        if bar is not None:
            bar.refresh()
            bar.close()
