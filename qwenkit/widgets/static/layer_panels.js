// LayerInspector's panels. Each is { box, draw }: an element of the page, and how it is redrawn.

import { button, hover, ink, node, percent, sharp } from "./common.js";
import { onWidth, triangleMap } from "./maps.js";
import { barTable, intoSight, panel, shadow, short, swatch } from "./parts.js";

/**
 * @import { BarRow, Choose, ComparedToken, Comparison, LayerData, LayerState, Lens,
 *   Rotated } from "./types.d.ts"
 */

const SHADE = "0, 114, 178"; // behind a guess, the more of it the more likely
const STRONG = 0.75; // of that color at 100%
const AFTER = "var(--qk-blue)", BEFORE = "var(--qk-faint)", WITHOUT = "var(--qk-vermilion)";
const ABOVE = "var(--qk-vermilion)", BELOW = "var(--qk-blue)"; // 0, as on maps of signed values
const MIDDLE = "var(--qk-green)";

// ---- attention: a row for each query position ----

/**
 * @param {string} title @param {string[]} labels @param {string} label @param {HTMLElement} root
 * @param {() => number} at @param {(token: number) => void} pick
 */
export function mapPanel(title, labels, label, root, at, pick) {
  const map = triangleMap({
    labels, letters: 8, largest: 24, most: 250, at, pick, "aria-label": label,
    name: (i) => `${labels[i]} (${i})`,
  });
  hover(root, map.canvas, map.words);
  return { box: panel(title, map.box), draw: map.draw };
}

// ---- query and key, before and after RoPE ----

// Bars come in pairs: dimension i above i + D/2, which rotate together.
/** @param {number} dim @param {HTMLElement} root */
export function pairsPanel(dim, root) {
  const half = dim / 2, row = 44;
  /** @type {("query" | "key")[]} */
  const names = ["query", "key"];
  const made = names.map((name) => ({
    name, canvas: node("canvas", { role: "img" }), caption: node("div", { class: "qk-note" }),
  }));
  const legend = node("div", { class: "qk-note" }, swatch(BEFORE), " before RoPE  ", swatch(AFTER),
    ` after it; above dimension i, below its partner i + ${half}; fast pairs on the left`);
  const rows = node("div", { class: "qk-map" },
    ...made.flatMap(({ canvas, caption }) => [caption, canvas]));
  /** @type {[Record<"query" | "key", Rotated>, number] | null} */
  let shown = null;
  let cell = 1;
  /** @param {Record<"query" | "key", Rotated>} vectors @param {number} key its kv head */
  function draw(vectors, key) {
    shown = [vectors, key];
    cell = Math.min(24, (rows.clientWidth || 300) / half);
    for (const { name, canvas, caption } of made) {
      const norms = [vectors[name].before, vectors[name].after].map((one) => short(Math.hypot(...one)));
      const largest = bars(canvas, vectors[name]);
      const whose = name === "query" ? "Query" : `Key of kv head ${key}`;
      caption.textContent =
        `${whose}: norm ${norms[0]}, rotated ${norms[1]}; tallest bar ${short(largest)}`;
      canvas.setAttribute("aria-label", `${caption.textContent}; ${dim} dimensions as bars`);
    }
  }
  onWidth(rows, () => shown && draw(...shown));

  /** @param {HTMLCanvasElement} canvas @param {Rotated} vector */
  function bars(canvas, { before, after }) {
    const largest = Math.max(...before.map(Math.abs), ...after.map(Math.abs)) || 1;
    const context = sharp(canvas, half * cell, 2 * row), scale = (row / 2 - 2) / largest;
    const wide = Math.max(1, cell * 0.36);
    const [line, gray, blue] = ["line", "faint", "blue"].map((name) => ink(rows, name));
    for (let i = 0; i < dim; i++) {
      const x = i % half * cell, middle = (i < half ? 0.5 : 1.5) * row;
      context.fillStyle = line;
      context.fillRect(x, middle, cell, 1);
      context.fillStyle = gray;
      context.fillRect(x + cell * 0.1, middle, wide, -before[i] * scale);
      context.fillStyle = blue;
      context.fillRect(x + cell * 0.5, middle, wide, -after[i] * scale);
    }
    return largest;
  }
  for (const { name, canvas } of made)
    hover(root, canvas, ({ offsetX }) => {
      const i = Math.floor(offsetX / cell);
      return shown && i >= 0 && i < half ? pairWords(shown[0][name], i, half) : null;
    });
  return { box: panel("Query and key of the token", rows, legend), draw };
}

/** @param {Rotated} vector @param {number} i @param {number} half */
export function pairWords({ before, after }, i, half) {
  const point = (/** @type {number[]} */ values) =>
    `(${short(values[i])}, ${short(values[i + half])})`;
  const angle = (/** @type {number[]} */ values) => Math.atan2(values[i + half], values[i]);
  const turn = ((angle(after) - angle(before)) * 180 / Math.PI + 720) % 360;
  return `dimensions ${i} and ${i + half}: ${point(before)}, rotated by ${Math.round(turn)}° `
    + `(full rotations not counted): ${point(after)}`;
}

// ---- which heads share a kv head ----

/** @param {LayerData} data @param {Choose<LayerState>} pick */
export function groupPanel({ heads, kv_heads: count }, pick) {
  const size = heads / count;
  const buttons = Array.from({ length: heads }, (_, head) =>
    button(String(head), () => pick({ head }), { "aria-label": `head ${head}` }));
  const groups = Array.from({ length: count }, (_, kv) =>
    node("div", { class: "qk-group", role: "group", "aria-label": `kv head ${kv}` },
      node("div", {}, `kv head ${kv}`), ...buttons.slice(kv * size, (kv + 1) * size)));
  const words = node("div", { class: "qk-note" });
  /** @param {number} head */
  function draw(head) {
    const kv = Math.floor(head / size);
    buttons.forEach((one, i) => one.setAttribute("aria-pressed", String(i === head)));
    groups.forEach((one, i) => one.classList.toggle("qk-on", i === kv));
    const others = size > 1 ? `shared by heads ${kv * size} to ${(kv + 1) * size - 1}` : "its own";
    words.textContent = `Head ${head} uses the keys and values of kv head ${kv}: ${others}.`;
  }
  return { box: panel("Which heads share keys and values", node("div", { class: "qk-groups" }, ...groups), words), draw };
}

// ---- the MLP's strongest units ----

/** @param {number} width */
export function unitsPanel(width) {
  const { table, draw: rows } = barTable("Unit of the MLP, and its activation");
  /** @param {[number, number][]} units */
  function draw(units) {
    const largest = Math.max(...units.map(([, value]) => Math.abs(value))) || 1;
    rows(units.map(([unit, value]) => ({
      name: `unit ${unit}`, texts: [short(value)],
      bars: [[Math.abs(value) / largest, value < 0 ? BELOW : ABOVE]],
    })));
  }
  const note = node("div", { class: "qk-note" },
    swatch(ABOVE), " above 0  ", swatch(BELOW), " below 0");
  return { box: panel(`Strongest of the MLP's ${width.toLocaleString("en")} units`, table, note), draw };
}

// ---- the residual stream's norm ----

/** @param {number} layers @param {HTMLElement} root @param {Choose<LayerState>} pick */
export function normsPanel(layers, root, pick) {
  const height = 140, left = 44, bottom = 22;
  const canvas = node("canvas", { role: "img", class: "qk-clickable" });
  const box = node("div", { class: "qk-map" }, canvas);
  let width = 296;
  // Stage 0 is the embedding; then there are two for each layer.
  const x = (/** @type {number} */ stage) => left + (width - left - 8) * stage / (2 * layers);
  /** @type {number[]} */
  let norms = [];
  let now = 0;
  /** @param {number[]} next @param {number} layer */
  function draw(next, layer) {
    [norms, now] = [next, layer];
    width = box.clientWidth || 296;
    const context = sharp(canvas, width, height), largest = Math.max(...norms) || 1;
    const y = (/** @type {number} */ value) => 8 + (height - bottom - 8) * (1 - value / largest);
    const colors = Object.fromEntries(["line", "faint", "soft", "vermilion", "green", "blue"]
      .map((name) => [name, ink(box, name)]));
    context.fillStyle = colors.vermilion;
    context.globalAlpha = 0.16;
    context.fillRect(x(2 * layer + 0.5), 8, x(2) - x(0), height - bottom - 8);
    context.globalAlpha = 1;
    context.strokeStyle = colors.line;
    context.lineWidth = 1;
    context.strokeRect(left + 0.5, 8.5, width - left - 9, height - bottom - 9);
    context.strokeStyle = colors.faint;
    context.beginPath();
    norms.forEach((value, stage) => context.lineTo(x(stage), y(value)));
    context.stroke();
    norms.forEach((value, stage) => {
      context.fillStyle = stage % 2 ? colors.green : colors.blue;
      dot(context, x(stage), y(value), stage % 2 === 1);
    });
    chartLabels(context, colors, { layers, layer, largest, left, height, bottom, x });
    const [start, middle, end] = norms.slice(2 * layer, 2 * layer + 3).map(short);
    canvas.setAttribute("aria-label", `Norm of the residual stream: ${short(norms[0])} of the `
      + `embedding, ${short(norms[norms.length - 1])} at the end; in layer ${layer} from `
      + `${start} to ${middle} by attention, to ${end} by the MLP`);
  }
  onWidth(box, () => norms.length && draw(norms, now));
  /** @param {MouseEvent} event */
  const stageAt = ({ offsetX }) =>
    Math.max(0, Math.min(2 * layers, Math.round((offsetX - left) / (x(1) - x(0)))));
  canvas.addEventListener("click", (event) =>
    pick({ layer: Math.max(0, Math.ceil(stageAt(event) / 2) - 1) }));
  hover(root, canvas, (event) => {
    const stage = stageAt(event);
    const where = stage === 0 ? "the embedding"
      : `layer ${Math.ceil(stage / 2) - 1}, after ${stage % 2 ? "attention" : "the MLP"}`;
    return `${where}: ${short(norms[stage])}`;
  });
  const legend = node("div", { class: "qk-note" },
    swatch(MIDDLE), " after attention  ", swatch(AFTER), " after the MLP");
  return { box: panel("Norm of the residual stream at the token", box, legend), draw };
}

/**
 * @param {CanvasRenderingContext2D} context @param {number} x @param {number} y
 * @param {boolean} square
 */
function dot(context, x, y, square) {
  context.beginPath();
  if (square) context.rect(x - 2.5, y - 2.5, 5, 5);
  else context.arc(x, y, 3, 0, 7);
  context.fill();
}

/**
 * @param {CanvasRenderingContext2D} context @param {Record<string, string>} colors
 * @param {{layers: number, layer: number, largest: number, left: number, height: number,
 *   bottom: number, x: (stage: number) => number}} chart
 */
function chartLabels(context, colors, { layers, layer, largest, left, height, bottom, x }) {
  context.textBaseline = "middle";
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = colors.soft;
  context.textAlign = "right";
  context.fillText(short(largest), left - 5, 13);
  context.fillText("0", left - 5, height - bottom - 5);
  context.textAlign = "center";
  const every = Math.ceil(26 / (x(2) - x(0)));
  for (let i = 0; i < layers; i++) {
    if (i !== layer && (i % every || Math.abs(i - layer) < every)) continue;
    context.font = `${i === layer ? "700" : "400"} 12px system-ui, sans-serif`;
    context.fillStyle = i === layer ? colors.vermilion : colors.soft;
    context.fillText(`L${i}`, x(2 * i + 1.5), height - bottom / 2 + 1);
  }
}

// ---- the logit lens ----

/** @param {number} layers @param {Choose<LayerState>} pick */
export function lensPanel(layers, pick) {
  const rows = Array.from({ length: layers + 1 }, (_, stage) => {
    const name = stage ? `layer ${stage - 1}` : "embedding";
    const cells = [0, 1, 2].map(() => node("td", { class: "qk-token" }));
    const go = () => pick({ layer: Math.max(0, stage - 1) });
    const head = node("th", { scope: "row" }, stage ? button(name, go) : name);
    return { cells, row: node("tr", {}, head, ...cells) };
  });
  const body = node("div", { class: "qk-scroll" },
    node("table", { class: "qk-lens", "aria-label": "The most likely next tokens after each layer" },
      node("tbody", {}, ...rows.map(({ row }) => row))));
  const wait = node("div", { class: "qk-note" });
  /** @param {Lens | null} guesses @param {number} layer @param {string} waiting */
  function draw(guesses, layer, waiting) {
    wait.textContent = guesses ? "" : waiting;
    const base = ink(body, "bg");
    rows.forEach(({ cells, row }, stage) => {
      row.classList.toggle("qk-on", stage === layer + 1);
      cells.forEach((cell, i) => {
        const [token, chance] = guesses?.[stage][i] ?? ["", 0];
        cell.replaceChildren(guesses
          ? node("div", { class: "qk-guess", title: token }, node("span", {}, token), ` ${percent(chance)}`)
          : "…");
        shadow(cell, STRONG * chance, SHADE, base);
      });
    });
    intoSight(body, rows[layer + 1].row);
  }
  return { box: panel("If the model stopped here, it would predict", body, wait), draw };
}

// ---- the chosen head, switched off ----

/** @param {string[]} tokens @param {boolean} alone @param {Choose<LayerState>} pick */
export function offPanel(tokens, alone, pick) {
  const nothing = () => {};
  let switchIt = nothing, goThere = nothing; // what the two buttons do now
  const toggle = button("", () => switchIt(), { class: "qk-wide" });
  toggle.hidden = alone; // nobody would compute
  const words = node("div", { class: "qk-note" });
  const { table, draw: rows } = barTable("Next token: probability with the head, and without it");
  const jump = button("", () => goThere());
  /** @param {LayerState} state @param {Comparison | null} answer @param {string} waiting */
  function draw({ layer, head, token, off }, answer, waiting) {
    const same = off && off[0] === layer && off[1] === head;
    toggle.textContent = same ? `Switch head ${head} of layer ${layer} on again`
      : `Switch head ${head} of layer ${layer} off`;
    switchIt = () => pick({ off: same ? null : [layer, head] });
    jump.hidden = !(off && answer);
    rows(off && answer ? answer.rows[token].map(compared) : []);
    words.textContent = offWords(off, answer, waiting);
    if (!off || !answer) return;
    const most = answer.moved.indexOf(Math.max(...answer.moved));
    jump.textContent = `Largest change after token ${most}, ${tokens[most]}`
      + ` (${short(answer.moved[most])} nats)`;
    goThere = () => pick({ token: most });
  }
  const legend = node("div", { class: "qk-note" }, swatch(BEFORE), " with it  ", swatch(WITHOUT), " without");
  return { box: panel("The next token without a head", toggle, words, table, jump, legend), draw };
}

/** @param {ComparedToken} token @returns {BarRow} */
const compared = ([name, , before, after]) => ({
  name, bars: [[before, BEFORE], [after, WITHOUT]], texts: [`${percent(before)} → ${percent(after)}`],
});

/**
 * @param {LayerState["off"]} off @param {Comparison | null} answer @param {string} waiting
 */
function offWords(off, answer, waiting) {
  if (!off) return waiting || "All heads are on.";
  if (!answer) return waiting;
  return `Head ${off[1]} of layer ${off[0]} is off (its output is 0).`;
}
