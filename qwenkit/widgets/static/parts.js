// Parts that several widgets use: panels, keys, a line of tokens, bars.

import { freshId, ink, node } from "./common.js";

/** @import { BarRow, Child } from "./types.d.ts" */

export const BLUE = "#0072b2", ORANGE = "#d55e00", GREEN = "#009e73", PALE = "#b0b0b0";

// A box with a heading.
/** @param {string} title @param {Child[]} children */
export const panel = (title, ...children) =>
  node("section", { class: "qk-panel", "aria-label": title }, node("h2", {}, title), ...children);

// What each key does on an element that takes the focus.
/** @param {HTMLElement} element @param {Record<string, () => void>} actions */
export function keyed(element, actions) {
  element.addEventListener("keydown", (event) => {
    const action = actions[event.key];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  });
}

// Keys that walk along `size()` positions; `at` tells the current one, `go` takes the next one.
/** @param {() => number} size @param {() => number} at @param {(position: number) => void} go */
export function walkKeys(size, at, go) {
  const by = (/** @type {number} */ steps) => () =>
    go(Math.max(0, Math.min(size() - 1, at() + steps)));
  return {
    ArrowLeft: by(-1), ArrowUp: by(-1), ArrowRight: by(1), ArrowDown: by(1),
    PageUp: by(-10), PageDown: by(10), Home: () => go(0), End: () => go(size() - 1),
  };
}

// A text as tokens, one of them chosen by click or by keys: `pick(position)`.
// `.fill(tokens)` writes it; `.draw(position, shades, rgb)` marks the chosen one, and shades all.
/** @param {string} label @param {(position: number) => void} pick */
export function tokenLine(label, pick) {
  const id = freshId();
  const list = node("div", { class: "qk-line", role: "listbox", tabindex: 0, "aria-label": label });
  /** @type {HTMLElement[]} */
  let items = [];
  let now = 0;
  /** @param {string[]} tokens */
  function fill(tokens) {
    items = tokens.map((words, i) => node("span", {
      id: `${id}-${i}`, role: "option", class: "qk-token", "data-position": i,
      "aria-selected": "false", title: `token ${i}`,
    }, words));
    list.replaceChildren(...items.flatMap((item, i) => // a new line in the text is one on the page
      tokens[i].endsWith("↵") ? [item, node("br")] : [item]));
  }
  /** @param {number} position @param {number[]} [shades] @param {string} [rgb] */
  function draw(position, shades = [], rgb = "0, 114, 178") {
    const base = shades.length ? ink(list, "bg") : "";
    items.forEach((item, i) => {
      shadow(item, shades[i] || 0, rgb, base);
      item.setAttribute("aria-selected", String(i === position));
    });
    now = position;
    if (!items[position]) return list.removeAttribute("aria-activedescendant");
    list.setAttribute("aria-activedescendant", items[position].id);
    intoSight(list, items[position]);
  }
  list.addEventListener("click", (event) => {
    const target = /** @type {Element} */ (event.target);
    const item = target.closest("[data-position]");
    if (item instanceof HTMLElement) pick(Number(item.dataset.position));
  });
  keyed(list, walkKeys(() => items.length, () => now, pick));
  return { list, fill, draw };
}

// A part of a color over the background behind an element, and letters that are legible on it.
/**
 * @param {HTMLElement} element @param {number} part from 0 to 1 @param {string} rgb the color
 * @param {string} base the background: ink(root, "bg")
 */
export function shadow(element, part, rgb, base) {
  element.style.background = element.style.color = "";
  if (!part) return;
  // Not transparent: what is drawn behind a token stays there.
  element.style.background =
    `color-mix(in srgb, rgb(${rgb}) ${(100 * part).toFixed(1)}%, var(--qk-bg))`;
  const numbers = (/** @type {string} */ text) => (text.match(/[\d.]+/g) ?? [255, 255, 255]).map(Number);
  const under = numbers(base), over = numbers(rgb);
  element.style.color = legibleOn(under.map((one, i) => one + part * (over[i] - one)));
}

// Black or white, whichever has the higher contrast, at least 4.58:1, on a color.
/** @param {number[]} rgb from 0 to 255 */
export function legibleOn(rgb) {
  const [red, green, blue] = rgb.map((one) =>
    one <= 10.31 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#000" : "#fff";
}

// Scroll a box, and only the box, until a part of it is in sight.
/** @param {HTMLElement} box @param {HTMLElement} part */
export function intoSight(box, part) {
  const above = part.offsetTop - 8, below = part.offsetTop + part.offsetHeight + 8;
  if (box.scrollTop > above) box.scrollTop = above;
  else if (box.scrollTop + box.clientHeight < below) box.scrollTop = below - box.clientHeight;
}

// A table of bars. A row: { name, bars: [[length, color], ...], texts: [...], faint }.
/** @param {string} label */
export function barTable(label) {
  const body = node("tbody");
  const table = node("table", { class: "qk-bars", "aria-label": label }, body);
  /** @param {BarRow[]} rows */
  function draw(rows) {
    body.replaceChildren(...rows.map(({ name, bars, texts, faint = false }) =>
      node("tr", { class: faint ? "qk-faint" : null },
        node("th", { scope: "row", class: "qk-token" }, name),
        node("td", { class: "qk-bar" }, ...bars.map(([length, color]) => bar(length, color))),
        ...texts.map((text) => node("td", { class: "qk-number" }, text)))));
  }
  return { table, draw };
}

/** @param {number} length @param {string} color */
export const bar = (length, color) => node("div", {
  style: `width: ${(100 * Math.max(0, Math.min(1, length))).toFixed(2)}%; background: ${color}`,
});

// Let a button act or not; unlike a disabled one it keeps the focus, and with it the keys.
/** @param {HTMLElement} made @param {boolean} yes */
export const allow = (made, yes) => made.setAttribute("aria-disabled", String(!yes));

// A small square of a color, for legends.
/** @param {string} color */
export const swatch = (color) => node("span", { class: "qk-swatch", style: `background: ${color}` });

// A number of few digits, with a true minus.
/** @param {number} value */
export const short = (value) => {
  const size = Math.abs(value);
  const digits = size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.01 || size === 0 ? 2 : 4;
  return value.toFixed(digits).replace("-", "−");
};

// Bytes in decimal units, with three digits, as `format_bytes` in files.py writes them.
/** @param {number} bytes */
export function sizeOf(bytes) {
  /** @type {[number, string][]} */
  const units = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]];
  const [unit, name] = units.find(([one]) => bytes >= 0.9995 * one) || units[units.length - 1];
  return `${Number((bytes / unit).toPrecision(3))} ${name}`;
}

// Call a function once it has not been wanted for a while.
/** @param {() => void} action @param {number} pause milliseconds */
export function later(action, pause) {
  /** @type {number | undefined} */
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, pause);
  };
}
