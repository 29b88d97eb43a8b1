// LayerInspector: a layer, a head, a token, and panels that move together.
// `data` is described in _layer_view.py; its arrays come compressed.

import { chosen, frame, inflate, node, painted, percent, say, slider } from "./common.js";
import {
  groupPanel, lensPanel, mapPanel, normsPanel, offPanel, pairsPanel, unitsPanel,
} from "./layer_panels.js";
import { AREA } from "./maps.js";
import { later, tokenLine } from "./parts.js";

const PAUSE = 120; // milliseconds without a choice before the kernel gets the last one

export async function render({ model, el }) {
  const { root, controls, stage, live } = frame(el, "One layer, head and token");
  const data = model.get("data");
  const arrays = await unpackArrays(data);
  const tell = later(() => model.save_changes(), PAUSE);
  // The page draws at once; the kernel, which may have to compute, gets only the last state.
  const pick = (patch) => {
    model.set("state", { ...chosen(model), ...patch });
    tell();
  };
  const parts = layerParts(model, data, root, pick);
  controls.append(parts.layer, parts.head);
  stage.before(parts.title, parts.line.list);
  stage.append(...parts.columns);

  function draw() {
    const state = chosen(model);
    const shown = { state, ...layerValues(data, arrays, state), ...answers(model, data, state) };
    drawParts(parts, data, shown, Boolean(model.alone));
    say(live, layerWords(data, shown));
    root.qk = shown;
    painted(root);
  }
  const signals = ["change:state", "change:lens", "change:without"];
  for (const signal of signals) model.on(signal, draw);
  draw();
  return () => {
    for (const signal of signals) model.off(signal, draw);
  };
}

async function unpackArrays(data) {
  const names = ["weights", "queries", "keys", "cos", "sin", "units", "acts", "norms", "embed_norms"];
  const kinds = { weights: Uint8Array, queries: Int16Array, keys: Int16Array, units: Uint16Array };
  const all = await Promise.all([...names.map((name) => data[name]), data.other?.weights]
    .map((bytes) => bytes && inflate(bytes)));
  const arrays = Object.fromEntries(names.map((name, i) =>
    [name, new (kinds[name] || Float32Array)(all[i].buffer)]));
  return { ...arrays, other: all.at(-1) };
}

// Everything that is drawn for a state, except what the kernel answers.
function layerValues(data, arrays, { layer, head, token }) {
  const { heads, kv_heads: kvHeads, dim, layers, tokens } = data;
  const size = tokens.length;
  const triangle = (weights, length) => weights.subarray(
    (layer * heads + head) * AREA(length), (layer * heads + head + 1) * AREA(length));
  const own = triangle(arrays.weights, size);
  const kv = Math.floor(head / (heads / kvHeads));
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
    otherTriangle: data.other && triangle(arrays.other, data.other.tokens.length),
    kv,
    query: vector(arrays.queries, heads, head, data.query_steps[layer]),
    key: vector(arrays.keys, kvHeads, kv, data.key_steps[layer]),
    units: Array.from({ length: units }, (_, i) => [arrays.units[first + i], arrays.acts[first + i]]),
    norms,
  };
}

// RoPE: the pair (i, i + D/2) is rotated by its angle at the token's position.
function rotated(vector, { cos, sin }, token) {
  const half = vector.length / 2;
  return vector.map((value, i) => {
    const pair = token * half + i % half;
    return i < half ? value * cos[pair] - vector[i + half] * sin[pair]
      : value * cos[pair] + vector[i - half] * sin[pair];
  });
}

// What the kernel answered, if it belongs to what is chosen now; else null.
function answers(model, data, { token, off }) {
  const lens = model.get("lens"), without = model.get("without");
  return {
    lens: data.lens[token] ?? (lens?.token === token ? lens.rows : null),
    without: off && String(without?.off) === String(off) ? without : null,
  };
}

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
    title: node("h4", { class: "qk-layer-title" }),
    line,
    map: mapPanel("What the head attends to", tokens,
      "A row for each query position; arrow keys choose one", root, () => chosen(model).token, (token) => pick({ token })),
    off: offPanel(tokens, Boolean(model.alone), pick),
    pairs: pairsPanel(data.dim, root),
    norms: normsPanel(layers, root, pick),
    groups: groupPanel(data, pick),
    units: unitsPanel(data.width),
    lens: lensPanel(layers, pick),
  };
  if (other) addOther(parts, other, model, root, pick);
  const column = (...boxes) => node("div", { class: "qk-column" }, ...boxes.filter(Boolean));
  parts.columns = [
    column(parts.map.box, parts.groups.box, parts.other?.box),
    column(parts.pairs.box, parts.norms.box, parts.units.box),
    column(parts.lens.box, parts.off.box),
  ];
  return parts;
}

function addOther(parts, other, model, root, pick) {
  const go = (token) => pick({ other_token: token });
  parts.other = mapPanel("The same head on the other text", other.tokens,
    "The other text's map; arrow keys choose a token", root, () => chosen(model).other_token, go);
  parts.otherLine = tokenLine("The other text; arrow keys choose a token", go);
  parts.otherLine.fill(other.tokens);
  parts.other.box.children[0].after(parts.otherLine.list);
}

function drawParts(parts, data, shown, alone) {
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
    ? "This token's was not computed before the page was made; that needs a kernel."
    : "The kernel computes …");
  parts.off.draw(state, shown.without);
  if (!parts.other) return;
  const start = AREA(otherToken);
  const row = shown.otherTriangle.subarray(start, start + otherToken + 1);
  parts.otherLine.draw(otherToken, Array.from(row, (weight) => weight / 255));
  parts.other.draw(shown.otherTriangle, otherToken);
}

function layerWords({ tokens }, { state: { layer, head, token }, row, lens }) {
  const most = row.map((weight, i) => [weight, i]).filter(([weight]) => weight)
    .sort(([one], [other]) => other - one).slice(0, 3)
    .map(([weight, i]) => `${tokens[i]} (${i}) ${percent(weight)}`);
  const guess = lens ? `; here the model would predict ${lens[layer + 1][0][0]}` : "";
  return `Layer ${layer}, head ${head}: token ${token}, ${tokens[token]}, attends to `
    + `${most.join(", ")}${guess}`;
}
