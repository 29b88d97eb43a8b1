// GQAExplorer: which query heads share a kv head, and the bytes of the cache.
// `data` is described in gqa.py; every number drawn follows from `state` by the same formulas.

import {
  choice, choose, chosen, frame, node, onLook, painted, roomOf, say, slider,
} from "./common.js";
import { barTable, hue, keyed, panel, sizeOf, svgShape, walkKeys } from "./parts.js";

/**
 * @import { BarRow, ByKind, CacheBytes, Choose, GqaData, GqaModel, GqaShape, GqaState,
 *   HeadRow } from "./types.d.ts"
 */

const HUES = ["blue", "orange", "green", "pink", "sky", "vermilion"]; // of kv heads, as in plots

/** @param {{model: GqaModel, el: HTMLElement}} place */
export function render({ model, el }) {
  const { root, controls, stage, live } = frame(el, "Grouped-query attention");
  const data = model.get("data");
  /** @type {Choose<GqaState>} */
  const pick = (patch) => choose(model, patch);
  const bar = gqaControls(data, model, pick);
  const heads = headPicture(model, pick);
  const table = barTable("Bytes of the cache by the number of kv heads", "qk-stacked");
  const sum = node("div", { class: "qk-gqa-sum" }), shared = node("p", { class: "qk-note" });
  root.classList.add("qk-quiet");
  controls.classList.add("qk-settings");
  controls.append(...bar.parts);
  stage.classList.add("qk-gqa");
  stage.append(panel("Which query head uses which kv head", heads.box, shared),
    panel("Keys and values in the cache", table.table), panel("How many bytes", sum));

  function draw() {
    const state = chosen(model);
    const bytes = cacheBytes(state);
    bar.update(state);
    heads.draw(state);
    table.draw(byteRows(state, bytes));
    sum.replaceChildren(...sumLines(state, bytes).map((line) => node("p", {}, line)));
    shared.textContent = sharing(state);
    const words = `${sharing(state)} ${commas(bytes.token.chosen)} bytes per token, `
      + `${sizeOf(bytes.whole.chosen)} for ${plural(state.tokens, "token")}.`;
    say(live, words);
    root.qk = { state, bytes, words, preset: presetOf(data, state), lines: heads.lines() };
    painted(root);
  }
  model.on("change:state", draw);
  draw();
  const end = onLook(root, draw);
  return () => {
    end();
    model.off("change:state", draw);
  };
}

// ---- numbers ----

/** @param {number} number */
const commas = (number) => number.toLocaleString("en-US");
/** @param {number} number @param {string} what */
const plural = (number, what) => `${commas(number)} ${what}${number === 1 ? "" : "s"}`;
/** @param {number} number */
export const divisors = (number) =>
  Array.from({ length: number }, (_, i) => i + 1).filter((part) => number % part === 0);
/** @param {GqaShape} shape */
export const kindOf = ({ heads, kv_heads }) =>
  kv_heads === heads ? "MHA" : kv_heads === 1 ? "MQA" : "GQA";

// Keys and values of one token, and of all: with a kv head per query head, as chosen, with one.
/** @param {GqaState} state @returns {CacheBytes} */
export function cacheBytes({ heads, kv_heads, head_dim, layers, tokens, value_bytes }) {
  const kept = { MHA: heads, chosen: kv_heads, MQA: 1 };
  /** @param {number} more @returns {ByKind} */
  const of = (more) => {
    const all = (/** @type {number} */ kv) => 2 * layers * kv * head_dim * value_bytes * more;
    return { MHA: all(kept.MHA), chosen: all(kept.chosen), MQA: all(kept.MQA) };
  };
  return { kept, token: of(1), whole: of(tokens) };
}

/** @type {(keyof GqaShape)[]} */
const SHAPE = ["heads", "kv_heads", "head_dim", "layers"];
/** @param {GqaData} data @param {GqaState} state */
const presetOf = ({ presets, own }, state) =>
  Object.keys(presets).find((name) => SHAPE
    .every((key) => presets[name][key] === state[key])) || own;

// ---- words ----

/** @param {GqaState} state */
export function sharing({ heads, kv_heads, head }) {
  const size = heads / kv_heads, kv = Math.floor(head / size);
  const own = `Query head ${head} has kv head ${kv} for itself.`;
  return size === 1 ? own
    : `Query head ${head} uses kv head ${kv}, as do all from ${kv * size} to `
      + `${(kv + 1) * size - 1}.`;
}

/** @param {GqaState} state @param {CacheBytes} bytes @returns {BarRow[]} */
function byteRows(state, { kept, token, whole }) {
  const names = { MHA: "MHA", chosen: `chosen (${kindOf(state)})`, MQA: "MQA" };
  /** @type {(keyof ByKind)[]} */
  const kinds = ["MHA", "chosen", "MQA"];
  return kinds.map((key) => ({
    name: `${names[key]}: ${plural(kept[key], "kv head")}`,
    bars: [[whole[key] / whole.MHA, hue(key === "chosen" ? "blue" : "pale")]],
    texts: [`${commas(token[key])} bytes per token`, sizeOf(whole[key])],
  }));
}

/** @param {GqaState} state @param {CacheBytes} bytes */
export function sumLines({ heads, kv_heads, head_dim, layers, tokens, value_bytes }, { token, whole }) {
  const factors = [
    "2 (a key and a value)", plural(layers, "layer"), plural(kv_heads, "kv head"),
    plural(head_dim, "value"), plural(value_bytes, "byte"),
  ];
  const less = heads / kv_heads;
  return [
    `${factors.join(" × ")} = ${commas(token.chosen)} bytes per token`,
    `${commas(token.chosen)} bytes × ${plural(tokens, "token")} = ${sizeOf(whole.chosen)}`,
    less === 1 ? "Each query head has a kv head of its own: nothing is saved."
      : `${less} query heads share a kv head: the cache is ${less} times smaller than MHA's.`,
  ];
}

// ---- controls ----

/** @param {GqaData} data @param {GqaModel} model @param {Choose<GqaState>} pick */
function gqaControls(data, model, pick) {
  const state = chosen(model), { most } = data;
  const preset = choice({
    label: "Model", options: [...Object.keys(data.presets), data.own], value: "",
    on: (name) => (name in data.presets ? pick(fitted(data.presets[name])) : update(chosen(model))),
  });
  // The marked head must be one that exists.
  /** @param {{heads: number} & Partial<GqaState>} patch */
  const fitted = (patch) => ({ ...patch, head: Math.min(chosen(model).head, patch.heads - 1) });
  // Fewer or more query heads keep as many kv heads as divide them.
  /** @param {number} heads */
  const resize = (heads) => pick(fitted({
    heads, kv_heads: divisors(heads).filter((part) => part <= chosen(model).kv_heads).at(-1),
  }));
  const heads = slider({
    label: "Query heads", min: 1, max: most.heads, value: state.heads, on: resize,
  });
  const kv = choice({
    label: "kv heads", options: [], value: "", on: (value) => pick({ kv_heads: Number(value) }),
  });
  /** @param {string} label @param {"head_dim" | "layers"} key @param {number} step */
  const wide = (label, key, step) => slider({
    label, min: step, max: most[key], step, value: state[key],
    on: (value) => pick({ [key]: value }),
  });
  const dim = wide("Head dimension", "head_dim", 2), layers = wide("Layers", "layers", 1);
  const tokens = slider({ // each step doubles
    label: "Tokens", min: 0, max: Math.log2(most.tokens), step: 1, value: Math.log2(state.tokens),
    show: () => commas(chosen(model).tokens), on: (power) => pick({ tokens: 2 ** power }),
  });
  const bytes = choice({
    label: "Data type", value: String(state.value_bytes),
    options: Object.entries(data.bytes).map(([size, words]) =>
      [size, `${words} (${size} B)`]),
    on: (value) => pick({ value_bytes: Number(value) }),
  });
  /** @param {GqaState} next */
  function update(next) {
    preset.update(presetOf(data, next));
    heads.update(next.heads);
    kv.refill(divisors(next.heads).map(String), String(next.kv_heads));
    dim.update(next.head_dim);
    layers.update(next.layers);
    tokens.update(Math.log2(next.tokens));
    bytes.update(String(next.value_bytes));
  }
  return { parts: [preset, heads, kv, dim, layers, tokens, bytes], update };
}

// ---- the picture ----

const TOP = 24, TALL = 28, LOW = 122, HIGH = LOW + TALL + 4; // rows of the picture, in pixels

/** @param {GqaModel} model @param {Choose<GqaState>} pick */
function headPicture(model, pick) {
  const box = node("div", {
    class: "qk-gqa-heads qk-clickable", tabindex: 0, role: "application",
    "aria-label": "Query heads above the kv heads that they use; arrow keys choose a query head",
  });
  /** @type {[number, number][]} */
  let drawn = [];

  /** @param {GqaState} state */
  function draw(state) {
    const width = roomOf(box), size = state.heads / state.kv_heads;
    const one = width / state.heads, lit = Math.floor(state.head / size);
    const color = (/** @type {number} */ kv) => hue(HUES[kv % HUES.length]);
    const queries = { count: state.heads, width: one, y: TOP, letters: ["q"] };
    const lines = [], boxes = [];
    for (let head = 0; head < state.heads; head++) {
      const kv = Math.floor(head / size), x = (head + 0.5) * one, end = (kv + 0.5) * size * one;
      lines.push({ head, kv, part: svgShape("line", {
        x1: x, y1: TOP + TALL, x2: end, y2: LOW, style: `stroke: ${color(kv)}`,
        "stroke-width": head === state.head ? 5 : 1.5, "data-head": head, "data-kv": kv,
      }) });
      boxes.push(...headBox(queries, head, { lit: head === state.head, color: color(kv) }));
    }
    const keys = { count: state.kv_heads, width: size * one, y: LOW, letters: ["k", "v"] };
    for (let kv = 0; kv < state.kv_heads; kv++)
      boxes.push(...headBox(keys, kv, { lit: kv === lit, color: color(kv) }));
    const x = Math.max(75, Math.min(width - 75, (state.head + 0.5) * one));
    const name = svgShape("text", { x, y: 15, class: "qk-gqa-lit" });
    name.textContent = `q${state.head} uses k${lit}, v${lit}`;
    box.replaceChildren(svgShape("svg", { width, height: HIGH, "aria-hidden": "true" },
      ...lines.map(({ part }) => part), ...boxes, name));
    drawn = lines.map(({ head, kv }) => [head, kv]);
  }
  box.addEventListener("click", (event) => {
    const state = chosen(model), bounds = box.children[0].getBoundingClientRect();
    const head = Math.floor((event.clientX - bounds.left) / bounds.width * state.heads);
    pick({ head: Math.max(0, Math.min(state.heads - 1, head)) });
  });
  const size = () => chosen(model).heads, at = () => chosen(model).head;
  keyed(box, walkKeys(size, at, (head) => pick({ head })));
  return { box, draw, lines: () => drawn };
}

// A box and its name, "k0, v0", "k0" or "0": the longest that has room in all boxes of `row`.
/**
 * @param {HeadRow} row @param {number} number
 * @param {{lit: boolean, color: string}} options
 */
function headBox(row, number, { lit, color }) {
  const { width, y, letters } = row;
  const gap = Math.min(2, width * 0.1), x = number * width;
  const part = svgShape("rect", {
    x: x + gap, y, width: width - 2 * gap, height: TALL, rx: Math.min(6, width / 4),
    style: `fill: ${color}; stroke: ${lit ? hue("fg") : "none"}`, "stroke-width": 2.5,
  });
  /** @type {((i: number) => string)[]} */
  const forms = [
    (i) => letters.map((letter) => letter + i).join(", "), (i) => letters[0] + i, String,
  ];
  const form = forms.find((one) => 7.5 * one(row.count - 1).length + 4 <= width - 2 * gap);
  if (!form) return [part];
  const text = svgShape("text", {
    x: x + width / 2, y: y + TALL / 2 + 4.5, class: "qk-gqa-name",
  });
  text.textContent = form(number);
  return [part, text];
}
