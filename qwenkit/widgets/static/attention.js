// AttentionExplorer: a grid of all heads, one head large, and the text with arcs.
// `data` is described in attention.py; `weights` is each head's lower triangle.

import { headMap, named, tokenText } from "./attention_map.js";
import {
  button, choice, choose, chosen, context2d, hover, inflate, node, painted, percent, say, sharp,
  tick,
} from "./common.js";
import { AREA, colored, shadesOf } from "./maps.js";
import { keyed } from "./parts.js";
import { prompted } from "./prompt.js";

/**
 * @import { AttentionData, AttentionModel, AttentionState, Choose, Shell,
 *   TriangleAt } from "./types.d.ts"
 */

/** @param {{model: AttentionModel, el: HTMLElement}} place */
export const render = (place) =>
  prompted(place, "Attention of every head", (shell) => attentionBody(place.model, shell));

/** @param {AttentionModel} model @param {Shell} shell */
async function attentionBody(model, { root, body, controls, stage, live }) {
  const data = model.get("data");
  const weights = await inflate(data.weights);
  const size = data.labels.length, area = AREA(size);
  /** @type {TriangleAt} */
  const at = (layer, head) => {
    const start = (layer * data.heads + head) * area;
    return weights.subarray(start, start + area);
  };
  /** @type {Choose<AttentionState>} */
  const pick = (patch) => choose(model, patch);
  const title = node("h4", { class: "qk-attention-title" });
  const bar = attentionControls(data, chosen(model), pick);
  controls.append(...bar.parts);
  const grid = headGrid(data, at, model, pick);
  const map = headMap(data, model, pick);
  const text = tokenText(data, model, pick);
  const about = node("div", { class: "qk-attention-about" }, bar.legend);
  const notes = [data.pooling, data.meaning].filter(Boolean);
  about.append(...notes.map((words) => node("div", {}, words)));
  const left = node("div", { class: "qk-attention-left" }, grid.canvas);
  stage.before(title);
  stage.append(left, node("div", {}, map.canvas, about));
  (grid.low ? left : stage).append(text.list); // below a high grid it has the whole width
  hover(body, grid.canvas, grid.words);
  hover(body, map.canvas, map.words);

  const middle = { grid: grid.middle, map: map.middle }; // of a head, and of a pixel: for tests

  function draw() {
    if (model.get("data") !== data) return; // another text: all is about to be built again
    const state = chosen(model);
    const triangle = at(state.layer, state.head);
    const arcs = arcWeights(triangle, size, state);
    title.textContent = data.titles[state.layer][state.head];
    bar.update(state);
    grid.draw(state);
    map.draw(state, triangle);
    text.draw(state, arcs);
    say(live, spoken(data, state, arcs));
    root.qk = { state, size, triangle, arcs, title: title.textContent, middle };
    painted(root);
  }
  model.on("change:state", draw);
  draw();
  return () => {
    text.close();
    model.off("change:state", draw);
  };
}

// The weights of the chosen query on each key, or of each query on the chosen key; from 0 to 255.
/** @param {Uint8Array} triangle @param {number} size @param {AttentionState} state */
export function arcWeights(triangle, size, { token, arcs }) {
  return Array.from({ length: size }, (_, i) => {
    const [row, column] = arcs === "attends to" ? [token, i] : [i, token];
    return column > row ? 0 : triangle[AREA(row) + column];
  });
}

/** @param {AttentionData} data @param {AttentionState} state @param {number[]} weights */
function spoken(data, { layer, head, token, arcs }, weights) {
  const most = weights.map((weight, i) => [weight, i]).filter(([weight]) => weight)
    .sort(([one], [other]) => other - one).slice(0, 4)
    .map(([weight, i]) => `${named(data, i)} ${percent(weight / 255)}`);
  return `Layer ${layer}, head ${head}: ${named(data, token)} ${arcs} `
    + (most.join(", ") || "no token");
}

// ---- controls ----

/**
 * @param {AttentionData} data @param {AttentionState} state
 * @param {Choose<AttentionState>} pick
 */
function attentionControls(data, state, pick) {
  const arcs = choice({
    label: "Arcs", value: state.arcs,
    on: (value) => pick({ arcs: /** @type {AttentionState["arcs"]} */ (value) }),
    options: [["attends to", "what the token attends to"],
      ["is attended to by", "which tokens attend to it"]],
  });
  const faint = tick({
    label: "bring out small weights", value: state.faint, on: (value) => pick({ faint: value }),
  });
  const finds = data.strongest.map(([name, layer, head]) =>
    button(name, () => pick({ layer, head }), { title: `go to layer ${layer}, head ${head}` }));
  const group = node("span", { class: "qk-control", role: "group", "aria-label": "Strongest head" },
    "Strongest:", ...finds);
  const strip = node("canvas", { width: 256, height: 1, "aria-hidden": "true" });
  const legend = node("div", { class: "qk-attention-legend" },
    "0%", strip, "100%", node("span", {}, "gray: later tokens, masked"));
  /** @param {AttentionState} next */
  function update(next) {
    arcs.update(next.arcs);
    faint.update(next.faint);
    const shades = shadesOf(next.faint);
    const image = new ImageData(256, 1);
    new Uint32Array(image.data.buffer).set(shades);
    context2d(strip).putImageData(image, 0, 0);
  }
  return { parts: finds.length ? [arcs, faint, group] : [arcs, faint], legend, update };
}

// ---- the grid of all heads ----

/**
 * @param {AttentionData} data @param {TriangleAt} at @param {AttentionModel} model
 * @param {Choose<AttentionState>} pick
 */
function headGrid(data, at, model, pick) {
  const { layers, heads } = data;
  const left = 30, top = 20, gap = 2;
  const tile = Math.max(12, Math.min(56, Math.floor(400 / Math.max(heads, layers / 2)) - gap));
  const step = tile + gap;
  const canvas = node("canvas", {
    tabindex: 0, role: "application", class: "qk-attention-grid",
    "aria-label": `Grid of ${layers} layers and ${heads} heads; arrow keys choose one`,
  });
  const context = sharp(canvas, left + heads * step + gap, top + layers * step + gap);
  const small = Math.min(data.labels.length, Math.floor(tile * (window.devicePixelRatio || 1)));
  const pooled = mosaic(data, at, small);
  /** @type {Map<boolean, HTMLCanvasElement>} */
  const pictures = new Map(); // the whole grid in both scales of color, painted when first needed

  /** @param {AttentionState} state */
  function draw({ layer, head, faint }) {
    const picture = pictures.get(faint)
      ?? colored(pooled, heads * small, layers * small, shadesOf(faint));
    pictures.set(faint, picture);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = false;
    for (let i = 0; i < layers; i++)
      for (let j = 0; j < heads; j++)
        context.drawImage(picture, j * small, i * small, small, small,
          left + gap + j * step, top + gap + i * step, tile, tile);
    numbers(layer, head);
    context.strokeStyle = "#d55e00";
    context.lineWidth = 2.5;
    context.strokeRect(left + head * step + 1, top + layer * step + 1, tile + 2, tile + 2);
  }

  // Numbers of layers and heads: all, or every n-th; the chosen ones bold.
  /** @param {number} layer @param {number} head */
  function numbers(layer, head) {
    context.textBaseline = "middle";
    /**
     * @param {number} count @param {number} now @param {number} room
     * @param {(i: number, middle: number) => void} write
     */
    const line = (count, now, room, write) => {
      const every = Math.ceil(room / step);
      for (let i = 0; i < count; i++) {
        if (i !== now && (i % every || Math.abs(i - now) < every)) continue;
        context.font = `${i === now ? "700" : "400"} 12px system-ui, sans-serif`;
        context.fillStyle = i === now ? "#a34700" : "#444";
        write(i, gap + i * step + tile / 2);
      }
    };
    context.textAlign = "right";
    line(layers, layer, 14, (i, middle) => context.fillText(`L${i}`, left - 3, top + middle));
    context.textAlign = "center";
    line(heads, head, 18, (i, middle) => context.fillText(String(i), left + middle, top / 2));
  }

  /** @param {MouseEvent} event */
  function under(event) {
    const head = Math.floor((event.offsetX - left - gap / 2) / step);
    const layer = Math.floor((event.offsetY - top - gap / 2) / step);
    return head >= 0 && head < heads && layer >= 0 && layer < layers ? { layer, head } : null;
  }
  canvas.addEventListener("click", (event) => {
    const found = under(event);
    if (found) pick(found);
  });
  /** @param {"layer" | "head"} name @param {number} count @param {number} by */
  const move = (name, count, by) => () =>
    pick({ [name]: Math.max(0, Math.min(count - 1, chosen(model)[name] + by)) });
  keyed(canvas, {
    ArrowLeft: move("head", heads, -1), ArrowRight: move("head", heads, 1),
    Home: move("head", heads, -heads), End: move("head", heads, heads),
    ArrowUp: move("layer", layers, -1), ArrowDown: move("layer", layers, 1),
    PageUp: move("layer", layers, -layers), PageDown: move("layer", layers, layers),
  });
  /** @param {MouseEvent} event */
  const words = (event) => {
    const found = under(event);
    return found && data.titles[found.layer][found.head];
  };
  /** @param {number} layer @param {number} head */
  const middle = (layer, head) =>
    [left + gap + head * step + tile / 2, top + gap + layer * step + tile / 2];
  return { canvas, draw, words, middle, low: layers * step < 400 };
}

// All heads, `small` pixels a side, each the largest of what it stands for; -1: masked.
/** @param {AttentionData} data @param {TriangleAt} at @param {number} small */
export function mosaic({ layers, heads, labels: { length: size } }, at, small) {
  const width = heads * small;
  const pixels = new Int16Array(width * layers * small).fill(-1);
  const pixel = Uint16Array.from({ length: size }, (_, i) => Math.floor(i * small / size));
  for (let layer = 0; layer < layers; layer++)
    for (let head = 0; head < heads; head++) {
      const triangle = at(layer, head);
      for (let row = 0, i = 0; row < size; row++) {
        const start = (layer * small + pixel[row]) * width + head * small;
        for (let column = 0; column <= row; column++, i++)
          if (triangle[i] > pixels[start + pixel[column]])
            pixels[start + pixel[column]] = triangle[i];
      }
    }
  return pixels;
}
