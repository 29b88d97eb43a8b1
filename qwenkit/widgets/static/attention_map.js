// AttentionExplorer's large map of one head, and the text with arcs between its tokens.

import { chosen } from "./common.js";
import { triangleMap } from "./maps.js";
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
  const map = triangleMap({
    labels: data.labels, letters: LETTERS, largest: 44, most: 480, class: "qk-attention-map",
    name: (i) => named(data, i), at: () => chosen(model).token, pick: (token) => pick({ token }),
    "aria-label": "The chosen head: a row for each query position; arrow keys choose a token",
  });
  /** @param {AttentionState} state @param {Uint8Array} triangle @param {number} span */
  const draw = ({ token, arcs, faint }, triangle, span) =>
    map.draw(triangle, token, { byKey: arcs !== "attends to", faint, span });
  return { ...map, draw };
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
  list.insertAdjacentHTML("afterbegin", '<svg aria-hidden="true"></svg>');
  const svg = /** @type {SVGElement} */ (list.firstElementChild);
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

  // A curve from the chosen token to each other one, as wide as the attention weight. The curves
  // run between the lines and behind the tokens, so that they strike no word through.
  /** @param {AttentionState} state @param {number[]} weights */
  function arcs(state, weights) {
    /** @param {HTMLElement} token */
    const middle = ({ offsetLeft, offsetTop, offsetWidth }) =>
      [offsetLeft + offsetWidth / 2, offsetTop];
    const [x, y] = middle(tokens[state.token]), { offsetTop, offsetHeight } = tokens[tokens.length - 1];
    svg.setAttribute("width", String(list.clientWidth));
    svg.setAttribute("height", String(offsetTop + offsetHeight)); // not the list's: it may shrink
    svg.classList.toggle("qk-attention-by", state.arcs !== "attends to");
    const strong = weights.map((weight, i) => [weight / 255, i])
      .filter(([weight, i]) => weight >= LEAST && i !== state.token);
    svg.replaceChildren(...strong.map(([weight, i]) => {
      const [toX, toY] = middle(tokens[i]);
      const lift = Math.min(16, 8 + Math.abs(toX - x) / 20);
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", `M${x},${y} C${x},${y - lift} ${toX},${toY - lift} ${toX},${toY}`);
      path.setAttribute("stroke-opacity", String(0.35 + 0.6 * weight));
      path.setAttribute("stroke-width", String(1 + 5 * weight));
      path.dataset.to = String(i);
      return path;
    }));
  }
  return { list, draw, close: () => watch.disconnect() };
}

// A position by its label and its number: that of its token, or of its first and last one.
/** @param {AttentionData} data @param {number} i */
export function named({ labels, factor, length }, i) {
  const last = Math.min((i + 1) * factor, length) - 1;
  return `${labels[i]} (${factor === 1 || i * factor === last ? i * factor : `${i * factor}–${last}`})`;
}
