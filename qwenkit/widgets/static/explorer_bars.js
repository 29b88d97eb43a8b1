// The next token's bars in ModelExplorer, with what the settings change, and the cache's line.

import { node, percent, slider } from "./common.js";
import { sizeOf } from "./parts.js";
import { topIndices } from "./engine/ops.js";
import { probabilities } from "./engine/sampling.js";

/** @typedef {{temperature: number, topK: number}} Settings */

const BARS = 8;
const BYTES = 4; // of a value in the cache: the engine computes in float32

/**
 * @param {Settings} settings
 * @param {{set: (patch: Partial<Settings>) => void, append: (id: number) => void,
 *   name: (id: number) => string}} actions append: go on with this token
 */
export function nextBars(settings, actions) {
  const title = node("h2", {}, "Next token");
  const rows = Array.from({ length: BARS }, () => {
    const span = (/** @type {string} */ look) => node("span", { class: look });
    const token = span("qk-token qkx-bar-token"), number = span("qkx-bar-number");
    const bar = span("qkx-bar-own"), before = span("qkx-bar-before"), drawn = span("qkx-bar-drawn");
    const track = node("span", { class: "qkx-track" }, bar, before, drawn);
    const made = node("button", {
      type: "button", class: "qkx-bar-row", onclick: () => actions.append(Number(made.dataset.id)),
    }, token, " ", track, number); // its text is its name, too
    return { made, token, bar, before, drawn, number };
  });
  const list = node("div", {
    class: "qkx-bars", role: "group", "aria-label": "Most likely next tokens",
  }, ...rows.map(({ made }) => made));
  const legend = node("p", { class: "qkx-legend" });
  const sliders = {
    temperature: slider({
      label: "Temperature", min: 0, max: 2, step: 0.1, value: settings.temperature,
      on: (/** @type {number} */ temperature) => actions.set({ temperature }),
      show: /** @type {any} */ ((/** @type {number} */ value) =>
        (value === 0 ? "0 (greedy)" : value.toFixed(1))),
    }),
    topK: slider({
      label: "Top-k", min: 0, max: 50, value: settings.topK,
      on: (/** @type {number} */ topK) => actions.set({ topK }),
      show: /** @type {any} */ ((/** @type {number} */ value) =>
        (value === 0 ? "off" : String(value))),
    }),
  };
  const box = node("section", { class: "qkx-card qkx-next", "aria-label": "Next token" }, title,
    list, legend, node("div", { class: "qkx-sliders" }, sliders.temperature, sliders.topK));

  /**
   * @param {{logits: Float32Array, before: Float32Array | null, settings: Settings,
   *   after: string, actual: number | null, off: number}} shown before: logits with all parts on,
   *   if any is off; actual: the token that follows in the text
   */
  function draw({ logits, before, settings: now, after, actual, off }) {
    const own = probabilities(logits), was = before && probabilities(before);
    const plain = now.temperature === 0 || (now.temperature === 1 && !now.topK);
    const drawn = plain ? null : probabilities(logits, now);
    const order = topIndices(was ? own.map((p, id) => Math.max(p, was[id])) : own, BARS); // what fell stays
    title.replaceChildren("Next token after ",
      node("span", { class: "qk-token qkx-after" }, after));
    list.classList.toggle("qkx-two", Boolean(was));
    rows.forEach(({ made, token, bar, before: ghost, drawn: thin, number }, i) => {
      made.hidden = i >= order.length;
      if (made.hidden) return;
      const id = order[i];
      made.dataset.id = String(id);
      made.classList.toggle("qkx-actual", id === actual);
      made.title = id === actual ? "This token follows in the text" : "Click to append it";
      token.textContent = actions.name(id);
      bar.style.width = `${100 * own[id]}%`;
      ghost.style.width = was ? `${100 * was[id]}%` : "0";
      ghost.hidden = !was;
      thin.style.width = drawn ? `${100 * drawn[id]}%` : "0";
      thin.hidden = !drawn;
      number.textContent = was ? `${percent(was[id])} → ${percent(own[id])}` : percent(own[id]);
    });
    legend.replaceChildren(...sentences(now, Boolean(drawn), off));
    return { own, was, order };
  }

  /** Nothing to show. @param {string} why */
  function empty(why) {
    title.textContent = "Next token";
    for (const { made } of rows) made.hidden = true;
    legend.textContent = why;
  }
  /** @param {Settings} now */
  function update(now) {
    sliders.temperature.update(now.temperature);
    sliders.topK.update(now.topK);
  }
  return { box, draw, empty, update };
}

/** @param {Settings} settings @param {boolean} drawn @param {number} off */
function sentences({ temperature, topK }, drawn, off) {
  const key = (/** @type {string} */ look, /** @type {string} */ words) =>
    node("span", { class: "qk-item" }, node("span", { class: `qkx-key ${look}` }), ` ${words}`);
  const found = [key("qkx-bar-own", "the model's probability")];
  if (off) found.push(key("qkx-bar-before", `with everything on (${off} off now)`));
  const filter = topK ? `, top-k ${topK}` : "";
  const words = `drawn with temperature ${temperature.toFixed(1)}${filter}`;
  if (drawn) found.push(key("qkx-bar-drawn", words));
  else if (temperature === 0)
    found.push(node("span", { class: "qk-item" }, "Greedy: Generate takes the most likely."));
  return found;
}

/**
 * The cache as a line of cells, one for each token.
 * @param {import("./engine/model.js").Config} config
 * @param {number} room
 * @param {() => void} open
 */
export function cacheLine(config, room, open) {
  const each = 2 * config.layers * config.kvHeads * config.size;
  const words = node("span", { class: "qkx-cache-words" });
  const fill = node("span", { class: "qkx-cache-fill" });
  const box = node("button", { type: "button", class: "qkx-card qkx-cache", onclick: open },
    node("b", {}, "KV cache"),
    node("span", { class: "qkx-cache-track", "aria-hidden": "true" }, fill), words);
  /** @param {number} length @param {number | null} speed tokens per second */
  function draw(length, speed) {
    fill.style.width = `${100 * length / room}%`;
    const rate = speed === null ? "" : ` · ${Math.round(speed)} tokens/s`;
    words.textContent = `${length} of ${room} tokens × ${each.toLocaleString("en")} values = `
      + `${sizeOf(length * each * BYTES)}${rate}`;
  }
  return { box, draw };
}
