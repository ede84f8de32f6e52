"""The progress bar of one job in stages: it moves with the work that is done, so that the host's ETA holds.

Hosts show (job_no + sampling_step / sampling_steps) / job_count of `shared.state`, and tell the time left from it
(modules/progress.py and modules/api/api.py of Automatic1111, Forge, Neo and reForge alike). One job per stage would let
a stage of 4096 px count as much as one of 1024, and decoding as nothing. So while a job of ours runs, each of the
host's own jobs counts as UNITS, and `job_no` follows the work. `sampling_step` stays the host's: scripts read it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from modules import devices, sd_samplers, shared
from torch import Tensor, nn

from scalediff.cost.counts import Work
from scalediff.cost.plan import PlanWork, StageWork, plan_parts
from scalediff.cost.run import Run
from scalediff.hosts.webui import times
from scalediff.hosts.webui.job_record import DECODE, ENCODE, SAMPLE, JobRecord
from scalediff.hosts.webui.latents import LatentForm
from scalediff.hosts.webui.memory import vae_of
from scalediff.hosts.webui.vae import tile_chooser
from scalediff.method.cascade import StagePlan, Stopped
from scalediff.method.geometry import Cells
from scalediff.models.units import network_of
from scalediff.settings.planning import attention_window

UNITS = 1000  # for each job that the host counts
FULL = (
    0.99  # shown at most while the job runs: the API of the hosts adds 0.01, and above 1 its ETA is negative
)
HALVES = {ENCODE: "encoder", DECODE: "decoder"}
BASE = -1  # index of the first picture, before stage 0
Key = tuple[str, "int | None"]
"""One of the three kinds of work, and the index of the stage; None of the last."""


@dataclass(frozen=True)
class Part:
    """A piece of work of one batch, at a latent of (h, w) cells."""

    key: Key
    size: Cells
    work: Work


class Bar:
    """The bar of one job `p`, from its first batch to its end. A call after that does nothing.

    `remaining` is the work that is left, in seconds as far as they are known; what is done of it moves the bar by
    its share of what is left of the bar. So it never goes back, not even where more is run than was planned.
    """

    def __init__(self, p: Any, parts: list[Part], *, jobs: int):
        state = shared.state
        self.p, self._parts, self._jobs, self._usual_jobs = p, parts, jobs, jobs
        self._before = (state.job_no, state.job_count)
        self._began = getattr(state, "time_start", None)
        self._open, self._count = True, state.job_count * UNITS
        self._fraction = 0.0
        self._part: Part | None = None
        self._passes: dict[int, int] = {}  # how often the pass of a batch was called, by the batch's number
        self._weigh()
        self._remaining = self._planned(None)
        self._write()

    def begin_pass(self, plan: StagePlan) -> None:
        """The stages begin. Other extensions call the pass of a batch more than once: the next batches are expected
        to have as many. Who counts them adds a job for each to the host's.
        """
        batch = self._batch
        self._passes[batch] = self._passes.get(batch, 0) + 1
        if self._passes[batch] == 1:
            return
        steps = getattr(shared.total_tqdm, "_tqdm", None)
        if steps is not None and steps.total:
            needed = steps.n + sum(stage.steps for stage in plan.stages)
            shared.total_tqdm.updateTotal(max(steps.total, needed))
        wanted = self._usual_jobs + (max(self._passes.values()) - 1) * self.p.n_iter
        jobs = max(min(wanted, self._count // UNITS - self._before[0]), self._jobs)
        self._fraction *= self._jobs / jobs  # what is shown stays
        self._jobs = jobs

    @property
    def _batch(self) -> int:
        return getattr(self.p, "iteration", 0) or 0

    def begin(self, key: Key) -> None:
        """A piece of work begins. One that is not planned moves nothing."""
        if key[1] is None:
            key = (key[0], self._parts[-1].key[1])
        part = next((part for part in self._parts if part.key == key), None)
        if part is None or not self._is_open():
            return
        self._move(self._planned(part))
        self._part = part
        self._weigh()  # the piece before may have been measured
        self._remaining = self._planned(part)
        self._write(fresh=True)

    def done(self, share: float) -> None:
        """So much of the piece, 0..1, is done."""
        if self._part is not None and self._is_open():
            rest = self._planned(self._part) - self._weights[self._part.key] * min(share, 1.0)
            self._move(rest)
            self._write()

    @contextmanager
    def working(self, key: Key) -> Iterator[None]:
        """One piece of work. The host's counters are given back where it fails."""
        self.begin(key)
        part, start = self._part, times.now()
        watch = self._watched(part) if part is not None and part.key[0] in HALVES else None
        try:
            yield
        except Stopped:
            raise
        except BaseException:
            self.close()
            raise
        else:
            if part is not None and part is self._part:
                if part.key[0] in HALVES:
                    seconds = times.now() - start
                    times.TIMES.record_vae(self._speed_key, part.size, part.work, seconds)
                self.done(1.0)
        finally:
            for handle in watch or ():
                handle.remove()

    def follow(self, sampler: Any) -> None:
        """Let the steps of `sampler`, an object of one pass, move the bar."""
        ordinary = getattr(sampler, "callback_state", None)
        if ordinary is None:
            return

        def callback_state(d: dict[str, Any]) -> Any:
            result = ordinary(d)
            state = shared.state
            self.done((state.sampling_step + 1) / max(state.sampling_steps, 1))
            return result

        sampler.callback_state = callback_state

    def close(self) -> None:
        """Count in the host's own jobs again: those of this one are behind it."""
        self._give_back(self._jobs)

    def abandon(self) -> None:
        """Count in the host's own jobs again: its ordinary pass is made instead of the stages."""
        self._give_back(self._jobs // self.p.n_iter * (getattr(self.p, "iteration", 0) or 0))

    def _give_back(self, jobs: int) -> None:
        if not self._is_open():
            return
        self._open, state = False, shared.state
        (number, count), added = self._before, state.job_count - self._count
        state.job_count, state.job_no = count + added, number + jobs  # between them a full bar

    def _is_open(self) -> bool:
        """Not where the host has begun with something else meanwhile: this job failed outside of our code."""
        state = shared.state
        return self._open and state.job_count > 0 and getattr(state, "time_start", None) == self._began

    def _weigh(self) -> None:
        """What the pieces weigh: the seconds that they took in earlier runs, or else their work."""
        seconds = {}
        for part in self._parts:
            ask = times.TIMES.seconds if part.key[0] == SAMPLE else times.TIMES.vae_seconds
            seconds[part.key] = ask(self._speed_key, part.size, part.work)
        known = {key: value for key, value in seconds.items() if value is not None}
        self._weights = known if len(known) == len(seconds) else {p.key: p.work.total for p in self._parts}

    @property
    def _speed_key(self) -> str:
        return times.speed_key(self.p.sd_model, devices.device)

    def _planned(self, part: Part | None) -> float:
        """The work from the beginning of `part` to the job's end; None is the first of the batch."""
        first = self._parts.index(part) if part is not None else 0
        weights = [self._weights[one.key] for one in self._parts]
        stages = sum(self._weights[one.key] for one in self._parts if one.key != (SAMPLE, BASE))
        most = max(self._passes.values(), default=1)
        again = max(most - max(self._passes.get(self._batch, 0), 1), 0)
        later = max(self.p.n_iter - 1 - self._batch, 0)
        return sum(weights[first:]) + stages * again + (sum(weights) + stages * (most - 1)) * later

    def _move(self, remaining: float) -> None:
        if 0 <= remaining < self._remaining:
            self._fraction = 1 - (1 - self._fraction) * remaining / self._remaining
            self._remaining = remaining

    def _write(self, *, fresh: bool = False) -> None:
        """Show it. `fresh`: the sampler's own steps begin anew, which must not move the bar back."""
        state, (number, _) = shared.state, self._before
        least = state.job_no if state.job_count == self._count else number * UNITS
        least += 1 if fresh and state.sampling_step else 0
        done = int((number + self._jobs * self._fraction) * UNITS)
        state.job_no = max(min(done, int(FULL * self._count)), least)
        state.job_count = self._count

    def _watched(self, part: Part) -> list[Any]:
        """Hooks that count what the VAE has done of its work, in this thread: previews are made in another."""
        half, thread, done = (
            getattr(vae_of(self.p.sd_model), HALVES[part.key[0]], None),
            threading.get_ident(),
            [0],
        )

        def count(layer: Any, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and threading.get_ident() == thread:
                done[0] += output.numel() * (layer.weight.numel() // layer.weight.shape[0])
                self.done(done[0] / max(part.work.total, 1))

        leaves = half.modules() if isinstance(half, nn.Module) else ()
        return [
            leaf.register_forward_hook(count)
            for leaf in leaves
            if isinstance(leaf, (nn.Conv2d, nn.Conv3d, nn.Linear))
        ]


def open_bar(p: Any, record: JobRecord, plan: StagePlan, *, ordinary_steps: int, first_pass: bool) -> None:
    """Count by work from here on. The host has counted one pass of `ordinary_steps` per image, beside a first one."""
    state = shared.state
    total = getattr(getattr(shared.total_tqdm, "_tqdm", None), "total", None)
    if total:
        more = sum(stage.steps for stage in plan.stages) - ordinary_steps
        shared.total_tqdm.updateTotal(total + more * p.n_iter)
    if state.job_count <= 0 or not plan.stages:
        return
    parts = _parts(plan, _work_of(p, record, plan), first_pass=first_pass)
    record.bar = Bar(p, parts, jobs=p.n_iter * (2 if getattr(p, "enable_hr", False) else 1))


def _parts(plan: StagePlan, work: PlanWork, *, first_pass: bool) -> list[Part]:
    """The pieces of one batch in their order."""
    base = plan.base_cells
    if first_pass:
        parts = [Part((SAMPLE, BASE), base, work.sampling), Part((DECODE, BASE), base, work.decode)]
    else:
        parts = [Part((ENCODE, BASE), base, work.encode)]
    for one in work.stages:
        index, size = one.stage.index, one.stage.latent_size
        parts += [
            Part((ENCODE, index), size, one.encode),
            Part((SAMPLE, index), size, one.sampling),
            Part((DECODE, index), size, one.decode),
        ]
    return parts


def _work_of(p: Any, record: JobRecord, plan: StagePlan) -> PlanWork:
    """The work as the estimate counts it."""
    model, config = p.sd_model, record.config
    model_map = record.adapter.inspect(model)
    apart = hasattr(model, "forge_objects")
    sampler, later = p.sampler_name, getattr(p, "hr_sampler_name", None) or p.sampler_name
    run = Run(
        first_steps=max(p.steps, 1),
        cfg=not (apart and p.cfg_scale == 1),
        paired=bool(getattr(shared.opts, "batch_cond_uncond", True)),
        evaluations=evaluations(sampler),
        stage_evaluations=evaluations(later),
        negative_share=config.negative_share,
        reuse_every=config.feature_reuse,
        images=max(p.batch_size, 1),
        vae_tile=tile_chooser(model, config, LatentForm.of(model_map)),
    )
    window = attention_window(model_map.native_size, plan.base, config, cell=plan.cell)
    network = network_of(model)
    try:
        return plan_parts(plan, network, run, window=window, vae=vae_of(model))
    except ValueError:  # layers that cannot be counted
        return _plain_work(plan, first_steps=p.steps)


def _plain_work(plan: StagePlan, *, first_steps: int) -> PlanWork:
    """For a model that nothing is known of: steps times cells, the VAE as a step."""

    def work(size: Cells, steps: int) -> Work:
        return Work(linear=size[0] * size[1] * steps)

    base = plan.base_cells
    stages = tuple(
        StageWork(
            stage,
            work(stage.latent_size, 1),
            work(stage.latent_size, stage.steps),
            work(stage.latent_size, 1),
        )
        for stage in plan.stages
    )
    return PlanWork(work(base, 1), work(base, first_steps), work(base, 1), stages)


def evaluations(sampler_name: str) -> int:
    """Model calls per step of a sampler by name; 1 for an unknown one."""
    config = sd_samplers.find_sampler_config(sampler_name)
    return config.total_steps(1) if config else 1
