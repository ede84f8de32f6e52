// The line in the accordion that says what a run will do and cost, before it runs. The page works without it.
// Everything is inside one function: the host puts the scripts of all extensions on one page.

(function () {
    "use strict";

    const EVERY_MS = 400;
    const WAIT_AFTER_FAILURE = 12; // intervals: about five seconds
    const NONE_BY_HAND = "none"; // in the hidden field `by_hand`: everything is left to the preset
    const NO_PICTURE = "Put in a picture: it is enlarged.";
    const MASKED = "Masks are not enlarged in stages: the ordinary picture will be made. Take the img2img tab.";
    const UNUSED = "Not used while ScaleDiff is on: see its New detail.";

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

    function put(id, now) {
        const input = find(id, "input[type=number]") || find(id, "textarea") || find(id, "input");
        if (!input || input.value === String(now)) return;
        input.value = now;
        input.dispatchEvent(new Event("input", {bubbles: true})); // as the hosts' own updateInput
    }

    // ---- which settings a person has set, of those that presets set: the page sends them all in a list

    const ours = (tab, name) => `script_${tab}_scalediff_${name}`;
    const presetNames = (line) => line.dataset.preset.split(" ");
    const byHand = (tab) => (value(ours(tab, "by_hand")) || "").split(" ").filter(Boolean);

    function keepByHand(tab, names) {
        put(ours(tab, "by_hand"), [...new Set(names)].filter((name) => name !== NONE_BY_HAND).join(" ") || NONE_BY_HAND);
    }

    // a host may fill controls from saved defaults of the user's: those are meant, too
    function beginByHand(tab, line) {
        if (byHand(tab).length) return;
        const defaults = JSON.parse(line.dataset.defaults);
        keepByHand(tab, presetNames(line).filter((name) => {
            const now = value(ours(tab, name));
            return now !== null && now !== defaults[name];
        }));
    }

    // what scripts of the page put into a control is not trusted: a paste, a preset
    function noticeByHand(tab, event) {
        const line = find(ours(tab, "estimate"), ".scalediff-line");
        if (!event.isTrusted || !line) return;
        const name = presetNames(line).find((one) => event.target.closest(`#${CSS.escape(ours(tab, one))}`));
        if (name) keepByHand(tab, [...byHand(tab), name]);
    }

    // gradio 3 takes a text of one's own in a dropdown when a key is let go, not where it was pasted by mouse
    function takeTyped(tab) {
        document.addEventListener("input", (event) => {
            if (!event.target.closest || !event.target.closest(`#${CSS.escape(ours(tab, "target"))}`)) return;
            setTimeout(() => event.target.dispatchEvent(new KeyboardEvent("keyup", {bubbles: true})));
        }, true);
    }

    // the controls that nobody has set show what the preset makes of them for the loaded model
    function followPreset(tab, line, used) {
        const kept = byHand(tab);
        for (const name of presetNames(line)) {
            if (name in used && !kept.includes(name)) put(ours(tab, name), used[name]);
        }
    }

    // By name; null for what is left to the preset.
    function settings(tab, line) {
        const chosen = {};
        for (const name of Object.keys(JSON.parse(line.dataset.defaults))) chosen[name] = value(ours(tab, name));
        if (chosen.preset === "Custom") return chosen;
        const kept = byHand(tab);
        presetNames(line).filter((name) => !kept.includes(name)).forEach((name) => (chosen[name] = null));
        return chosen;
    }

    // ---- sizes

    // without Hires. fix Auto stands for a factor that is the endpoint's own
    function hiresSizes() {
        const on = find("txt2img_hr-checkbox", "input");
        const sizes = {width: number("txt2img_width"), height: number("txt2img_height")};
        if (on && !on.checked) return sizes;
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
    function img2imgSizes() {
        const image = initImage();
        if (!image) return {say: NO_PICTURE};
        const [width, height] = img2imgTarget(image);
        const modes = Array.from(page().querySelectorAll("#resize_mode input"));
        const resize_mode = Math.max(0, modes.findIndex((input) => input.checked));
        return {width, height, init_width: image.naturalWidth, init_height: image.naturalHeight, resize_mode};
    }

    // masks are refused, and only the page knows of them
    function isMasked() {
        return ["inpaint", "inpaint_sketch", "inpaint_upload"].some((name) => {
            const tab = page().querySelector(`#img2img_${name}_tab`);
            return tab && tab.offsetParent !== null;
        });
    }

    // one pass over the size of the tab, with nothing enlarged; the preset stands for the mode
    function isDirect(chosen) {
        return chosen.mode === "Direct" || (chosen.preset === "Panorama" && chosen.mode === null);
    }

    // a target size of our own is read from the settings by the endpoint
    function sizesOf(tab, chosen) {
        if (tab === "img2img") return isMasked() ? {say: MASKED, level: "bad"} : img2imgSizes();
        if (isDirect(chosen) || chosen.target !== "Auto") {
            return {width: number("txt2img_width"), height: number("txt2img_height")};
        }
        return hiresSizes();
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
            n_iter: number(`${tab}_batch_count`),
            sampler_name: value(`${tab}_sampling`),
            hr_sampler_name: tab === "txt2img" ? value("hr_sampler") : null,
            settings: [true, ...Object.values(chosen)], // in the order of the arguments
        };
    }

    // ---- Denoising strength, in whose place tau stands

    function isOn(tab) {
        const box = find(ours(tab, "enabled-checkbox"), "input") || find(ours(tab, "enabled"), "input[type=checkbox]");
        return Boolean(box && box.checked);
    }

    function showUnused(tab, line) {
        const control = page().querySelector(`#${tab}_denoising_strength`);
        if (!control) return;
        const unused = isOn(tab) && !isDirect(settings(tab, line));
        if (control.classList.contains("scalediff-unused") === unused) return;
        control.classList.toggle("scalediff-unused", unused);
        control.title = unused ? UNUSED : "";
    }

    async function ask(body, line) {
        const response = await fetch("scalediff/v1/page/estimate", {
            method: "POST",
            headers: {"Content-Type": "application/json", "X-ScaleDiff-Page": line.dataset.key},
            body: JSON.stringify(body),
        });
        const estimate = await response.json();
        if (response.status === 422) return {parts: [{text: String(estimate.detail), level: "bad"}]};
        if (!response.ok) throw new Error(`estimate: ${response.status}`);
        const parts = estimate.parts.map((part) => ({...part, text: `${part.text}.`}));
        const told = estimate.warnings.length || !estimate.note ? [] : [{text: `(${estimate.note}.)`, level: ""}];
        return {parts: [...parts, ...told], warnings: estimate.warnings, used: estimate.settings};
    }

    // what the line is to show; null where the server did not answer
    async function message(body, line) {
        if (body.say) return {parts: [{text: body.say, level: body.level || ""}]};
        try {
            return await ask(body, line);
        } catch (error) {
            console.info("ScaleDiff", error);
            return null;
        }
    }

    function element(kind, part) {
        const made = document.createElement(kind);
        made.textContent = part.text;
        if (part.level) made.className = `scalediff-${part.level}`;
        return made;
    }

    // a line of parts with blanks between them, and each warning on a line of its own
    function show(line, shown) {
        line.replaceChildren();
        shown.parts.forEach((part) => line.append(element("span", part), " "));
        (shown.warnings || []).forEach((part) => line.append(element("div", part)));
        line.scalediffShown = shown; // of this element: gradio may put a new one in its place
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
            if (!line) return;
            showUnused(tab, line);
            if (line.parentElement.offsetParent === null) return;
            beginByHand(tab, line);
            const body = request(tab, line);
            const now = question(tab, body);
            const still = now === before;
            before = now;
            if (now === answered) {
                if (shown && line.scalediffShown !== shown) show(line, shown);
                return;
            }
            if (!still || waits-- > 0) return;
            answered = now;
            shown = null;
            const received = await message(body, line);
            if (answered !== now) return; // the values have changed meanwhile
            shown = received; // by the next interval
            if (received && received.used) followPreset(tab, line, received.used);
            waits = received ? 0 : WAIT_AFTER_FAILURE;
            if (!received) answered = "";
        }, EVERY_MS);
    }

    ["txt2img", "img2img"].forEach((tab) => {
        follow(tab);
        takeTyped(tab);
        document.addEventListener("input", (event) => noticeByHand(tab, event), true);
    });
})();
