// SamplingExplorer: one distribution, and what the settings keep of it.
// `data` is described in sampling.py; the logits come compressed, the largest first. Every filter
// keeps the first tokens of that order, so a number, `end`, says what is kept.

import {
  button, choose, chosen, freshId, inflate, node, painted, percent, say, slider,
} from "./common.js";
import { barTable, hue, panel, swatch } from "./parts.js";
import { prompted } from "./prompt.js";

/**
 * @import { BarRow, Choose, Draws, Filter, Numbers, Sampled, SamplingData, SamplingModel,
 *   SamplingSettings, SamplingState, Shell, SliderOptions } from "./types.d.ts"
 */

/** @type {Record<string, string>} */
const CUT_COLORS = { top_k: hue("pink"), top_p: hue("orange"), min_p: hue("sky") };
const BEFORE = hue("pale"), AFTER = hue("blue");
const dashed = (/** @type {string} */ name) => name.replace("_", "-");

/** @param {{model: SamplingModel, el: HTMLElement}} place */
export const render = (place) =>
  prompted(place, "Sampling the next token", (shell) => samplingBody(place.model, shell));

/** @param {SamplingModel} model @param {Shell} shell */
async function samplingBody(model, { root, controls, stage, live }) {
  const data = model.get("data");
  const logits = new Float32Array((await inflate(data.logits)).buffer);
  const before = softmax(logits, 1);
  /** @type {Choose<SamplingState>} */
  const pick = (patch) => choose(model, patch);
  const bar = samplingControls(chosen(model), pick);
  root.classList.add("qk-quiet");
  controls.classList.add("qk-settings");
  controls.append(...bar.parts);
  const text = node("div", { class: "qk-line qk-prompt", role: "region", tabindex: 0,
    "aria-label": "The prompt as tokens" });
  text.append(...promptTokens(data.prompt));
  const strip = massStrip();
  const bars = barTable("The most likely tokens: probability before and after",
    "qk-stacked");
  const draws = drawPanel(data, model, pick);
  controls.before(text);
  stage.classList.add("qk-sampling");
  stage.append(strip.box, panel("The most likely tokens", bars.table, node("div",
    { class: "qk-note" }, swatch(BEFORE), " before  ", swatch(AFTER), " after")), draws.box);
  text.scrollTop = text.scrollHeight;

  function draw() {
    if (model.get("data") !== data) return; // another text: all is about to be built again
    const state = chosen(model);
    const result = sampled(logits, state);
    const counts = countDraws(result.after, state);
    bar.update(state);
    strip.draw(result, before, logits.length);
    bars.draw(tokenRows(data, before, result, counts, state));
    draws.draw(state, counts);
    say(live, `${result.end} of ${logits.length} tokens kept; ${data.names[0]} `
      + `${percent(before[0])} before, ${percent(result.after[0])} after`);
    root.qk = { state, before, ...result, counts: Object.fromEntries(counts.sums), order: counts.order };
    painted(root);
  }
  model.on("change:state", draw);
  draw();
  return () => model.off("change:state", draw);
}

// The last tokens of the prompt, and an empty position.
/** @param {string[]} tokens */
function promptTokens(tokens) {
  const made = tokens.flatMap((words) => {
    const item = node("span", { class: "qk-token" }, words);
    return words.endsWith("↵") ? [item, node("br")] : [item];
  });
  return [...made, node("span", { class: "qk-token qk-next" }, "?")];
}

// ---- numbers ----

/** @param {Float32Array} logits the largest first @param {number} temperature */
export function softmax(logits, temperature) {
  const powers = Float64Array.from(logits, (logit) => Math.exp((logit - logits[0]) / temperature));
  const sum = powers.reduce((one, other) => one + other, 0);
  return powers.map((power) => power / sum);
}

// Temperature, then top-k, top-p and min-p, as Sampling.transforms applies them.
/** @param {Float32Array} logits @param {SamplingSettings} settings @returns {Sampled} */
export function sampled(logits, { temperature, top_k: k, top_p: p, min_p: m }) {
  const greedy = temperature === 0;
  const tempered = greedy ? Float64Array.from(logits, (_, i) => (i ? 0 : 1)) : softmax(logits, temperature);
  let end = greedy ? 1 : logits.length;
  /** @type {Sampled["cuts"]} */
  const cuts = {};
  /** @param {Filter} name @param {boolean} on @param {() => number} filter */
  const cut = (name, on, filter) => {
    if (greedy || !on) return;
    const next = filter();
    cuts[name] = [end - next, sumOf(tempered, next, end)];
    end = next;
  };
  cut("top_k", k !== 0, () => {
    let next = Math.min(k, end);
    while (next < end && logits[next] === logits[k - 1]) next++; // tokens that are as likely stay too
    return next;
  });
  cut("top_p", p !== 1, () => {
    const enough = p * sumOf(tempered, 0, end);
    let next = 1;
    for (let reach = tempered[0]; next < end && reach < enough; next++) reach += tempered[next];
    return next;
  });
  cut("min_p", m !== 0, () => {
    let next = 1;
    while (next < end && tempered[next] >= m * tempered[0]) next++;
    return next;
  });
  const share = sumOf(tempered, 0, end);
  const after = tempered.map((value, i) => (i < end ? value / share : 0));
  return { end, share, cuts, tempered, after };
}

/** @param {Numbers} values @param {number} from @param {number} to */
export function sumOf(values, from, to) {
  let total = 0;
  for (let i = from; i < to; i++) total += values[i];
  return total;
}

/** @param {Float64Array} probs */
export const entropy = (probs) =>
  Math.max(0, -probs.reduce((total, p) => total + (p ? p * Math.log(p) : 0), 0));

// The same numbers from 0 to 1 as _random_numbers in sampling.py.
/** @param {number} seed @param {number} count @returns {Generator<number>} */
export function* randomNumbers(seed, count) {
  for (; count > 0; count--) {
    seed = seed + 0x6d2b79f5 | 0;
    let mixed = Math.imul(seed ^ seed >>> 15, seed | 1);
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61);
    yield ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32;
  }
}

// Which ranks were drawn, in order, and how often each.
/** @param {Float64Array} after @param {{seed: number, draws: number}} state @returns {Draws} */
export function countDraws(after, { seed, draws }) {
  const reach = new Float64Array(after.length);
  after.forEach((p, i) => { reach[i] = p + (i ? reach[i - 1] : 0); });
  const whole = reach[reach.length - 1];
  const order = Array.from(randomNumbers(seed, draws), (number) => above(reach, number * whole));
  const sums = new Map();
  for (const rank of order) sums.set(rank, (sums.get(rank) || 0) + 1);
  return { order, sums };
}

// The first index whose value is above a number.
/** @param {Float64Array} values @param {number} number */
export function above(values, number) {
  let low = 0, high = values.length - 1;
  while (low < high) {
    const middle = low + high >> 1;
    if (values[middle] > number) high = middle;
    else low = middle + 1;
  }
  return low;
}

// ---- controls ----

/** @param {SamplingState} state @param {Choose<SamplingState>} pick */
function samplingControls(state, pick) {
  /** @param {number} none @returns {(value: number) => string} */
  const off = (none) => (value) => (value === none ? "off" : String(value));
  /** @type {Record<keyof SamplingSettings, Omit<SliderOptions, "value" | "on">>} */
  const specs = {
    temperature: { label: "Temperature", min: 0, max: 2, step: 0.05,
      show: (value) => (value === 0 ? "0: greedy" : String(value)) },
    top_k: { label: "Top-k", min: 0, max: 100, show: off(0) },
    top_p: { label: "Top-p", min: 0.01, max: 1, step: 0.01, show: off(1) },
    min_p: { label: "Min-p", min: 0, max: 0.5, step: 0.01, show: off(0) },
  };
  const names = /** @type {(keyof SamplingSettings)[]} */ (Object.keys(specs));
  const made = names.map((name) => ({ name, control: slider({
    ...specs[name], value: state[name], on: (value) => pick({ [name]: value }),
  }) }));
  const reset = button("Reset", () => pick({ temperature: 1, top_k: 0, top_p: 1, min_p: 0 }));
  /** @param {SamplingState} next */
  const update = (next) => made.forEach(({ name, control }) => control.update(next[name]));
  return { parts: [...made.map(({ control }) => control), reset], update };
}

// What is kept and what each filter cuts of the probability, as one strip of full width.
function massStrip() {
  const strip = node("div", { class: "qk-strip", "aria-hidden": "true" });
  const legend = node("div", { class: "qk-legend" }), words = node("p", { class: "qk-note" });
  /** @param {Sampled} result @param {Float64Array} before @param {number} length */
  function draw({ end, share, cuts, after }, before, length) {
    /** @type {[string, number, number, string][]} */
    const parts = [["kept", end, share, AFTER],
      ...Object.entries(cuts).map(([name, [count, mass]]) =>
        /** @type {[string, number, number, string]} */ ([name, count, mass, CUT_COLORS[name]]))];
    strip.replaceChildren(...parts.map(([, , mass, color]) =>
      node("div", { style: `width: ${100 * mass}%; background: ${color}` })));
    const was = entropy(before), is = entropy(after);
    const many = (/** @type {number} */ nats) => Math.exp(nats).toFixed(1);
    legend.replaceChildren(...parts.map(([name, count, mass, color]) =>
      node("span", {}, swatch(color),
        ` ${name === "kept" ? "kept" : `cut by ${dashed(name)}`}: ${count.toLocaleString("en")} of `
        + `${length.toLocaleString("en")} tokens, ${(100 * mass).toFixed(1)}% of the probability`)));
    words.textContent = `Entropy ${was.toFixed(2)} → ${is.toFixed(2)} nats: as of `
      + `${many(was)} → ${many(is)} equally likely tokens.`;
  }
  const box = panel("What is kept of the probability", strip, legend, words);
  box.classList.add("qk-mass");
  return { box, draw };
}

/**
 * @param {SamplingData} data @param {Float64Array} before @param {Sampled} result
 * @param {Draws} counts @param {SamplingState} state
 * @returns {BarRow[]}
 */
export function tokenRows({ names, shown }, before, { after, end, cuts }, { sums }, { draws }) {
  const count = Math.min(shown, names.length);
  const most = Math.max(before[0], after[0]);
  /** @type {[string, number, number][]} */
  const ends = []; // after each filter, the last first: which one cuts a rank
  let reach = end;
  for (const [name, [cut]] of Object.entries(cuts).reverse()) ends.push([name, reach, reach += cut]);
  const cutBy = (/** @type {number} */ i) => ends.find(([, from, to]) => i >= from && i < to)?.[0];
  /** @param {number} was @param {string} is @param {number} [times] */
  const texts = (was, is, times) => [percent(was), `→ ${is}`, ...(draws ? [`${times || 0}×`] : [])];
  const rows = Array.from({ length: count }, (_, i) => {
    const filter = cutBy(i);
    const cut = i >= end && (filter ? `cut by ${dashed(filter)}` : "never drawn");
    /** @type {BarRow} */
    const row = {
      name: names[i], faint: i >= end, bars: [[before[i] / most, BEFORE], [after[i] / most, AFTER]],
      texts: texts(before[i], cut || percent(after[i]), sums.get(i)),
    };
    return row;
  });
  const rest = [before, after].map((probs) => sumOf(probs, count, probs.length));
  const others = [...sums].reduce((total, [i, times]) => total + (i >= count ? times : 0), 0);
  rows.push({
    name: `${(before.length - count).toLocaleString("en")} others`, faint: end <= count,
    bars: [], // together they may be more than any bar
    texts: texts(rest[0], percent(rest[1]), others),
  });
  return rows;
}

// ---- draws ----

/**
 * @param {SamplingData} data @param {SamplingModel} model
 * @param {Choose<SamplingState>} pick
 */
function drawPanel({ names, most_draws: most }, model, pick) {
  const more = (/** @type {number} */ by) => () =>
    pick({ draws: Math.min(most, chosen(model).draws + by) });
  const id = freshId();
  const seed = node("input", { id, type: "number", min: 0, max: 2 ** 32 - 1, step: 1, class: "qk-seed" });
  seed.addEventListener("change", () => {
    const value = Math.round(Number(seed.value));
    pick({ seed: Number.isFinite(value) ? Math.max(0, Math.min(2 ** 32 - 1, value)) : 0 });
  });
  const buttons = node("div", { class: "qk-controls qk-buttons" },
    button("Draw one", more(1), { class: "qk-main" }), button("Draw 100", more(100)), button("Clear", () => pick({ draws: 0 })),
    node("span", { class: "qk-control" }, node("label", { for: id }, "Seed"), seed));
  const words = node("div", { class: "qk-note" });
  const list = node("div", { class: "qk-drawn", role: "group",
    "aria-label": "The last tokens drawn" });
  /** @param {SamplingState} state @param {Draws} counts */
  function draw(state, { order }) {
    if (Number(seed.value) !== state.seed || seed.value === "") seed.value = String(state.seed);
    words.textContent = state.draws
      ? `${state.draws.toLocaleString("en")} drawn; other settings use the same random numbers. The last:`
      : "Nothing drawn yet. The same seed and settings always draw the same tokens.";
    list.replaceChildren(...order.slice(-24).map((rank) =>
      node("span", { class: "qk-token" }, names[rank] ?? `(number ${rank})`)));
  }
  return { box: panel("Draw tokens", buttons, words, list), draw };
}
