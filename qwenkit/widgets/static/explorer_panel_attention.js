// ModelExplorer's panels of attention: q, k and v, RoPE, scores, pattern, heads, output, cache.

import { button, node } from "./common.js";
import { topIndices } from "./engine/ops.js";
import {
  atLayer, chanceOf, codeWords, dotOf, factTiles, headRow, inked, kvHeadOf, largestSize,
  lengthBar, normOf, paintedMap, partBlock, partWideBlock, partWords, positionBars, rowTable,
  scoreMap, shadesByRoot, signedBar, squareMap, strengthKey, svgArrow, tokenName, tokenRow,
  tokenWords, vectorStrip, weightMap, weightOf, withCommas,
} from "./explorer_panel_kit.js";
import { short, sizeOf, svgShape } from "./parts.js";

/** @typedef {import("./explorer_panel_kit.js").View} View */

/** The parts of the projection: letter, color, count of heads, which head. @param {View} view */
const projections = (view) => {
  const { heads, kvHeads } = view.config, kv = kvHeadOf(view);
  return /** @type {const} */ ([
    { part: "q", name: "query", color: "blue", count: heads, head: view.head },
    { part: "k", name: "key", color: "vermilion", count: kvHeads, head: kv },
    { part: "v", name: "value", color: "green", count: kvHeads, head: kv },
  ]);
};

// ---- query, key and value ----

/** @param {HTMLElement} box @param {View} view */
export function qkvPart(box, view) {
  const { config, head } = view, { size, hidden, heads, kvHeads } = config, all = projections(view);
  const strips = all.map(({ part, name, color, count, head: which }) => {
    const row = headRow(view, `attn.${part}`, which, { count });
    const whose = part === "q" ? `head ${which}` : `kv head ${which}`;
    return vectorStrip(box, `${part}, the ${name} of ${whose}`, row, { color, data: part });
  });
  box.append(
    partWords("Three linear layers make, from the normalized vector of each token, a ",
      inked("query", "blue"), " (what the token looks for), a ", inked("key", "vermilion"),
      " (what it can be found by) and a ", inked("value", "green"), " (what it passes on)."),
    factTiles([
      ["query head", `${head} of ${heads}`],
      ["its kv head", `${kvHeadOf(view)} of ${kvHeads}`, "kv"],
      ["q (H, T, D)", `${heads} × ${view.ids.length} × ${size}`],
      ["k and v (KV, T, D)", `${kvHeads} × ${view.ids.length} × ${size}`],
    ]),
    partWideBlock(`Token ${tokenName(view)}`, ...strips,
      partWords("Each strip has its own scale: red above 0, blue below, white at 0.")),
    partBlock("The first number of each, worked out", workedOut(view),
      partWords(`The weights: q_proj ${heads * size} × ${hidden}, k_proj and v_proj `
        + `${kvHeads * size} × ${hidden}, each with a bias.`)),
    partBlock("Norm of the query at each token",
      positionBars(box, view, "Norm of the query at each token",
      headNorms(view, "attn.q", head, heads), "blue")),
    partBlock("Norm of the key at each token",
      positionBars(box, view, "Norm of the key at each token",
      headNorms(view, "attn.k", kvHeadOf(view), kvHeads), "blue")),
  );
}

/** @param {View} view @param {string} name @param {number} head @param {number} count */
const headNorms = (view, name, head, count) =>
  view.ids.map((_, position) => normOf(headRow(view, name, head, { position, count })));

/** The first number of q, k and v as a dot product and a bias. @param {View} view */
function workedOut(view) {
  const { size, hidden } = view.config, x = tokenRow(view, atLayer(view, "attn_norm"));
  const rows = projections(view).map(({ part, color, count, head }) => {
    const at = `model.layers.${view.layer}.self_attn.${part}_proj.`, row = head * size;
    const dot = dotOf(x, weightOf(view, `${at}weight`).data.subarray(
      row * hidden, (row + 1) * hidden));
    const bias = view.weights.get(`${at}bias`)?.data[row] ?? 0;
    const value = headRow(view, `attn.${part}`, head, { count })[0];
    return { cells: [inked(`${part}[0]`, color), short(dot), short(bias), short(value)] };
  });
  return node("div", {}, rowTable("First numbers of query, key and value",
    ["", `x · row (${hidden} products)`, "+ bias", "= value"], rows));
}

// ---- RoPE ----

const MOST_CIRCLES = 16;
let rotatedPart = "q"; // which of query and key the circles show

/** @param {HTMLElement} box @param {View} view */
export function ropePart(box, view) {
  const { config, position } = view, { size, theta } = config, half = size / 2;
  const frequencies = Array.from({ length: half }, (_, i) => theta ** (-2 * i / size));
  const circles = node("div", { class: "qk-part-circles" }), numbers = node("div");
  const choices = ["q", "k"].map((part) => button(part === "q" ? "query" : "key", () => show(part),
    { "data-control": `rope-${part}` }));
  function show(/** @type {string} */ part) {
    rotatedPart = part;
    choices.forEach((one, i) => one.setAttribute("aria-pressed", String("qk"[i] === part)));
    const [count, head] = part === "q" ? [config.heads, view.head]
      : [config.kvHeads, kvHeadOf(view)];
    const [x, y] = [`attn.${part}`, `attn.${part}_rot`].map(
      (name) => headRow(view, name, head, { count }));
    const color = part === "q" ? "blue" : "vermilion";
    const every = Math.ceil(half / MOST_CIRCLES),
      pairs = frequencies.map((_, i) => i).filter((i) => i % every === 0);
    circles.replaceChildren(...pairs.map((i) =>
      pairCircle(i, [x[i], x[i + half]], position * frequencies[i], color)));
    numbers.replaceChildren(pairTable({ x, y, half, position, frequencies, part }));
  }
  show(rotatedPart);
  const last = frequencies[half - 1];
  box.append(
    partWords("RoPE rotates the query and the key by their position, so that their dot product "
      + `depends on how far apart two tokens are. Dimensions i and i + ${half} are a point in a `
      + "plane; pair i is rotated by ",
    codeWords("position × frequency"), "."),
    factTiles([
      ["position", String(position), "position"],
      ["pairs", String(half)],
      ["frequency of pair 0", `${short(frequencies[0])} rad per token`],
      [`frequency of pair ${half - 1}`, `${last.toPrecision(2)} rad per token`],
    ]),
    partWideBlock(`Rotated by position ${position}`,
      node("div", { class: "qk-part-choices", role: "group", "aria-label": "Shown vector" },
        ...choices), circles,
      partWords("Dashed: before. Solid: after the rotation. Low pairs rotate fast, high ones "
        + "hardly at all.")),
    partBlock("In numbers", numbers,
      partWords("A rotation changes no length: the norm is the same before and after.")),
    partBlock("Only the distance counts", ...distanceCurve(view, frequencies)),
  );
}

/**
 * The score of the chosen query and its strongest key, were they at other distances.
 * @param {View} view
 * @param {number[]} frequencies
 */
function distanceCurve(view, frequencies) {
  const { config, head, position, ids } = view, { size, heads, kvHeads } = config, half = size / 2;
  const at = (head * ids.length + position) * ids.length;
  const scores = view.trace.get(atLayer(view, "attn.scores")).subarray(at, at + position + 1);
  const best = topIndices(scores, 1)[0], distance = position - best;
  const q = headRow(view, "attn.q", head, { count: heads });
  const k = headRow(view, "attn.k", kvHeadOf(view), { count: kvHeads, position: best });
  const scoreAt = (/** @type {number} */ apart) => frequencies.reduce((total, frequency, i) => {
    const [cos, sin] = [Math.cos(apart * frequency), Math.sin(apart * frequency)];
    return total + cos * (q[i] * k[i] + q[i + half] * k[i + half])
      + sin * (q[i] * k[i + half] - q[i + half] * k[i]);
  }, 0) / Math.sqrt(size);
  const most = Math.max(24, distance + 4),
    curve = Array.from({ length: most + 1 }, (_, apart) => scoreAt(apart));
  const bound = largestSize(curve) || 1;
  const x = (/** @type {number} */ apart) => 10 + 280 * apart / most,
    y = (/** @type {number} */ score) => 66 - 54 * score / bound;
  const now = scoreAt(distance);
  return [svgShape("svg", {
    viewBox: "0 0 300 146", class: "qk-part-svg", role: "img",
    "aria-label": `Score against distance, from ${short(curve[0])} at 0 to ${short(curve[most])} `
      + `at ${most}`,
  },
  svgShape("path", { d: `M10,${y(0)}H290`, style: "stroke: var(--qk-line)" }),
  svgShape("polyline", { points: curve.map(
    (one, i) => `${x(i).toFixed(1)},${y(one).toFixed(1)}`).join(" "),
    style: "fill: none; stroke: var(--qk-blue)", "stroke-width": 1.5 }),
  ...(most < 64 ? curve : []).map((one, i) =>
    svgShape("circle", { cx: x(i).toFixed(1), cy: y(one).toFixed(1), r: 2,
      style: "fill: var(--qk-blue)" })),
  svgShape("circle", { cx: x(distance), cy: y(now), r: 5,
    style: "fill: var(--qk-vermilion); stroke: var(--qk-bg)" }),
  svgShape("text", { x: 10, y: 140, class: "qk-part-tick" }, "distance 0"),
  svgShape("text", { x: 290, y: 140, class: "qk-part-tick", "text-anchor": "end" }, String(most))),
  partWords("The score of this query and the key of ", tokenWords(view.tokens[best]),
    " if they were so many tokens apart. ",
    inked("Dot", "vermilion"), `: as they are, ${distance} apart, `,
      node("b", { "data-fact": "apart" }, short(now)), ".")];
}

/**
 * A pair as two arrows in a circle; the solid one runs to its place where motion is welcome.
 * @param {number} pair
 * @param {[number, number]} before
 * @param {number} angle in radians
 * @param {string} color
 */
function pairCircle(pair, [a, b], angle, color) {
  const middle = 36, radius = 29, start = Math.atan2(b, a), degrees = angle * 180 / Math.PI;
  /** @type {(at: number) => [number, number]} */
  const point = (at) => [middle + radius * Math.cos(at), middle - radius * Math.sin(at)];
  // at most some rotations are played
  const shown = Math.min(angle, 4 * Math.PI + angle % (2 * Math.PI));
  const after = svgShape("g", {
    class: "qk-part-rotating", style: `--from: ${(shown * 180 / Math.PI).toFixed(1)}deg`,
  }, svgArrow([middle, middle], point(start + angle), color, { width: 2.4 }));
  const words = `${short(degrees)}°`;
  return node("figure", { class: "qk-part-circle", "data-pair": pair },
    svgShape("svg", { viewBox: "0 0 72 72", role: "img",
      "aria-label": `Pair ${pair}: rotated by ${words}` },
      svgShape("circle", { cx: middle, cy: middle, r: radius,
        style: "fill: var(--qk-bg); stroke: var(--qk-line)" }),
      svgShape("path", { d: arcPath(middle, 13, start, angle),
        style: `fill: none; stroke: var(--qk-${color}); opacity: 0.55`, "stroke-width": 1.5 }),
      svgArrow([middle, middle], point(start), "soft", { width: 1.2, dash: "3 2.5" }), after),
    node("figcaption", {}, node("span", {}, `pair ${pair}`),
      node("b", { "data-angle": pair }, words)));
}

/** @param {number} middle @param {number} radius @param {number} start @param {number} angle */
function arcPath(middle, radius, start, angle) {
  const part = angle % (2 * Math.PI), end = start + part;
  const at = (/** @type {number} */ where) =>
    [middle + radius * Math.cos(where), middle - radius * Math.sin(where)]
      .map((one) => one.toFixed(2));
  return `M${at(start)} A${radius},${radius} 0 ${part > Math.PI ? 1 : 0} 0 ${at(end)}`;
}

/**
 * @param {{x: Float32Array, y: Float32Array, half: number, position: number, frequencies: number[],
 *   part: string}} shown
 */
function pairTable({ x, y, half, position, frequencies, part }) {
  const point = (/** @type {Float32Array} */ row, /** @type {number} */ i) =>
    `(${short(row[i])}, ${short(row[i + half])})`;
  const pairs = [...new Set([0, 1, 2, Math.floor(half / 2), half - 1])].filter(
    (i) => i >= 0 && i < half);
  const rows = pairs.map((i) => ({
    cells: [String(i), point(x, i), short(position * frequencies[i]), point(y, i)],
  }));
  return node("div", {},
    rowTable(`Pairs of the ${part === "q" ? "query" : "key"}`,
      ["pair", "before", "angle", "after"], rows),
    partWords(`Angles in radians. Norm before ${short(normOf(x))}, after ${short(normOf(y))}.`));
}

// ---- scores and pattern ----

/** All rows of the chosen head, (T, T). @param {View} view @param {string} name */
function headSquare(view, name) {
  const size = view.ids.length ** 2;
  return view.trace.get(atLayer(view, name)).subarray(view.head * size, (view.head + 1) * size);
}

const MOST_ROWS = 12;

/**
 * The keys that a table shows: all in order where they are few, else those with the largest values.
 * @param {Float32Array} values up to the chosen position
 */
const shownKeys = (values) =>
  values.length <= MOST_ROWS ? Array.from(values.keys()) : topIndices(values, MOST_ROWS);

/** @param {HTMLElement} box @param {View} view */
export function scoresPart(box, view) {
  const { position, head, config, ids } = view, { size, heads } = config, length = ids.length;
  const square = headSquare(view, "attn.scores"),
    row = square.subarray(position * length, (position + 1) * length);
  const seen = row.subarray(0, position + 1), most = largestSize(seen) || 1,
    best = topIndices(seen, 1)[0];
  const masked = length - seen.length;
  const shown = shownKeys(seen).map((key) => ({
    cells: [tokenWords(view.tokens[key]), signedBar(seen[key], most, "blue"), short(seen[key])],
    data: String(key),
  }));
  const q = headRow(view, "attn.q_rot", head, { count: heads });
  const k = headRow(view, "attn.k_rot", kvHeadOf(view), { count: config.kvHeads, position: best });
  let bound = 0;
  for (let i = 0; i < length; i++)
    bound = Math.max(bound, largestSize(square.subarray(i * length, i * length + i + 1)));
  box.append(
    partWords("The score of two tokens is the dot product of the ", inked("query", "blue"),
      " of one and the ",
      inked("key", "vermilion"), ` of the other, divided by √${size}. Scores of later tokens are `
        + "masked: they become −∞."),
    factTiles([
      ["scores (H, T, S)", `${heads} × ${length} × ${length}`],
      ["head", `${head} of ${heads}`],
      ["keys it may attend to", `${seen.length} of ${length}`, "seen"],
      ["largest score", `${short(seen[best])} at ${tokenName(view, best)}`, "largest"],
    ]),
    partBlock(`Scores of query ${tokenName(view)}`,
      rowTable("Scores of the chosen query", ["key", "", "score"], [...shown,
        ...(masked ? [{ cells: [`${masked} later`, "masked", "−∞"], faint: true }] : [])]),
      partWords(seen.length > MOST_ROWS ? `The ${MOST_ROWS} largest of ${seen.length}. ` : "",
        `Worked out for ${tokenName(view, best)}: q · k = ${short(dotOf(q, k))}; ÷ √${size} = `
          + `${short(dotOf(q, k) / Math.sqrt(size))}.`)),
    partBlock("Scores of all queries", squareMap(box, view, {
      values: square, canvas: scoreMap(view, square, bound), show: short, control: "scores-map",
      label: `Scores of head ${head}`,
    }), strengthKey(bound)),
  );
}

/** @param {HTMLElement} box @param {View} view */
export function patternPart(box, view) {
  const { position, head, ids } = view, length = ids.length,
    square = headSquare(view, "attn.pattern");
  const row = square.subarray(position * length, position * length + position + 1);
  const scores = headSquare(view, "attn.scores").subarray(
    position * length, position * length + position + 1);
  const best = topIndices(row, 1)[0], keys = shownKeys(row), top = Math.max(...scores);
  let total = 0, others = 1, spread = 0;
  for (let i = 0; i <= position; i++) total += Math.exp(scores[i] - top);
  for (const key of keys) others -= row[key];
  for (const part of row) spread -= part > 0 ? part * Math.log2(part) : 0;
  const shown = keys.map((key) => ({
    cells: [tokenWords(view.tokens[key]), short(scores[key]), short(Math.exp(scores[key] - top)),
      lengthBar(row[key], "blue"), chanceOf(row[key])],
    data: String(key), on: key === best,
  }));
  const left = row.length - keys.length;
  if (left) shown.push({ cells: [`${left} others`, "", "", "", chanceOf(Math.max(0, others))],
    data: "others", on: false });
  box.append(
    partWords("Softmax makes attention weights of a row of scores: e to the power of each score, "
      + "divided by the sum, so that they add up to 1. They tell which tokens the chosen one "
      + "attends to."),
    factTiles([
      ["strongest key", `${tokenName(view, best)}: ${chanceOf(row[best])}`, "strongest"],
      ["on itself", chanceOf(row[position]), "self"],
      ["on the first token", chanceOf(row[0]), "first"],
      ["entropy", `${short(Math.max(0, spread))} bits`, "entropy"],
    ]),
    partBlock(`Attention of query ${tokenName(view)}`,
      rowTable("Attention weights of the chosen query", ["key", "score", "e^", "", "weight"],
        shown),
      partWords(`e^: e to the power of (score − ${short(top)}), the largest score; their sum is `
        + `${short(total)}.`)),
    partBlock(`Attention map of head ${head}`, squareMap(box, view, {
      values: square, canvas: weightMap(view, square, 160), show: chanceOf, control: "pattern-map",
      label: `Attention map of head ${head}`,
    }), weightKey(view)),
  );
}

/** @param {View} view */
const weightKey = (view) => node("div", { class: "qk-part-key" }, node("span", {}, "0"),
  node("i", { class: "qk-part-ramp qk-part-viridis", "aria-hidden": "true" }),
  node("span", {}, shadesByRoot(view) ? "1, by the square root: weak weights show, too" : "1"));

// ---- grouped heads ----

/** @param {HTMLElement} box @param {View} view */
export function headsPart(box, view) {
  const { heads, kvHeads, size } = view.config, groups = heads / kvHeads, length = view.ids.length;
  const pattern = view.trace.get(atLayer(view, "attn.pattern"));
  const cells = Array.from({ length: heads }, (_, head) => headCell(view, pattern, head));
  const boxes = Array.from({ length: kvHeads }, (_, kv) => node("div", {
    class: kv === kvHeadOf(view) ? "qk-part-group qk-on" : "qk-part-group", role: "group",
    "aria-label": `kv head ${kv}`,
  }, node("div", { class: "qk-part-group-name" }, inked(`kv head ${kv}`, "vermilion"),
    ` serves query heads ${kv * groups}${groups > 1 ? ` to ${(kv + 1) * groups - 1}` : ""}`),
  node("div", { class: "qk-part-cells" }, ...cells.slice(kv * groups, (kv + 1) * groups))));
  const row = (/** @type {number} */ head) =>
    pattern.subarray((head * length + view.position) * length,
      (head * length + view.position) * length + view.position + 1);
  box.append(
    partWords(groups > 1 ? `The ${heads} query heads share ${kvHeads} heads of keys and values: `
      + `each kv head is repeated ${groups} times consecutively. The cache is ${groups} times `
      + "smaller for it."
      : "Each query head has keys and values of its own in this model."),
    factTiles([
      ["query heads", String(heads)], ["kv heads", String(kvHeads)],
      ["query heads per kv head", String(groups), "groups"],
      ["kv values per token and layer", `2 × ${kvHeads} × ${size} = ${2 * kvHeads * size}`],
    ]),
    partWideBlock("Attention maps of all heads of the layer",
      node("div", { class: "qk-part-groups" }, ...boxes), partWords("Click a head to choose it.")),
    partWideBlock(`What each head does at ${tokenName(view)}`, rowTable("Heads at the chosen token",
      ["head", "kv", "strongest key", "", "weight"], Array.from({ length: heads }, (_, head) => {
        const best = topIndices(row(head), 1)[0], weight = row(head)[best];
        return {
          cells: [String(head), String(kvHeadOf(view, head)), tokenWords(view.tokens[best]),
            lengthBar(weight, "blue"), chanceOf(weight)],
          on: head === view.head, data: String(head),
        };
      }))),
  );
}

/** @param {View} view @param {Float32Array} pattern @param {number} head */
function headCell(view, pattern, head) {
  const size = view.ids.length ** 2, square = pattern.subarray(head * size, (head + 1) * size);
  const made = button("", () => view.choose({ head }), {
    class: "qk-part-cell", "aria-pressed": String(head === view.head), "aria-label": `head ${head}`,
    "data-control": `head-${head}`,
  });
  made.append(node("span", { class: "qk-part-thumb" }, weightMap(view, square, 64)),
    node("span", {}, `head ${head}`));
  return made;
}

// ---- the output of attention ----

/** @param {HTMLElement} box @param {View} view */
export function attnOutPart(box, view) {
  const { heads, size, hidden } = view.config, out = tokenRow(view, atLayer(view, "attn.out"));
  const joined = new Float32Array(heads * size);
  for (let head = 0; head < heads; head++) joined.set(headRow(view, "attn.z", head), head * size);
  const weight = weightOf(view, `model.layers.${view.layer}.self_attn.o_proj.weight`).data;
  const parts = Array.from({ length: heads },
    (_, head) => Float32Array.from({ length: hidden }, (_, i) => {
    const at = i * heads * size + head * size;
    return dotOf(weight.subarray(at, at + size), joined.subarray(head * size, (head + 1) * size));
  }));
  const norms = parts.map(normOf), most = Math.max(...norms) || 1;
  const rows = parts.map((part, head) => ({
    cells: [`head ${head}`, lengthBar(norms[head] / most,
      head === view.head ? "vermilion" : "blue"), short(norms[head]),
      short(dotOf(part, out) / (normOf(out) || 1))],
    on: head === view.head, data: String(head),
  }));
  const position = view.position, length = view.ids.length, kv = kvHeadOf(view);
  const pattern = headSquare(view, "attn.pattern").subarray(
    position * length, position * length + position + 1);
  const mixed = topIndices(pattern, 5).map((key) => {
    const norm = normOf(headRow(view, "attn.v", kv, { position: key, count: view.config.kvHeads }));
    return { cells: [tokenWords(view.tokens[key]), chanceOf(pattern[key]), short(norm),
      short(pattern[key] * norm)] };
  });
  box.append(
    partWords("Each head mixes the ", inked("values", "green"),
      ` of the tokens by its attention weights. The results of all ${heads} heads, joined, pass a `
      + "last linear layer, o_proj, which makes what is added to the stream."),
    factTiles([
      ["z of a head (T, D)", `${length} × ${size}`],
      ["joined (T, H·D)", `${length} × ${heads * size}`],
      ["output (T, C)", `${length} × ${hidden}`],
      ["norm of the output", short(normOf(out)), "norm"],
    ]),
    partWideBlock("Mix of values, joined, and the output",
      vectorStrip(box, `z of head ${view.head}: the mix of its values`,
        headRow(view, "attn.z", view.head), { color: "green", data: "z" }),
      vectorStrip(box, `z of heads 0 to ${heads - 1}, joined`, joined,
        { color: "green", cuts: size }),
      vectorStrip(box, "output of attention", out, { color: "blue", data: "out" })),
    partBlock("What each head adds", rowTable(
      "What each head adds", ["", "", "norm", "along output"], rows),
      partWords("The parts of the heads add up to the output. Along the output, they sum to its "
        + `norm, ${short(normOf(out))}.`)),
    partBlock(`What head ${view.head} mixes`,
      rowTable("Values that the head mixes", ["token", "weight", "norm of v", "product"], mixed),
      partWords("The strongest attention weights, and how long the value is that each one "
        + "multiplies.")),
  );
}

// ---- the cache ----

/** @param {HTMLElement} box @param {View} view */
export function cachePart(box, view) {
  const { layers, kvHeads, heads, size } = view.config, length = view.ids.length,
    kept = Math.min(view.seen, length);
  const perToken = 2 * layers * kvHeads * size, bytes = 4;
  const halves = [["k", "attn.k_rot", "keys, rotated", "vermilion"],
    ["v", "attn.v", "values", "green"]];
  const pictures = halves.map(([part, name, words, color]) => {
    const table = new Float32Array(length * kvHeads * size);
    for (let t = 0; t < length; t++)
      for (let kv = 0; kv < kvHeads; kv++)
        table.set(headRow(view, name, kv, { position: t, count: kvHeads }),
          (t * kvHeads + kv) * size);
    const bound = largestSize(table), canvas = paintedMap(
      table, kvHeads * size, { low: -bound, high: bound });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${words} of layer ${view.layer}: ${length} tokens, `
      + `${kvHeads * size} values each, up to ${short(bound)}`);
    return node("div", { class: "qk-part-cached", "data-half": part },
      node("div", {}, inked(words, color)),
      node("div", { class: "qk-part-kept", style: `--kept: ${(100 * kept / length).toFixed(2)}%` },
        canvas,
        node("i", { class: "qk-part-frame",
          style: `top: ${(100 * view.position / length).toFixed(2)}%; height: `
          + `${(100 / length).toFixed(2)}%; width: 100%` })));
  });
  box.append(
    partWords("For each new token, the keys and values of all earlier tokens are needed again. "
      + "The cache keeps them, so that a new token passes through the model alone."),
    factTiles([
      ["tokens in the cache", `${view.seen} of ${length}`, "seen"],
      ["values per token", `2 × ${layers} layers × ${kvHeads} × ${size} = ${withCommas(perToken)}`,
        "values"],
      ["bytes per token (float32)", sizeOf(perToken * bytes), "token-bytes"],
      ["bytes in the cache", sizeOf(perToken * bytes * view.seen), "bytes"],
      ["without shared kv heads", sizeOf(perToken * bytes * view.seen * heads / kvHeads)],
    ]),
    partWideBlock(`Layer ${view.layer}: a row per token, ${2 * kvHeads * size} values`,
      node("div", { class: "qk-part-halves" }, ...pictures),
      partWords(kept < length ? "Faded rows are not in the cache yet. " : "",
        `The frame is token ${tokenName(view)}. Red is above 0, blue below.`)),
  );
}
