// What the panels of ModelExplorer share: numbers of the trace, vectors as strips, maps, tables.
// Everything is HTML, SVG and color maps, so that a change of theme needs no redrawing.

import { heat, hover, node } from "./common.js";
import { linear, topIndices } from "./engine/ops.js";
import { bar, keyed, short, svgShape, walkKeys } from "./parts.js";

/** @typedef {import("./engine/trace.js").Trace} Trace */
/**
 * What a panel shows: the trace of the whole prompt, and what the reader chose.
 * @typedef {object} View
 * @property {import("./engine/model.js").Config} config
 * @property {number[]} ids the prompt, (T)
 * @property {string[]} tokens their shown forms, (T)
 * @property {Trace} trace all points, for the whole prompt
 * @property {Trace | null} base the same without edits; null where nothing is switched off
 * @property {number} layer
 * @property {number} head
 * @property {number} position the chosen token
 * @property {Float32Array} logits after the last token; without padding rows of the vocabulary
 * @property {{temperature: number, topK: number}} settings
 * @property {Map<string, import("./engine/safetensors.js").Tensor>} weights
 * @property {(id: number) => string} name the shown form of a token
 * @property {number} seen how many tokens the cache holds
 * @property {(patch: {head?: number, position?: number, layer?: number}) => void} choose
 * @property {HTMLElement} root the .qk element
 */

// ---- numbers of the trace ----

/** @type {(view: View, name: string) => string} a point of the chosen layer */
export const atLayer = (view, name) => `layers.${view.layer}.${name}`;

/**
 * One token's row of a point of shape (T, size).
 * @param {View} view
 * @param {string} name
 * @param {{position?: number, trace?: Trace}} [options]
 */
export function tokenRow(view, name, { position = view.position, trace = view.trace } = {}) {
  const value = trace.get(name), size = value.length / view.ids.length;
  return value.subarray(position * size, (position + 1) * size);
}

/**
 * One token's row of a point of shape (count, T, size), for one of `count` heads.
 * @param {View} view
 * @param {string} name without the layer
 * @param {number} head
 * @param {{position?: number, count?: number}} [options] count: how many heads the point has
 */
export function headRow(view, name, head, options = {}) {
  const { position = view.position, count = view.config.heads } = options;
  const value = view.trace.get(atLayer(view, name)), length = view.ids.length;
  const size = value.length / (count * length), at = (head * length + position) * size;
  return value.subarray(at, at + size);
}

/** @type {(view: View, head?: number) => number} which kv head serves a query head */
export const kvHeadOf = ({ config, head }, which = head) =>
  Math.floor(which / (config.heads / config.kvHeads));

/** @param {View} view @param {string} name */
export function weightOf({ weights }, name) {
  const found = weights.get(name);
  if (!found) throw new Error(`The checkpoint lacks ${name}.`);
  return found;
}

/** @param {View} view */
export const headWeight = (view) =>
  weightOf(view, view.config.tied ? "model.embed_tokens.weight" : "lm_head.weight");

/** @type {(view: View, row: Float32Array) => Float32Array} logits without padding rows */
export const logitsOf = (view, row) =>
  linear(row, headWeight(view)).subarray(0, view.logits.length);

/** @param {ArrayLike<number>} values */
export function normOf(values) {
  let squares = 0;
  for (let i = 0; i < values.length; i++) squares += values[i] * values[i];
  return Math.sqrt(squares);
}

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b */
export function dotOf(a, b) {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i] * b[i];
  return total;
}

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b 0 where one of them has no length */
export const cosineOf = (a, b) => dotOf(a, b) / (normOf(a) * normOf(b) || 1);

/** @param {ArrayLike<number>} values */
export function largestSize(values) {
  let most = 0;
  for (let i = 0; i < values.length; i++)
    if (Number.isFinite(values[i])) most = Math.max(most, Math.abs(values[i]));
  return most;
}

/** @param {number} value 1234567 as 1,234,567 */
export const withCommas = (value) => value.toLocaleString("en-US");

/** @param {number} part a probability, with a digit after the point near 0 and 1 */
export function chanceOf(part) {
  if (part === 0) return "0%";
  if (part < 0.0005) return "<0.1%";
  const rough = part >= 0.0995 && part < 0.9895 || part >= 0.9995;
  return `${(100 * part).toFixed(rough ? 0 : 1)}%`;
}

/** @type {(view: View, position?: number) => string} */
export const tokenName = ({ tokens, position: chosen }, position = chosen) =>
  `“${tokens[position]}” (${position})`;

// ---- texts ----

/** @param {...(string | Node)} words */
export const partWords = (...words) => node("p", { class: "qk-part-words" }, ...words);

/** @param {string} words */
export const codeWords = (words) => node("code", {}, words);

/** @param {string} words @param {string} color one of style.css's */
export const inked = (words, color) => node("b", { style: `color: var(--qk-${color})` }, words);

/** @param {string} token */
export const tokenWords = (token) => node("span", { class: "qk-token qk-part-token" }, token);

/**
 * Numbers with their names, as tiles.
 * @param {[string, string | Node, string?][]} facts name, value, and a key that tests find it by
 */
export const factTiles = (facts) => node("dl", { class: "qk-part-facts" },
  ...facts.map(([name, value, key]) =>
    node("div", {}, node("dt", {}, name), node("dd", { "data-fact": key }, value))));

/**
 * A picture or table with its heading.
 * @param {string} title
 * @param {...(string | Node)} children
 */
export const partBlock = (title, ...children) =>
  node("div", { class: "qk-part-block" }, node("h3", {}, title), ...children);

/** The same over the whole width. @param {string} title @param {...(string | Node)} children */
export function partWideBlock(title, ...children) {
  const made = partBlock(title, ...children);
  made.classList.add("qk-part-wide");
  return made;
}

/**
 * A table; a cell is a text or an element.
 * @param {string} label
 * @param {string[]} heads
 * @param {{cells: (string | Node)[], on?: boolean, faint?: boolean, data?: string}[]} rows on: the
 *   chosen one
 */
export function rowTable(label, heads, rows) {
  const cell = (/** @type {string | Node} */ one) =>
    node("td", { class: typeof one === "string" ? "qk-number" : null }, one);
  const ofNumbers = (/** @type {number} */ i) => i > 0 && typeof rows[0]?.cells[i] === "string";
  return node("table", { class: "qk-part-table", "aria-label": label },
    node("thead", {}, node("tr", {}, ...heads.map((name, i) =>
      node(name ? "th" : "td", { scope: name ? "col" : null,
        class: ofNumbers(i) ? "qk-number" : null }, name)))),
    node("tbody", {}, ...rows.map(({ cells: [first, ...others], on, faint, data }) =>
      node("tr", { class: on ? "qk-on" : faint ? "qk-faint" : null, "data-row": data },
        node("th", { scope: "row" }, first), ...others.map(cell)))));
}

/** @param {number} length from 0 to 1 @param {string} color one of style.css's */
export const lengthBar = (length, color) =>
  node("div", { class: "qk-part-bar", "aria-hidden": "true" }, bar(length, `var(--qk-${color})`));

/**
 * A bar from the middle: to the right above 0, to the left below.
 * @param {number} value
 * @param {number} most the size of the longest
 * @param {string} color
 */
export function signedBar(value, most, color) {
  const length = Number.isFinite(value) ? 50 * Math.abs(value) / (most || 1) : 0;
  return node("div", { class: "qk-part-signed", "aria-hidden": "true" }, node("i", {
    style: `background: var(--qk-${color}); width: ${length.toFixed(2)}%; left: `
      + `${(value < 0 ? 50 - length : 50).toFixed(2)}%`,
  }));
}

// ---- vectors ----

/**
 * Paint numbers, a pixel for each; what is not finite stays clear.
 * @param {ArrayLike<number>} values row by row
 * @param {number} columns
 * @param {{map?: import("./types.d.ts").ColorMap, low: number, high: number}} options
 */
export function paintedMap(values, columns, { map = "RdBu_r", low, high }) {
  const canvas = node("canvas");
  if (low === high) [low, high] = [low - 1, high + 1]; // all alike, as of a part switched off
  heat(canvas, values, values.length / columns, columns, { map, low, high });
  return canvas;
}

/**
 * A vector: its name, norm and first numbers, and all of them as a strip of colors.
 * @param {HTMLElement} box the panel
 * @param {string} name
 * @param {Float32Array} values
 * @param {{color?: string, bound?: number, data?: string, cuts?: number, aside?: string}} [options]
 *   bound: what the deepest color stands for; cuts: draw a line after every so many values
 */
export function vectorStrip(box, name, values, options = {}) {
  const { color = "soft", bound = largestSize(values), data, cuts } = options;
  const { aside = `${withCommas(values.length)} values, norm ${short(normOf(values))}` } = options;
  const canvas = paintedMap(values, values.length, { low: -bound, high: bound });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${name}: ${aside}; from ${short(Math.min(...values))} to `
    + short(Math.max(...values)));
  hover(box, canvas, (/** @type {PointerEvent} */ event) => {
    const i = Math.floor(event.offsetX / canvas.clientWidth * values.length);
    return i >= 0 && i < values.length ? `${name} [${i}] = ${short(values[i])}` : null;
  });
  const lines = cuts ? Array.from({ length: values.length / cuts - 1 }, (_, i) =>
    node("i", { style: `left: ${(100 * (i + 1) * cuts / values.length).toFixed(3)}%` })) : [];
  return node("div", { class: "qk-part-vector", style: `--own: var(--qk-${color})`,
    "data-vector": data },
    node("div", { class: "qk-part-name" }, node("b", {}, name), node("span", {}, aside)),
    node("div", { class: "qk-part-strip" }, canvas, ...lines),
    numbersLine(values));
}

/** The first numbers. @param {ArrayLike<number>} values */
const numbersLine = (values) => {
  const first = Array.from({ length: Math.min(8, values.length) }, (_, i) => short(values[i]));
  return node("div", { class: "qk-part-numbers" },
    ...first.map((one) => node("span", {}, one)), values.length > 8 ? "…" : "");
};

/** What the colors of strips mean. @param {number} bound */
export const strengthKey = (bound) => node("div", { class: "qk-part-key" },
  node("span", {}, short(-bound)), node("i", { class: "qk-part-ramp", "aria-hidden": "true" }),
  node("span", {}, short(bound)), node("span", {}, "white is 0"));

// ---- the tokens as bars, and as a map ----

/**
 * A control that walks along the tokens: keys, and a click whose place `found` tells.
 * @param {View} view
 * @param {HTMLElement} made
 * @param {{control: string, label: string, words: (position: number) => string,
 *   found: (event: MouseEvent) => number | null}} options
 */
function positionControl(view, made, { control, label, words, found }) {
  const length = view.ids.length;
  for (const [name, value] of Object.entries({
    role: "slider", tabindex: 0, "aria-label": label, "aria-valuemin": 0,
      "aria-valuenow": view.position,
    "aria-valuemax": length - 1, "aria-valuetext": words(view.position), "data-control": control,
  })) made.setAttribute(name, String(value));
  made.addEventListener("click", (event) => {
    const position = found(event);
    if (position !== null) view.choose({ position });
  });
  keyed(made, walkKeys(() => length, () => view.position,
    (/** @type {number} */ position) => view.choose({ position })));
}

/**
 * A bar for each token of the prompt; a click or the arrow keys choose one.
 * @param {HTMLElement} box the panel
 * @param {View} view
 * @param {string} label what the bars show
 * @param {ArrayLike<number>} values one per token, 0 or more
 * @param {string} color
 */
export function positionBars(box, view, label, values, color = "blue") {
  const most = largestSize(values) || 1, length = view.ids.length;
  const words = (/** @type {number} */ i) => `${tokenName(view, i)}: ${short(values[i])}`;
  const bars = Array.from({ length }, (_, i) => node("i", {
    class: i === view.position ? "qk-on" : null,
    style: `height: ${Math.max(2, 100 * values[i] / most).toFixed(1)}%; background: `
      + `var(--qk-${i === view.position ? "vermilion" : color})`,
  }));
  const made = node("div", { class: "qk-part-positions", style: length > 60 ? "gap: 0" : null },
    ...bars);
  const under = (/** @type {MouseEvent} */ { clientX }) => {
    const { left, width } = made.getBoundingClientRect();
    return Math.max(0, Math.min(length - 1, Math.floor((clientX - left) / width * length)));
  };
  positionControl(view, made, { control: label, label: `${label}; arrow keys choose a token`,
    words, found: under });
  hover(box, made, (/** @type {PointerEvent} */ event) => words(under(event)));
  return node("div", {}, made,
    node("div", { class: "qk-part-ends" }, node("span", {}, "first token"),
      node("span", {}, "last token")));
}

const LONG = 48; // tokens; from here on attention weights are shaded by their square root

/** @type {(view: View) => boolean} weak weights are many in a long prompt, and would all be dark */
export const shadesByRoot = ({ ids }) => ids.length > LONG;

/**
 * A head's attention weights as a map; later keys stay clear. In a long prompt a pixel is the
 * largest of several weights: a strong one is not lost where the map is shown smaller.
 * @param {View} view
 * @param {Float32Array} values (T, T)
 * @param {number} most how many pixels a side
 */
export function weightMap(view, values, most) {
  const length = view.ids.length, step = Math.ceil(length / most), side = Math.ceil(length / step);
  const pixels = new Float32Array(side * side).fill(NaN);
  for (let row = 0; row < length; row++)
    for (let key = 0; key <= row; key++) {
      const at = Math.floor(row / step) * side + Math.floor(key / step);
      const value = values[row * length + key];
      if (!(pixels[at] >= value)) pixels[at] = value;
    }
  const shades = shadesByRoot(view) ? pixels.map(Math.sqrt) : pixels;
  const canvas = paintedMap(shades, side, { map: "viridis", low: 0, high: 1 });
  return stretched(canvas, side * step / length);
}

/**
 * The last pixels of a map may stand for fewer tokens: let it reach beyond its field by the rest.
 * @param {HTMLCanvasElement} canvas
 * @param {number} ratio
 */
function stretched(canvas, ratio) {
  if (ratio > 1) canvas.style.width = canvas.style.height = `${(100 * ratio).toFixed(2)}%`;
  return canvas;
}

/**
 * A head's scores as a map; later keys stay clear.
 * @param {View} view
 * @param {Float32Array} values (T, T)
 * @param {number} bound what the deepest colors stand for
 */
export function scoreMap(view, values, bound) {
  const length = view.ids.length;
  const seen = values.map((value, i) => i % length > Math.floor(i / length) ? NaN : value);
  const canvas = paintedMap(seen, length, { low: -bound, high: bound });
  if (length > LONG) canvas.style.imageRendering = "auto"; // several values per pixel: their mean
  return canvas;
}

const MOST_LABELS = 24; // along an edge of a map

/**
 * A map with a row per query position and a column per key position; a click or the arrow keys
 * choose a row. Later keys are masked: they stay clear.
 * @param {HTMLElement} box the panel
 * @param {View} view
 * @param {{values: Float32Array, canvas: HTMLCanvasElement, label: string,
 *   show: (value: number) => string, control: string}} options values: (T, T); canvas: their map
 */
export function squareMap(box, view, { values, canvas, label, show, control }) {
  const length = view.ids.length, { position, tokens } = view;
  const part = (/** @type {number} */ count) => `${(100 * count / length).toFixed(3)}%`;
  const field = node("div", { class: "qk-part-field" }, canvas, node("i", {
    class: "qk-part-frame",
    style: `top: ${part(position)}; height: ${part(1)}; width: ${part(position + 1)}`,
  }));
  const under = (/** @type {MouseEvent} */ event) => {
    const { left, top, width } = field.getBoundingClientRect();
    const at = (/** @type {number} */ offset) =>
      Math.max(0, Math.min(length - 1, Math.floor(offset / width * length)));
    return [at(event.clientY - top), at(event.clientX - left)];
  };
  const strongest = (/** @type {number} */ row) =>
    topIndices(values.subarray(row * length, row * length + row + 1), 1)[0];
  const pairWords = (/** @type {number} */ row, /** @type {number} */ key) => key > row
    ? `${tokenName(view, row)} cannot attend to the later ${tokenName(view, key)}`
    : `query ${tokenName(view, row)}, key ${tokenName(view, key)}: `
      + `${show(values[row * length + key])}`;
  positionControl(view, field, {
    control, label: `${label}; arrow keys choose the query position`,
    words: (row) => `strongest of the row: ${pairWords(row, strongest(row))}`,
    found: (event) => under(event)[0],
  });
  hover(box, field, (/** @type {PointerEvent} */ event) => {
    const [row, key] = under(event);
    return pairWords(row, key);
  });
  const every = Math.ceil(length / MOST_LABELS), middle = Math.floor(every / 2);
  const labels = (/** @type {string} */ kind) => node("div", { class: kind, "aria-hidden": "true" },
    ...tokens.map((token, i) => node("span", { class: i === position ? "qk-on" : null },
      i === position || i % every === middle && Math.abs(i - position) >= every ? token : "")));
  return node("div", { class: "qk-part-map" },
    node("div", { class: "qk-part-axis" }, "query ↓ key →"), labels("qk-part-above"),
    labels("qk-part-left"), field);
}

// ---- SVG ----

/**
 * An arrow from one point to another, in pixels.
 * @param {[number, number]} from
 * @param {[number, number]} to
 * @param {string} color one of style.css's
 * @param {{width?: number, dash?: string}} [options]
 */
export function svgArrow([x, y], [toX, toY], color, { width = 2, dash } = {}) {
  const angle = Math.atan2(toY - y, toX - x), length = Math.hypot(toX - x, toY - y);
  const head = Math.min(3 + 2 * width, length), ink = `var(--qk-${color})`;
  const corners = [0.45, -0.45].map((side) =>
    [toX - head * Math.cos(angle + side), toY - head * Math.sin(angle + side)]
      .map((one) => one.toFixed(2)));
  const stop = Math.max(0, length - 0.8 * head);
  return svgShape("g", {},
    svgShape("line", {
      x1: x, y1: y, x2: (x + stop * Math.cos(angle)).toFixed(2),
        y2: (y + stop * Math.sin(angle)).toFixed(2),
      style: `stroke: ${ink}`, "stroke-width": width, "stroke-dasharray": dash,
    }),
    svgShape("polygon", { points: `${toX.toFixed(2)},${toY.toFixed(2)} ${corners.join(" ")}`,
      style: `fill: ${ink}` }));
}
