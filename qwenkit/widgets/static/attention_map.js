// AttentionExplorer's large map of one head, and the text with arcs between its tokens.

import { chosen, context2d, node } from "./common.js";
import { shortened, triangleMap } from "./maps.js";
import { intoSight, tokenLine } from "./parts.js";

/** @import { AttentionData, AttentionModel, AttentionState, Choose } from "./types.d.ts" */

const COLORS = { "attends to": "0, 114, 178", "is attended to by": "190, 80, 0" };
const LEAST = 0.02; // arcs of smaller weights are left out
const LETTERS = 11; // of a label

// ---- the chosen head ----

/**
 * @param {AttentionData} data @param {AttentionModel} model
 * @param {Choose<AttentionState>} pick
 */
export function headMap(data, model, pick) {
  const { labels } = data;
  const map = triangleMap({
    labels, letters: LETTERS, margin: longest(labels) + 8, class: "qk-attention-map",
    cell: Math.min(44, Math.max(1, Math.round(420 / labels.length))),
    name: (i) => named(data, i), at: () => chosen(model).token, pick: (token) => pick({ token }),
    "aria-label": "The chosen head: a row for each query position; arrow keys choose a token",
  });
  /** @param {AttentionState} state @param {Uint8Array} triangle */
  const draw = ({ token, arcs, faint }, triangle) =>
    map.draw(triangle, token, { byKey: arcs !== "attends to", faint });
  return { ...map, draw };
}

// The width of the longest label when it is bold.
/** @param {string[]} labels */
function longest(labels) {
  const context = context2d(node("canvas"));
  context.font = "700 12px ui-monospace, monospace";
  const widths = labels.map((one) => context.measureText(shortened(one, LETTERS)).width);
  return Math.min(95, Math.max(...widths));
}

// ---- the text with arcs ----

/**
 * @param {AttentionData} data @param {AttentionModel} model
 * @param {Choose<AttentionState>} pick
 */
export function tokenText(data, model, pick) {
  const { list, fill, draw: shade } = tokenLine("The text; arrow keys choose a token",
    (token) => pick({ token }));
  list.classList.add("qk-attention-text");
  fill(data.labels);
  const tokens = [...list.querySelectorAll("[data-position]")]
    .filter((one) => one instanceof HTMLElement);
  tokens.forEach((token, i) => { token.title = named(data, i); });
  list.insertAdjacentHTML("beforeend", '<svg aria-hidden="true"></svg>');
  const svg = /** @type {SVGElement} */ (list.lastElementChild);
  /** @type {[AttentionState, number[]] | null} */
  let last = null;
  const watch = new ResizeObserver(() => { // also once the list is on the page
    if (!last) return;
    arcs(...last);
    intoSight(list, tokens[last[0].token]);
  });
  watch.observe(list);

  /** @param {AttentionState} state @param {number[]} weights */
  function draw(state, weights) {
    const shades = weights.map((one) => state.faint ? Math.sqrt(one / 255) : one / 255);
    shade(state.token, shades, COLORS[state.arcs]);
    last = [state, weights];
    arcs(state, weights);
  }

  // A curve from the chosen token to each other one, as wide as the attention weight.
  /** @param {AttentionState} state @param {number[]} weights */
  function arcs(state, weights) {
    /** @param {HTMLElement} token */
    const middle = ({ offsetLeft, offsetTop, offsetWidth }) =>
      [offsetLeft + offsetWidth / 2, offsetTop];
    const [x, y] = middle(tokens[state.token]);
    svg.setAttribute("width", String(list.clientWidth));
    svg.setAttribute("height", String(list.scrollHeight));
    const strong = weights.map((weight, i) => [weight / 255, i])
      .filter(([weight, i]) => weight >= LEAST && i !== state.token);
    svg.innerHTML = strong.map(([weight, i]) => {
      const [toX, toY] = middle(tokens[i]);
      const lift = Math.min(20, 8 + Math.abs(toX - x) / 20);
      const path = `M${x},${y} C${x},${y - lift} ${toX},${toY - lift} ${toX},${toY}`;
      const ink = `rgba(${COLORS[state.arcs]}, ${0.35 + 0.6 * weight})`;
      return `<path d="${path}" stroke="${ink}" stroke-width="${1 + 5 * weight}" data-to="${i}"/>`;
    }).join("");
  }
  return { list, draw, close: () => watch.disconnect() };
}

// A position by its label and its number: that of its token, or of its first and last one.
/** @param {AttentionData} data @param {number} i */
export function named({ labels, factor, length }, i) {
  const last = Math.min((i + 1) * factor, length) - 1;
  return `${labels[i]} (${factor === 1 ? i : `${i * factor}–${last}`})`;
}
