// The line in the accordion that says what a run will do and cost, before it runs. The page works without it.
// Everything is inside one function: the host puts the scripts of all extensions on one page.

(function () {
    "use strict";

    const EVERY_MS = 400;
    const WAIT_AFTER_FAILURE = 12; // intervals: about five seconds
    const NO_PICTURE = "Put in a picture that is smaller than the size: it is enlarged to it.";

    function page() {
        return typeof gradioApp === "function" ? gradioApp() : document;
    }

    function find(id, what) {
        return page().querySelector(`#${CSS.escape(id)} ${what}`);
    }

    function number(id) {
        const input = find(id, "input[type=number]");
        return input && input.value !== "" ? Number(input.value) : null;
    }

    // a checkbox, a slider with its number, or any control that holds a text
    function value(id) {
        const box = find(id, "input[type=checkbox]");
        if (box) return box.checked;
        if (find(id, "input[type=number]")) return number(id);
        const text = find(id, "textarea") || find(id, "input");
        return text ? text.value : null;
    }

    // Only what differs from the default, as in a list of arguments: the rest is the preset's business.
    function settings(tab, line) {
        const changed = {};
        for (const [name, usual] of Object.entries(JSON.parse(line.dataset.defaults))) {
            const now = value(`script_${tab}_scalediff_${name}`);
            if (now !== null && now !== usual) changed[name] = now;
        }
        return changed;
    }

    function hiresSizes() {
        const on = find("txt2img_hr-checkbox", "input");
        if (on && !on.checked) return {say: "Choose a target size, or open Hires. fix and choose it there: ScaleDiff takes its place."};
        const sizes = {width: number("txt2img_width"), height: number("txt2img_height")};
        const hr_resize_x = number("txt2img_hr_resize_x") || 0;
        const hr_resize_y = number("txt2img_hr_resize_y") || 0;
        if (!hr_resize_x && !hr_resize_y) return {...sizes, hr_scale: number("txt2img_hr_scale")};
        return {...sizes, hr_resize_x, hr_resize_y};
    }

    function initImage() {
        const pictures = page().querySelectorAll("#img2img_image img");
        return Array.from(pictures).find((picture) => picture.naturalWidth > 0);
    }

    function img2imgTarget(image) {
        const byScale = page().querySelector("#img2img_tab_resize_by");
        if (!byScale || byScale.offsetParent === null) return [number("img2img_width"), number("img2img_height")];
        const scale = number("img2img_scale");
        return [Math.floor(image.naturalWidth * scale), Math.floor(image.naturalHeight * scale)];
    }

    // what the host would make of the init image, and how much of it, is the endpoint's business
    function img2imgSizes(chosen) {
        const image = initImage();
        if (!image) return {say: chosen.target ? "Put in a picture: it is enlarged." : NO_PICTURE};
        const [width, height] = chosen.target ? [null, null] : img2imgTarget(image);
        const modes = Array.from(page().querySelectorAll("#resize_mode input"));
        const resize_mode = Math.max(0, modes.findIndex((input) => input.checked));
        return {width, height, init_width: image.naturalWidth, init_height: image.naturalHeight, resize_mode};
    }

    // one pass over the size of the tab, with nothing enlarged; the preset stands for the mode
    function isDirect(chosen) {
        return chosen.mode === "Direct" || (chosen.preset === "Panorama" && !("mode" in chosen));
    }

    function sizesOf(tab, chosen) {
        if (isDirect(chosen)) return {width: number(`${tab}_width`), height: number(`${tab}_height`)};
        if (tab === "img2img") return img2imgSizes(chosen);
        // with a target size of our own the endpoint reads the factor from the settings
        return chosen.target ? {width: number("txt2img_width"), height: number("txt2img_height")} : hiresSizes();
    }

    function request(tab, line) {
        const chosen = settings(tab, line);
        const sizes = sizesOf(tab, chosen);
        if (sizes.say) return sizes;
        return {
            ...sizes,
            steps: number(`${tab}_steps`),
            hr_second_pass_steps: tab === "txt2img" ? number("txt2img_hires_steps") : null,
            cfg_scale: number(`${tab}_cfg_scale`),
            batch_size: number(`${tab}_batch_size`),
            sampler_name: value(`${tab}_sampling`),
            hr_sampler_name: tab === "txt2img" ? value("hr_sampler") : null,
            settings: chosen,
        };
    }

    // what the preset made of settings that were left alone
    function preset(asked, line, used) {
        const defaults = JSON.parse(line.dataset.defaults);
        const parts = Object.keys(used)
            .filter((name) => name in defaults && name !== "preset")
            .filter((name) => name !== "tau" || !asked.stage_tau)
            .filter((name) => !(name in asked) && used[name] !== defaults[name])
            .map((name) => `${name.replaceAll("_", " ")} ${used[name]}`);
        return parts.length ? ` Preset: ${parts.join(", ")}.` : "";
    }

    async function ask(body, line) {
        const response = await fetch("scalediff/v1/page/estimate", {
            method: "POST",
            headers: {"Content-Type": "application/json", "X-ScaleDiff-Page": line.dataset.key},
            body: JSON.stringify(body),
        });
        const estimate = await response.json();
        if (response.status === 422) return {text: String(estimate.detail), wrong: true};
        if (!response.ok) throw new Error(`estimate: ${response.status}`);
        const note = estimate.note ? ` (${estimate.note})` : "";
        return {text: `${estimate.line}${note}.${preset(body.settings, line, estimate.settings)}`, wrong: false};
    }

    // what the line is to show; null where the server did not answer
    async function message(body, line) {
        if (body.say) return {text: body.say, wrong: false};
        try {
            return await ask(body, line);
        } catch (error) {
            console.info("ScaleDiff", error);
            return null;
        }
    }

    function show(line, shown) {
        line.textContent = shown.text;
        line.classList.toggle("scalediff-wrong", shown.wrong);
    }

    // What an answer depends on: the values, the model, and the times of the last run, which shows as new text.
    function question(tab, body) {
        const output = page().querySelector(`#html_info_${tab}`);
        return JSON.stringify([body, value("setting_sd_model_checkpoint"), output && output.textContent]);
    }

    // Asked at intervals: values that a host's own script or a paste has put in raise no event. A request goes
    // out once the values have stood still for one interval. The line is looked up every time and filled again
    // where need be: gradio makes it anew, empty, when it draws the accordion afresh.
    function follow(tab) {
        let before = "";
        let answered = "";
        let shown = null;
        let waits = 0; // intervals to let pass after a failure
        setInterval(async () => {
            const line = find(`script_${tab}_scalediff_estimate`, ".scalediff-line");
            if (!line || line.parentElement.offsetParent === null) return;
            const body = request(tab, line);
            const now = question(tab, body);
            const still = now === before;
            before = now;
            if (now === answered) {
                if (shown && line.textContent !== shown.text) show(line, shown);
                return;
            }
            if (!still || waits-- > 0) return;
            answered = now;
            shown = null;
            const received = await message(body, line);
            if (answered !== now) return; // the values have changed meanwhile
            shown = received; // by the next interval
            waits = received ? 0 : WAIT_AFTER_FAILURE;
            if (!received) answered = "";
        }, EVERY_MS);
    }

    ["txt2img", "img2img"].forEach(follow);
})();
