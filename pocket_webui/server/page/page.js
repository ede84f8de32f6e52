// What A1111's page offers to extensions (gradioApp, onUiLoaded, onUiUpdate), accordions that act as
// checkboxes, and the progress of the running job.

function gradioApp() {
    return document.querySelector("gradio-app") || document;
}

const uiLoadedCallbacks = [];
const uiUpdateCallbacks = [];
let uiIsLoaded = false;

function onUiLoaded(callback) {
    if (uiIsLoaded) callback(); else uiLoadedCallbacks.push(callback);
}

function onUiUpdate(callback) {
    uiUpdateCallbacks.push(callback);
}

function onAfterUiUpdate(callback) {
    uiUpdateCallbacks.push(callback);
}

function runSafely(callback, argument) {
    try {
        callback(argument);
    } catch (error) {
        console.error("error in a page callback", error);
    }
}

new MutationObserver((mutations) => {
    if (!uiIsLoaded && document.getElementById("txt2img_generate")) {
        uiIsLoaded = true;
        uiLoadedCallbacks.forEach((callback) => runSafely(callback));
    }
    if (uiIsLoaded) uiUpdateCallbacks.forEach((callback) => runSafely(callback, mutations));
}).observe(document, {childList: true, subtree: true});

// ---- keys and tabs ------------------------------------------------------------------------------

function switchToTab(name) {
    const buttons = Array.from(document.querySelectorAll("#tabs > .tab-nav button"));
    const button = buttons.find((one) => one.textContent.trim() === name);
    if (button) button.click();
}

// in a tab's own fields: Ctrl+Enter generates, Escape interrupts
document.addEventListener("keydown", (event) => {
    const tab = ["txt2img", "img2img"].find((name) => event.target.closest && event.target.closest("#tab_" + name));
    if (!tab) return;
    const pressed = event.key === "Enter" && (event.ctrlKey || event.metaKey) ? "generate" : event.key === "Escape" ? "interrupt" : "";
    if (!pressed) return;
    if (pressed === "generate") event.preventDefault();
    document.getElementById(`${tab}_${pressed}`).click();
});

// ---- accordions: opening one switches it on, its checkbox switches it off ------------------------

function accordionIsOpen(accordion) {
    return accordion.querySelector(".label-wrap").classList.contains("open");
}

// called by InputAccordion when its hidden checkbox changes
function inputAccordionChecked(id, checked) {
    const accordion = document.getElementById(id);
    if (!accordion) return;
    const visible = document.getElementById(id + "-visible-checkbox");
    if (visible) visible.checked = checked;
    if (accordionIsOpen(accordion) !== checked) accordion.querySelector(".label-wrap").click();
}

function followAccordion(accordion) {
    if (accordion.dataset.followed) return;
    accordion.dataset.followed = "yes";
    const label = accordion.querySelector(".label-wrap");
    const hidden = document.querySelector(`#${CSS.escape(accordion.id)}-checkbox input`);
    const visible = document.createElement("input");
    visible.type = "checkbox";
    visible.className = "input-accordion-checkbox";
    visible.id = accordion.id + "-visible-checkbox";
    visible.checked = accordionIsOpen(accordion);
    visible.setAttribute("aria-label", label.textContent.trim());
    label.insertBefore(visible, label.firstChild);
    const turn = (on) => {
        visible.checked = on;
        if (hidden && hidden.checked !== on) hidden.click();
    };
    visible.addEventListener("click", (event) => {
        event.stopPropagation(); // the label opens and closes
        const on = visible.checked;
        if (on && !accordionIsOpen(accordion)) label.click();
        turn(on);
    });
    let wasOpen = accordionIsOpen(accordion);
    new MutationObserver(() => {
        const open = accordionIsOpen(accordion);
        if (open && !wasOpen) turn(true);
        wasOpen = open;
    }).observe(label, {attributes: true, attributeFilter: ["class"]});
}

onUiLoaded(() => document.querySelectorAll(".input-accordion").forEach(followAccordion));

// ---- progress -----------------------------------------------------------------------------------

const PROGRESS_EVERY_MS = 500;
const GIVE_UP_AFTER_IDLE_ANSWERS = 6; // the job may take a moment to begin

function progressText(answer) {
    const percent = Math.round(answer.progress * 100);
    const seconds = Math.max(0, Math.round(answer.eta_relative));
    const text = answer.textinfo ? ` ${answer.textinfo}` : "";
    return `${percent}%${text}, about ${seconds} s left`;
}

function showProgress(box, answer) {
    if (!box.firstChild) {
        box.innerHTML = '<div class="bar"><span></span></div><div class="progress"></div><img hidden alt="preview">';
    }
    box.hidden = false;
    box.querySelector(".bar span").style.width = `${answer.progress * 100}%`;
    box.querySelector(".progress").textContent = progressText(answer);
    const image = box.querySelector("img");
    if (answer.current_image) {
        image.src = "data:image/png;base64," + answer.current_image;
        image.hidden = false;
    }
}

async function followJob(tab) {
    const box = document.getElementById(tab + "_progress");
    if (!box || box.dataset.busy) return;
    box.dataset.busy = "yes";
    let idle = 0;
    let seen = false;
    while (idle < (seen ? 1 : GIVE_UP_AFTER_IDLE_ANSWERS)) {
        await new Promise((done) => setTimeout(done, PROGRESS_EVERY_MS));
        try {
            const answer = await (await fetch("sdapi/v1/progress")).json();
            if (answer.state.job_count === 0) {
                idle += 1;
            } else {
                seen = true;
                idle = 0;
                showProgress(box, answer);
            }
        } catch (error) {
            idle += 1;
        }
    }
    box.hidden = true;
    box.innerHTML = "";
    delete box.dataset.busy;
}

onUiLoaded(() => {
    for (const tab of ["txt2img", "img2img"]) {
        document.getElementById(tab + "_generate").addEventListener("click", () => followJob(tab));
    }
});
