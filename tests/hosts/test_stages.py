"""What the settings of single stages do in a run: tau, steps, window, saved pictures, the progress bar."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def stages(host, monkeypatch):
    """The stages of the run with the window that each was given."""
    from scalediff.hosts.webui.host import WebUIHost

    seen = []
    denoise = WebUIHost.denoise

    def spy(self, reference, stage, guidance):
        seen.append((stage.size, stage.tau, stage.steps, self.window(), self.rows.calls))
        result = denoise(self, reference, stage, guidance)
        seen[-1] = (*seen[-1][:-1], self.rows.steps)
        return result

    monkeypatch.setattr(WebUIHost, "denoise", spy)
    return seen


def test_tau_steps_and_window_of_each_stage(host, stages):
    settings = {"enabled": True, "stage_tau": "600 300", "stage_steps": "3 2", "window_multiple": 1.5}
    result = host.run(host.txt2img(settings, hr_scale=4.0))
    assert stages == [((128, 128), 600, 3, (12, 12), 3), ((256, 256), 300, 2, (12, 12), 2)]
    text = result.infotexts[0]
    assert "ScaleDiff window multiple: 1.5" in text
    assert "ScaleDiff stage tau: 600 300, ScaleDiff stage steps: 3 2" in text
    assert result.images[0].size == (256, 256)


def test_a_larger_window_changes_the_picture(host):
    one = host.run(host.txt2img({"enabled": True}))
    wider = host.run(host.txt2img({"enabled": True, "window_multiple": 1.5}))
    assert not np.array_equal(one.pixels[0], wider.pixels[0])


def test_a_window_over_the_whole_picture_is_owned_up_to(host):
    result = host.run(host.txt2img({"enabled": True, "window_multiple": 2}))
    assert "not larger than one attention window" in result.comments


def test_a_stage_with_too_many_steps_is_refused_before_sampling(host, stages):
    settings = {"enabled": True, "stage_tau": "400 4", "stage_steps": "3 5"}
    result = host.run(host.txt2img(settings, hr_scale=4.0))
    assert "5 steps do not fit below timestep 4; lower the steps or raise tau" in result.comments
    assert stages == []


def test_the_preset_that_took_effect_is_written(host, stages):
    result = host.run(host.txt2img({"enabled": True, "preset": "detail", "stage_factor": 2}))
    assert [stage[1] for stage in stages] == [500]
    for part in ("ScaleDiff tau: 500", "ScaleDiff structure strength: 0.6", "ScaleDiff preset: Detail"):
        assert part in result.infotexts[0]


@pytest.mark.parametrize(("wanted", "names"), [(True, ["-scalediff-stage-1.png"] * 2), (False, [])])
def test_pictures_of_finished_stages_are_saved_on_request(host, tmp_path, wanted, names):
    host.shared.opts.data["scalediff_save_stages"] = wanted
    p = host.txt2img(
        {"enabled": True, "stage_steps": "2 1"}, hr_scale=4.0, batch_size=2, do_not_save_samples=False
    )
    p.outpath_samples = str(tmp_path)
    host.run(p)
    files = sorted(tmp_path.rglob("*.png"))
    saved = [file for file in files if "scalediff-stage" in file.name]
    assert [file.name[file.name.index("-scalediff") :] for file in saved] == names
    assert len(files) == 2 + len(saved)
    for file in saved:
        picture = Image.open(file)
        assert picture.size == (128, 128)
        assert "ScaleDiff stage steps: 2 1" in picture.info["parameters"]


@pytest.mark.parametrize("n_iter", [1, 2])
def test_the_bar_never_goes_back_and_every_phase_is_named(host, monkeypatch, n_iter):
    from pocket_webui.server.progress import fraction_done

    state, seen, texts = host.shared.state, [], []
    watched = type(state).__setattr__

    def watch(self, name, value):
        watched(self, name, value)
        if name in ("job_count", "sampling_steps", "sampling_step", "textinfo") and self.job_count > 0:
            seen.append(fraction_done(self))
            if self.textinfo and self.textinfo not in texts:
                texts.append(self.textinfo)

    monkeypatch.setattr(type(state), "__setattr__", watch)
    host.run(host.txt2img({"enabled": True, "stage_steps": "3 2"}, hr_scale=4.0, n_iter=n_iter))
    assert len(seen) > 10 * n_iter
    assert all(earlier <= later + 1e-9 for earlier, later in pairwise(seen))
    assert seen[-1] > 0.95
    assert texts == [
        *(
            f"ScaleDiff stage {k} of 2, {64 * 2**k}x{64 * 2**k}: {what}"
            for k in (1, 2)
            for what in ("decoding", "enlarging", "encoding", "drawing detail")
        ),
        "ScaleDiff: decoding",
    ]
