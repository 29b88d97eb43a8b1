// ModelExplorer's panels of the MLP, the logits and the choice of the next token.

import { node } from "./common.js";
import { silu, topIndices } from "./engine/ops.js";
import { probabilities } from "./engine/sampling.js";
import {
  atLayer, chanceOf, codeWords, dotOf, factTiles, headWeight, inked, largestSize, lengthBar,
  logitsOf, normOf, partBlock, partWideBlock, partWords, rowTable, signedBar, strengthKey,
  tokenName, tokenRow, tokenWords, vectorStrip, weightOf, withCommas,
} from "./explorer_panel_kit.js";
import { lensOf } from "./explorer_panel_stream.js";
import { short, svgShape } from "./parts.js";

/** @typedef {import("./explorer_panel_kit.js").View} View */

const MOST_UNITS = 6;

// ---- the MLP ----

/** @param {HTMLElement} box @param {View} view */
export function gateUpPart(box, view) {
  const [gate, up, act] = ["gate", "up", "act"].map(
    (name) => tokenRow(view, atLayer(view, `mlp.${name}`)));
  const units = topIndices(act.map(Math.abs), MOST_UNITS), most = largestSize(act),
    width = act.length;
  const squares = normOf(act) ** 2 || 1, open = gate.filter((one) => one > 0).length;
  const shareOfTop = units.reduce((sum, unit) => sum + act[unit] ** 2, 0) / squares;
  const rows = units.map((unit) => ({
    cells: [String(unit), short(gate[unit]), short(silu(gate[unit])), short(up[unit]),
      signedBar(act[unit], most, "blue"), short(act[unit])],
    data: String(unit),
  }));
  box.append(
    partWords(`The MLP has ${withCommas(width)} units. Each gets a gate and an up value from the `
      + `vector; the unit's `
      + "activation is ", codeWords("SiLU(gate) × up"), ". A gate far below 0 closes the unit."),
    factTiles([
      ["units", withCommas(width)],
      ["gates above 0", `${open} (${chanceOf(open / width)})`, "open"],
      ["largest activation", short(act[units[0]]), "largest"],
      [`the top ${units.length} units' part of the squared norm`, chanceOf(shareOfTop)],
    ]),
    partBlock("SiLU opens and closes", siluPicture(gate, units),
      partWords("The curve is SiLU(x) = x / (1 + e^−x). ", inked("Ticks", "soft"),
        ": the gates of all units. ",
        inked("Dots", "vermilion"), ": the units of the table.")),
    partBlock("The strongest units", rowTable(
      "Strongest units of the MLP", ["unit", "gate", "SiLU", "× up", "", "= act."], rows)),
    partWideBlock("All units", vectorStrip(box, "gate", gate, { color: "vermilion", data: "gate" }),
      vectorStrip(box, "up", up, { color: "green", data: "up" }),
      vectorStrip(box, "SiLU(gate) × up", act, { color: "blue", data: "act" }),
      partWords("Each strip has its own scale: red above 0, blue below, white at 0.")),
  );
}

/** @param {Float32Array} gate @param {number[]} units */
function siluPicture(gate, units) {
  const width = 300, height = 150, least = Math.min(-4, ...gate), most = Math.max(4, ...gate),
    top = silu(most);
  const x = (/** @type {number} */ one) => 6 + (width - 12) * (one - least) / (most - least);
  const y = (/** @type {number} */ one) => 118 - 106 * one / top;
  const points = Array.from({ length: 121 }, (_, i) => {
    const one = least + (most - least) * i / 120;
    return `${x(one).toFixed(1)},${y(silu(one)).toFixed(1)}`;
  });
  const ticks = Array.from(gate, (one) => `M${x(one).toFixed(1)},126v9`).join("");
  return svgShape("svg", {
    viewBox: `0 0 ${width} ${height}`, class: "qk-part-svg", role: "img",
    "aria-label": `SiLU's curve from ${short(least)} to ${short(most)}; gates of the strongest `
      + "units: "
      + units.map((unit) => short(gate[unit])).join(", "),
  },
  svgShape("path", { d: `M6,${y(0)}H${width - 6}M${x(0)},8V126`, style: "stroke: var(--qk-line)" }),
  svgShape("path", { d: ticks, style: "stroke: var(--qk-soft); opacity: 0.35",
    "stroke-width": 0.8 }),
  svgShape("polyline", { points: points.join(" "), style: "fill: none; stroke: var(--qk-blue)",
    "stroke-width": 2 }),
  ...units.map((unit) => svgShape("circle",
    { cx: x(gate[unit]).toFixed(1), cy: y(silu(gate[unit])).toFixed(1), r: 4,
    style: "fill: var(--qk-vermilion); stroke: var(--qk-bg)" },
      svgShape("title", {}, `unit ${unit}: gate ${short(gate[unit])}`))),
  ...[least, 0, most].map((one, i) => svgShape("text", { x: x(one), y: 147, class: "qk-part-tick",
    "text-anchor": ["start", "middle", "end"][i] }, short(one).replace(/[.]0+$/, ""))));
}

/** @param {HTMLElement} box @param {View} view */
export function mlpOutPart(box, view) {
  const act = tokenRow(view, atLayer(view, "mlp.act")),
    out = tokenRow(view, atLayer(view, "mlp.out")), norm = normOf(out);
  const { shape: [hidden, width], data } = weightOf(
    view, `model.layers.${view.layer}.mlp.down_proj.weight`);
  const columnNorms = new Float32Array(width);
  for (let i = 0; i < hidden; i++)
    for (let unit = 0; unit < width; unit++) columnNorms[unit] += data[i * width + unit] ** 2;
  const added = act.map((one, unit) => Math.abs(one) * Math.sqrt(columnNorms[unit]));
  const units = topIndices(added, MOST_UNITS), most = added[units[0]] || 1;
  const rows = units.map((unit) => {
    const column = Float32Array.from({ length: hidden },
      (_, i) => act[unit] * data[i * width + unit]);
    return {
      cells: [String(unit), short(act[unit]), lengthBar(added[unit] / most, "blue"),
        short(added[unit]),
        node("span", {}, ...raised(view, column).flatMap(
          (id) => [tokenWords(view.name(id)), " "]))],
      data: String(unit),
    };
  });
  box.append(
    partWords(`down_proj takes the ${withCommas(width)} activations back to ${hidden} numbers: `
      + "each unit adds its own column of the weight, times its activation."),
    factTiles([
      ["down_proj (C, F)", `${hidden} × ${withCommas(width)}`],
      ["output (T, C)", `${view.ids.length} × ${hidden}`],
      ["norm of the output", short(norm), "norm"],
      ["largest part of a unit", short(most), "largest"],
    ]),
    partWideBlock(norm ? "The output" : "The output, switched off", vectorStrip(
      box, "output of the MLP", out, { color: "blue", data: "out" }),
      strengthKey(largestSize(out))),
    partWideBlock("The units that add the most", rowTable("Units that add the most",
      ["unit", "act.", "", "norm", "raises most"], rows),
    partWords("Norm: the length of what the unit adds. Raises most: the tokens whose logits that "
      + "direction raises most, if it reached the head unchanged.")),
  );
}

/**
 * The two tokens whose logits a direction raises most.
 * @param {View} view
 * @param {Float32Array} column
 */
function raised(view, column) {
  const gain = weightOf(view, "model.norm.weight").data;
  return topIndices(logitsOf(view, column.map((one, i) => one * gain[i])), 2);
}

// ---- logits ----

const MOST_TOKENS = 10;

/** @param {HTMLElement} box @param {View} view */
export function logitsPart(box, view) {
  const { ids, position, config } = view, normed = tokenRow(view, "final_norm"),
    last = position === ids.length - 1;
  const logits = last ? view.logits : logitsOf(view, normed),
    chances = probabilities(logits);
  const base = view.base && probabilities(
    logitsOf(view, tokenRow(view, "final_norm", { trace: view.base })));
  const top = topIndices(logits, MOST_TOKENS), next = last ? -1 : ids[position + 1];
  const shown = next < 0 || top.includes(next) ? top : [...top, next];
  const rows = shown.map((id) => ({
    cells: [tokenWords(view.name(id)), short(logits[id]),
      probabilityBars(chances[id], base ? base[id] : null),
      chanceOf(chances[id]), ...(base ? [chanceOf(base[id])] : [])],
    on: id === next, data: String(id),
  }));
  const rank = next < 0 ? 0 : 1 + logits.reduce(
    (count, one) => count + Number(one > logits[next]), 0);
  const row = headWeight(view).data.subarray(top[0] * config.hidden, (top[0] + 1) * config.hidden);
  box.append(
    partWords("The head compares the final vector with a row for each token of the vocabulary. "
      + "The dot product is the token's logit; softmax makes probabilities of all logits."),
    factTiles([
      ["logits (V)", withCommas(logits.length)],
      ["most likely after the token", tokenWords(view.name(top[0]))],
      ["its probability", chanceOf(chances[top[0]]), "top"],
      ["entropy", `${short(entropyOf(chances))} bits`, "entropy"],
      ...(next < 0 ? [] : [/** @type {[string, string, string]} */ (
        ["rank of the token that follows", `${withCommas(rank)} of ${withCommas(logits.length)}`,
        "rank"])]),
    ]),
    partWideBlock(`Predicted after token ${tokenName(view)}`, rowTable("Most likely next tokens",
      ["token", "logit", "", base ? "now" : "probability", ...(base ? ["all on"] : [])], rows),
    partWords(`Worked out: final vector · row of “${view.name(top[0])}” = `
      + `${short(dotOf(normed, row))}. `
      + (next < 0 ? "" : `The token that follows in the prompt, “${view.name(next)}”, is marked. `)
      + (base ? "The gray bar is the probability with everything switched on." : ""))),
    partWideBlock("What the head is given",
      vectorStrip(box, `final vector of ${tokenName(view)}`, normed,
      { color: "blue", data: "final" }),
      strengthKey(largestSize(normed))),
    partWideBlock("How the prediction grew", lensTable(view, shown.slice(0, 3), chances)),
  );
}

/** @param {number} now @param {number | null} before */
function probabilityBars(now, before) {
  const made = node("div", { class: "qk-part-two" }, lengthBar(now, "blue"));
  if (before !== null) made.append(lengthBar(before, "faint"));
  return made;
}

/** @param {ArrayLike<number>} chances */
function entropyOf(chances) {
  let bits = 0;
  for (let i = 0; i < chances.length; i++) if (chances[i] > 0) bits -= chances[i] * Math.log2(
    chances[i]);
  return bits;
}

/**
 * The probabilities of some tokens if the model stopped after each layer.
 * @param {View} view
 * @param {number[]} shown
 * @param {Float32Array} final
 */
function lensTable(view, shown, final) {
  const { layers } = view.config;
  const stages = [["embedding", "embed"], ...Array.from({ length: layers - 1 }, (_, layer) =>
    [`layer ${layer}`, `layers.${layer}.resid_post`])];
  const found = [...stages.map(([name, point]) =>
    ({ name, chances: lensOf(view, tokenRow(view, point)) })),
    { name: `layer ${layers - 1}`, chances: final }];
  return node("div", {}, rowTable("Predictions after each layer",
    ["after", ...shown.map((id) => view.name(id)), "most likely there"],
    found.map(({ name, chances }) => ({
      cells: [name, ...shown.map((id) => chanceOf(chances[id])),
        tokenWords(view.name(topIndices(chances, 1)[0]))],
    }))), partWords("The final norm and the head, applied to the stream after each layer (logit "
      + "lens)."));
}

// ---- sampling ----

/** @param {HTMLElement} box @param {View} view */
export function samplingPart(box, view) {
  const { temperature, topK } = view.settings, plain = probabilities(view.logits);
  const chances = probabilities(view.logits, { temperature, topK });
  const top = topIndices(view.logits, MOST_TOKENS),
    kept = chances.reduce((count, one) => count + Number(one > 0), 0);
  const scaled = temperature === 0 ? "–" : null;
  const rows = top.map((id, i) => ({
    cells: [tokenWords(view.name(id)), short(view.logits[id]),
      scaled ?? short(view.logits[id] / temperature),
      probabilityBars(chances[id], plain[id]), chances[id] > 0 ? chanceOf(chances[id]) : "cut",
        chanceOf(plain[id])],
    faint: chances[id] === 0, data: String(id), on: i === 0 && temperature === 0,
  }));
  const order = topIndices(chances, Math.min(kept, 12));
  const colors = ["blue", "vermilion", "green", "pink", "orange", "sky"];
  const strip = node("div", { class: "qk-part-stack", role: "img",
    "aria-label": `From 0 to 1: `
      + `${order.map((id) => `${view.name(id)} ${chanceOf(chances[id])}`).join(", ")}` },
  ...order.map((id, i) => node("span", {
    style: `width: ${(100 * chances[id]).toFixed(3)}%; background: `
      + `var(--qk-${colors[i % colors.length]})`,
    title: `${view.name(id)}: ${chanceOf(chances[id])}`,
  }, chances[id] > 0.07 ? view.name(id) : "")));
  box.append(
    partWords(temperature === 0 ? "At temperature 0 nothing is random: the most likely token is "
      + "taken (greedy decoding)."
      : `The logits are divided by the temperature, ${short(temperature)}`
        + `${topK ? `, and only the ${topK} largest are kept` : ""}; softmax makes probabilities `
          + `of them, and one token is drawn.`),
    factTiles([
      ["temperature", short(temperature)], ["top-k", topK ? String(topK) : "off: all tokens"],
      ["tokens that can be drawn", withCommas(kept), "kept"],
      ["entropy", `${short(entropyOf(chances))} bits (${short(entropyOf(plain))} at temperature `
        + `1)`, "entropy"],
    ]),
    partWideBlock("What is drawn from", strip,
      node("div", { class: "qk-part-ends" }, node("span", {}, "0"), node("span", {}, "1")),
      partWords(kept === 1 ? "There is nothing to choose: this token is appended to the prompt."
        : "A random number from 0 to 1 falls on one of these parts; that token is appended to the "
          + "prompt.")),
    partWideBlock("The most likely tokens", rowTable("Probabilities with and without the settings",
      ["token", "logit", "÷ temp.", "", "now", "temp. 1"], rows),
    partWords(inked("Blue", "blue"), ": with the settings; gray: at temperature 1 without top-k.")),
  );
}
