// CheckpointBrowser: the tensors as a tree. `data` is described in checkpoint.py; histograms arrive
// separately, name -> counts and a few numbers, once `state.asked` names a tensor.

import {
  button, choose, chosen, frame, freshId, ink, node, onLook, painted, percent, roomOf, say, sharp,
} from "./common.js";
import { hue, intoSight, panel, sizeOf, swatch } from "./parts.js";
import { watchKernel } from "./prompt.js";

/**
 * @import { CheckpointData, CheckpointModel, CheckpointState, Choose, Facts, Histogram,
 *   TensorBytes, TensorRow, TensorTree } from "./types.d.ts"
 */

/** @type {Record<string, string>} */
const PART_COLORS = {
  embed_tokens: "blue", self_attn: "orange", mlp: "green", norms: "vermilion", lm_head: "pink",
  others: "pale",
};

/** @param {{model: CheckpointModel, el: HTMLElement}} place */
export function render({ model, el }) {
  const { root, controls, stage, live } = frame(el, "The tensors of a checkpoint");
  const data = model.get("data");
  const tree = grouped(data.tensors);
  // A Map: a name may be "constructor".
  const known = new Map(Object.entries(data.facts));
  const factsOf = (/** @type {string} */ name) => /** @type {Facts} */ (known.get(name));
  /** @type {Choose<CheckpointState>} */
  const pick = (patch) => choose(model, patch);
  const filter = node("input", { type: "search", id: freshId(), size: 18,
    oninput: () => pick({ text: filter.value }) });
  filter.value = chosen(model).text;
  controls.append(node("span", { class: "qk-control" },
    node("label", { for: filter.id }, "Name contains"), filter));
  const list = node("div", { class: "qk-tree", role: "tree", tabindex: "0",
    "aria-label": "Tensors, grouped by name" });
  const facts = node("table", { class: "qk-facts" });
  const numbers = node("div", { class: "qk-numbers" });
  const chosenPanel = panel("Tensor", facts, numbers,
    node("h3", {}, "Bytes by part of the model"), partStrip(data));
  const name = /** @type {HTMLElement} */ (chosenPanel.firstElementChild);
  name.classList.add("qk-tensor");
  root.classList.add("qk-quiet");
  stage.classList.add("qk-checkpoint");
  stage.append(panel("Tensors by name", list), chosenPanel);
  list.addEventListener("keydown", (event) => walk(event, model, tree, pick));

  const kernel = watchKernel(model, root, draw);

  function draw() {
    const state = chosen(model);
    const rows = visibleRows(data.tensors, tree, state);
    list.replaceChildren(...rows.map((row) => line(row, tree, state, factsOf, pick)));
    const current = list.querySelector('[aria-selected="true"]');
    if (current instanceof HTMLElement) {
      list.setAttribute("aria-activedescendant", current.id);
      intoSight(list, current);
    }
    name.textContent = state.selected;
    facts.replaceChildren(...factsOf(state.selected).map(([key, value]) =>
      node("tr", {}, node("th", { scope: "row" }, key), node("td", {}, value))));
    const found = new Map(Object.entries(model.get("histograms"))).get(state.selected);
    kernel.need(!model.alone && !found && state.asked.includes(state.selected));
    numbers.replaceChildren(...(found && !tree.has(state.selected) ? histogramOf(numbers, found)
      : numbersOf(model, tree, state, pick, kernel)));
    const words = factsOf(state.selected).map((pair) => pair.join(" "));
    say(live, `${state.selected}: ${words.join(", ")}`);
    root.qk = { state, rows: rows.map(({ name, depth, count, bytes }) => [name, depth, count, bytes]),
      histogram: found ?? null };
    painted(root);
  }
  model.on("change:state", draw);
  model.on("change:histograms", draw);
  draw();
  const end = onLook(root, draw);
  return () => {
    end();
    kernel.close();
    for (const signal of ["change:state", "change:histograms"]) model.off(signal, draw);
  };
}

// ---- the tree ----

// Group -> its tensors, for every prefix of a name.
/** @param {TensorBytes[]} tensors @returns {TensorTree} */
export function grouped(tensors) {
  const tree = new Map();
  for (const [name, bytes] of tensors) {
    const parts = name.split(".");
    for (let length = 1; length < parts.length; length++) {
      const group = parts.slice(0, length).join(".");
      const inside = tree.get(group) ?? [];
      inside.push([name, bytes]);
      tree.set(group, inside);
    }
  }
  return tree;
}

// The visible rows, as Tree.rows in _tensors.py yields them.
/** @param {TensorBytes[]} tensors @param {TensorTree} tree @param {CheckpointState} state */
export function visibleRows(tensors, tree, { opened, text }) {
  const open = new Set(opened);
  const seen = new Set();
  /** @type {TensorRow[]} */
  const rows = [];
  const fits = (/** @type {string} */ name) => name.toLowerCase().includes(text.toLowerCase());
  for (const [name, bytes] of tensors) {
    if (!fits(name)) continue;
    const parts = name.split(".");
    let visible = true;
    for (let length = 1; length < parts.length && visible; length++) {
      const group = parts.slice(0, length).join(".");
      if (!seen.has(group)) {
        seen.add(group);
        const inside = (tree.get(group) ?? []).filter(([one]) => fits(one));
        rows.push({ name: group, depth: length - 1, count: inside.length,
          bytes: inside.reduce((sum, [, size]) => sum + size, 0) });
      }
      visible = text !== "" || open.has(group);
    }
    if (visible) rows.push({ name, depth: parts.length - 1, count: 1, bytes });
  }
  return rows;
}

/**
 * @param {TensorRow} row @param {TensorTree} tree @param {CheckpointState} state
 * @param {(name: string) => Facts} factsOf @param {Choose<CheckpointState>} pick
 */
function line(row, tree, state, factsOf, pick) {
  const group = tree.has(row.name);
  const open = state.text !== "" || state.opened.includes(row.name);
  const sign = group ? (open ? "▾" : "▸") : "·";
  const short = row.name.slice(row.name.lastIndexOf(".") + 1);
  return node("div", {
    id: freshId(), role: "treeitem", class: "qk-row", "aria-level": row.depth + 1,
    "aria-selected": String(row.name === state.selected),
    "aria-expanded": group ? String(open) : null,
    style: `padding-left: ${4 + 16 * row.depth}px`,
    onclick: () => pick(group && row.name === state.selected
      ? { opened: toggled(state.opened, row.name) } : { selected: row.name }),
  },
  node("span", { class: "qk-sign", "aria-hidden": "true",
    onclick: (event) => {
      if (!group) return;
      event.stopPropagation();
      pick({ selected: row.name, opened: toggled(state.opened, row.name) });
    } }, sign),
  node("span", { class: "qk-token" }, short),
  node("span", { class: "qk-small" },
    group ? `${row.count} tensor${row.count === 1 ? "" : "s"}` : factsOf(row.name)[0][1]),
  node("span", { class: "qk-end" }, sizeOf(row.bytes)));
}

/** @param {string[]} names @param {string} name */
const toggled = (names, name) =>
  names.includes(name) ? names.filter((one) => one !== name) : [...names, name];

// The keys of a tree, as the ARIA practices give them.
/**
 * @param {KeyboardEvent} event @param {CheckpointModel} model @param {TensorTree} tree
 * @param {Choose<CheckpointState>} pick
 */
function walk(event, model, tree, pick) {
  const state = chosen(model);
  const rows = visibleRows(model.get("data").tensors, tree, state);
  const at = rows.findIndex((row) => row.name === state.selected);
  const group = tree.has(state.selected);
  const open = state.text !== "" || state.opened.includes(state.selected);
  const go = (/** @type {number} */ row) =>
    pick({ selected: rows[Math.max(0, Math.min(rows.length - 1, row))].name });
  const parent = state.selected.split(".").slice(0, -1).join(".");
  /** @type {Record<string, () => void>} */
  const keys = {
    ArrowDown: () => go(at + 1),
    ArrowUp: () => go(at - 1),
    Home: () => go(0),
    End: () => go(rows.length - 1),
    ArrowRight: () => {
      if (!group) return;
      if (open) go(at + 1);
      else pick({ opened: toggled(state.opened, state.selected) });
    },
    ArrowLeft: () => {
      if (group && open && !state.text) pick({ opened: toggled(state.opened, state.selected) });
      else if (parent) pick({ selected: parent });
    },
    Enter: () => {
      if (group) pick({ opened: toggled(state.opened, state.selected) });
      else ask(model, state, pick);
    },
  };
  if (!keys[event.key] || !rows.length) return;
  event.preventDefault();
  keys[event.key]();
}

// ---- the values of one tensor ----

/**
 * @param {CheckpointModel} model @param {CheckpointState} state
 * @param {Choose<CheckpointState>} pick
 */
function ask(model, state, pick) {
  if (!model.alone && !state.asked.includes(state.selected))
    pick({ asked: [...state.asked, state.selected] });
}

/**
 * @param {CheckpointModel} model @param {TensorTree} tree @param {CheckpointState} state
 * @param {Choose<CheckpointState>} pick @param {ReturnType<typeof watchKernel>} kernel
 */
function numbersOf(model, tree, state, pick, kernel) {
  if (tree.has(state.selected)) return [];
  if (model.alone)
    return [node("div", { class: "qk-note" }, "Its values were not read: that needs a kernel.")];
  if (state.asked.includes(state.selected))
    return [node("div", { class: "qk-note" }, kernel.computes() ? "Reading its values …" : kernel.words())];
  return [button("Read its values", () => ask(model, state, pick))];
}

/** @param {HTMLElement} box where it will be @param {Histogram} histogram */
function histogramOf(box, { counts, edge, mean, std, outliers, not_finite: bad }) {
  const canvas = node("canvas", { role: "img",
    "aria-label": `Histogram from ${-edge.toPrecision(3)} to ${edge.toPrecision(3)}` });
  const [width, height] = [Math.min(520, roomOf(box)), 110];
  const context = sharp(canvas, width, height);
  const most = Math.log10(Math.max(...counts, 1)) + 0.3;
  context.fillStyle = ink(box, "blue");
  counts.forEach((count, i) => {
    const tall = count ? (Math.log10(count) + 0.3) / most * height : 0;
    context.fillRect(i * width / counts.length, height - tall, width / counts.length - 0.5, tall);
  });
  const ends = node("div", { class: "qk-ends", style: `width: ${width}px` }, node("span", {}, `−${edge.toPrecision(3)}`),
    node("span", {}, "0"), node("span", {}, edge.toPrecision(3)));
  const words = `mean ${mean.toPrecision(2)}, standard deviation ${std.toPrecision(2)}; `
    + `${outliers.toLocaleString("en")} beyond six of them. `
    + `${bad ? `${bad.toLocaleString("en")} are NaN or infinite. ` : ""}The heights are logarithmic.`;
  return [canvas, ends, node("div", { class: "qk-note" }, words)];
}

// One strip, a piece for each part of the model, and what the colors mean.
/** @param {CheckpointData} data */
function partStrip({ parts, whole }) {
  const strip = node("div", { class: "qk-strip", "aria-hidden": "true" });
  const legend = node("div", { class: "qk-legend" });
  for (const [part, bytes] of Object.entries(parts)) {
    const shade = hue(PART_COLORS[part] ?? PART_COLORS.others);
    strip.append(node("div", { style: `width: ${100 * bytes / whole}%; background: ${shade}` }));
    legend.append(node("span", {}, swatch(shade), ` ${part} ${sizeOf(bytes)}, ${percent(bytes / whole)}`));
  }
  return node("div", {}, strip, legend);
}
