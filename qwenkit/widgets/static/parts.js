// Parts that several widgets use: panels, keys, a line of tokens, bars.

import { freshId, ink, node } from "./common.js";

/** @import { BarRow, Child } from "./types.d.ts" */

export const BLUE = "#0072b2", ORANGE = "#d55e00", GREEN = "#009e73", PALE = "#b0b0b0";

// A color of style.css, for a style: hue("blue"). A canvas takes ink(root, "blue") instead.
/** @param {string} name */
export const hue = (name) => `var(--qk-${name})`;

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
// `.fill(tokens)` writes it; `.draw(position, shades, color)` marks the chosen one, and shades all.
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
  /** @param {number} position @param {number[]} [shades] @param {string} [color] red, green, blue */
  function draw(position, shades = [], color = ink(list, "blue")) {
    const base = shades.length ? ink(list, "bg") : "";
    items.forEach((item, i) => {
      shadow(item, shades[i] || 0, color, base);
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
 * @param {HTMLElement} element @param {number} part from 0 to 1 @param {string} color
 * @param {string} base the background: ink(root, "bg")
 */
export function shadow(element, part, color, base) {
  element.style.background = element.style.color = "";
  if (!part) return;
  const full = channels(color), none = channels(base);
  const mixed = none.map((one, i) => Math.round(one + part * (full[i] - one)));
  element.style.background = `rgb(${mixed.join(", ")})`; // not transparent: what is behind stays there
  element.style.color = legible(mixed);
}

// Red, green and blue, of 255, from "rgb(0, 105, 166)" or "0, 105, 166"; black from anything else.
/** @param {string} color */
export function channels(color) {
  const found = (color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);
  return found.length === 3 ? found : [0, 0, 0];
}

// Black or white, whichever stands out more; that is by 4.5:1 at least from any color (WCAG 2.2).
/** @param {number[]} background red, green and blue, of 255 */
export function legible(background) {
  const [red, green, blue] = background.map((one) =>
    one <= 10.31475 ? one / 255 / 12.92 : ((one / 255 + 0.055) / 1.055) ** 2.4);
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return (luminance + 0.05) ** 2 > 1.05 * 0.05 ? "black" : "white";
}

// Scroll a box, and only the box, until a part of it is in sight.
/** @param {HTMLElement} box @param {HTMLElement} part */
export function intoSight(box, part) {
  const above = part.offsetTop - 8, below = part.offsetTop + part.offsetHeight + 8;
  if (box.scrollTop > above) box.scrollTop = above;
  else if (box.scrollTop + box.clientHeight < below) box.scrollTop = below - box.clientHeight;
}

// A table of bars. A row: { name, bars: [[length, color], ...], texts: [...], faint }.
// With roles of its own, because a style that stacks a row's cells ends those of the elements.
/** @param {string} label @param {string} [more] further classes */
export function barTable(label, more = "") {
  const body = node("tbody", { role: "rowgroup" });
  const table = node("table", { class: `qk-bars ${more}`, role: "table", "aria-label": label }, body);
  /** @param {BarRow[]} rows */
  function draw(rows) {
    body.replaceChildren(...rows.map(({ name, bars, texts, faint = false }) =>
      node("tr", { class: faint ? "qk-faint" : null, role: "row" },
        node("th", { scope: "row", role: "rowheader", class: "qk-token" }, name),
        node("td", { role: "cell", class: "qk-bar" }, ...bars.map(([length, color]) => bar(length, color))),
        ...texts.map((text) => node("td", { role: "cell", class: "qk-number" }, text)))));
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

/**
 * An element of SVG; texts and children as in `node`.
 * @param {string} tag
 * @param {Record<string, string | number | null | undefined>} attributes
 * @param {...(string | Node)} children
 */
export function svgShape(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== undefined) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}
