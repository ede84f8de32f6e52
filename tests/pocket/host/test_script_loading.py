"""Loading scripts, their controls, callbacks; starting the host."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def in_a_fresh_process(code, *arguments):
    """Output of a Python program that starts its own host; gradio cannot be imported there."""
    program = "import sys\nsys.modules['gradio.blocks'] = sys.modules['gradio'] = None\n" + textwrap.dedent(
        code
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def extension(tmp_path):
    """A folder with two scripts: one broken, one with a helper module beside `scripts`."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / "own_helper.py").write_text("VALUE = 42\n")
    (tmp_path / "scripts" / "a_broken.py").write_text("raise RuntimeError('broken on purpose')\n")
    (tmp_path / "scripts" / "b_works.py").write_text(
        textwrap.dedent(
            """
            import sys
            import own_helper
            from modules import script_callbacks, scripts, shared

            BASEDIR = scripts.basedir()
            EVENTS = []

            class Selected(scripts.Script):
                def title(self):
                    return "A selectable Script!"
                def ui(self, is_img2img):
                    import gradio as gr
                    words = gr.Textbox(value="text", label="Words")
                    return [words, gr.Dropdown(["x", "y"], value="y", label="Pick")]
                def run(self, p, words, pick):
                    return (words, pick)

            class OneTab(scripts.Script):
                def title(self):
                    return "One tab"
                def show(self, is_img2img):
                    return scripts.AlwaysVisible if is_img2img else False

            def settings():
                option = shared.OptionInfo(3, "Number", section=("own", "Own")).info("explained")
                shared.opts.add_option("own_number", option)

            script_callbacks.on_ui_settings(settings)
            script_callbacks.on_script_unloaded(lambda: EVENTS.append("unloaded"))
            script_callbacks.on_before_ui(lambda: EVENTS.append("before_ui"))
            script_callbacks.on_model_loaded(lambda model: EVENTS.append(type(model).__name__))
            """
        )
    )
    return tmp_path


def test_a_host_without_gradio_loads_scripts(pocket, extension, tmp_path):
    out = in_a_fresh_process(
        """
        from pocket_webui import boot
        booted = boot.boot(checkpoint=sys.argv[1], extensions=[sys.argv[2]], data_dir=sys.argv[3])
        from modules import errors, scripts, shared
        assert "gradio" not in [name for name, module in sys.modules.items() if module is not None]
        module = scripts.scripts_data[0].module
        assert module.__name__ == "b_works.py" and "b_works.py" not in sys.modules
        assert module.BASEDIR == sys.argv[2] and scripts.basedir() != sys.argv[2]
        assert module.own_helper.VALUE == 42 and sys.argv[2] not in sys.path
        assert "broken on purpose" in str(errors.get_exceptions())
        assert [s.title() for s in booted.txt2img.selectable_scripts] == ["A selectable Script!"]
        assert [s.title() for s in booted.img2img.alwayson_scripts] == ["One tab"]
        assert booted.txt2img.alwayson_scripts == []
        script = booted.txt2img.selectable_scripts[0]
        assert script.elem_id("Box 1") == "script_txt2img_a_selectable_script_Box 1"
        assert [arg.choices for arg in script.api_info.args] == [None, ["x", "y"]]
        args = booted.script_args(booted.txt2img)
        assert args == [0, "text", "y"], args
        assert booted.txt2img.run(None, 1, "other", "x") == ("other", "x")
        assert booted.txt2img.run(None, 0, "other", "x") is None
        assert shared.opts.own_number == 3
        assert shared.opts.data_labels["own_number"].comment_after == "<span class='info'>(explained)</span>"
        shared.sd_model
        assert module.EVENTS == ["before_ui", "LatentDiffusion"], module.EVENTS
        boot.boot(checkpoint=sys.argv[1], extensions=[sys.argv[2]])
        assert module.EVENTS[-1] == "unloaded"
        assert scripts.scripts_data[0].module is not module
        assert shared.sd_model is not None
        print("done")
        """,
        pocket.checkpoint,
        extension,
        tmp_path,
    )
    assert out.strip().endswith("done")


def test_foreign_modules_packages_are_noticed():
    out = in_a_fresh_process(
        """
        import types
        sys.modules["modules"] = types.ModuleType("modules")
        sys.modules["modules"].__file__ = "/elsewhere/modules/__init__.py"
        from pocket_webui import boot
        try:
            boot.boot()
        except RuntimeError as error:
            print(error)
        """
    )
    assert "another package named 'modules'" in out


def test_a_missing_checkpoint_is_named(pocket, tmp_path):
    from pocket_webui import boot

    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        boot._choose_checkpoint(tmp_path / "none.safetensors")


def test_script_args_are_defaults_with_named_changes(pocket):
    runner = pocket.booted.txt2img
    assert pocket.booted.script_args(runner) == [0, False, 0.5]
    assert pocket.booted.script_args(runner, {"probe": [True]}) == [0, True, 0.5]
    with pytest.raises(ValueError, match="takes 2 arguments"):
        pocket.booted.script_args(runner, {"Probe": [1, 2, 3]})
    with pytest.raises(KeyError):
        pocket.booted.script_args(runner, {"unknown": []})


def test_scripts_describe_their_arguments(pocket):
    script = pocket.booted.img2img.title_map["probe"]
    info = script.api_info.dict()
    assert (info["name"], info["is_alwayson"], info["is_img2img"]) == ("probe", True, True)
    assert info["args"][1] == {
        "label": "Amount",
        "value": 0.5,
        "minimum": 0,
        "maximum": 1,
        "step": 0.1,
        "choices": None,
    }
    assert [name for _, name in pocket.booted.img2img.infotext_fields[:2]] == ["Probe", "Probe amount"]
    assert script.elem_id("x") == "script_img2img_probe_x"


def test_components_are_announced_by_id(pocket):
    from types import SimpleNamespace

    from modules.scripts import Script
    from modules.scripts.runner import ScriptRunner

    seen = []

    class Watcher(Script):
        def title(self):
            return "Watcher"

        def after_component(self, component, **kwargs):
            seen.append(("any", kwargs["elem_id"]))

    runner, watcher = ScriptRunner(), Watcher()
    runner.scripts.append(watcher)
    watcher.on_before_component(lambda on: seen.append(("before", on.component)), elem_id="a")
    watcher.on_after_component(lambda on: seen.append(("after", on.component.elem_id)), elem_id="b")
    runner.apply_on_before_component_callbacks()
    for elem_id in ("a", "b"):
        component = SimpleNamespace(elem_id=elem_id)
        runner.before_component(elem_id, elem_id=elem_id)
        runner.after_component(component)
    assert seen == [("before", "a"), ("any", "a"), ("after", "b"), ("any", "b")]


def test_callbacks_have_names_and_can_be_removed(pocket):
    from modules import script_callbacks

    def mine(params):
        raise AssertionError("removed callbacks must not run")

    script_callbacks.on_cfg_denoiser(mine)
    script_callbacks.on_cfg_denoiser(mine, name="second")
    names = [c.name for c in script_callbacks.callback_map["callbacks_cfg_denoiser"]]
    file = Path(__file__).name
    assert names[-2].endswith(f"/{file}/cfg_denoiser")
    assert names[-1].endswith(f"/{file}/cfg_denoiser/second")
    script_callbacks.remove_callbacks_for_function(mine)
    script_callbacks.cfg_denoiser_callback(None)


def test_before_ui_runs_in_reversed_order(pocket):
    from modules import script_callbacks

    order = []
    callbacks = [lambda: order.append(1), lambda: order.append(2)]
    for callback in callbacks:
        script_callbacks.on_before_ui(callback)
    script_callbacks.before_ui_callback()
    for callback in callbacks:
        script_callbacks.remove_callbacks_for_function(callback)
    assert order == [2, 1]


def test_settings_behave_like_attributes(pocket, tmp_path):
    from modules.options import OptionInfo, Options

    changed = []
    opts = Options({"size": OptionInfo(3, "Size", section=("a", "A"))})
    opts.onchange("size", lambda: changed.append(opts.size), call=False)
    assert opts.set("size", 5)
    assert not opts.set("size", 5)
    assert (opts.size, changed, opts.get_default("size")) == (5, [5], 3)
    assert opts.cast_value("size", "7") == 7
    with pytest.raises(AttributeError):
        _ = opts.unknown
    with pytest.raises(KeyError):
        opts.set("unknown", 1)
    opts.save(str(tmp_path / "settings.json"))
    opts.set("size", 9)
    opts.load(str(tmp_path / "settings.json"))
    assert opts.size == 5
    (tmp_path / "broken.json").write_text("{")
    opts.load(str(tmp_path / "broken.json"))
    assert opts.size == 3


def test_one_job_at_a_time_in_order(pocket):
    import threading
    import time

    from modules.call_queue import queue_lock, wrap_queued_call

    order = []
    job = wrap_queued_call(order.append)
    with queue_lock:
        threads = []
        for i in range(5):
            threads.append(threading.Thread(target=job, args=(i,)))
            threads[-1].start()
            while len(queue_lock._waiting) <= i:
                time.sleep(0.001)
        assert order == []
    for thread in threads:
        thread.join(timeout=10)
    assert order == [0, 1, 2, 3, 4]
