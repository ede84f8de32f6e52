"""Runs jobs one after another and checks after each that nothing of it is left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.soak import plot, state, words
from benchmarks.soak.disturb import disturbed
from benchmarks.soak.host import Pocket
from benchmarks.soak.jobs import Job, draw, picture
from benchmarks.soak.setups import Setup

REFERENCE_EVERY, AGAIN_EVERY = 10, 5
REFERENCE = {
    "prompt": "a red ball",
    "seed": 11,
    "steps": 3,
    "width": 64,
    "height": 64,
    "enable_hr": True,
    "hr_upscaler": "Latent",
    "denoising_strength": 0.5,
    "sampler_name": "Euler a",
    "do_not_save_samples": True,
}
SWITCHES = ("width", "height", "enable_hr", "hr_scale", "hr_resize_x", "hr_resize_y", "denoising_strength")


class Campaign:
    """Jobs of one seed on one pocket, and what came of them."""

    def __init__(self, pocket: Pocket, seed: int, say: Callable[[str], None] = print) -> None:
        self.pocket, self.seed, self.say = pocket, seed, say
        self.violations: list[dict[str, Any]] = []
        self.mended: list[dict[str, Any]] = []  # written by hand: what violations there were, and are no more
        self.counts: dict[str, Counter[str]] = {
            name: Counter() for name in ("setups", "kinds", "disturbances", "outcomes", "errors")
        }
        self.memory: list[dict[str, float]] = []
        self.jobs, self.process = 0, 1
        self.references: dict[Setup, np.ndarray] = {}

    def run(self, numbers: Iterable[int], until: float | None = None) -> None:
        """The jobs of these numbers, or as many as begin before the time `until`."""
        for number in numbers:
            if until is not None and time.time() > until:
                break
            job = draw(self.seed, number)
            self._load(job.setup)
            self._count(job, *self._one(job))
            self.jobs += 1
            if self.jobs % REFERENCE_EVERY == 0 and not np.array_equal(
                self._ordinary(), self.references[job.setup]
            ):
                self._violation(job, ["an ordinary picture after it is not the reference"])

    def _load(self, setup: Setup) -> None:
        """The model of `setup` as it is when a job begins. Memory is looked at while none is loaded."""
        if setup != self.pocket.setup and self.references:
            self.pocket.unload()
            self.memory.append({"process": self.process, "job": self.jobs, **state.memory()})
        self.pocket.use(setup)
        self._first_model()
        if setup not in self.references:
            self.references[setup] = self._ordinary()

    def _first_model(self) -> None:
        """A job may have left its refiner, and the next one encodes its init image before it loads its own model."""
        self.pocket.modules.sd_models.reload_model_weights()

    def go_on(self, report: dict[str, Any]) -> float:
        """Takes over what an earlier process has found; the seconds that it took."""
        self.jobs, self.violations, self.memory = report["jobs"], report["violations"], report["memory"]
        self.mended = report.get("mended", [])
        for name, counts in report["counts"].items():
            self.counts[name].update(counts)
        self.process = 1 + max((int(sample["process"]) for sample in self.memory), default=0)
        return float(report["seconds"])

    def only(self, number: int) -> None:
        """One job again, in all detail."""
        job = draw(self.seed, number)
        self.say(str(job))
        self.run([number])

    # -- one job

    def _one(self, job: Job) -> tuple[str, bool]:
        """How the job ended, and whether its disturbance came to pass."""
        before = state.snapshot(self.pocket)
        p = self._job(job, job.values)
        saves = self.pocket.modules.shared.opts.data
        old = {key: saves.get(key) for key in ("save_images_before_highres_fix", "samples_save")}
        saves.update(save_images_before_highres_fix=job.saves)
        processed, outcome = None, "finished"
        problems = self._cell(job, p) if job.disturbance == "plot" and job.kind != "bad value" else []
        state.seed_all(job.number)
        try:
            with disturbed(self.pocket, job, p) as fired:
                try:
                    processed = self.pocket.run(p)
                except BaseException as error:
                    outcome = type(error).__name__
                    problems += self._unexpected(job, error)
        finally:
            saves.update(old)
        randoms = state.random_states()
        problems += fired.problems
        problems += state.differences(before, state.snapshot(self.pocket))
        if processed is not None:
            outcome = self._outcome(processed)
            problems += self._result(job, p, processed, outcome, fired.done, randoms)
        self._violation(job, problems)
        return outcome, fired.done

    def _result(
        self, job: Job, p: Any, processed: Any, outcome: str, fired: bool, randoms: dict[str, Any]
    ) -> list[str]:
        """What is wrong with the result of a job that did not fail."""
        stopped = fired and (job.disturbance in ("interrupt", "skip") or job.error == "InterruptedException")
        problems = state.left_on(p) if job.disturbance != "reload" else []
        problems += words.faults(job, p, processed, stopped=stopped)
        if job.disturbance == "nested" and fired:
            return problems  # the inner job draws random numbers of its own
        if outcome in ("refused", "off") and not (stopped or job.disturbance in ("nan", "error")):
            problems += self._as_without_us(job, processed, randoms)
            problems += [
                f"p.{name} is {getattr(p, name)}, was {job.fields[name]}"
                for name in SWITCHES
                if name in job.fields and getattr(p, name) != job.fields[name] and outcome == "refused"
            ]
        elif job.disturbance in ("estimates", "foreign forward", "plot") or (
            job.disturbance == "none" and job.number % AGAIN_EVERY == 0
        ):
            problems += self._again(job, processed, randoms)
        return problems

    def _as_without_us(self, job: Job, processed: Any, randoms: dict[str, Any]) -> list[str]:
        """A refused or disabled job is the job without ScaleDiff, but for the note."""
        self._first_model()
        p = self._job(job, None)
        state.seed_all(job.number)
        try:
            with disturbed(self.pocket, replace(job, disturbance=_kept(job)), p):
                plain = self.pocket.run(p)
        except Exception as error:
            return [f"the job without ScaleDiff raises {error!r:.200}, the one with it did not"]
        problems = _compared(processed, plain, "the job without ScaleDiff")
        if state.random_states() != randoms:
            problems.append("random states are not those that the job without ScaleDiff leaves")
        return problems

    def _again(self, job: Job, processed: Any, randoms: dict[str, Any]) -> list[str]:
        """The same job undisturbed makes the same bits."""
        self._first_model()
        p = self._job(job, job.values)
        state.seed_all(job.number)
        again = self.pocket.run(p)
        problems = _compared(processed, again, "the same job once more")
        if state.random_states() != randoms:
            problems.append("random states are not those that the same job leaves")
        return problems

    def _cell(self, job: Job, p: Any) -> list[str]:
        """A cell of a plot equals the job with that value."""
        made, wanted = (
            self._ended(job, made)
            for made in (plot.cell(job, p), self._job(job, plot.with_value(job).values))
        )
        if isinstance(made, str) or isinstance(wanted, str):
            return [] if made == wanted else [f"a plot's cell ended with {made}, the job with {wanted}"]
        return _compared(made, wanted, "the job with its value")

    def _ended(self, job: Job, p: Any) -> Any:
        """The result of a job, or the name of the exception that it ended with."""
        self._first_model()
        state.seed_all(job.number)
        try:
            return self.pocket.run(p)
        except BaseException as error:
            return type(error).__name__

    def _job(self, job: Job, values: Any) -> Any:
        fields = dict(job.fields, do_not_save_samples=not job.saves)
        if job.init is not None:
            # one that failed may have been changed by the host: a new one for each
            fields["init_images"] = [picture(job.init, job.number)]
        if job.disturbance == "mask" and job.init is not None:
            mask = Image.new("L", job.init, 0)
            mask.paste(255, (8, 8, 32, 32))
            fields |= {"mask": mask, "mask_blur": 2, "inpaint_full_res": bool(job.call % 2)}
        if job.disturbance == "checkpoint":
            fields["hr_checkpoint_name"] = "other.safetensors"
        return self.pocket.job(job.tab, fields, values)

    def _unexpected(self, job: Job, error: BaseException) -> list[str]:
        """An exception that is not the one that was raised on purpose, or that the host makes of NaN."""
        expected = job.disturbance == "error" and type(error).__name__ == job.error
        expected |= job.disturbance == "nan" and type(error).__name__ == "NansException"
        if expected or self._fails_without_us(job, error):
            return []
        return [f"the job raised {error!r:.200}"]

    def _fails_without_us(self, job: Job, error: BaseException) -> bool:
        """Whether the host's own job ends in the same way."""
        self._first_model()
        try:
            self.pocket.run(self._job(job, None))
        except BaseException as other:
            return type(other) is type(error)
        return False

    @staticmethod
    def _outcome(processed: Any) -> str:
        texts = " ".join(processed.infotexts)
        if words.STOPPED in texts:
            return "stopped"
        if words.REFUSED in texts or "nothing to upscale" in texts:
            return "refused"
        return "enlarged" if "ScaleDiff: True" in texts else "off"

    # -- the book

    def _ordinary(self) -> np.ndarray:
        """The picture that an ordinary job makes."""
        return self.pocket.run(self.pocket.job("txt2img", REFERENCE, None)).pixels[0]

    def _violation(self, job: Job, problems: list[str]) -> None:
        if problems:
            self.violations.append({"number": job.number, "problems": problems[:8], "job": job.described()})
            self.say(
                f"job {job.number} ({job.kind}, {job.disturbance} at {job.place}): {'; '.join(problems[:4])}"
            )

    def _count(self, job: Job, outcome: str, fired: bool) -> None:
        self.counts["setups"][str(job.setup)] += 1
        self.counts["kinds"][job.kind] += 1
        name = job.disturbance if fired or job.disturbance == "none" else "none (its call did not come)"
        self.counts["disturbances"][name] += 1
        self.counts["outcomes"][outcome] += 1
        if fired and job.disturbance == "error":
            self.counts["errors"][f"{job.error} in {job.place}"] += 1


def _kept(job: Job) -> str:
    """The disturbance that the job without ScaleDiff has, too."""
    return (
        job.disturbance if job.disturbance in ("compiled", "foreign forward", "refiner", "hints") else "none"
    )


def _compared(ours: Any, other: Any, name: str) -> list[str]:
    problems = []
    if len(ours.pixels) != len(other.pixels) or not all(map(np.array_equal, ours.pixels, other.pixels)):
        shapes = [[pixels.shape[:2] for pixels in found.pixels] for found in (ours, other)]
        problems.append(f"the pictures differ from {name}: (h, w) {shapes[0]} and {shapes[1]}")
    texts = [[words.without_note(text) for text in found.infotexts] for found in (ours, other)]
    if texts[0] != texts[1]:
        problems.append(f"infotext differs from {name}: {texts[0][0]!r} and {texts[1][0]!r}")
    return problems
