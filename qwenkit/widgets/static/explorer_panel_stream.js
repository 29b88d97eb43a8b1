// ModelExplorer's panels along the residual stream: tokens, embedding, norms, additions.

import { node } from "./common.js";
import { rmsNorm, softmaxInPlace, topIndices } from "./engine/ops.js";
import {
  atLayer, chanceOf, codeWords, cosineOf, factTiles, inked, largestSize, lengthBar, logitsOf,
  normOf, partBlock, partWideBlock, partWords, positionBars, rowTable, strengthKey, svgArrow,
  tokenName, tokenRow, tokenWords, vectorStrip, weightOf, withCommas,
} from "./explorer_panel_kit.js";
import { short, svgShape } from "./parts.js";

/** @typedef {import("./explorer_panel_kit.js").View} View */

// ---- tokens ----

/** @param {HTMLElement} box @param {View} view */
export function tokensPart(box, view) {
  const { ids, tokens, position } = view;
  const same = ids.flatMap((id, i) => id === ids[position] && i !== position ? [i] : []);
  const rows = ids.map((id, i) => ({
    cells: [String(i), tokenWords(tokens[i]), withCommas(id)], on: i === position, data: String(i),
  }));
  const table = rowTable("Tokens of the prompt", ["position", "token", "id"], rows);
  const scroll = node("div", { class: "qk-part-scroll", role: "region", tabindex: 0,
    "aria-label": "All tokens" }, table);
  table.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const row = /** @type {HTMLElement} */ (event.target).closest("tr[data-row]");
    if (row) view.choose({ position: Number(/** @type {HTMLElement} */ (row).dataset.row) });
  });
  table.classList.add("qk-clickable");
  box.append(
    partWords("The tokenizer cuts the text into tokens and looks up the id of each. The model "
      + `never sees letters: only these ${ids.length} integers, each from 0 to `
      + `${withCommas(view.logits.length - 1)}.`),
    factTiles([
      ["tokens in the prompt", String(ids.length), "tokens"],
      ["tokens in the vocabulary", withCommas(view.logits.length), "vocab"],
      ["id of the chosen token", withCommas(ids[position]), "id"],
      ["same token at", same.length ? same.slice(0, 6).join(", ") + (same.length > 6 ? ", …" : "")
        : "no other position"],
    ]),
    partWideBlock("All tokens", scroll),
  );
}

// ---- embedding ----

/** @param {HTMLElement} box @param {View} view */
export function embedPart(box, view) {
  const { ids, config, position } = view, id = ids[position];
  const table = weightOf(view, "model.embed_tokens.weight"), row = tokenRow(view, "embed");
  const alike = Float32Array.from({ length: view.logits.length }, (_, other) => other === id ? -2
    : cosineOf(row, table.data.subarray(other * config.hidden, (other + 1) * config.hidden)));
  const near = topIndices(alike, 6);
  box.append(
    partWords("The id chooses a row of the embedding matrix. This row of ",
      codeWords(`${config.hidden}`),
      " numbers is where the residual stream of this token begins."),
    factTiles([
      ["row", `${withCommas(id)} of ${withCommas(config.vocab)}`, "id"],
      ["matrix (V, C)", `${withCommas(config.vocab)} × ${config.hidden}`],
      ["prompt (T, C)", `${ids.length} × ${config.hidden}`],
      ["norm of the row", short(normOf(row)), "norm"],
    ]),
    partWideBlock("The row of this token",
      vectorStrip(box, `embedding of ${tokenName(view)}`, row, { data: "embed" }),
      strengthKey(largestSize(row))),
    partBlock("Most similar rows", partWords(
      "By cosine: 1 is the same direction, 0 is a right angle."),
      rowTable("Tokens with the most similar embedding", ["token", "", "cosine"],
        near.map((other) => ({
        cells: [tokenWords(view.name(other)), lengthBar(alike[other], "blue"), short(alike[other])],
      })))),
    partBlock("Where the stream begins at each token", partWords("Norm of each token's embedding."),
      positionBars(box, view, "Norm of each token's embedding", tokenNorms(view, "embed"))),
  );
}

/** The norm of each token's row. @param {View} view @param {string} name */
const tokenNorms = (view, name) =>
  view.ids.map((_, position) => normOf(tokenRow(view, name, { position })));

// ---- RMSNorm ----

/**
 * @param {HTMLElement} box
 * @param {View} view
 * @param {{before: string, after: string, weight: string, next: string}} which points and tensor
 */
function normPart(box, view, { before, after, weight, next }) {
  const x = tokenRow(view, before), y = tokenRow(view, after), gain = weightOf(view, weight).data;
  const { eps, hidden } = view.config;
  const rmsOf = (/** @type {Float32Array} */ row) => Math.sqrt(normOf(row) ** 2 / row.length + eps);
  const rms = rmsOf(x), bound = Math.max(largestSize(x.map((one) => one / rms)), largestSize(y));
  const all = view.ids.map((_, position) => rmsOf(tokenRow(view, before, { position })));
  const rows = topIndices(x.map(Math.abs), 5).map((i) => ({
    cells: [`[${i}]`, short(x[i]), short(x[i] / rms), short(gain[i]), short(y[i])],
  }));
  box.append(
    partWords("RMSNorm divides the vector by its root mean square, so that its size is always "
      + `about 1, and multiplies each dimension by a learned weight. ${next}`),
    factTiles([
      ["root mean square (RMS)", short(rms), "rms"],
      ["norm before", short(normOf(x)), "before"],
      ["norm after", short(normOf(y)), "after"],
      ["shape (T, C)", `${view.ids.length} × ${hidden}`],
    ]),
    partWideBlock("Before, weight, after",
      vectorStrip(box, "x, the residual stream", x, { data: "before", bound: bound * rms }),
      vectorStrip(box, "x / RMS", x.map((one) => one / rms), { bound }),
      vectorStrip(box, "weight", gain, { color: "orange", data: "weight" }),
      vectorStrip(box, "y = x / RMS × weight", y, { color: "blue", data: "after", bound }),
      strengthKey(bound)),
    partBlock("The largest dimensions, worked out",
      rowTable("Largest dimensions", ["dim.", "x", "÷ RMS", "× weight", "= y"], rows),
      partWords(`RMS = √(${short(normOf(x))}² / ${hidden} + ${eps}) = ${short(rms)}.`)),
    partBlock("RMS of each token", positionBars(
      box, view, "RMS of the residual stream at each token", all)),
  );
}

/** @param {HTMLElement} box @param {View} view */
export const attnNormPart = (box, view) => normPart(box, view, {
  before: atLayer(view, "resid_pre"), after: atLayer(view, "attn_norm"),
  weight: `model.layers.${view.layer}.input_layernorm.weight`,
    next: "Attention works on the result.",
});

/** @param {HTMLElement} box @param {View} view */
export const mlpNormPart = (box, view) => normPart(box, view, {
  before: atLayer(view, "resid_mid"), after: atLayer(view, "mlp_norm"),
  weight: `model.layers.${view.layer}.post_attention_layernorm.weight`,
    next: "The MLP works on the result.",
});

/** @param {HTMLElement} box @param {View} view */
export const finalNormPart = (box, view) => normPart(box, view, {
  before: `layers.${view.config.layers - 1}.resid_post`, after: "final_norm",
    weight: "model.norm.weight",
  next: "The head compares the result with every token's row.",
});

// ---- additions to the stream ----

/** @param {HTMLElement} box @param {View} view */
export const addAttnPart = (box, view) => addPart(box, view, {
  before: "resid_pre", added: "attn.out", after: "resid_mid", who: "attention",
});

/** @param {HTMLElement} box @param {View} view */
export const addMlpPart = (box, view) => addPart(box, view, {
  before: "resid_mid", added: "mlp.out", after: "resid_post", who: "the MLP",
});

/**
 * @param {HTMLElement} box
 * @param {View} view
 * @param {{before: string, added: string, after: string, who: string}} which points of the layer
 */
function addPart(box, view, { before, added, after, who }) {
  const [x, update, y] = [before, added, after].map((name) => tokenRow(view, atLayer(view, name)));
  const bound = Math.max(largestSize(x), largestSize(y)), cosine = cosineOf(x, update);
  const on = view.base && normOf(tokenRow(view, atLayer(view, after), { trace: view.base }));
  const angle = Math.round(Math.acos(Math.max(-1, Math.min(1, cosine))) * 180 / Math.PI);
  const off = normOf(update) === 0;
  box.append(
    partWords(off ? `What ${who} would add is switched off: the stream passes unchanged.`
      : `What ${who} computed is added to the residual stream. The stream is never replaced: `
        + "every layer only adds to it."),
    factTiles([
      ["norm before", short(normOf(x)), "before"],
      ["norm of the addition", short(normOf(update)), "added"],
      ["norm after", short(normOf(y)), "after"],
      ["cosine of stream and addition", off ? "–" : `${short(cosine)} (${angle}°)`, "cosine"],
      ["cosine of before and after", short(cosineOf(x, y)), "kept"],
      ...(on ? [/** @type {[string, string, string]} */ (
        ["norm after, all on", short(on), "base"])] : []),
    ]),
    partBlock("The addition as arrows", additionPicture(x, update, y),
      partWords("Drawn to scale in the plane of the two vectors: ", inked("stream before", "soft"),
        " + ",
        inked(who, "vermilion"), " = ", inked("stream after", "blue"), ".")),
    partBlock("If the model stopped here, it would predict", stoppedHere(view, x, y)),
    partWideBlock("Before, addition, after",
      vectorStrip(box, "stream before", x, { bound, data: "before" }),
      vectorStrip(box, `from ${who}`, update, { bound, color: "vermilion", data: "added" }),
      vectorStrip(box, "stream after", y, { bound, color: "blue", data: "after" }),
        strengthKey(bound)),
    partWideBlock("Norm of the stream through all layers", streamChart(view, after)),
  );
}

/** @param {Float32Array} x @param {Float32Array} update @param {Float32Array} y */
function additionPicture(x, update, y) {
  const cosine = cosineOf(x, update), long = normOf(x), added = normOf(update);
  const sine = Math.sqrt(Math.max(0, 1 - cosine * cosine));
  /** @type {[number, number][]} */
  const points = [[0, 0], [long, 0], [long + added * cosine, added * sine]];
  const xs = points.map(([one]) => one), [least, most] = [Math.min(...xs), Math.max(...xs)];
  const scale = Math.min(276 / (most - least || 1), 116 / (points[2][1] || 1));
  const wide = (most - least) * scale;
  const at = points.map(([a, b]) => /** @type {[number, number]} */ (
    [(300 - wide) / 2 + (a - least) * scale, 134 - b * scale]));
  return svgShape("svg", {
    viewBox: "0 0 300 150", class: "qk-part-svg", role: "img",
    "aria-label": `Arrows: before, norm ${short(long)}; addition, norm ${short(added)}, at `
      + `${Math.round(Math.acos(Math.max(-1, Math.min(1, cosine))) * 180 / Math.PI)} degrees; `
      + `after, norm ${short(normOf(y))}`,
  }, svgArrow(at[0], at[1], "soft", { width: 3 }),
    svgArrow(at[1], at[2], "vermilion", { width: 3 }),
  svgArrow(at[0], at[2], "blue", { width: 3 }));
}

/**
 * The probabilities that the final norm and the head make of a row of the stream.
 * @param {View} view
 * @param {Float32Array} row
 */
export function lensOf(view, row) {
  const normed = rmsNorm(row, weightOf(view, "model.norm.weight").data, view.config.eps);
  const chances = logitsOf(view, normed);
  softmaxInPlace(chances, 0, chances.length);
  return chances;
}

/** @param {View} view @param {Float32Array} x @param {Float32Array} y */
function stoppedHere(view, x, y) {
  const [before, after] = [lensOf(view, x), lensOf(view, y)];
  const shown = [...new Set([...topIndices(after, 4), ...topIndices(before, 3)])].slice(0, 6);
  return node("div", {}, rowTable("Predictions before and after", ["token", "before", "after", ""],
    shown.map((id) => ({
    cells: [tokenWords(view.name(id)), chanceOf(before[id]), chanceOf(after[id]),
      lengthBar(after[id], "blue")],
  }))), partWords("The final norm and the head, applied to the stream at this point (logit "
    + "lens)."));
}

/**
 * A bar for the embedding and two for each layer.
 * @param {View} view
 * @param {string} after the point that is marked
 */
function streamChart(view, after) {
  const { layers } = view.config, every = Math.ceil(layers / 12);
  const normAt = (/** @type {string} */ name) => normOf(tokenRow(view, name));
  const norms = Array.from({ length: layers }, (_, layer) =>
    ["resid_mid", "resid_post"].map((mark) => normAt(`layers.${layer}.${mark}`)));
  const start = normAt("embed"), end = norms[layers - 1][1],
    most = Math.max(start, ...norms.flat()) || 1;
  const streamBar = (/** @type {number} */ value, /** @type {string} */ color,
    /** @type {boolean} */ on, /** @type {string} */ name) =>
    node("i", { class: on ? "qk-on" : null, title: `${name}: ${short(value)}`,
      style: `height: ${(100 * value / most).toFixed(1)}%; background: var(--qk-${color})` });
  const column = (/** @type {Node[]} */ bars, /** @type {string} */ words,
    /** @type {boolean} */ on) =>
    node("div", { class: on ? "qk-on" : null }, node("div", {}, ...bars), node("span", {}, words));
  const columns = norms.map(([middle, last], layer) => {
    const here = layer === view.layer,
      named = here || layer % every === 0 && Math.abs(layer - view.layer) >= every;
    return column([
      streamBar(middle, "vermilion", here && after === "resid_mid",
        `layer ${layer}, after attention`),
      streamBar(last, "green", here && after === "resid_post", `layer ${layer}, after the MLP`),
    ], named ? String(layer) : "", here);
  });
  const words = norms.map(([middle, last], layer) =>
    `layer ${layer}: ${short(middle)} after attention, ${short(last)} after the MLP`);
  return node("div", {},
    node("div", { class: "qk-part-stream", role: "img",
      "aria-label": `Embedding ${short(start)}; ${words.join("; ")}` },
      column([streamBar(start, "soft", false, "embedding")], "emb.", false), ...columns),
    partWords(`From ${short(start)} at the embedding to ${short(end)} after the last layer. In `
      + "each layer: ",
      inked("after attention", "vermilion"), ", ", inked("after the MLP", "green"), "."));
}
