// The page of ModelExplorer: its boxes, buttons and cards, and what is written into them.

import { button, choice, node, tick } from "./common.js";
import { allow, tokenLine } from "./parts.js";
import { PARTS } from "./explorer_panels.js";
import { sameOff } from "./explorer_picture.js";
import { wayThrough } from "./explorer_tour.js";

/** @typedef {import("./explorer_picture.js").Place} Place */
/** @typedef {import("./explorer_run.js").Off} Off */
/** @typedef {import("./explorer_text.js").LiveText} LiveText */
/** @typedef {Record<"generate" | "step" | "play" | "tour" | "allOn", () => void>} Presses */

/**
 * The cards on top: prompt with buttons, and tokens.
 * @param {HTMLElement} root
 * @param {HTMLElement} controls where the buttons go
 * @param {Record<string, string>} examples name -> prompt
 * @param {{typed: () => void, example: (text: string) => void, pick: (position: number) => void,
 *   press: Presses}} on
 */
export function topCards(root, controls, examples, { typed, example, pick, press }) {
  const prompt = /** @type {HTMLTextAreaElement} */ (node("textarea", {
    class: "qkx-prompt", rows: 3, spellcheck: "false", autocapitalize: "off", autocomplete: "off",
    "aria-label": "Prompt",
    oninput: () => {
      choose.update("");
      typed();
    },
  }));
  const choose = choice({
    label: "Example", options: [["", "choose …"], ...Object.keys(examples)], value: "",
    on: (/** @type {string} */ name) => {
      if (name) example(examples[name]);
    },
  });
  const buttons = {
    generate: button("Generate", press.generate, { class: "qkx-main" }),
    step: button("Step", press.step),
    play: button("Play", press.play),
    tour: button("Take the tour", press.tour),
    allOn: button("All on again", press.allOn),
  };
  controls.classList.add("qkx-toolbar");
  controls.append(...Object.values(buttons), motionTick(root));
  const line = tokenLine("Tokens of the prompt", pick);
  const count = node("span", { class: "qkx-count" });
  const box = node("div", { class: "qkx-top" },
    node("div", { class: "qkx-card" }, headLine("Prompt", choose), prompt, controls),
    node("div", { class: "qkx-card" }, headLine("Tokens", count), line.list));

  /** @param {LiveText} live @param {number} position */
  function drawTokens(live, position) {
    const { text, ids, lost, room } = live;
    if (prompt.value !== text) prompt.value = text;
    prompt.rows = Math.max(2, Math.min(8, text.split("\n").length));
    line.fill(ids.map((id) => live.name(id)));
    for (const [i, item] of [...line.list.querySelectorAll(".qk-token")].entries())
      /** @type {HTMLElement} */ (item).title = `token ${i}, id ${ids[i]}`;
    count.textContent = lost
      ? `the first ${room} of ${room + lost}: this page reads at most ${room}` : String(ids.length);
    count.classList.toggle("qkx-warn", lost > 0);
    line.draw(position);
  }

  /** @param {number} off how many parts are off */
  function drawOff(off) {
    allow(buttons.allOn, off > 0);
    buttons.allOn.textContent = off ? `All on again (${off} off)` : "All on again";
  }
  return { box, prompt, line, buttons, drawTokens, drawOff };
}

/** @param {string} words @param {HTMLElement} more */
const headLine = (words, more) =>
  node("div", { class: "qkx-head-line" }, node("h2", {}, words), more);

/** @param {HTMLElement} root */
function motionTick(root) {
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const move = (/** @type {boolean} */ yes) => root.classList.toggle("qkx-still", !yes);
  move(!still);
  return tick({ label: "Motion", value: !still, on: move });
}

/** What stands in the panel's place before a part is chosen. @param {LiveText} text */
export function introPanel({ config, tokens, parameters }) {
  const item = (/** @type {string} */ words) => node("li", {}, words);
  return node("section", { class: "qk-panel qkx-intro", "aria-label": "About" },
    node("h2", {}, "A language model, running in this page"),
    node("p", {}, `It has ${(parameters / 1e6).toFixed(1)} million parameters in ${config.layers} `
      + `layers of ${config.heads} heads, and knows ${tokens.toLocaleString("en")} tokens. Change `
      + "the prompt, and everything here is computed again."),
    node("ul", {}, item("Click a part of the drawing to see its numbers."),
      item("Press x on a head or an MLP to switch it off, and watch the bars."),
      item("Click a token to follow it through the layers.")));
}

/**
 * Above a panel: the parts before and after, and the switch of a head or an MLP.
 * @param {Place} place
 * @param {Off[]} off
 * @param {{open: (place: Place) => void, flip: (off: Off) => void}} actions
 */
export function panelHead({ part, layer, head }, off, { open, flip }) {
  const stops = wayThrough(1, head ?? 0), at = stops.findIndex((one) => one.part === part);
  const title = (/** @type {Place} */ one) => PARTS[one.part].title;
  const made = node("div", { class: "qkx-panel-head" });
  const before = at < 0 ? undefined : stops[at - 1], after = at < 0 ? undefined : stops[at + 1];
  if (before) made.append(button(`← ${title(before)}`, () => open({ ...before, layer })));
  if (after) made.append(button(`${title(after)} →`, () => open({ ...after, layer })));
  const one = switchable({ part, layer, head });
  if (!one) return made;
  const is = off.some((other) => sameOff(other, one));
  const what = one.head === null ? "this MLP" : `head ${one.head}`;
  const words = `Switch ${what} ${is ? "on" : "off"}`;
  made.append(button(words, () => flip(one), { class: `qkx-switch${is ? " qkx-warned" : ""}` }));
  return made;
}

/** @param {Place} place @returns {Off | null} what can be switched off there */
function switchable({ part, layer, head }) {
  if (part === "gate_up" || part === "mlp_out") return { layer, head: null };
  return part === "pattern" || part === "scores" ? { layer, head: head ?? 0 } : null;
}

/**
 * Replace what a box holds, and keep the focus at the same place in it.
 * @param {HTMLElement} box
 * @param {HTMLElement[]} inside
 */
export function refill(box, inside) {
  const path = [];
  let one = /** @type {Element | null} */ (box.querySelector(":focus"));
  for (; one && one !== box; one = one.parentElement)
    path.unshift([.../** @type {Element} */ (one.parentElement).children].indexOf(one));
  box.replaceChildren(...inside);
  let next = /** @type {Element | undefined} */ (box);
  for (const at of path) next = next?.children[at];
  if (path.length && next instanceof HTMLElement) next.focus({ preventScroll: true });
}
