// The guide of ModelExplorer: one box that says what happens, step by step, and the tour.

import { button, node, say } from "./common.js";
import { allow, keyed } from "./parts.js";
import { PARTS, WHOLE } from "./explorer_panels.js";
import { clearestHead, tourOf, wayThrough } from "./explorer_tour.js";

/** @typedef {import("./explorer_picture.js").Place} Place */
/** @typedef {import("./explorer_text.js").LiveText} LiveText */
/** @typedef {{title: string, text: string, buttons?: HTMLElement[], kind?: string}} Told */
/**
 * What the guide needs of the page.
 * @typedef {{live: HTMLElement, text: LiveText, position: () => number,
 *   show: (place: Place | null) => void, arrive: () => void,
 *   buttons: Record<"play" | "tour", HTMLElement>}} Page
 */

const SLOW = 1600, FAST = 480; // milliseconds per stop of Play, in the first layer and later

export class Guide {
  /** @param {Page} page */
  constructor(page) {
    this.page = page;
    this.box = node("section", { class: "qkx-coach", "aria-label": "What happens", tabindex: -1 });
    keyed(this.box, {
      ArrowRight: () => this.goTo(this.at + 1), ArrowLeft: () => this.goTo(this.at - 1),
    });
    this.at = -1; // of the tour
    /** @type {{stops: Place[], at: number} | null} */
    this.way = null;
    /** @type {ReturnType<typeof setTimeout> | null} */
    this.timer = null;
    this.rest();
  }

  /** @param {Told} told */
  tell({ title, text, buttons = [], kind = "" }) {
    this.box.dataset.kind = kind;
    this.box.replaceChildren(node("p", {}, node("b", {}, title), " ", text),
      node("div", { class: "qkx-coach-buttons" }, ...buttons));
  }

  rest() {
    this.tell({ title: "New here?", text: "The tour explains the drawing in ten steps, with the "
      + "numbers of your prompt. Or press Play, and follow a token through the model." });
  }

  /** End a tour or a walk. */
  end() {
    const toured = this.at >= 0;
    this.pausePlay();
    this.way = null;
    this.at = -1;
    this.page.show(null);
    this.rest();
    if (toured) this.page.buttons.tour.focus();
  }

  endButton() {
    return button("End", () => this.end());
  }

  // ---- the way of a token ----

  step() {
    const { text, position, show, live, arrive } = this.page;
    if (!text.ready) return;
    this.at = -1;
    this.way ??= {
      stops: wayThrough(text.config.layers, clearestHead(text.run, position()).head), at: -1,
    };
    const { way } = this, { stops } = way;
    if (++way.at >= stops.length) {
      this.end();
      arrive();
      return;
    }
    const place = stops[way.at], { title, short: words } = PARTS[place.part];
    const where = WHOLE.has(place.part) ? "" : `, layer ${place.layer}`;
    show(place);
    this.tell({ kind: "step", title: `${way.at + 1} of ${stops.length}. ${title}${where}.`,
      text: words, buttons: [this.endButton()] });
    if (this.timer === null) say(live, `${title}. ${words}`); // Play would speak without end
  }

  togglePlay() {
    if (this.timer !== null) return this.pausePlay();
    this.page.buttons.play.textContent = "Pause";
    return this.goOn();
  }

  goOn() {
    const { way } = this, { layer = 0, part = "" } = way?.stops[way.at + 1] ?? {};
    const slow = layer === 0 || part === "sampling";
    this.timer = setTimeout(() => this.way && this.goOn(), slow ? SLOW : FAST);
    this.step();
  }

  pausePlay() {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    this.page.buttons.play.textContent = "Play";
  }

  // ---- the tour ----

  start() {
    this.end();
    if (!this.page.text.ready) return say(this.page.live, "Type a prompt first.");
    return this.goTo(0);
  }

  /** Say the same for another text. */
  again() {
    if (this.at >= 0) this.goTo(this.at, false);
  }

  /**
   * @param {number} at
   * @param {boolean} [moved] false: the same stop again
   */
  goTo(at, moved = true) {
    const { text, position, show, live } = this.page;
    if (at < 0 || (this.at < 0 && at > 0) || !text.ready) return;
    const stops = tourOf(text, position());
    if (at >= stops.length) return this.end();
    this.at = at;
    const { place, title, text: words } = stops[at];
    const back = button("Back", () => this.goTo(this.at - 1));
    allow(back, at > 0);
    const next = button(at + 1 < stops.length ? "Next" : "Finish", () => this.goTo(this.at + 1),
      { class: "qkx-main" });
    this.tell({ kind: "tour", title: `${at + 1} of ${stops.length}. ${title}.`, text: words,
      buttons: [back, next, this.endButton()] });
    if (!moved) return;
    show(place);
    this.box.focus({ preventScroll: true });
    say(live, `${title}. ${words}`);
  }
}
