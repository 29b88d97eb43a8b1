// A box for another prompt, and what a page says while it waits for the kernel.

import { button, frame, freshId, node } from "./common.js";
import { allow } from "./parts.js";

/** @import { Answer, Model, PromptValues, Shell, Values } from "./types.d.ts" */

const PATIENCE = 4500; // milliseconds without an answer before the page says that there is none
const MOST_LINES = 8; // of the box
const LOOK = 250; // milliseconds between two looks at whether the kernel is still there
const COMPUTES = "The kernel computes …", HERE = "This page computes …";
const GONE = "The kernel does not answer: run this cell again.";
const BUSY = "The kernel does not answer yet: it is busy with something else.";
const SILENT = "The kernel does not answer: unless it is busy with another cell, run this cell again.";

// ---- does the kernel answer? ----

/**
 * Tell what a page says while it waits. The kernel answers a question at once, before it computes;
 * so a kernel that is silent for some seconds is busy with something else, or gone.
 * @param {Model<any>} model
 * @param {Element} el an element of the widget
 * @param {() => void} changed called when there are other words to show
 */
export function watchKernel(model, el, changed) {
  const computes = model.live ? HERE : COMPUTES;
  let words = "", id = "", heard = false, lost = false, since = 0, timer = 0, looks = 0;
  function say(/** @type {string} */ next) {
    if (next === words) return;
    words = next;
    changed();
  }
  function send(/** @type {object} */ message) {
    try {
      model.send?.(message);
    } catch { // JupyterLab's "Cannot send": the kernel was restarted, or shut down
      lost = true;
    }
  }
  function look() {
    if (++looks % 8 === 0) send({}); // no question: only to see whether it can be sent
    const status = kernelStatus(model), waited = performance.now() - since;
    if (lost || STOPPED.includes(status) || el.closest(".jupyter-widgets-disconnected")) say(GONE);
    else if (heard || waited < PATIENCE) say(computes);
    else say(status === "" ? SILENT : status === "busy" ? BUSY : GONE);
  }
  function listen(/** @type {Answer | undefined} */ message) {
    if (message?.error && !message.done) { // a choice went wrong: say so until the next one
      clearInterval(timer);
      timer = 0;
      say(message.error);
    } else if (id && message?.heard === id) {
      heard = true;
      look();
    }
  }
  function rest() {
    clearInterval(timer);
    [id, timer] = ["", 0];
    say("");
  }
  function ask(question = {}) {
    [id, heard, lost, since] = [freshId(), false, false, performance.now()];
    timer ||= window.setInterval(look, LOOK);
    send({ ask: id, ...question });
    look();
    return id;
  }
  model.on("msg:custom", listen);
  return {
    words: () => words,
    /** Whether the answer may still be on its way. */
    computes: () => words === computes,
    /** Ask something, such as { prompt }; returns the question's id. */
    ask,
    /**
     * Say with each drawing whether it lacks what the kernel has to compute; this must be before
     * that is sent, because the kernel answers in turn.
     * @param {boolean} yes
     */
    need(yes) {
      if (!yes) rest();
      else if (!id) ask();
    },
    rest,
    close() {
      clearInterval(timer);
      model.off("msg:custom", listen);
    },
  };
}

const STOPPED = ["dead", "terminating", "restarting", "autorestarting"];

/**
 * JupyterLab's kernel: "idle", "busy", "dead" and so on; "" where no status is known.
 * @param {Model<any>} model
 * @returns {string}
 */
function kernelStatus({ widget_manager: manager }) {
  if (!manager || !("kernel" in manager)) return "";
  return manager.kernel?.status ?? "dead"; // it has none after "Shut Down Kernel"
}

// ---- the box ----

/**
 * A text area and a button that runs the model on what is written there.
 * @param {Model<PromptValues>} model
 * @param {Element} root the widget's
 * @param {(busy: boolean) => void} busy called when a run begins and when it ends
 */
export function promptBox(model, root, busy) {
  const id = freshId();
  let shown = "", asked = "", question = "";
  const area = node("textarea", {
    id, rows: 1, spellcheck: "false", autocapitalize: "off", "aria-describedby": `${id}-how`,
    oninput: fit,
  });
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") event.stopPropagation(); // digits and arrows are text here
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    run();
  });
  const go = button("Run", run, { class: "qk-main" });
  const line = node("div", { class: "qk-ask-line", role: "status" });
  const box = node("div", { class: "qk-ask", role: "group", "aria-label": "Prompt" },
    node("label", { for: id }, "Prompt"), area, go, line,
    node("span", { id: `${id}-how`, class: "qk-ask-how" }, "Enter runs it; Shift+Enter: new line"));
  const kernel = watchKernel(model, root, () => tell(kernel.words(), !kernel.computes()));

  function tell(/** @type {string} */ words, wrong = false) {
    line.textContent = words;
    line.classList.toggle("qk-wrong", wrong && words !== "");
    allow(go, !kernel.computes());
    busy(kernel.computes());
  }
  function fit() { // as high as its lines, up to some
    area.rows = 1;
    while (area.rows < MOST_LINES && area.scrollHeight > area.clientHeight) area.rows++;
  }
  function write(/** @type {string} */ text) {
    area.value = text;
    shown = area.value; // where "\r\n" is "\n"
    fit();
  }
  function run() {
    if (kernel.computes()) return;
    asked = area.value;
    question = kernel.ask({ prompt: asked });
  }
  function listen(/** @type {Answer | undefined} */ message) {
    if (!question || message?.done !== question) return;
    question = "";
    kernel.rest();
    tell(message.error ?? "", true);
  }
  function follow() { // but keep what the reader is writing
    if (area.value === shown || area.value === asked) write(model.get("prompt"));
  }
  model.on("msg:custom", listen);
  model.on("change:prompt", follow);
  write(model.get("prompt"));
  requestAnimationFrame(fit); // once it is on the page
  return {
    box,
    close() {
      kernel.close();
      model.off("msg:custom", listen);
      model.off("change:prompt", follow);
    },
  };
}

/**
 * A widget's frame with a prompt box; what is in it is built now, and again for another text.
 * @param {{model: Model<any>, el: HTMLElement}} place
 * @param {string} name of the widget
 * @param {(shell: Shell) => (() => void) | Promise<() => void>} build returns what ends it; it
 *   may use `body`, which is new each time, as it likes
 * @param {(before: any, after: any) => boolean} [isOther] whether new data is of another text
 */
export async function prompted({ model, el }, name, build, isOther = () => true) {
  const { root, controls, stage, live } = frame(el, name);
  const fresh = () => {
    const made = { controls: /** @type {HTMLElement} */ (controls.cloneNode()),
      stage: /** @type {HTMLElement} */ (stage.cloneNode()) };
    return { root, live, ...made, body: node("div", { class: "qk-body" }, made.controls, made.stage) };
  };
  let shell = fresh(), data = model.get("data");
  const ask = model.send && promptBox(model, root, (busy) => {
    root.setAttribute("aria-busy", String(busy));
    shell.body.inert = busy;
  });
  root.replaceChildren(...(ask ? [ask.box] : []), shell.body, live);
  let end = await build(shell);
  let work = Promise.resolve();

  async function again() {
    end();
    const before = shell.body;
    root.style.minHeight = `${root.offsetHeight}px`; // so that the page does not jump
    shell = fresh();
    before.replaceWith(shell.body);
    end = await build(shell);
    root.style.minHeight = "";
  }
  function renew() {
    const before = data;
    data = model.get("data");
    if (isOther(before, data)) work = work.then(again);
  }
  model.on("change:data", renew);
  return () => {
    model.off("change:data", renew);
    ask?.close();
    work.then(() => end());
  };
}
