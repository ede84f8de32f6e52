// Under the gallery: the last run's pictures, two at a time, with a line between them that is moved by mouse, touch or
// keys; zoomed and dragged in step. And in the accordion what ScaleDiff had to say of that run.

(function () {
    "use strict";

    const EVERY_MS = 500;
    const MOST_ZOOM = 16;
    const WHEEL = 1.15;
    const HINT = "Drag the line. Wheel, pinch, + and \u2212 zoom, 0 shows all; zoomed in, drag the picture.";

    const page = () => (typeof gradioApp === "function" ? gradioApp() : document);
    const within = (low, value, high) => Math.min(high, Math.max(low, value));

    function element(kind, className, text) {
        const made = document.createElement(kind);
        made.className = className;
        if (text) made.textContent = text;
        return made;
    }

    // ---- two pictures over each other, and what is seen of them

    // `at`: where the line is, 0..1; `zoom` times, and moved by x, y in widths and heights of the frame
    function frame() {
        const root = element("div", "scalediff-frame");
        const before = element("img", "scalediff-picture");
        const right = element("div", "scalediff-right");
        const after = element("img", "scalediff-picture");
        const handle = element("div", "scalediff-handle");
        const range = Object.assign(document.createElement("input"), {type: "range", min: 0, max: 100, step: 0.5, value: 50});
        range.className = "scalediff-range";
        range.setAttribute("aria-label", "Where the line between the two pictures is");
        [before, after].forEach((picture) => (picture.draggable = false));
        right.append(after);
        root.append(before, right, handle);
        const view = {at: 0.5, zoom: 1, x: 0, y: 0};

        function draw() {
            const least = 1 - view.zoom;
            view.x = within(least, view.x, 0);
            view.y = within(least, view.y, 0);
            const transform = `translate(${view.x * 100}%, ${view.y * 100}%) scale(${view.zoom})`;
            [before, after].forEach((picture) => (picture.style.transform = transform));
            right.style.clipPath = `inset(0 0 0 ${view.at * 100}%)`;
            handle.style.left = `${view.at * 100}%`;
            range.value = view.at * 100;
        }

        // to `zoom`, while the point (x, y) of the frame, 0..1, stays where it is
        function zoomTo(zoom, x, y) {
            const next = within(1, zoom, MOST_ZOOM);
            view.x = x - (x - view.x) * (next / view.zoom);
            view.y = y - (y - view.y) * (next / view.zoom);
            view.zoom = next;
            draw();
        }

        const whole = () => zoomTo(1, 0.5, 0.5);
        range.addEventListener("input", () => {
            view.at = range.value / 100;
            draw();
        });
        listen(root, view, {draw, zoomTo, whole});
        listenKeys(range, view, {zoomTo, whole});
        draw();
        return {root, range, before, after};
    }

    const place = (root, event) => {
        const box = root.getBoundingClientRect();
        return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };

    // one pointer moves the line, or the picture where it is zoomed and the line is not taken hold of; two zoom
    function listen(root, view, {draw, zoomTo, whole}) {
        const held = new Map();
        let line = false;
        root.addEventListener("pointerdown", (event) => {
            const at = place(root, event);
            line = view.zoom === 1 || Math.abs(at[0] - view.at) * root.clientWidth < 24;
            held.set(event.pointerId, at);
            root.setPointerCapture(event.pointerId);
            event.preventDefault();
            if (line && held.size === 1) {
                view.at = within(0, at[0], 1);
                draw();
            }
        });
        root.addEventListener("pointermove", (event) => {
            const was = held.get(event.pointerId);
            if (!was) return;
            const now = place(root, event);
            const other = [...held].find(([id]) => id !== event.pointerId);
            held.set(event.pointerId, now);
            if (other) {
                const far = (point) => Math.hypot(point[0] - other[1][0], point[1] - other[1][1]) || 0.01;
                zoomTo(view.zoom * (far(now) / far(was)), (now[0] + other[1][0]) / 2, (now[1] + other[1][1]) / 2);
                return;
            }
            if (line) view.at = within(0, now[0], 1);
            else [view.x, view.y] = [view.x + now[0] - was[0], view.y + now[1] - was[1]];
            draw();
        });
        ["pointerup", "pointercancel"].forEach((name) => root.addEventListener(name, (event) => held.delete(event.pointerId)));
        root.addEventListener("dblclick", whole);
        root.addEventListener("wheel", (event) => {
            event.preventDefault();
            zoomTo(view.zoom * (event.deltaY < 0 ? WHEEL : 1 / WHEEL), ...place(root, event));
        }, {passive: false});
    }

    // the browser's own keys of a slider move the line
    function listenKeys(range, view, {zoomTo, whole}) {
        range.addEventListener("keydown", (event) => {
            if (event.key === "+" || event.key === "=") zoomTo(view.zoom * 1.5, view.at, 0.5);
            else if (event.key === "-") zoomTo(view.zoom / 1.5, view.at, 0.5);
            else if (event.key === "0") whole();
            else return;
            event.preventDefault();
            event.stopPropagation(); // hosts have keys of their own for numbers
        });
    }

    // ---- what there is of a tab's last run

    const keyOf = (tab) => {
        const line = page().querySelector(`#script_${tab}_scalediff_estimate .scalediff-line`);
        return line && line.dataset.key;
    };

    async function get(tab, path) {
        const response = await fetch(`scalediff/v1/page/${path}`, {headers: {"X-ScaleDiff-Page": keyOf(tab)}});
        if (!response.ok) throw new Error(`${path}: ${response.status}`);
        return response;
    }

    function chooser(label, choose) {
        const made = element("select", "scalediff-choice");
        made.setAttribute("aria-label", label);
        made.addEventListener("change", choose);
        return made;
    }

    function fill(select, texts, chosen) {
        select.replaceChildren(...texts.map((text, index) => new Option(text, index, false, index === chosen)));
    }

    // the panel of a tab; `show(run)` with what the endpoint says of it
    function panel(tab) {
        const root = element("details", "scalediff-compare");
        root.id = `scalediff_compare_${tab}`;
        const bar = element("div", "scalediff-bar");
        const seen = frame();
        let run = {run: 0, pictures: []};
        const number = chooser("Which picture of the batch", () => steps());
        const left = chooser("Picture on the left", () => load(seen.before, left));
        const right = chooser("Picture on the right", () => load(seen.after, right));
        bar.append(number, left, right);
        root.append(element("summary", "", "Compare"), bar, seen.root, seen.range, element("div", "scalediff-hint", HINT));
        root.addEventListener("toggle", steps);

        async function load(image, select) {
            const path = `picture/${tab}/${run.run}/${number.value || 0}/${select.value}`;
            if (image.dataset.path === path) return;
            image.dataset.path = path;
            try {
                const blob = await (await get(tab, path)).blob();
                if (image.dataset.path !== path) return;
                URL.revokeObjectURL(image.src);
                image.src = URL.createObjectURL(blob);
            } catch (error) {
                console.info("ScaleDiff", error);
                delete image.dataset.path;
            }
            image.alt = select.selectedOptions[0] ? select.selectedOptions[0].text : "";
        }

        // of the chosen picture: the first one on the left, the last one on the right
        function steps() {
            const one = run.pictures[number.value || 0];
            if (!root.open || !one) return;
            const texts = one.map((step) => `${step.label}, ${step.width}x${step.height}`);
            fill(left, texts, 0);
            fill(right, texts, one.length - 1);
            const last = one[one.length - 1];
            seen.root.style.aspectRatio = `${last.width} / ${last.height}`;
            seen.root.style.width = `min(100%, calc(80vh * ${last.width / last.height}))`;
            load(seen.before, left);
            load(seen.after, right);
        }

        function show(now) {
            run = now;
            root.hidden = run.pictures.length === 0;
            number.hidden = run.pictures.length < 2;
            fill(number, run.pictures.map((_, index) => `Picture ${index + 1} of ${run.pictures.length}`), 0);
            steps();
        }

        return {root, show};
    }

    // ---- where it is put, and when it is asked for

    function put(tab, root) {
        const gallery = page().querySelector(`#${tab}_gallery_container`) || page().querySelector(`#${tab}_gallery`);
        if (gallery && root.previousElementSibling !== gallery) gallery.after(root);
    }

    function tell(tab, note) {
        const line = page().querySelector(`#script_${tab}_scalediff_estimate .scalediff-line`);
        if (!line) return;
        const told = line.parentElement.querySelector(".scalediff-last") || element("div", "scalediff-last");
        told.textContent = note ? `Last picture: ${note}` : "";
        if (told.previousElementSibling !== line) line.after(told);
    }

    // a run has ended: there are other pictures, or other words under them
    function outcome(tab) {
        const texts = ["html_info", "html_log"].map((name) => page().querySelector(`#${name}_${tab}`));
        const pictures = Array.from(page().querySelectorAll(`#${tab}_gallery img`), (image) => image.src);
        return [...texts.map((text) => text && text.textContent), ...pictures.sort()].join("\n");
    }

    function follow(tab) {
        let before = null;
        let asked = null;
        let last = {run: 0, note: null, pictures: []};
        const made = panel(tab);
        made.show(last);
        setInterval(async () => {
            if (!keyOf(tab)) return;
            put(tab, made.root);
            tell(tab, last.note);
            const now = outcome(tab);
            const still = now === before;
            before = now;
            if (!still || now === asked) return;
            asked = now;
            try {
                const found = await (await get(tab, `last/${tab}`)).json();
                if (found.run !== last.run) made.show(found);
                last = found;
            } catch (error) {
                console.info("ScaleDiff", error);
            }
        }, EVERY_MS);
    }

    ["txt2img", "img2img"].forEach(follow);
})();
