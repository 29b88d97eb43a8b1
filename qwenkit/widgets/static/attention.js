// AttentionExplorer: a grid of all heads, one head large, and the text with arcs.
// `data` is described in attention.py; `weights` is each head's lower triangle.

import { headMap, named, tokenText } from "./attention_map.js";
import {
  button, choice, choose, chosen, context2d, hover, inflate, ink, node, onTheme, painted, percent,
  say, sharp, tick,
} from "./common.js";
import { AREA, brightest, colored, onWidth, shadesOf } from "./maps.js";
import { keyed } from "./parts.js";
import { prompted } from "./prompt.js";

/**
 * @import { AttentionData, AttentionModel, AttentionState, Choose, Shell,
 *   TriangleAt } from "./types.d.ts"
 */

const SPANS = [96, 32]; // positions a side of the map's parts, where all are more

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
  let span = 0; // of the map's part, 0 for all: it belongs to the page, not to what is chosen
  const bar = attentionControls(data, chosen(model), pick, (next) => { span = next; draw(); });
  const grid = headGrid(data, at, model, pick);
  const map = headMap(data, model, pick);
  const text = tokenText(data, model, pick);
  const title = node("h2", { class: "qk-attention-title" });
  const notes = [data.pooling, data.meaning].filter(Boolean).map((words) => node("div", {}, words));
  body.classList.add("qk-attention");
  controls.append(...bar.parts);
  stage.append(
    node("section", { class: "qk-panel qk-attention-heads", "aria-label": "All heads" },
      node("h2", {}, "All heads"), grid.box),
    node("section", { class: "qk-panel qk-attention-head", "aria-label": "The chosen head" },
      title, map.box, node("div", { class: "qk-attention-about" }, bar.legend, ...notes)),
    node("section", { class: "qk-panel qk-attention-words", "aria-label": "The text" }, text.list));
  // Many layers make the grid high and narrow: then the text has the whole width below.
  body.classList.toggle("qk-attention-high", data.layers > 1.5 * data.heads);
  hover(body, grid.canvas, grid.words);
  hover(body, map.canvas, map.words);

  const middle = { grid: grid.middle, map: map.middle }; // of a head, and of a pixel: for tests

  function draw() {
    if (model.get("data") !== data) return; // another text: all is about to be built again
    const state = chosen(model);
    const triangle = at(state.layer, state.head);
    const arcs = arcWeights(triangle, size, state);
    title.textContent = data.titles[state.layer][state.head];
    bar.update(state, brightest(triangle, size));
    grid.draw(state);
    map.draw(state, triangle, span);
    text.draw(state, arcs);
    say(live, spoken(data, state, arcs));
    root.qk = { state, size, triangle, arcs, title: title.textContent, middle };
    painted(root);
  }
  model.on("change:state", draw);
  const stop = onTheme(draw);
  draw();
  return () => {
    stop();
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
 * @param {Choose<AttentionState>} pick @param {(span: number) => void} zoom
 */
function attentionControls(data, state, pick, zoom) {
  const arcs = choice({
    label: "Arcs", value: state.arcs,
    on: (value) => pick({ arcs: /** @type {AttentionState["arcs"]} */ (value) }),
    options: [["attends to", "what the token attends to"],
      ["is attended to by", "which tokens attend to it"]],
  });
  const faint = tick({
    label: "bring out small weights", value: state.faint, on: (value) => pick({ faint: value }),
  });
  const spans = SPANS.filter((span) => 1.5 * span < data.labels.length);
  const part = choice({
    label: "Map", value: "0", on: (value) => zoom(Number(value)),
    options: [["0", "whole"],
      ...spans.map((span) => /** @type {[string, string]} */ ([String(span), `${span} × ${span} around the token`]))],
  });
  const finds = data.strongest.map(([name, layer, head, token]) =>
    button(name, () => pick({ layer, head, token, arcs: "attends to" }),
      { title: `go to layer ${layer}, head ${head}, and to a token that shows it` }));
  const group = node("span", { class: "qk-control qk-attention-finds", role: "group", "aria-label": "Strongest head" },
    "Strongest:", ...finds);
  const strip = node("canvas", { width: 256, height: 1, "aria-hidden": "true" });
  const end = node("span");
  const legend = node("div", { class: "qk-attention-legend" },
    "0%", strip, end, node("span", { class: "qk-attention-masked" }, "masked: later tokens"));
  /** @param {AttentionState} next @param {number} top the weight, of 255, of the brightest color */
  function update(next, top) {
    arcs.update(next.arcs);
    faint.update(next.faint);
    const image = new ImageData(256, 1);
    new Uint32Array(image.data.buffer).set(shadesOf(next.faint));
    context2d(strip).putImageData(image, 0, 0);
    end.textContent = top < 255 ? `${percent(top / 255)} and more` : "100%";
  }
  const parts = [arcs, ...(spans.length ? [part] : []), faint, ...(finds.length ? [group] : [])];
  return { parts, legend, update };
}

// ---- the grid of all heads ----

/**
 * @param {AttentionData} data @param {TriangleAt} at @param {AttentionModel} model
 * @param {Choose<AttentionState>} pick
 */
function headGrid(data, at, model, pick) {
  const { layers, heads } = data;
  const left = 30, top = 20, gap = 3, tallest = layers > 1.5 * heads ? 620 : 470;
  let tile = 1, step = 1, small = 0;
  const canvas = node("canvas", {
    tabindex: 0, role: "application", class: "qk-attention-grid",
    "aria-label": `Grid of ${layers} layers and ${heads} heads; arrow keys choose one`,
  });
  const box = node("div", { class: "qk-map" }, canvas);
  let pooled = new Int16Array();
  /** @type {Map<boolean, HTMLCanvasElement>} */
  const pictures = new Map(); // the whole grid in both scales of color, painted when first needed
  /** @type {AttentionState | null} */
  let last = null;

  // As large as the box allows; the pictures are made again only for tiles of another size.
  function layout() {
    const wide = ((box.clientWidth || tallest) - left - gap) / heads, high = tallest / layers;
    step = Math.max(10, Math.floor(Math.min(wide, Math.max(high, 18), 76)));
    tile = step - Math.min(gap, Math.ceil(step / 8));
    const pixels = Math.min(data.labels.length, Math.floor(tile * (window.devicePixelRatio || 1)));
    if (pixels === small) return;
    small = pixels;
    pooled = mosaic(data, at, small);
    pictures.clear();
  }

  /** @param {AttentionState} state */
  function draw(state) {
    last = state;
    layout();
    const { layer, head, faint } = state;
    const context = sharp(canvas, left + heads * step + gap, top + layers * step + gap);
    const picture = pictures.get(faint)
      ?? colored(pooled, heads * small, layers * small, shadesOf(faint));
    pictures.set(faint, picture);
    const masked = ink(box, "line");
    context.imageSmoothingEnabled = false;
    for (let i = 0; i < layers; i++)
      for (let j = 0; j < heads; j++) {
        const place = /** @type {const} */ ([left + gap + j * step, top + gap + i * step, tile, tile]);
        context.globalAlpha = 0.45;
        context.fillStyle = masked;
        context.fillRect(...place);
        context.globalAlpha = 1;
        context.drawImage(picture, j * small, i * small, small, small, ...place);
      }
    numbers(context, layer, head);
    context.strokeStyle = ink(box, "vermilion");
    context.lineWidth = 2.5;
    context.strokeRect(left + gap + head * step - 1.5, top + gap + layer * step - 1.5, tile + 3, tile + 3);
  }
  onWidth(box, () => last && draw(last));

  // Numbers of layers and heads: all, or every n-th; the chosen ones bold.
  /** @param {CanvasRenderingContext2D} context @param {number} layer @param {number} head */
  function numbers(context, layer, head) {
    const plain = ink(box, "soft"), strong = ink(box, "vermilion");
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
        context.fillStyle = i === now ? strong : plain;
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
  return { box, canvas, draw, words, middle };
}

// All heads, `small` pixels a side, each the largest of what it stands for; -1: masked. On a long
// text a head's brightest weights are 255.
/** @param {AttentionData} data @param {TriangleAt} at @param {number} small */
export function mosaic({ layers, heads, labels: { length: size } }, at, small) {
  const width = heads * small;
  const pixels = new Int16Array(width * layers * small).fill(-1);
  const pixel = Uint16Array.from({ length: size }, (_, i) => Math.floor(i * small / size));
  for (let layer = 0; layer < layers; layer++)
    for (let head = 0; head < heads; head++) {
      const triangle = at(layer, head), scale = 255 / brightest(triangle, size);
      for (let row = 0, i = 0; row < size; row++) {
        const start = (layer * small + pixel[row]) * width + head * small;
        for (let column = 0; column <= row; column++, i++)
          if (triangle[i] * scale > pixels[start + pixel[column]])
            pixels[start + pixel[column]] = Math.min(255, Math.round(triangle[i] * scale));
      }
    }
  return pixels;
}
