// LayerInspector's panels. Each is { box, draw }: an element of the page, and how it is redrawn.

import { button, hover, node, percent, sharp } from "./common.js";
import { triangleMap } from "./maps.js";
import { barTable, BLUE, GREEN, intoSight, ORANGE, PALE, panel, short, swatch } from "./parts.js";

/**
 * @import { BarRow, Choose, ComparedToken, Comparison, LayerData, LayerState, Lens,
 *   Rotated } from "./types.d.ts"
 */

// ---- attention: a row for each query position ----

/**
 * @param {string} title @param {string[]} labels @param {string} label @param {HTMLElement} root
 * @param {() => number} at @param {(token: number) => void} pick
 */
export function mapPanel(title, labels, label, root, at, pick) {
  const map = triangleMap({
    labels, letters: 8, margin: 64, at, pick, "aria-label": label,
    cell: Math.max(1, Math.min(24, Math.floor(230 / labels.length))),
    name: (i) => `${labels[i]} (${i})`,
  });
  hover(root, map.canvas, map.words);
  return { box: panel(title, map.canvas), draw: map.draw };
}

// ---- query and key, before and after RoPE ----

// Bars come in pairs: dimension i above i + D/2, which rotate together.
/** @param {number} dim @param {HTMLElement} root */
export function pairsPanel(dim, root) {
  const half = dim / 2, row = 46;
  const cell = Math.max(4, Math.min(18, Math.floor(294 / half)));
  /** @type {("query" | "key")[]} */
  const names = ["query", "key"];
  const made = names.map((name) => {
    const canvas = node("canvas", { role: "img" });
    const caption = node("div", { class: "qk-note" });
    return { name, canvas, caption, context: sharp(canvas, half * cell, 2 * row) };
  });
  /** @type {Record<"query" | "key", Rotated> | null} */
  let shown = null;
  /** @param {Record<"query" | "key", Rotated>} vectors @param {number} key its kv head */
  function draw(vectors, key) {
    shown = vectors;
    for (const { name, canvas, caption, context } of made) {
      const { before, after } = vectors[name];
      const largest = Math.max(...before.map(Math.abs), ...after.map(Math.abs)) || 1;
      context.clearRect(0, 0, half * cell, 2 * row);
      for (let i = 0; i < dim; i++) {
        const x = i % half * cell, middle = (i < half ? 0.5 : 1.5) * row;
        context.fillStyle = "#ccc";
        context.fillRect(x, middle, cell, 1);
        const scale = (row / 2 - 2) / largest, wide = Math.max(1.5, cell * 0.38);
        context.fillStyle = PALE;
        context.fillRect(x + cell * 0.08, middle, wide, -before[i] * scale);
        context.fillStyle = BLUE;
        context.fillRect(x + cell * 0.5, middle, wide, -after[i] * scale);
      }
      const norm = Math.hypot(...before);
      const whose = name === "query" ? "Query" : `Key of kv head ${key}`;
      caption.textContent =
        `${whose}: norm ${short(norm)}, rotated ${short(Math.hypot(...after))}; `
        + `tallest bar ${short(largest)}`;
      canvas.setAttribute("aria-label", `${caption.textContent}; ${dim} dimensions as bars`);
    }
  }
  for (const { name, canvas } of made)
    hover(root, canvas, ({ offsetX }) => {
      const i = Math.floor(offsetX / cell);
      return shown && i >= 0 && i < half ? pairWords(shown[name], i, half) : null;
    });
  const legend = node("div", { class: "qk-note" }, swatch(PALE), " before RoPE  ", swatch(BLUE),
    ` after it; above dimension i, below its partner i + ${half}; fast pairs on the left`);
  const parts = made.flatMap(({ canvas, caption }) => [caption, canvas]);
  return { box: panel("Query and key of the token", ...parts, legend), draw };
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
      bars: [[Math.abs(value) / largest, value < 0 ? ORANGE : BLUE]],
    })));
  }
  const note = node("div", { class: "qk-note" },
    swatch(BLUE), " above 0  ", swatch(ORANGE), " below 0");
  return { box: panel(`Strongest of the MLP's ${width.toLocaleString("en")} units`, table, note), draw };
}

// ---- the residual stream's norm ----

/** @param {number} layers @param {HTMLElement} root @param {Choose<LayerState>} pick */
export function normsPanel(layers, root, pick) {
  const width = 296, height = 140, left = 44, bottom = 22;
  const canvas = node("canvas", { role: "img", class: "qk-clickable" });
  const context = sharp(canvas, width, height);
  // Stage 0 is the embedding; then there are two for each layer.
  const x = (/** @type {number} */ stage) => left + (width - left - 8) * stage / (2 * layers);
  /** @type {number[]} */
  let norms = [];
  /** @param {number[]} next @param {number} layer */
  function draw(next, layer) {
    norms = next;
    const largest = Math.max(...norms);
    const y = (/** @type {number} */ value) => 8 + (height - bottom - 8) * (1 - value / largest);
    context.clearRect(0, 0, width, height);
    context.fillStyle = "rgba(213, 94, 0, 0.15)";
    context.fillRect(x(2 * layer + 0.5), 0, x(2) - x(0), height - bottom);
    context.strokeStyle = "#999";
    context.lineWidth = 1;
    context.strokeRect(left, 8, width - left - 8, height - bottom - 8);
    context.beginPath();
    norms.forEach((value, stage) => context.lineTo(x(stage), y(value)));
    context.stroke();
    norms.forEach((value, stage) => dot(context, x(stage), y(value), stage % 2 === 1));
    chartLabels(context, { layers, layer, largest, left, height, bottom, x });
    const [start, middle, end] = norms.slice(2 * layer, 2 * layer + 3).map(short);
    canvas.setAttribute("aria-label", `Norm of the residual stream: ${short(norms[0])} of the `
      + `embedding, ${short(norms[norms.length - 1])} at the end; in layer ${layer} from `
      + `${start} to ${middle} by attention, to ${end} by the MLP`);
  }
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
    swatch(GREEN), " after attention  ", swatch(BLUE), " after the MLP");
  return { box: panel("Norm of the residual stream at the token", canvas, legend), draw };
}

/**
 * @param {CanvasRenderingContext2D} context @param {number} x @param {number} y
 * @param {boolean} square
 */
function dot(context, x, y, square) {
  context.fillStyle = square ? GREEN : BLUE;
  context.beginPath();
  if (square) context.rect(x - 2.5, y - 2.5, 5, 5);
  else context.arc(x, y, 3, 0, 7);
  context.fill();
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {{layers: number, layer: number, largest: number, left: number, height: number,
 *   bottom: number, x: (stage: number) => number}} chart
 */
function chartLabels(context, { layers, layer, largest, left, height, bottom, x }) {
  context.textBaseline = "middle";
  context.font = "12px system-ui, sans-serif";
  context.fillStyle = "#333";
  context.textAlign = "right";
  context.fillText(short(largest), left - 4, 12);
  context.fillText("0", left - 4, height - bottom - 4);
  context.textAlign = "center";
  const every = Math.ceil(22 / (x(2) - x(0)));
  for (let i = 0; i < layers; i++) {
    if (i !== layer && (i % every || Math.abs(i - layer) < every)) continue;
    context.fillStyle = i === layer ? "#a34700" : "#333";
    context.fillText(`L${i}`, x(2 * i + 1.5), height - bottom / 2);
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
    rows.forEach(({ cells, row }, stage) => {
      row.classList.toggle("qk-on", stage === layer + 1);
      cells.forEach((cell, i) => {
        const [token, chance] = guesses?.[stage][i] ?? ["", 0];
        cell.textContent = guesses ? `${token} ${percent(chance)}` : "…";
        cell.style.background = `rgba(0, 114, 178, ${0.75 * chance})`;
        cell.style.color = chance > 0.7 ? "white" : "";
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
  const legend = node("div", { class: "qk-note" }, swatch(PALE), " with it  ", swatch(ORANGE), " without");
  return { box: panel("The next token without a head", toggle, words, table, jump, legend), draw };
}

/** @param {ComparedToken} token @returns {BarRow} */
const compared = ([name, , before, after]) => ({
  name, bars: [[before, PALE], [after, ORANGE]], texts: [`${percent(before)} → ${percent(after)}`],
});

/**
 * @param {LayerState["off"]} off @param {Comparison | null} answer @param {string} waiting
 */
function offWords(off, answer, waiting) {
  if (!off) return waiting || "All heads are on.";
  if (!answer) return waiting;
  return `Head ${off[1]} of layer ${off[0]} is off (its output is 0).`;
}
