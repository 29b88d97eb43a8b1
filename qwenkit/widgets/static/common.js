// What all widgets share. MAPS (name -> 256 colors in hexadecimal) is defined above.

/**
 * @import { Answer, Attributes, Child, ColorMap, Listener, Live, Model, Numbers, Option, Packed, Root,
 *   SliderOptions, Standalone, Values } from "./types.d.ts"
 */

// ---- the model: what was chosen, and what is drawn ----

// Read and change what was chosen; `patch` holds only what changes.
/** @template {Values} V @param {Model<V>} model @returns {V["state"]} */
export const chosen = (model) => model.get("state");
/** @template {Values} V @param {Model<V>} model @param {Partial<V["state"]>} patch */
export function choose(model, patch) {
  model.set("state", { ...chosen(model), ...patch });
  model.save_changes();
}

// A model whose late answers do not undo a newer choice. A kernel that is busy answers a choice when
// the reader has already made another one, and its answer holds the older one. So each choice of the
// page has a number, its turn, which the kernel repeats; a state of an earlier turn is put back.
// A state without a turn is the kernel's own: it has not heard of any choice yet.
/** @param {Model<any>} model a notebook's @returns {Model<any>} */
export function steady(model) {
  let newest = model.get("state"), last = newest?.turn ?? 0;
  model.on("change:state", () => { // before all listeners of the widget
    const state = model.get("state"), turn = state?.turn ?? last;
    if (turn < last) return model.set("state", newest); // tells all listeners again
    [newest, last] = [state, turn];
  });
  return {
    alone: model.alone,
    live: model.live,
    get widget_manager() { return model.widget_manager; }, // it changes with the kernel
    send: model.send && ((message) => model.send?.(message)),
    get(name) {
      if (name !== "state") return model.get(name);
      const { turn: _, ...state } = model.get("state");
      return state;
    },
    set: (name, value) => model.set(name, name === "state" ? { ...value, turn: last + 1 } : value),
    save_changes: () => model.save_changes(),
    on: (event, listener) => model.on(event, listener),
    off: (event, listener) => model.off(event, listener),
  };
}

// A model for a page without a kernel: the interface of a notebook's, without answers.
/** @param {Values} values as the page holds them: bytes are text @returns {Standalone} */
export function standalone(values) {
  /** @type {Record<string, Listener[]>} */
  const listeners = {};
  /** @param {string} event @param {Answer} [message] */
  const emit = (event, message) => {
    for (const listener of [...(listeners[event] || [])]) listener(message);
  };
  /** @param {any} value JSON may be anything @returns {any} */
  const unpack = (value) =>
    value && typeof value === "object" && !Array.isArray(value)
      ? typeof value.base64 === "string" && Object.keys(value).length === 1
        ? fromBase64(value.base64)
        : Object.fromEntries(Object.entries(value).map(([name, one]) => [name, unpack(one)]))
      : Array.isArray(value) ? value.map(unpack) : value;
  const kept = unpack(values);
  return {
    alone: true,
    get: (name) => kept[name],
    set(name, value) {
      kept[name] = value;
      emit(`change:${String(name)}`);
    },
    save_changes() {},
    on(event, listener) {
      (listeners[event] ||= []).push(listener);
    },
    off(event, listener) {
      listeners[event] = (listeners[event] || []).filter((one) => one !== listener);
    },
    emit,
  };
}

// A plain loop: Uint8Array.from would take seconds for some megabytes.
/** @param {string} text */
function fromBase64(text) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

// Bytes as they come: a DataView from a notebook, a Uint8Array from a page.
/** @param {Packed} value @returns {Uint8Array<ArrayBuffer>} */
const bytesOf = (value) =>
  value instanceof Uint8Array ? value
    : value instanceof DataView ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
      : new Uint8Array(value);

// Undo zlib's compression.
/** @param {Packed} bytes */
export async function inflate(bytes) {
  const stream = new Blob([bytesOf(bytes)]).stream();
  const unpacked = stream.pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

// ---- elements ----

// node("div", {class: "x", onclick: f}, "text", child, ...)
/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag @param {Attributes} [attributes] @param {Child[]} children
 */
export function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name.slice(2), value); // "onclick"
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined)
      made.setAttribute(name, String(value));
  }
  made.append(...children);
  return made;
}

// The frame of a widget: a row of controls, the stage, and a line that screen readers speak.
/** @param {HTMLElement} el @param {string} name */
export function frame(el, name) {
  const controls = node("div", { class: "qk-controls" });
  const stage = node("div", { class: "qk-stage" });
  /** @type {Live} */
  const live = node("div", { class: "qk-live", role: "status", "aria-live": "polite" });
  /** @type {Root} */
  const root = node("div", { class: "qk", role: "group", "aria-label": name, "data-drawn": "0" },
    controls, stage, live);
  keepKeys(root);
  el.append(root);
  return { root, controls, stage, live };
}

// Jupyter reacts to keys wherever they are pressed: X cuts the cell, 1 makes it a heading. Not in a
// widget: JupyterLab hears of no key but Escape. Notebook 7 hears of each before the widget does; it
// leaves those alone that are pressed in an element with this attribute.
/** @param {HTMLElement} root */
function keepKeys(root) {
  root.addEventListener("focusin", (event) => {
    /** @type {Element} */ (event.target).setAttribute("data-lm-suppress-shortcuts", "true");
  });
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") event.stopPropagation();
  });
}

// Tell the page, and tests, that a picture is painted: the count of pictures goes up.
/** @param {HTMLElement} root */
export function painted(root) {
  root.dataset.drawn = String(Number(root.dataset.drawn) + 1);
}

let count = 0;
export const freshId = () => `qk-${Date.now().toString(36)}-${++count}`;

// A slider with its name and its value; `show` writes the value. `.update(value)` moves it.
/** @param {SliderOptions} options */
export function slider({ label, min, max, step = 1, value, on, show = String }) {
  const id = freshId();
  const output = node("output", { for: id, "aria-live": "off" }, show(value)); // the slider says it
  const input = node("input", {
    id, type: "range", min, max, step, value, "aria-valuetext": show(value),
    oninput: () => { update(Number(input.value)); on(Number(input.value)); },
  });
  /** @param {number} next */
  function update(next) {
    const least = Number(input.min), most = Number(input.max);
    input.value = String(next);
    input.style.setProperty("--share", String((Number(input.value) - least) / (most - least || 1)));
    output.textContent = show(next);
    input.setAttribute("aria-valuetext", show(next));
  }
  update(value);
  const made = node("span", { class: "qk-control" }, node("label", { for: id }, label), input, output);
  return Object.assign(made, { update, input });
}

// A list to choose from; options are strings or [value, text].
/**
 * @param {{label: string, options: Option[], value: string, on: (value: string) => void}} options
 */
export function choice({ label, options, value, on }) {
  const id = freshId();
  const select = node("select", { id, onchange: () => on(select.value) });
  /** @param {Option[]} next @param {string} picked */
  function refill(next, picked) {
    select.replaceChildren(...next.map((option) => {
      const [key, words] = Array.isArray(option) ? option : [option, option];
      return node("option", { value: key }, words);
    }));
    select.value = picked;
  }
  refill(options, value);
  const made = node("span", { class: "qk-control" }, node("label", { for: id }, label), select);
  /** @param {string} next */
  const update = (next) => { select.value = next; };
  return Object.assign(made, { update, refill, input: select });
}

// A box to tick.
/** @param {{label: string, value: boolean, on: (value: boolean) => void}} options */
export function tick({ label, value, on }) {
  const id = freshId();
  const input = node("input", { id, type: "checkbox", onchange: () => on(input.checked) });
  input.checked = value;
  const made = node("span", { class: "qk-control" }, input, node("label", { for: id }, label));
  /** @param {boolean} next */
  const update = (next) => { input.checked = next; };
  return Object.assign(made, { update, input });
}

/** @param {string} words @param {() => void} on @param {Attributes} [more] */
export const button = (words, on, more = {}) =>
  node("button", { type: "button", onclick: on, ...more }, words);

// Speak a line once the reader pauses.
/** @param {Live} live @param {string} words */
export function say(live, words) {
  clearTimeout(live.timer);
  live.timer = setTimeout(() => { live.textContent = words; }, 150);
}

// ---- numbers ----

/** @param {number} part */
export const percent = (part) =>
  part > 0 && part < 0.01 ? "<1%" : `${Math.round(100 * part)}%`;

// ---- drawing ----

// A color map as 256 packed pixels, for Uint32Array on the bytes of an ImageData.
export const PACKED = /** @type {Record<ColorMap, Uint32Array>} */ (Object.fromEntries(
  Object.entries(MAPS).map(([name, digits]) => {
    const pixels = new Uint32Array(256);
    for (let i = 0; i < 256; i++) {
      const rgb = parseInt(digits.slice(6 * i, 6 * i + 6), 16);
      pixels[i] = (255 << 24 | (rgb & 255) << 16 | (rgb >> 8 & 255) << 8 | rgb >> 16) >>> 0;
    }
    return [name, pixels];
  })));

// The 2D context of a canvas.
/** @param {HTMLCanvasElement} canvas */
export const context2d = (canvas) =>
  /** @type {CanvasRenderingContext2D} null only for a canvas of WebGL */ (canvas.getContext("2d"));

// Paint a table of numbers on a canvas, a pixel per number; style its size with CSS.
// values: any array, row by row; what is not finite stays clear. low and high: what the ends of
// the color map stand for.
/**
 * @param {HTMLCanvasElement} canvas
 * @param {Numbers} values @param {number} rows @param {number} columns
 * @param {{map?: ColorMap, low?: number, high?: number}} [options]
 */
export function heat(canvas, values, rows, columns, { map = "viridis", low = 0, high = 1 } = {}) {
  canvas.width = columns;
  canvas.height = rows;
  const context = context2d(canvas);
  const image = context.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const scale = 255 / (high - low || 1);
  for (let i = 0; i < rows * columns; i++) {
    if (!Number.isFinite(values[i])) continue;
    pixels[i] = PACKED[map][Math.max(0, Math.min(255, Math.round((values[i] - low) * scale)))];
  }
  context.putImageData(image, 0, 0);
}

// A canvas of a size in CSS pixels that is sharp on every screen; returns its 2D context.
/** @param {HTMLCanvasElement} canvas @param {number} width @param {number} height */
export function sharp(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = context2d(canvas);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

// A color of style.css as a canvas takes it: ink(root, "blue") is what var(--qk-blue) is now.
/** @param {HTMLElement} root @param {string} name */
export function ink(root, name) {
  const probe = node("i", { style: `display: none; color: var(--qk-${name})` });
  root.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

// Call a function when the theme changes; returns a function that ends it.
/** @param {() => void} draw */
export function onTheme(draw) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const watch = new MutationObserver(() => draw());
  const options = { attributes: true, attributeFilter: ["data-jp-theme-light", "data-theme", "class"] };
  watch.observe(document.body, options);
  watch.observe(document.documentElement, options);
  dark.addEventListener("change", draw);
  return () => { watch.disconnect(); dark.removeEventListener("change", draw); };
}

// Call a function when a widget gets another width, its first one too, and when the theme changes;
// returns a function that ends it.
/** @param {HTMLElement} root @param {() => void} draw */
export function onLook(root, draw) {
  let width = root.clientWidth;
  const watch = new ResizeObserver(() => {
    if (root.clientWidth === width) return;
    width = root.clientWidth;
    draw();
  });
  watch.observe(root);
  const end = onTheme(draw);
  return () => { watch.disconnect(); end(); };
}

// How wide a canvas may be that fills its box; 320 until the box is on the page.
/** @param {HTMLElement} box */
export const roomOf = (box) => box.clientWidth ? Math.max(120, box.clientWidth) : 320;

// A label that follows the mouse over an element; `words(event)` returns null to hide it.
/**
 * @param {HTMLElement} root @param {HTMLElement} target
 * @param {(event: PointerEvent) => string | null} words
 */
export function hover(root, target, words) {
  const box = node("div", { class: "qk-tip", "aria-hidden": "true" });
  box.hidden = true;
  root.append(box);
  target.addEventListener("pointermove", (event) => {
    const text = words(event);
    box.hidden = text === null;
    if (text === null) return;
    box.textContent = text;
    const bounds = root.getBoundingClientRect();
    box.style.left = `${Math.min(event.clientX - bounds.left + 12, bounds.width - 180)}px`;
    box.style.top = `${event.clientY - bounds.top + 14}px`;
  });
  target.addEventListener("pointerleave", () => { box.hidden = true; });
}
