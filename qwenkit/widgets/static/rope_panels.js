// RopeExplorer's panels: the pair as arrows, its numbers, the tables, q·k against the distance.

import { chosen, heat, node, roomOf, sharp } from "./common.js";
import { hue, keyed, panel, short } from "./parts.js";

/**
 * @import { Child, Choose, Color, Point, Rope, RopeModel, RopeNow, RopeState } from "./types.d.ts"
 */

const QUERY = "blue", KEY = "vermilion", PAIR = "faint"; // colors of style.css
const FONT = "12px system-ui, sans-serif", LARGEST = 300; // pixels of the arrows' square
/** @param {number} value @param {number} low @param {number} high */
export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
/** @param {number} value @param {number} [digits] after the point */
export const grouped = (value, digits = 0) => value.toLocaleString("en-US",
  { minimumFractionDigits: digits, maximumFractionDigits: digits });

// ---- the pair as arrows ----

export function pairPanel() {
  const canvas = node("canvas", { role: "img", class: "qk-rope-arrows" });
  const box = node("div", {}, canvas);

  /**
   * @param {CanvasRenderingContext2D} context @param {number} middle
   * @param {Point} end in pixels from the middle
   * @param {string} color @param {number} width @param {boolean} dashed
   */
  function arrow(context, middle, [x, y], color, width, dashed) {
    const [toX, toY] = [middle + x, middle - y];
    context.strokeStyle = context.fillStyle = color;
    context.lineWidth = width;
    context.setLineDash(dashed ? [4, 4] : []);
    context.beginPath();
    context.moveTo(middle, middle);
    context.lineTo(toX, toY);
    context.stroke();
    context.setLineDash([]);
    const angle = Math.atan2(toY - middle, toX - middle), head = 4 + 2 * width;
    context.beginPath();
    context.moveTo(toX, toY);
    for (const side of [-0.4, 0.4])
      context.lineTo(toX - head * Math.cos(angle + side), toY - head * Math.sin(angle + side));
    context.fill();
  }

  /** @param {RopeState} state @param {RopeNow} now @param {Color} color */
  function draw({ pair }, { before, after, angles }, color) {
    const size = Math.min(LARGEST, roomOf(box)), middle = size / 2;
    const context = sharp(canvas, size, size);
    const reach = Math.max(...[...before, ...after].map(([a, b]) => Math.hypot(a, b))) || 1;
    const scale = (middle - 22) / reach;
    context.lineWidth = 1;
    context.strokeStyle = color("line");
    for (const [a, b] of [[1, 0], [0, 1]]) {
      context.beginPath();
      context.moveTo(middle - a * middle, middle - b * middle);
      context.lineTo(middle + a * middle, middle + b * middle);
      context.stroke();
    }
    for (const vector of after) {
      context.beginPath();
      context.arc(middle, middle, Math.hypot(...vector) * scale, 0, 2 * Math.PI);
      context.stroke();
    }
    /** @param {Point} point @returns {Point} */
    const scaled = ([a, b]) => [a * scale, b * scale];
    [QUERY, KEY].forEach((name, i) => {
      arrow(context, middle, scaled(before[i]), color(name), 1.2, true);
      arrow(context, middle, scaled(after[i]), color(name), 3, false);
    });
    const degrees = angles.map((angle) => `${grouped(angle * 180 / Math.PI)}°`);
    canvas.setAttribute("aria-label", `Pair ${pair} as arrows: query rotated by ${degrees[0]}, `
      + `key by ${degrees[1]}`);
  }
  const key = node("div", { class: "qk-note" },
    named("query", QUERY), ", ", named("key", KEY), "; dashed: before the rotation");
  return { panel: panel("The pair", box, key), canvas, draw };
}

/** @param {string} words @param {string} color */
const named = (words, color) => node("b", { style: `color: ${hue(color)}` }, words);

export function numbersPanel() {
  const body = node("tbody");
  const exact = (/** @type {number} */ value) => value.toFixed(4).replace("-", "−");
  const both = (/** @type {Point} */ [a, b]) => `(${short(a)}, ${short(b)})`;
  /** @param {RopeState} state @param {RopeNow} now */
  function draw({ query, key }, { before, after, angles, pairProduct, product }) {
    /** @param {string} name @param {Child[]} cells */
    const row = (name, ...cells) => node("tr", {}, node("th", { scope: "row" }, name),
      ...cells.map((cell) => node("td",
        { class: "qk-number", colspan: cells.length === 1 ? 2 : null }, cell)));
    const degrees = (/** @type {number} */ i) => `${grouped(angles[i] * 180 / Math.PI)}°`;
    body.replaceChildren(
      row("position", String(query), String(key)),
      row("before", both(before[0]), both(before[1])),
      row("rotated by", degrees(0), degrees(1)),
      row("after", both(after[0]), both(after[1])),
      row("distance", String(query - key)),
      row("q·k, this pair", exact(pairProduct)),
      row("q·k, all pairs", node("b", { class: "qk-rope-product" }, exact(product))),
    );
    body.lastElementChild?.classList.add("qk-rope-sum");
  }
  const head = node("thead", {}, node("tr", {}, node("td"),
    node("th", { scope: "col" }, named("query", QUERY)), node("th", { scope: "col" }, named("key", KEY))));
  const note = node("div", { class: "qk-note" }, "Shift both: every angle changes, q·k stays the same.");
  return { panel: panel("In numbers", node("table", { "aria-label": "In numbers" }, head, body), note), draw };
}

// ---- the tables ----

/** @param {Rope} rope @param {RopeModel} model @param {Choose<RopeState>} pick */
export function tablesPanel({ half, positions }, model, pick) {
  const left = 38, top = 18, gap = 14, high = 240;
  let width = 0, wide = 0, starts = [left, left]; // pixels of a table and of a pair; where they begin
  const canvas = node("canvas", {
    tabindex: 0, role: "application", class: "qk-clickable qk-rope-tables",
    "aria-label": "cos and sin of each position and pair; left and right choose the pair, "
      + "up and down the query's position",
  });
  const box = node("div", {}, canvas);
  const pictures = node("canvas");
  /** @type {Float32Array[]} */
  let tables = [];

  /** @param {RopeState} state @param {RopeNow} now @param {Color} color */
  function draw({ pair, query, key }, { cos, sin }, color) {
    const room = roomOf(box), context = sharp(canvas, room, top + high + 18);
    width = (room - left - gap - 4) / 2;
    [wide, starts] = [width / half, [left, left + width + gap]];
    context.imageSmoothingEnabled = positions > high; // several rows per pixel: their mean
    context.font = FONT;
    context.fillStyle = color("soft");
    tables = [cos, sin];
    tables.forEach((table, i) => {
      heat(pictures, table, positions, half, { map: "RdBu_r", low: -1, high: 1 });
      context.drawImage(pictures, starts[i], top, width, high);
      context.textAlign = "center";
      context.fillText(["cos", "sin"][i], starts[i] + width / 2, 11);
      context.fillText(`pair ${pair}`, clamp(starts[i] + (pair + 0.5) * wide,
        starts[i] + 20, starts[i] + width - 20), top + high + 14);
      /** @type {[string, number][]} */
      const lines = [["bg", 3], ["fg", 1]]; // seen on any color of the map
      for (const [name, thick] of lines) {
        context.lineWidth = thick;
        context.strokeStyle = color(name);
        context.strokeRect(starts[i] + pair * wide - 0.5, top - 0.5, Math.max(1, wide) + 1, high + 1);
      }
    });
    marks(context, query, key, color);
  }

  // The rows of query and key, with their positions at the left.
  /**
   * @param {CanvasRenderingContext2D} context @param {number} query @param {number} key
   * @param {Color} color
   */
  function marks(context, query, key, color) {
    const y = (/** @type {number} */ position) => top + (position + 0.5) / positions * high;
    const apart = Math.abs(y(query) - y(key)) < 13 ? (query < key ? -6 : 6) : 0;
    context.textAlign = "right";
    /** @type {[number, string, number][]} */
    const lines = [[key, KEY, -apart], [query, QUERY, apart]];
    for (const [position, name, by] of lines) {
      context.fillStyle = context.strokeStyle = color(name);
      context.lineWidth = 2;
      context.fillText(String(position), left - 5, clamp(y(position) + by + 4, 12, top + high));
      for (const start of starts) {
        context.beginPath();
        context.moveTo(start - 4, y(position));
        context.lineTo(start + width, y(position));
        context.stroke();
      }
    }
  }

  /** @param {MouseEvent} event */
  function under({ offsetX, offsetY }) {
    const table = offsetX < starts[1] - gap / 2 ? 0 : 1;
    const pair = Math.floor((offsetX - starts[table]) / wide);
    const query = Math.floor((offsetY - top) / high * positions);
    const inside = pair >= 0 && pair < half && query >= 0 && query < positions;
    return inside ? { table, pair, query } : null;
  }
  canvas.addEventListener("click", (event) => {
    const found = under(event);
    if (found) pick({ pair: found.pair, query: found.query });
  });
  /** @param {"pair" | "query"} name @param {number} count @param {number} by */
  const move = (name, count, by) => () =>
    pick({ [name]: clamp(chosen(model)[name] + by, 0, count - 1) });
  keyed(canvas, {
    ArrowLeft: move("pair", half, -1), ArrowRight: move("pair", half, 1),
    Home: move("pair", half, -half), End: move("pair", half, half),
    ArrowUp: move("query", positions, -1), ArrowDown: move("query", positions, 1),
    PageUp: move("query", positions, -10), PageDown: move("query", positions, 10),
  });
  /** @param {MouseEvent} event */
  const words = (event) => {
    const found = under(event);
    if (!found) return null;
    const { table, pair, query } = found;
    return `${["cos", "sin"][table]} at position ${query}, pair ${pair}: `
      + short(tables[table][query * half + pair]);
  };
  const key = node("div", { class: "qk-legend" }, node("span", {}, "−1"),
    node("span", { class: "qk-ramp", "aria-hidden": "true" }), node("span", {}, "1"),
    node("span", {}, "one row per position, one column per pair"));
  return { panel: panel("The tables of cos and sin", box, key), canvas, draw, words };
}

// ---- q·k against the distance ----

/** @param {Rope} rope @param {RopeModel} model @param {Choose<RopeState>} pick */
export function curvePanel({ positions }, model, pick) {
  const high = 170, left = 48, right = 8, top = 8, bottom = 36;
  let width = 0;
  const canvas = node("canvas", {
    tabindex: 0, role: "application", class: "qk-clickable qk-rope-curve",
    "aria-label": "q·k against the distance; left and right change the distance",
  });
  const box = node("div", {}, canvas);
  const last = positions - 1;
  /** @param {number} distance */
  const x = (distance) => left + (distance + last) / (2 * last) * (width - left - right);
  let floor = 0, ceiling = 1;
  /** @type {RopeNow | null} */
  let latest = null;
  const y = (/** @type {number} */ value) => top + (ceiling - value) / (ceiling - floor) * high;

  /**
   * @param {CanvasRenderingContext2D} context @param {number[]} values @param {string} color
   * @param {number} thick
   */
  function line(context, values, color, thick) {
    context.strokeStyle = color;
    context.lineWidth = thick;
    context.beginPath();
    values.forEach((value, i) => context.lineTo(x(i - last), y(value)));
    context.stroke();
  }

  /** @param {RopeState} state @param {RopeNow} now @param {Color} color */
  function draw({ query, key }, now, color) {
    latest = now;
    width = roomOf(box);
    const context = sharp(canvas, width, top + high + bottom);
    const all = [...now.products, ...now.pairProducts, 0];
    const [least, most] = [Math.min(...all), Math.max(...all)];
    const air = (most - least || 1) * 0.06;
    [floor, ceiling] = [least - air, most + air];
    context.fillStyle = color("bg");
    context.fillRect(left, top, width - left - right, high);
    context.fillStyle = color("line"); // a key that comes later is masked in the model
    context.globalAlpha = 0.5;
    context.fillRect(left, top, x(-0.5) - left, high);
    context.globalAlpha = 1;
    context.lineWidth = 1;
    context.strokeStyle = color("line");
    context.strokeRect(left + 0.5, top + 0.5, width - left - right, high);
    line(context, [0, ...Array(2 * last - 1).fill(0), 0], color("line"), 1);
    line(context, now.pairProducts, color(PAIR), 1);
    line(context, now.products, color("fg"), 1.6);
    ticks(context, now, color("soft"));
    const distance = query - key;
    context.strokeStyle = context.fillStyle = color(KEY);
    context.lineWidth = 1.5;
    context.beginPath();
    context.moveTo(x(distance), top);
    context.lineTo(x(distance), top + high);
    context.stroke();
    context.beginPath();
    context.arc(x(distance), y(now.products[distance + last]), 5, 0, 2 * Math.PI);
    context.fill();
    context.textAlign = "center";
    context.fillText(`distance ${distance}`.replace("-", "−"), clamp(x(distance), left + 40, width - 50),
      top + high + 31);
  }

  /** @param {CanvasRenderingContext2D} context @param {RopeNow} now @param {string} color */
  function ticks(context, now, color) {
    context.font = FONT;
    context.fillStyle = color;
    context.textAlign = "center";
    for (const distance of [-last, 0, last])
      context.fillText(String(distance).replace("-", "−"),
        clamp(x(distance), left + 16, width - 16), top + high + 15);
    context.textAlign = "right";
    const extremes = [Math.max(...now.products), 0, Math.min(...now.products)];
    extremes.forEach((value, i) => {
      if (i === 2 && Math.abs(y(value) - y(0)) < 14) return;
      context.fillText(short(value), left - 5, clamp(y(value) + 4, top + 10, top + high));
    });
  }

  // Keep the query where it is, unless the key would leave the positions.
  /** @param {number} distance */
  function go(distance) {
    const wanted = clamp(distance, -last, last);
    const key = clamp(chosen(model).query - wanted, 0, last);
    pick({ key, query: clamp(key + wanted, 0, last) });
  }
  /** @param {MouseEvent} event */
  const distanceAt = ({ offsetX }) =>
    Math.round((offsetX - left) / (width - left - right) * 2 * last) - last;
  canvas.addEventListener("click", (event) => go(distanceAt(event)));
  const by = (/** @type {number} */ steps) => () =>
    go(chosen(model).query - chosen(model).key + steps);
  keyed(canvas, {
    ArrowLeft: by(-1), ArrowRight: by(1), ArrowDown: by(-1), ArrowUp: by(1),
    PageDown: by(-10), PageUp: by(10), Home: () => go(0), End: () => go(last),
  });
  /** @param {MouseEvent} event */
  const words = (event) => {
    const distance = distanceAt(event);
    if (!latest || Math.abs(distance) > last) return null;
    const i = distance + last;
    return `distance ${distance}: q·k ${short(latest.products[i])}, `
      + `this pair ${short(latest.pairProducts[i])}`;
  };
  const key = node("div", { class: "qk-note" }, node("b", {}, "all pairs"), ", ",
    named("this pair", PAIR),
    "; gray background: the key comes later, which a causal model masks");
  return { panel: panel("q·k against the distance", box, key), canvas, draw, words };
}
