// GenerationStepper: a text that grows token by token, its alternatives, and the cache filling.
// `data` is described in stepper.py. What comes next after a path is in data.visited, by its ids.

import {
  button, choose, chosen, ink, node, onLook, painted, percent, roomOf, say, sharp,
} from "./common.js";
import { allow, bar, hue, keyed, panel, swatch, tokenLine } from "./parts.js";
import { prompted, watchKernel } from "./prompt.js";

/**
 * @import { Offer, Shell, StepActions, StepperData, StepperModel, StepView } from "./types.d.ts"
 */

const PROMPT = "blue", NEW = "vermilion", FREE = "line"; // colors of style.css
const BURST = 10; // tokens that one press of a button adds
const pathKey = (/** @type {number[]} */ path) => path.join(",");

/** @param {{model: StepperModel, el: HTMLElement}} place */
export const render = (place) =>
  prompted(place, "Generation step by step", (shell) => stepperBody(place.model, shell), isOtherText);

/** @param {StepperData} one @param {StepperData} other */
const isOtherText = (one, other) =>
  one.prompt.join("") !== other.prompt.join("") || one.max_new_tokens !== other.max_new_tokens;

/** @param {StepperModel} model @param {Shell} shell */
function stepperBody(model, { root, body, controls, stage, live }) {
  /** @param {number[]} path @param {number} at */
  const go = (path, at) => choose(model, { path, at });
  const steps = stepActions(model, go);
  const line = tokenLine("The text; arrow keys go back and forward, Enter adds the most likely token",
    (position) => steps.to(position + 1 - model.get("data").prompt.length));
  keyed(line.list, { Enter: steps.add });
  keyed(body, Object.fromEntries(
    Array.from({ length: 8 }, (_, i) => [String(i + 1), () => steps.take(i)])));
  const bar = stepButtons(steps);
  root.classList.add("qk-quiet");
  controls.classList.add("qk-buttons");
  controls.append(...bar.buttons);
  const wait = node("span", { class: "qk-note", role: "status" });
  controls.append(wait);
  const offers = offersPanel(steps.take);
  const cache = cachePanel(model.get("data"));
  stage.before(line.list);
  stage.classList.add("qk-stepper");
  stage.append(offers.box, cache.box);
  /** @type {string | null} */
  let written = null;
  const kernel = watchKernel(model, root, sayWait);

  function draw() {
    const view = stepView(model);
    if (pathKey(view.path) !== written) line.fill(view.tokens);
    written = pathKey(view.path);
    line.draw(view.length - 1, view.shades);
    [...line.list.querySelectorAll("[data-position]")].forEach((item, i) => {
      item.classList.toggle("qk-faint", i >= view.length);
      item.classList.toggle("qk-given", i < view.data.prompt.length);
    });
    bar.draw(view);
    kernel.need(!view.offers && !view.alone);
    sayWait();
    offers.draw(view);
    cache.draw(view, root);
    say(live, view.offers?.length
      ? `Tokens added: ${view.at}; the most likely next: ${view.offers[0][1]} ${percent(view.offers[0][2])}`
      : wait.textContent);
    root.qk = view;
    painted(root);
    if (view.offers) steps.goOn();
  }
  function sayWait() {
    const words = kernel.words();
    wait.textContent = words || waitWords(stepView(model));
    wait.classList.toggle("qk-wrong", words !== "" && !kernel.computes());
  }
  for (const signal of ["change:state", "change:data"]) model.on(signal, draw);
  draw();
  const end = onLook(root, draw);
  return () => {
    end();
    kernel.close();
    for (const signal of ["change:state", "change:data"]) model.off(signal, draw);
  };
}

// What is shown: the text, what comes next, and how full the cache is.
/** @param {StepperModel} model @returns {StepView} */
export function stepView(model) {
  const data = model.get("data"), { path, at } = chosen(model);
  /** @param {number} step @returns {Offer[] | undefined} */
  const offered = (step) => data.visited[pathKey(path.slice(0, step))];
  const taken = path.map((id, step) => offered(step)?.find(([number]) => number === id));
  const offers = offered(at); // undefined: the kernel has not answered yet
  const ended = at > 0 && data.stop_ids.includes(path[at - 1]);
  const alone = Boolean(model.alone);
  return {
    data, path, at, offers, ended, alone,
    full: at >= data.max_new_tokens,
    tokens: [...data.prompt, ...taken.map((one) => one?.[1] ?? "…")],
    shades: [...data.prompt.map(() => 0), ...taken.map((one) => 0.1 + 0.5 * (one?.[2] ?? 0))],
    length: data.prompt.length + at,
    cached: data.prompt.length + at - (ended ? 1 : 0),
    // without a kernel only steps that were visited are possible
    open: (id) => !alone || pathKey([...path.slice(0, at), id]) in data.visited,
  };
}

/**
 * @param {StepperModel} model @param {(path: number[], at: number) => void} go
 * @returns {StepActions}
 */
function stepActions(model, go) {
  let left = 0; // tokens that a burst still has to add
  /** @type {number | null} */
  let timer = null; // the pause before the next one
  const now = () => stepView(model);
  /** @type {StepActions} */
  const steps = {
    to(at) {
      left = 0;
      const { path } = now();
      go(path, Math.max(0, Math.min(path.length, at)));
    },
    // Take an alternative; the old continuation is kept only where it begins with the same token.
    take(rank, burst = false) {
      if (!burst) left = 0;
      const { path, at, offers, full, open } = now();
      const id = offers?.[rank]?.[0];
      if (id === undefined || full || !open(id)) {
        left = 0;
        return;
      }
      go(path[at] === id ? path : [...path.slice(0, at), id], at + 1);
    },
    add: () => steps.take(0),
    burst() {
      left = BURST;
      steps.goOn();
    },
    goOn() {
      if (left <= 0 || timer) return;
      timer = setTimeout(() => { // slow enough to be seen
        timer = null;
        if (left-- > 0) steps.take(0, true);
      }, 40);
    },
    back: () => steps.to(now().at - 1),
    forward: () => steps.to(now().at + 1),
    restart: () => steps.to(0),
  };
  return steps;
}

/** @param {StepActions} steps */
function stepButtons(steps) {
  const restart = button("To the prompt", steps.restart);
  const back = button("◀ Back", steps.back);
  const forward = button("Forward again ▶", steps.forward);
  const add = button("Add the most likely", steps.add, { class: "qk-main" });
  const burst = button(`Add ${BURST}`, steps.burst);
  /** @param {StepView} view */
  function draw({ path, at, offers, full, open }) {
    for (const one of [restart, back]) allow(one, at > 0);
    allow(forward, at < path.length);
    const more = !full && Boolean(offers?.length && open(offers[0][0]));
    for (const one of [add, burst]) allow(one, more);
  }
  return { buttons: [restart, back, forward, add, burst], draw };
}

/** @param {StepView} view */
function waitWords({ offers, ended, full, alone, data, open }) {
  if (ended) return "The text has ended.";
  if (full) return `max_new_tokens = ${data.max_new_tokens} is reached.`;
  if (!offers || !alone || offers.every(([id]) => open(id))) return "";
  return offers.some(([id]) => open(id))
    ? "Tokens with a frame can be chosen; this page does not hold what follows the others."
    : "This page does not hold what follows.";
}

// The alternatives as buttons; the one that the text continues with is marked.
/** @param {(rank: number) => void} take */
function offersPanel(take) {
  const rows = Array.from({ length: 8 }, (_, rank) => {
    const key = button("", () => take(rank), { class: "qk-token" });
    const share = node("td", { class: "qk-bar" }), number = node("td", { class: "qk-number" });
    const row = node("tr", {}, node("td", { class: "qk-rank" }, String(rank + 1)),
      node("td", {}, key), share, number);
    return { key, share, number, row };
  });
  const table = node("table", { class: "qk-bars", "aria-label": "The next token" },
    node("tbody", {}, ...rows.map(({ row }) => row)));
  const note = node("div", { class: "qk-note" }, "Click one, or press 1 to 8, to continue with it.");
  /** @param {StepView} view */
  function draw({ offers = [], path, at, full, open, alone }) {
    note.hidden = full || !offers.some(([id]) => open(id));
    rows.forEach(({ key, share, number, row }, rank) => {
      /** @type {Offer | [null, string, number]} */
      const [id, name, chance] = offers[rank] || [null, "–", 0];
      key.textContent = name;
      allow(key, id !== null && !full && open(id));
      key.classList.toggle("qk-plain", alone && id !== null && !open(id));
      key.setAttribute("aria-pressed", String(id !== null && path[at] === id));
      key.setAttribute("aria-label", `${name}, ${percent(chance)}`);
      share.replaceChildren(bar(chance, hue("blue")));
      number.textContent = id === null ? "" : percent(chance);
      row.classList.toggle("qk-faint", id === null);
    });
  }
  return { box: panel("The next token", table, note), draw };
}

// A cell for each position of each layer: prompt, new, free.
/** @param {StepperData} data */
function cachePanel({ layers, kv_heads: heads, dim, prompt, max_new_tokens: more, token_bytes: bytes }) {
  const room = prompt.length + more;
  const high = Math.max(5, Math.min(18, Math.floor(220 / layers)));
  const canvas = node("canvas", { role: "img" }), box = node("div", {}, canvas);
  const words = node("p", { class: "qk-note" });
  const legend = node("p", { class: "qk-note" }, swatch(hue(PROMPT)), " prompt  ", swatch(hue(NEW)),
    " new  ", swatch(hue(FREE)), ` free; a row per layer, a column per position. A cell holds ${heads} keys `
    + `and ${heads} values (one for each kv head) of ${dim} dimensions.`);
  const count = (/** @type {number} */ number) => number.toLocaleString("en");
  /** @param {StepView} view @param {HTMLElement} root */
  function draw({ cached }, root) {
    const wide = Math.min(24, roomOf(box) / room), gap = wide > 3 ? 1 : 0;
    const context = sharp(canvas, room * wide, layers * high);
    const [full, added, free] = [PROMPT, NEW, FREE].map((name) => ink(root, name));
    for (let i = 0; i < room; i++) {
      context.fillStyle = i >= cached ? free : i < prompt.length ? full : added;
      for (let layer = 0; layer < layers; layer++)
        context.fillRect(i * wide, layer * high, wide - gap, high - 1);
    }
    words.textContent = `${count(cached)} of ${count(room)} positions in each of ${layers} layers: `
      + `${count(cached * bytes)} of ${count(room * bytes)} bytes (${count(bytes)} per token)`;
    canvas.setAttribute("aria-label", `The KV cache: ${words.textContent}`);
  }
  return { box: panel("KV cache", box, words, legend), draw };
}
