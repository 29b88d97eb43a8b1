// What all widgets share. MAPS (name -> 256 colors in hexadecimal) is defined above.

// ---- the model: what was chosen, and what is drawn ----

// Read and change what was chosen; `patch` holds only what changes.
export const chosen = (model) => model.get("state");
export function choose(model, patch) {
  model.set("state", { ...chosen(model), ...patch });
  model.save_changes();
}

// A model for a page without a kernel: the interface of a notebook's, without answers.
export function standalone(values) {
  const listeners = {};
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
      for (const listener of listeners[`change:${name}`] || []) listener();
    },
    save_changes() {},
    on(event, listener) {
      (listeners[event] ||= []).push(listener);
    },
    off() {},
  };
}

// A plain loop: Uint8Array.from would take seconds for some megabytes.
function fromBase64(text) {
  const letters = atob(text), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

// Bytes as they come: a DataView from a notebook, a Uint8Array from a page.
const bytesOf = (value) =>
  value instanceof Uint8Array ? value
    : new Uint8Array(value.buffer ?? value, value.byteOffset ?? 0, value.byteLength);

// Undo zlib's compression.
export async function inflate(bytes) {
  const stream = new Blob([bytesOf(bytes)]).stream();
  const unpacked = stream.pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(unpacked).arrayBuffer());
}

// ---- elements ----

// node("div", {class: "x", onclick: f}, "text", child, ...)
export function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined)
      made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// The frame of a widget: a row of controls, the stage, and a line that screen readers speak.
export function frame(el, name) {
  const controls = node("div", { class: "qk-controls" });
  const stage = node("div", { class: "qk-stage" });
  const live = node("div", { class: "qk-live", role: "status", "aria-live": "polite" });
  const root = node("div", { class: "qk", role: "group", "aria-label": name, "data-drawn": "0" },
    controls, stage, live);
  keepKeys(root);
  el.append(root);
  return { root, controls, stage, live };
}

// JupyterLab reacts to arrow keys and others wherever they are pressed: not in a widget.
function keepKeys(root) {
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") event.stopPropagation();
  });
}

// Tell the page, and tests, that a picture is painted: the count of pictures goes up.
export function painted(root) {
  root.dataset.drawn = String(Number(root.dataset.drawn) + 1);
}

let count = 0;
export const freshId = () => `qk-${Date.now().toString(36)}-${++count}`;

// A slider with its name and its value; `show` writes the value. `.update(value)` moves it.
export function slider({ label, min, max, step = 1, value, on, show = String }) {
  const id = freshId();
  const output = node("output", { for: id, "aria-live": "off" }, show(value)); // the slider says it
  const input = node("input", {
    id, type: "range", min, max, step, value, "aria-valuetext": show(value),
    oninput: () => { update(Number(input.value)); on(Number(input.value)); },
  });
  function update(next) {
    input.value = next;
    output.textContent = show(next);
    input.setAttribute("aria-valuetext", show(next));
  }
  const made = node("span", { class: "qk-control" }, node("label", { for: id }, label), input, output);
  return Object.assign(made, { update, input });
}

// A list to choose from; options are strings or [value, text].
export function choice({ label, options, value, on }) {
  const id = freshId();
  const select = node("select", { id, onchange: () => on(select.value) });
  function refill(next, picked) {
    select.replaceChildren(...next.map((option) => {
      const [key, words] = Array.isArray(option) ? option : [option, option];
      return node("option", { value: key }, words);
    }));
    select.value = picked;
  }
  refill(options, value);
  const made = node("span", { class: "qk-control" }, node("label", { for: id }, label), select);
  return Object.assign(made, { update: (next) => { select.value = next; }, refill, input: select });
}

// A box to tick.
export function tick({ label, value, on }) {
  const id = freshId();
  const input = node("input", { id, type: "checkbox", onchange: () => on(input.checked) });
  input.checked = value;
  const made = node("span", { class: "qk-control" }, input, node("label", { for: id }, label));
  return Object.assign(made, { update: (next) => { input.checked = next; }, input });
}

export const button = (words, on, more = {}) =>
  node("button", { type: "button", onclick: on, ...more }, words);

// Speak a line once the reader pauses.
export function say(live, words) {
  clearTimeout(live.timer);
  live.timer = setTimeout(() => { live.textContent = words; }, 150);
}

// ---- numbers ----

export const percent = (part) =>
  part > 0 && part < 0.01 ? "<1%" : `${Math.round(100 * part)}%`;

// ---- drawing ----

// A color map as 256 packed pixels, for Uint32Array on the bytes of an ImageData.
export const PACKED = Object.fromEntries(Object.entries(MAPS).map(([name, digits]) => {
  const pixels = new Uint32Array(256);
  for (let i = 0; i < 256; i++) {
    const rgb = parseInt(digits.slice(6 * i, 6 * i + 6), 16);
    pixels[i] = (255 << 24 | (rgb & 255) << 16 | (rgb >> 8 & 255) << 8 | rgb >> 16) >>> 0;
  }
  return [name, pixels];
}));

// Paint a table of numbers on a canvas, a pixel per number; style its size with CSS.
// values: any array, row by row. low and high: what the ends of the color map stand for.
export function heat(canvas, values, rows, columns, { map = "viridis", low = 0, high = 1 } = {}) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const scale = 255 / (high - low || 1);
  for (let i = 0; i < rows * columns; i++)
    pixels[i] = PACKED[map][Math.max(0, Math.min(255, Math.round((values[i] - low) * scale)))];
  context.putImageData(image, 0, 0);
}

// A canvas of a size in CSS pixels that is sharp on every screen; returns its 2D context.
export function sharp(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

// A color of style.css as a canvas takes it: ink(root, "blue") is what var(--qk-blue) is now.
export function ink(root, name) {
  const probe = node("i", { style: `display: none; color: var(--qk-${name})` });
  root.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

// Call a function when the theme changes; returns a function that ends it.
export function onTheme(draw) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const watch = new MutationObserver(() => draw());
  const options = { attributes: true, attributeFilter: ["data-jp-theme-light", "data-theme", "class"] };
  watch.observe(document.body, options);
  watch.observe(document.documentElement, options);
  dark.addEventListener("change", draw);
  return () => { watch.disconnect(); dark.removeEventListener("change", draw); };
}

// A label that follows the mouse over an element; `words(event)` returns null to hide it.
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
