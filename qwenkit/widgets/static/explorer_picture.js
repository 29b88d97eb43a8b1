// The drawing of the model in ModelExplorer: the residual stream runs down at the left; in each
// layer attention and the MLP branch off to the right, and what they compute is added to it.

import { ink, node } from "./common.js";
import { keyed } from "./parts.js";

/** @typedef {import("./engine/model.js").Config} Config */
/** @typedef {import("./explorer_run.js").Run} Run */
/** @typedef {import("./explorer_run.js").Off} Off */
/** @typedef {{part: string, layer: number, head: number | null}} Place a part of the drawing */
/**
 * What the drawing shows: a run, and what was chosen.
 * @typedef {{run: Run, position: number, place: Place, off: Off[], token: string,
 *   guess: (layer: number) => [string, number]}} Shown
 */
/**
 * @typedef {{open: (place: Place) => void, flip: (off: Off) => void}} Actions open: show a part's
 *   panel; flip: switch a head or an MLP on or off
 */

const MOST_PIXELS = 64; // of a side of a head's small map
const BINS = 96; // bars of a strip
const WIDEST_STREAM = 26, THINNEST_STREAM = 3; // pixels

/** @param {Off} off @param {Off} one */
export const sameOff = (off, one) => off.layer === one.layer && off.head === one.head;
const keyOf = (/** @type {Place} */ { part, layer, head }) => `${part}/${layer}/${head ?? ""}`;

/**
 * @param {HTMLElement} root
 * @param {Config} config
 * @param {Actions} actions
 */
export function modelPicture(root, config, actions) {
  /** @type {Map<string, HTMLButtonElement>} */
  const parts = new Map();
  /** @type {HTMLButtonElement[][]} rows of parts, for the arrow keys */
  const lines = [];

  /**
   * @param {Place} place
   * @param {string} label
   * @param {string} look
   * @param {...(Node | string)} inside
   * @returns {HTMLButtonElement}
   */
  function part(place, label, look, ...inside) {
    const made = node("button", {
      type: "button", class: `qkx-part ${look}`, "aria-label": label, tabindex: -1, title: label,
      onclick: () => actions.open(place),
    }, ...inside);
    parts.set(keyOf(place), made);
    return made;
  }
  const words = (/** @type {string} */ text) => node("span", { "aria-hidden": "true" }, text);

  const embedStrip = node("canvas", { class: "qkx-strip" });
  const embedName = node("span", { class: "qk-token qkx-embed-name" });
  const embed = part({ part: "embed", layer: 0, head: null },
    "embedding: the token's row of the table", "qkx-wide",
    words("embedding"), embedName, embedStrip);
  const top = streamRow("qkx-first", embed);
  lines.push([embed]);

  const layers = Array.from({ length: config.layers }, (_, layer) => layerPicture(layer));

  const ends = [
    part({ part: "final_norm", layer: 0, head: null }, "norm: the final RMSNorm", "qkx-box",
      words("norm")),
    part({ part: "logits", layer: 0, head: null },
      `output head: ${config.vocab.toLocaleString("en")} logits`, "qkx-box qkx-grow",
      words(`output head: ${config.vocab.toLocaleString("en")} logits`)),
    part({ part: "sampling", layer: 0, head: null }, "next token: how it is chosen", "qkx-box",
      words("next token")),
  ];
  const bottom = streamRow("qkx-last", ...ends);
  lines.push(ends);

  const dot = node("div", { class: "qkx-dot", "aria-hidden": "true" });
  dot.hidden = true;
  const body = node("div", {
    class: "qkx-model", role: "toolbar", "aria-orientation": "vertical",
    "aria-label": "The model, part by part. Arrow keys move, Enter opens, x switches a head or MLP off",
  }, top.row, ...layers.map(({ box }) => box), bottom.row, dot);
  walkParts(body, lines);

  /** One layer. @param {number} layer */
  function layerPicture(layer) {
    const place = (/** @type {string} */ name) => ({ part: name, layer, head: null });
    // What is written on a part comes first in its name.
    const says = (/** @type {string} */ on, /** @type {string} */ text) => `${on}, layer ${layer}: ${text}`;
    const group = config.heads / config.kvHeads;
    const cells = Array.from({ length: config.heads }, (_, head) => headCell(layer, head));
    const groups = Array.from({ length: config.kvHeads }, (_, kv) =>
      node("span", { class: "qkx-group" }, ...cells.slice(kv * group, (kv + 1) * group).map(
        ({ cell }) => cell)));
    const kvs = groups.map((box, kv) => {
      const made = part({ part: "heads", layer, head: kv * group },
        says(`kv ${kv}`, `keys and values of query heads ${kv * group} to ${(kv + 1) * group - 1}`),
        "qkx-kv", words(`kv ${kv}`));
      box.prepend(made);
      return made;
    });
    const before = [
      part(place("attn_norm"), says("norm", "RMSNorm before attention"), "qkx-box", words("norm")),
      part(place("qkv"), says("q k v", "queries, keys and values"), "qkx-box", node("span", { "aria-hidden": "true" },
        node("b", { class: "qkx-q" }, "q"), " ", node("b", { class: "qkx-k" }, "k"), " ",
        node("b", { class: "qkx-v" }, "v"))),
      part(place("rope"), says("RoPE", "rotates queries and keys"), "qkx-box", words("RoPE")),
    ];
    const out = part(place("attn_out"), says("o", "output projection of attention"), "qkx-box",
      words("o"));
    const addAttn = part(place("add_attn"), says("+", "attention is added to the stream"), "qkx-add",
      words("+"));
    const heads = node("div", { class: "qkx-heads" }, ...groups);
    const attention = streamRow("qkx-attention", ...before, heads, out, addAttn);

    const strip = node("canvas", { class: "qkx-strip" });
    const mlpNorm = part(place("mlp_norm"), says("norm", "RMSNorm before the MLP"), "qkx-box", words("norm"));
    const gate = part(place("gate_up"), says("MLP", "gate and up"), "qkx-wide qkx-gate",
      words("MLP"), strip);
    const down = part(place("mlp_out"), says("down", "down projection of the MLP"), "qkx-box", words("down"));
    const addMlp = part(place("add_mlp"), says("+", "the MLP is added to the stream"), "qkx-add",
      words("+"));
    const offMlp = offButton({ layer, head: null });
    const mlp = streamRow("qkx-mlp", mlpNorm,
      node("span", { class: "qkx-cell qkx-cell-mlp" }, gate, offMlp), down, addMlp);
    gate.addEventListener("keydown", flipOnX({ layer, head: null }));

    lines.push([...before, ...kvs, out], cells.map(({ map }) => map), [addAttn],
      [mlpNorm, gate, down], [addMlp]);
    const guessed = node("span", { class: "qk-token" }), chance = node("span", {});
    const lens = node("div", { class: "qkx-lens", title: "What the model would predict if it "
      + "stopped after this layer (logit lens)" }, guessed, chance);
    const box = node("div", { class: "qkx-layer", role: "group", "aria-label": `Layer ${layer}` },
      node("span", { class: "qkx-layer-name", "aria-hidden": "true" }, `layer ${layer}`),
      attention.row, mlp.row, lens);
    return { box, cells, strip, attention, mlp, guessed, chance, gate, offMlp };
  }

  /** @param {number} layer @param {number} head */
  function headCell(layer, head) {
    const canvas = node("canvas", { class: "qkx-map" });
    const map = part({ part: "pattern", layer, head }, `Layer ${layer}, head ${head}`, "qkx-head",
      canvas);
    map.addEventListener("keydown", flipOnX({ layer, head }));
    const off = offButton({ layer, head });
    return { cell: node("span", { class: "qkx-cell" }, map, off), map, canvas, off };
  }

  /** @param {Off} off */
  function flipOnX(off) {
    return (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "x" || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      actions.flip(off);
    };
  }

  /** The small switch of a head or MLP, for the mouse; keys have x. @param {Off} off */
  function offButton(off) {
    return node("button", {
      type: "button", class: "qkx-off", tabindex: -1, "aria-label": `Switch ${nameOf(off)} off or on`,
      title: "Switch off or on", onclick: () => actions.flip(off),
    }, "×");
  }

  // ---- drawing ----

  /** @type {{positive: number[], negative: number[], map: number[], row: number[]} | null} */
  let colors = null;
  /** @param {Shown} shown */
  function draw(shown) {
    colors ??= {
      positive: rgbOf(ink(root, "vermilion")), negative: rgbOf(ink(root, "blue")),
      map: rgbOf(ink(root, "blue")), row: rgbOf(ink(root, "vermilion")),
    };
    const { run, position, off } = shown, length = run.ids.length;
    const tints = colors;
    body.classList.toggle("qkx-empty", !length);
    embedName.textContent = shown.token;
    embed.setAttribute("aria-label", `embedding ${shown.token}: the token's row of the table`);
    const norms = length ? streamNorms(run, position) : [];
    const most = Math.max(1e-9, ...norms);
    const wide = (/** @type {number} */ i) =>
      THINNEST_STREAM + (WIDEST_STREAM - THINNEST_STREAM) * Math.sqrt((norms[i] ?? 0) / most);
    top.stream(wide(0), wide(0));
    bottom.stream(wide(2 * config.layers), wide(2 * config.layers));
    if (length) strip(embedStrip, run.rows("embed", position, position + 1), tints);
    layers.forEach((one, layer) => {
      const i = 2 * layer, mlpOff = off.some((other) => sameOff(other, { layer, head: null }));
      one.attention.stream(wide(i), wide(i + 1));
      one.mlp.stream(wide(i + 1), wide(i + 2));
      one.gate.parentElement?.classList.toggle("qkx-is-off", mlpOff);
      one.gate.setAttribute("aria-label",
        `MLP, layer ${layer}: gate and up${mlpOff ? ", switched off" : ""}`);
      one.cells.forEach(({ cell, map }, head) => {
        const is = off.some((other) => sameOff(other, { layer, head }));
        cell.classList.toggle("qkx-is-off", is);
        map.setAttribute("aria-label",
          `Layer ${layer}, head ${head}${is ? ", switched off" : ""}`);
      });
      if (!length) return clear(one);
      strip(one.strip, run.rows(`layers.${layer}.mlp.act`, position, position + 1), tints);
      const pattern = run.trace().get(`layers.${layer}.attn.pattern`);
      one.cells.forEach(({ canvas }, head) => smallMap(canvas,
        pattern.subarray(head * length * length, (head + 1) * length * length), length, position,
        tints));
      const [name, probability] = shown.guess(layer);
      one.guessed.textContent = name;
      one.chance.textContent = ` ${Math.round(100 * probability)}%`;
      one.chance.style.setProperty("--share", String(probability));
    });
    light(shown.place);
  }

  /** @param {ReturnType<typeof layerPicture>} one */
  function clear({ cells, strip: mlp, guessed, chance }) {
    for (const canvas of [mlp, embedStrip, ...cells.map((cell) => cell.canvas)]) canvas.width = 1;
    guessed.textContent = chance.textContent = "";
  }

  /** @param {Place} place */
  function light(place) {
    for (const made of parts.values()) made.classList.remove("qkx-lit");
    for (const made of find(place)) made.classList.add("qkx-lit");
  }

  /** The elements that show a part. @param {Place} place @returns {HTMLButtonElement[]} */
  function find({ part: name, layer, head }) {
    const once = ["embed", "final_norm", "logits", "sampling"].includes(name);
    if (name === "pattern" || name === "scores")
      return some({ part: "pattern", layer, head: head ?? 0 });
    if (name === "heads") {
      const group = config.heads / config.kvHeads;
      return some({ part: name, layer, head: Math.floor((head ?? 0) / group) * group });
    }
    return some({ part: name, layer: once ? 0 : layer, head: null });
  }
  const some = (/** @type {Place} */ place) => {
    const found = parts.get(keyOf(place));
    return found ? [found] : [];
  };

  /** Move the dot to a part; without one, hide it. @param {Place | null} place */
  function moveDot(place) {
    const target = place && find(place)[0];
    dot.hidden = !target;
    if (!target) return;
    const frame = body.getBoundingClientRect(), box = target.getBoundingClientRect();
    dot.style.transform = `translate(${box.left + Math.min(box.width / 2, 60) - frame.left}px, `
      + `${box.top + box.height / 2 - frame.top}px)`;
  }

  return {
    body, draw, light, find, moveDot,
    forgetColors: () => { colors = null; },
    /** @param {Place} place */
    focus: (place) => find(place)[0]?.focus(),
  };
}

/** @param {Off} off */
export const nameOf = ({ layer, head }) =>
  head === null ? `the MLP of layer ${layer}` : `head ${head} of layer ${layer}`;

// A row of parts beside a piece of the stream, which `stream(above, below)` makes so wide.
/** @param {string} look @param {...HTMLElement} inside */
function streamRow(look, ...inside) {
  const space = "http://www.w3.org/2000/svg";
  const path = document.createElementNS(space, "path");
  const svg = document.createElementNS(space, "svg");
  for (const [name, value] of Object.entries({
    viewBox: "0 0 40 100", preserveAspectRatio: "none", class: "qkx-stream", "aria-hidden": "true",
  })) svg.setAttribute(name, value);
  svg.append(path);
  const row = node("div", { class: `qkx-row ${look}` }, svg, ...inside);
  /** @param {number} above @param {number} below */
  function stream(above, below) {
    const a = above / 2, b = below / 2, x = 20;
    path.setAttribute("d", `M${x - a},0 L${x + a},0 L${x + a},58 C${x + a},80 ${x + b},72 `
      + `${x + b},100 L${x - b},100 C${x - b},72 ${x - a},80 ${x - a},58 Z`);
  }
  return { row, stream };
}

/**
 * Norms of the stream at a token: of the embedding, then after each addition.
 * @param {Run} run
 * @param {number} position
 */
export function streamNorms(run, position) {
  const names = ["embed"];
  for (let layer = 0; layer < run.model.config.layers; layer++)
    names.push(`layers.${layer}.resid_mid`, `layers.${layer}.resid_post`);
  return names.map((name) => Math.hypot(...run.rows(name, position, position + 1)));
}

/**
 * A vector as a strip: red is positive, blue negative, the stronger the larger.
 * @param {HTMLCanvasElement} canvas
 * @param {Float32Array} values
 * @param {{positive: number[], negative: number[]}} colors
 */
function strip(canvas, values, { positive, negative }) {
  const bins = Math.min(BINS, values.length), each = values.length / bins;
  const found = new Float32Array(bins);
  let most = 1e-9;
  for (let i = 0; i < values.length; i++) {
    const bin = Math.floor(i / each);
    if (Math.abs(values[i]) > Math.abs(found[bin])) found[bin] = values[i];
    most = Math.max(most, Math.abs(values[i]));
  }
  paint(canvas, bins, 1, (i) => found[i] > 0
    ? [positive, found[i] / most] : [negative, -found[i] / most]);
}

/**
 * A head's attention weights as a small map, the chosen token's row in another color.
 * @param {HTMLCanvasElement} canvas
 * @param {Float32Array} pattern (T, T)
 * @param {number} length
 * @param {number} position
 * @param {{map: number[], row: number[]}} colors
 */
function smallMap(canvas, pattern, length, position, { map, row }) {
  const side = Math.min(length, MOST_PIXELS), each = length / side;
  const largest = new Float32Array(side * side);
  for (let t = 0; t < length; t++) {
    const y = Math.floor(t / each) * side;
    for (let s = 0; s <= t; s++) {
      const at = y + Math.floor(s / each), value = pattern[t * length + s];
      if (value > largest[at]) largest[at] = value;
    }
  }
  const chosen = Math.floor(position / each);
  paint(canvas, side, side, (i) => [
    Math.floor(i / side) === chosen ? row : map, Math.sqrt(largest[i])]);
}

/**
 * Paint colors of so much strength, a pixel each.
 * @param {HTMLCanvasElement} canvas
 * @param {number} columns
 * @param {number} rows
 * @param {(i: number) => [number[], number]} color red, green, blue; and the strength, to 1
 */
function paint(canvas, columns, rows, color) {
  canvas.width = columns;
  canvas.height = rows;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(columns, rows);
  for (let i = 0; i < columns * rows; i++) {
    const [[red, green, blue], strength] = color(i);
    image.data.set([red, green, blue, Math.round(255 * strength)], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

/** @param {string} color "rgb(0, 105, 166)" */
const rgbOf = (color) => (color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);

// One part takes the tab key; the arrow keys go from part to part.
/** @param {HTMLElement} body @param {HTMLButtonElement[][]} lines */
function walkParts(body, lines) {
  const all = lines.flat();
  all[0].tabIndex = 0;
  body.addEventListener("focusin", ({ target }) => {
    if (!all.includes(/** @type {HTMLButtonElement} */ (target))) return;
    for (const one of all) one.tabIndex = one === target ? 0 : -1;
  });
  const go = (/** @type {number} */ down, /** @type {number} */ right) => () => {
    const now = /** @type {HTMLButtonElement} */ (body.querySelector(":focus"));
    const y = lines.findIndex((line) => line.includes(now));
    if (y < 0) return;
    const x = lines[y].indexOf(now);
    const line = lines[Math.max(0, Math.min(lines.length - 1, y + down))];
    const next = down ? Math.round(x / Math.max(1, lines[y].length - 1) * (line.length - 1)) : x;
    line[Math.max(0, Math.min(line.length - 1, next + right))].focus();
  };
  keyed(body, {
    ArrowUp: go(-1, 0), ArrowDown: go(1, 0), ArrowLeft: go(0, -1), ArrowRight: go(0, 1),
    Home: () => all[0].focus(), End: () => all[all.length - 1].focus(),
  });
}
