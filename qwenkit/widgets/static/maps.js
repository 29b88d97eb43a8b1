// Attention maps: what AttentionExplorer and LayerInspector both draw. A head's attention comes as
// its lower triangle, row by row, a byte per weight.

import { context2d, ink, node, PACKED, percent, sharp } from "./common.js";
import { keyed, walkKeys } from "./parts.js";

/** @import { MapLook, MapOptions, Numbers, TriangleMap } from "./types.d.ts" */

const LONG = 64; // positions; weights are spread thin over more, so that their contrast adapts
const BRIGHT = 0.995; // of a long text's weights this part is below the brightest color
const DIM = 5; // of 255: less is never the brightest color
const FONT = "ui-monospace, monospace";
/** @param {number} size */
export const AREA = (size) => size * (size + 1) / 2; // of a triangle; also where its row `size` begins

// The weight, of 255, that gets the brightest color: on a long text few weights are near 100%.
/** @param {Numbers} triangle @param {number} size */
export function brightest(triangle, size) {
  if (size <= LONG) return 255;
  const counts = new Uint32Array(256);
  for (let i = 0; i < AREA(size); i++) counts[triangle[i]]++;
  let left = (1 - BRIGHT) * AREA(size), weight = 255;
  while (weight > DIM && (left -= counts[weight]) > 0) weight--;
  return weight;
}

// The color of each weight from 0 to 255.
/** @param {boolean} faint @param {number} [top] the weight that gets the brightest color */
export const shadesOf = (faint, top = 255) => Uint32Array.from({ length: 256 }, (_, i) => {
  const part = Math.min(1, i / top);
  return PACKED.viridis[Math.round(255 * (faint ? Math.sqrt(part) : part))];
});

// A canvas with a pixel for each value from 0 to 255; -1: masked, which stays transparent.
/**
 * @param {Numbers} values @param {number} width @param {number} height @param {Uint32Array} shades
 */
export function colored(values, width, height, shades) {
  const canvas = node("canvas", { width, height });
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = values[i] < 0 ? 0 : shades[values[i]];
  context2d(canvas).putImageData(image, 0, 0);
  return canvas;
}

// A part of a triangle as a square of pixels, each the largest of the weights that it stands for.
/**
 * @param {Numbers} triangle @param {{row: number, key: number, span: number}} part
 * @param {number} side in pixels, at most `span`
 */
export function squared(triangle, { row: firstRow, key: firstKey, span }, side) {
  const values = new Int16Array(side * side).fill(-1);
  const pixel = Uint16Array.from({ length: span }, (_, i) => Math.floor(i * side / span));
  for (let row = firstRow; row < firstRow + span; row++)
    for (let key = firstKey; key <= Math.min(row, firstKey + span - 1); key++) {
      const at = pixel[row - firstRow] * side + pixel[key - firstKey];
      values[at] = Math.max(values[at], triangle[AREA(row) + key]);
    }
  return values;
}

// Call a function with a box's width once it is on the page, and whenever it is another one.
/** @param {HTMLElement} box @param {(width: number) => void} draw */
export function onWidth(box, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (!box.clientWidth || box.clientWidth === width) return;
    width = box.clientWidth;
    draw(width);
  }).observe(box);
}

// A map of one head: a row per query position, a column per key position, one of them framed.
// letters: of a label at most; largest: pixels of a cell at most; most: of the map's side at most;
// name(i): for the text under the mouse; at() and pick(i): the chosen position.
/** @param {MapOptions} options @returns {TriangleMap} */
export function triangleMap({ labels, letters, largest, most, name, at, pick, ...attributes }) {
  const size = labels.length;
  const canvas = node("canvas", { tabindex: 0, role: "application", ...attributes });
  const box = node("div", { class: "qk-map" }, canvas);
  const wanted = longest(labels, letters) + 8;
  /** @type {[Numbers, number, MapLook] | null} */
  let last = null;
  let cell = 1, margin = 0, part = { row: 0, key: 0, span: size };

  /** @type {TriangleMap["draw"]} */
  function draw(triangle, position, look = {}) {
    last = [triangle, position, look];
    const { byKey = false, faint = false, span = 0 } = look;
    part = partOf(triangle, size, position, byKey, span);
    const room = box.clientWidth || most; // the second before it is on the page
    margin = Math.min(wanted, Math.floor(room / 4));
    const wide = Math.min(room - margin - 4, most) / part.span;
    cell = Math.min(largest, wide >= 4 ? Math.floor(wide) : wide);
    const side = part.span * cell, edge = margin + side + 3;
    const context = sharp(canvas, edge, edge), { devicePixelRatio: ratio = 1 } = window;
    context.fillStyle = ink(box, "line");
    context.globalAlpha = 0.45; // what is masked
    context.fillRect(margin, margin, side, side);
    context.globalAlpha = 1;
    context.imageSmoothingEnabled = false;
    const pixels = Math.max(1, Math.min(part.span, Math.floor(side * ratio)));
    const shades = shadesOf(faint, brightest(triangle, size));
    context.drawImage(colored(squared(triangle, part, pixels), pixels, pixels, shades),
      margin, margin, side, side);
    axisLabels(context, box, labels, { cell, letters, margin, part, position, byKey });
    mark(context, position, byKey, side);
  }
  onWidth(box, () => last && draw(...last));

  /**
   * @param {CanvasRenderingContext2D} context @param {number} position @param {boolean} byKey
   * @param {number} side
   */
  function mark(context, position, byKey, side) {
    context.strokeStyle = ink(box, "vermilion");
    context.lineWidth = 2;
    const start = (position - (byKey ? part.key : part.row)) * cell, corner = margin + start - 1;
    const end = Math.min(side, (position + 1 - part.key) * cell);
    const begin = Math.max(0, (position - part.row) * cell);
    if (byKey) context.strokeRect(corner, margin + begin - 1, cell + 2, side - begin + 2);
    else context.strokeRect(margin - 1, corner, end + 2, cell + 2);
  }
  /** @param {MouseEvent} event */
  function under({ offsetX, offsetY }) {
    const [down, right] = [offsetY, offsetX].map((offset) => Math.floor((offset - margin) / cell));
    return down >= 0 && down < part.span && right < part.span
      ? [down + part.row, right < 0 ? -1 : right + part.key] : null;
  }
  canvas.addEventListener("click", (event) => {
    const found = under(event);
    if (found) pick(Math.max(0, found[last?.[2].byKey ? 1 : 0]));
  });
  keyed(canvas, walkKeys(() => size, at, pick));
  /** @type {TriangleMap["words"]} */
  function words(event) {
    const [row, key] = under(event) || [0, -1];
    if (key < 0 || !last) return null;
    return key > row ? `${name(row)} cannot attend to the later ${name(key)}`
      : `${name(row)} attends to ${name(key)}: ${percent(last[0][AREA(row) + key] / 255)}`;
  }
  /** @type {TriangleMap["middle"]} */
  const middle = (row, key) =>
    [margin + (key - part.key + 0.5) * cell, margin + (row - part.row + 0.5) * cell];
  return { box, canvas, draw, words, middle };
}

// The part of a map that is shown: all, or `span` positions a side, with the chosen position and
// the strongest weight of its row or column (but those on the first token) in the middle.
/**
 * @param {Numbers} triangle @param {number} size @param {number} position @param {boolean} byKey
 * @param {number} span
 */
export function partOf(triangle, size, position, byKey, span) {
  if (!span || span >= size) return { row: 0, key: 0, span: size };
  let other = position, most = -1;
  for (let i = byKey ? position : 1; i < (byKey ? size : position + 1); i++) {
    const weight = byKey ? triangle[AREA(i) + position] : triangle[AREA(position) + i];
    if (weight > most) [other, most] = [i, weight];
  }
  const around = (/** @type {number} */ middle) =>
    Math.max(0, Math.min(size - span, middle - Math.floor(span / 2)));
  const [row, key] = byKey ? [other, position] : [position, other];
  return { row: around(row), key: around(key), span };
}

/** @param {string} label @param {number} letters */
export function shortened(label, letters) {
  const all = [...label];
  return all.length > letters ? `${all.slice(0, letters - 1).join("")}…` : label;
}

// The width of the longest label when it is bold.
/** @param {string[]} labels @param {number} letters */
function longest(labels, letters) {
  const context = context2d(node("canvas"));
  context.font = `700 12px ${FONT}`;
  return Math.max(...labels.map((one) => context.measureText(shortened(one, letters)).width));
}

// Labels along the left and the top: all, or every n-th; the chosen one bold.
/**
 * @param {CanvasRenderingContext2D} context @param {HTMLElement} box @param {string[]} labels
 * @param {{cell: number, letters: number, margin: number, position: number, byKey: boolean,
 *   part: {row: number, key: number, span: number}}} options
 */
function axisLabels(context, box, labels, { cell, letters, margin, part, position }) {
  const every = Math.ceil(15 / cell), plain = ink(box, "soft"), strong = ink(box, "vermilion");
  context.textBaseline = "middle";
  /** @param {number} first @param {(text: string, middle: number) => void} write */
  const along = (first, write) => {
    for (let i = first; i < first + part.span; i++) {
      if (i !== position && ((i - first) % every || Math.abs(i - position) < every)) continue;
      context.font = `${i === position ? "700" : "400"} 12px ${FONT}`;
      context.fillStyle = i === position ? strong : plain;
      write(shortened(labels[i], letters), margin + (i - first + 0.5) * cell);
    }
  };
  context.textAlign = "right";
  along(part.row, (text, middle) => context.fillText(text, margin - 5, middle, margin - 6));
  context.textAlign = "left";
  along(part.key, (text, middle) => {
    context.save();
    context.translate(middle, margin - 5);
    context.rotate(-Math.PI / 2);
    context.fillText(text, 0, 0, margin - 6);
    context.restore();
  });
}
