// Attention maps: what AttentionExplorer and LayerInspector both draw. A head's attention comes as
// its lower triangle, row by row, a byte per weight.

import { context2d, node, PACKED, percent, sharp } from "./common.js";
import { keyed, ORANGE, walkKeys } from "./parts.js";

/** @import { MapOptions, Numbers, TriangleMap } from "./types.d.ts" */

const MASKED = 0xffe9e9e9; // the half of a map above the diagonal
/** @param {number} size */
export const AREA = (size) => size * (size + 1) / 2; // of a triangle; also where its row `size` begins

// The color of each weight from 0 to 255.
/** @param {boolean} faint */
export const shadesOf = (faint) => Uint32Array.from({ length: 256 }, (_, i) =>
  PACKED.viridis[faint ? Math.round(Math.sqrt(255 * i)) : i]);

// A canvas with a pixel for each value from 0 to 255; -1: masked.
/**
 * @param {Numbers} values @param {number} width @param {number} height @param {Uint32Array} shades
 */
export function colored(values, width, height, shades) {
  const canvas = node("canvas", { width, height });
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = values[i] < 0 ? MASKED : shades[values[i]];
  context2d(canvas).putImageData(image, 0, 0);
  return canvas;
}

/** @param {Numbers} triangle @param {number} size @param {Uint32Array} shades */
function coloredTriangle(triangle, size, shades) {
  const values = new Int16Array(size * size).fill(-1);
  for (let row = 0, i = 0; row < size; row++)
    for (let column = 0; column <= row; column++) values[row * size + column] = triangle[i++];
  return colored(values, size, size, shades);
}

// A map of one head: a row per query position, a column per key position, one of them framed.
// cell: pixels a side; letters: of a label at most; margin: room for labels at the left and above;
// name(i): for the text under the mouse; at() and pick(i): the chosen position.
/** @param {MapOptions} options @returns {TriangleMap} */
export function triangleMap({ labels, cell, letters, margin, name, at, pick, ...attributes }) {
  const size = labels.length, side = size * cell, edge = margin + side + 3;
  const canvas = node("canvas", { tabindex: 0, role: "application", ...attributes });
  const context = sharp(canvas, edge, edge);
  /** @type {Numbers} */
  let triangle = [];
  let column = false; // column: a key's column is framed, not a query's row

  /** @type {TriangleMap["draw"]} */
  function draw(next, position, { byKey = false, faint = false } = {}) {
    [triangle, column] = [next, byKey];
    context.clearRect(0, 0, edge, edge);
    context.imageSmoothingEnabled = false;
    const picture = coloredTriangle(triangle, size, shadesOf(faint));
    context.drawImage(picture, margin, margin, side, side);
    axisLabels(context, labels, { cell, letters, margin, position });
    context.strokeStyle = ORANGE;
    context.lineWidth = 2;
    const start = position * cell, corner = margin + start - 1;
    if (column) context.strokeRect(corner, corner, cell + 2, side - start + 2);
    else context.strokeRect(margin - 1, corner, start + cell + 2, cell + 2);
  }

  /** @param {MouseEvent} event */
  function under({ offsetX, offsetY }) {
    const [row, key] = [offsetY, offsetX].map((offset) => Math.floor((offset - margin) / cell));
    return row >= 0 && row < size && key < size ? [row, key] : null;
  }
  canvas.addEventListener("click", (event) => {
    const found = under(event);
    if (found) pick(Math.max(0, found[column ? 1 : 0]));
  });
  keyed(canvas, walkKeys(() => size, at, pick));
  /** @type {TriangleMap["words"]} */
  function words(event) {
    const [row, key] = under(event) || [0, -1];
    if (key < 0) return null;
    return key > row ? `${name(row)} cannot attend to the later ${name(key)}`
      : `${name(row)} attends to ${name(key)}: ${percent(triangle[AREA(row) + key] / 255)}`;
  }
  /** @type {TriangleMap["middle"]} */
  const middle = (row, key) => [margin + (key + 0.5) * cell, margin + (row + 0.5) * cell];
  return { canvas, draw, words, middle };
}

/** @param {string} label @param {number} letters */
export function shortened(label, letters) {
  const all = [...label];
  return all.length > letters ? `${all.slice(0, letters - 1).join("")}…` : label;
}

// Labels along the left and the top: all, or every n-th; the chosen one bold.
/**
 * @param {CanvasRenderingContext2D} context @param {string[]} labels
 * @param {Pick<MapOptions, "cell" | "letters" | "margin"> & {position: number}} options
 */
function axisLabels(context, labels, { cell, letters, margin, position }) {
  const every = Math.ceil(14 / cell);
  context.textBaseline = "middle";
  labels.forEach((label, i) => {
    if (i !== position && (i % every || Math.abs(i - position) < every)) return;
    const text = shortened(label, letters), middle = margin + (i + 0.5) * cell;
    context.font = `${i === position ? "700" : "400"} 12px ui-monospace, monospace`;
    context.fillStyle = i === position ? "#a34700" : "#333";
    context.textAlign = "right";
    context.fillText(text, margin - 5, middle, margin - 6);
    context.save();
    context.translate(middle, margin - 5);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(text, 0, 0, margin - 6);
    context.restore();
  });
}
