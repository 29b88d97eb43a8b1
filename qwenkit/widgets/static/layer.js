// LayerInspector: a layer, a head, a token, and panels that move together.
// `data` is described in _layer_view.py; its arrays come compressed.

import { chosen, inflate, node, onTheme, painted, percent, say, slider } from "./common.js";
import {
  groupPanel, lensPanel, mapPanel, normsPanel, offPanel, pairsPanel, unitsPanel,
} from "./layer_panels.js";
import { AREA } from "./maps.js";
import { later, tokenLine } from "./parts.js";
import { prompted, watchKernel } from "./prompt.js";

/**
 * @import { Choose, LayerAnswers, LayerArrays, LayerData, LayerModel, LayerShown, LayerState,
 *   LayerValues, OtherText, Packed, Root, Shell } from "./types.d.ts"
 */

const PAUSE = 120; // milliseconds without a choice before the kernel gets the last one

/** @param {{model: LayerModel, el: HTMLElement}} place */
export const render = (place) =>
  prompted(place, "One layer, head and token", (shell) => layerBody(place.model, shell));

/** @param {LayerModel} model @param {Shell} shell */
async function layerBody(model, { root, body, controls, stage, live }) {
  const data = model.get("data");
  const arrays = await unpackArrays(data);
  const tell = later(() => model.save_changes(), PAUSE);
  // The page draws at once; the kernel, which may have to compute, gets only the last state.
  /** @type {Choose<LayerState>} */
  const pick = (patch) => {
    model.set("state", { ...chosen(model), ...patch });
    tell();
  };
  const parts = layerParts(model, data, body, pick);
  const kernel = watchKernel(model, root, draw);
  controls.append(parts.layer, parts.head);
  body.classList.add("qk-layer");
  const top = node("div", { class: "qk-layer-top" }, parts.title, parts.line.list);
  stage.before(top); // stays in sight while the panels below scroll
  top.prepend(controls);
  stage.append(...parts.columns);

  function draw() {
    if (model.get("data") !== data) return; // another text: all is about to be built again
    const state = chosen(model), alone = Boolean(model.alone);
    const shown = { state, ...layerValues(data, arrays, state), ...answers(model, data, state) };
    kernel.need(!alone && (!shown.lens || Boolean(state.off && !shown.without)));
    drawParts(parts, data, shown, alone, kernel.words());
    say(live, layerWords(data, shown));
    root.qk = shown;
    painted(root);
  }
  const signals = ["change:state", "change:lens", "change:without"];
  for (const signal of signals) model.on(signal, draw);
  const stop = onTheme(draw);
  draw();
  return () => {
    stop();
    kernel.close();
    for (const signal of signals) model.off(signal, draw);
  };
}

/** @param {LayerData} data @returns {Promise<LayerArrays>} */
async function unpackArrays(data) {
  const unpacked = async (/** @type {Packed} */ bytes) => (await inflate(bytes)).buffer;
  const floats = async (/** @type {Packed} */ bytes) => new Float32Array(await unpacked(bytes));
  const [weights, queries, keys, units, cos, sin, acts, norms, embedNorms, other] =
    await Promise.all([
      inflate(data.weights), unpacked(data.queries), unpacked(data.keys), unpacked(data.units),
      floats(data.cos), floats(data.sin), floats(data.acts), floats(data.norms),
      floats(data.embed_norms), data.other ? inflate(data.other.weights) : undefined,
    ]);
  return {
    weights, queries: new Int16Array(queries), keys: new Int16Array(keys),
    units: new Uint16Array(units), cos, sin, acts, norms, embed_norms: embedNorms, other,
  };
}

// Everything that is drawn for a state, except what the kernel answers.
/**
 * @param {LayerData} data @param {LayerArrays} arrays @param {LayerState} state
 * @returns {LayerValues}
 */
function layerValues(data, arrays, { layer, head, token }) {
  const { heads, kv_heads: kvHeads, dim, layers, tokens } = data;
  const size = tokens.length;
  /** @param {Uint8Array} weights @param {number} length */
  const triangle = (weights, length) => weights.subarray(
    (layer * heads + head) * AREA(length), (layer * heads + head + 1) * AREA(length));
  const own = triangle(arrays.weights, size);
  const kv = Math.floor(head / (heads / kvHeads));
  /** @param {Int16Array} values @param {number} count @param {number} which @param {number} step */
  const vector = (values, count, which, step) => {
    const start = ((layer * count + which) * size + token) * dim;
    const before = Array.from(values.subarray(start, start + dim), (steps) => steps * step);
    return { before, after: rotated(before, arrays, token) };
  };
  const units = arrays.units.length / (layers * size), first = (layer * size + token) * units;
  const norms = [arrays.embed_norms[token]];
  for (let i = 0; i < layers; i++)
    norms.push(...arrays.norms.subarray(2 * (i * size + token), 2 * (i * size + token) + 2));
  return {
    triangle: own,
    row: Array.from(own.subarray(AREA(token), AREA(token) + token + 1), (weight) => weight / 255),
    otherTriangle: data.other && arrays.other
      && triangle(arrays.other, data.other.tokens.length),
    kv,
    query: vector(arrays.queries, heads, head, data.query_steps[layer]),
    key: vector(arrays.keys, kvHeads, kv, data.key_steps[layer]),
    units: Array.from({ length: units }, (_, i) => [arrays.units[first + i], arrays.acts[first + i]]),
    norms,
  };
}

// RoPE: the pair (i, i + D/2) is rotated by its angle at the token's position.
/** @param {number[]} vector @param {LayerArrays} tables @param {number} token */
export function rotated(vector, { cos, sin }, token) {
  const half = vector.length / 2;
  return vector.map((value, i) => {
    const pair = token * half + i % half;
    return i < half ? value * cos[pair] - vector[i + half] * sin[pair]
      : value * cos[pair] + vector[i - half] * sin[pair];
  });
}

// What the kernel answered, if it belongs to what is chosen now; else null.
/**
 * @param {LayerModel} model @param {LayerData} data @param {LayerState} state
 * @returns {LayerAnswers}
 */
function answers(model, data, { token, off }) {
  const lens = model.get("lens"), without = model.get("without");
  return {
    lens: data.lens[token] ?? (lens?.token === token ? lens.rows : null),
    without: off && without && String(without.off) === String(off) ? without : null,
  };
}

/**
 * @param {LayerModel} model @param {LayerData} data @param {Root} root
 * @param {Choose<LayerState>} pick
 */
function layerParts(model, data, root, pick) {
  const { layers, heads, tokens, other } = data;
  const state = chosen(model);
  const line = tokenLine("The text; arrow keys choose a token", (token) => pick({ token }));
  line.fill(tokens);
  const parts = {
    layer: slider({ label: "Layer", min: 0, max: layers - 1, value: state.layer,
      on: (layer) => pick({ layer }) }),
    head: slider({ label: "Head", min: 0, max: heads - 1, value: state.head,
      on: (head) => pick({ head }) }),
    title: node("h2", { class: "qk-layer-title" }),
    line,
    map: mapPanel("What the head attends to", tokens,
      "A row for each query position; arrow keys choose one", root, () => chosen(model).token,
      (token) => pick({ token })),
    off: offPanel(tokens, Boolean(model.alone), pick),
    pairs: pairsPanel(data.dim, root),
    norms: normsPanel(layers, root, pick),
    groups: groupPanel(data, pick),
    units: unitsPanel(data.width),
    lens: lensPanel(layers, pick),
  };
  const second = other && otherPanel(other, model, root, pick);
  const column = (/** @type {HTMLElement[]} */ ...boxes) =>
    node("div", { class: "qk-column" }, ...boxes);
  const columns = [
    column(parts.map.box, parts.groups.box, ...(second ? [second.box] : [])),
    column(parts.pairs.box, parts.units.box),
    column(parts.lens.box, parts.norms.box, parts.off.box),
  ];
  return { ...parts, other: second, columns };
}

/**
 * @param {OtherText} other @param {LayerModel} model @param {Root} root
 * @param {Choose<LayerState>} pick
 */
function otherPanel(other, model, root, pick) {
  const go = (/** @type {number} */ token) => pick({ other_token: token });
  const map = mapPanel("The same head on the other text", other.tokens,
    "The other text's map; arrow keys choose a token", root, () => chosen(model).other_token, go);
  const line = tokenLine("The other text; arrow keys choose a token", go);
  line.fill(other.tokens);
  map.box.children[0].after(line.list);
  return { ...map, line };
}

/**
 * @param {ReturnType<typeof layerParts>} parts @param {LayerData} data @param {LayerShown} shown
 * @param {boolean} alone @param {string} waiting
 */
function drawParts(parts, data, shown, alone, waiting) {
  const { state } = shown, { layer, head, token, other_token: otherToken } = state;
  parts.layer.update(layer);
  parts.head.update(head);
  parts.title.textContent = data.titles[layer][head];
  parts.line.draw(token, shown.row);
  parts.map.draw(shown.triangle, token);
  parts.groups.draw(head);
  parts.pairs.draw(shown, shown.kv);
  parts.norms.draw(shown.norms, layer);
  parts.units.draw(shown.units);
  parts.lens.draw(shown.lens, layer, alone
    ? "This token's was not computed before the page was made."
    : waiting);
  parts.off.draw(state, shown.without, waiting);
  parts.off.box.hidden = alone && !state.off;
  if (!parts.other || !shown.otherTriangle) return;
  const start = AREA(otherToken);
  const row = shown.otherTriangle.subarray(start, start + otherToken + 1);
  parts.other.line.draw(otherToken, Array.from(row, (weight) => weight / 255));
  parts.other.draw(shown.otherTriangle, otherToken);
}

/** @param {LayerData} data @param {LayerShown} shown */
export function layerWords({ tokens }, { state: { layer, head, token }, row, lens }) {
  const most = row.map((weight, i) => [weight, i]).filter(([weight]) => weight)
    .sort(([one], [other]) => other - one).slice(0, 3)
    .map(([weight, i]) => `${tokens[i]} (${i}) ${percent(weight)}`);
  const guess = lens ? `; here the model would predict ${lens[layer + 1][0][0]}` : "";
  return `Layer ${layer}, head ${head}: token ${token}, ${tokens[token]}, attends to `
    + `${most.join(", ")}${guess}`;
}
