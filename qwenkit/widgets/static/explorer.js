// ModelExplorer: the whole model, computed and drawn in the page. What the reader chose is `state`;
// `data` holds the examples. An exported page holds the model's files; a notebook asks for them.

import { choose, chosen, frame, inflate, node, onTheme, painted, percent, say } from "./common.js";
import { later } from "./parts.js";
import { Model } from "./engine/model.js";
import { readTensors } from "./engine/safetensors.js";
import { draw, probabilities, random } from "./engine/sampling.js";
import { Tokenizer } from "./engine/tokenizer.js";
import { cacheLine, nextBars } from "./explorer_bars.js";
import { Guide } from "./explorer_guide.js";
import { introPanel, panelHead, refill, topCards } from "./explorer_page.js";
import { partPanel } from "./explorer_panels.js";
import { modelPicture, nameOf, sameOff } from "./explorer_picture.js";
import { LiveText, pause } from "./explorer_text.js";
import { watchKernel } from "./prompt.js";

/** @typedef {import("./explorer_picture.js").Place} Place */
/** @typedef {import("./explorer_run.js").Off} Off */
/** @typedef {{config: any, tokenizer: any, weights: Uint8Array<ArrayBuffer>}} Files weights: compressed */
/** @typedef {{root: any, controls: HTMLElement, stage: HTMLElement, live: HTMLElement}} Frame */

const CALM = 150; // milliseconds between pictures while generating
const LOADING = "Loading the model …";

/** Let the page draw a frame; a hidden page draws none. */
const frameDrawn = () => new Promise((resume) => {
  const late = setTimeout(resume, 200);
  requestAnimationFrame(() => {
    clearTimeout(late);
    pause().then(resume);
  });
});

/** @param {{model: any, el: HTMLElement}} given */
export async function render({ model, el }) {
  const made = frame(el, "Model explorer");
  made.root.classList.add("qkx");
  const wait = node("p", { class: "qkx-wait" }, LOADING);
  made.stage.append(wait);
  try {
    const { config, tokenizer, weights } = await filesOf(model, wait);
    const engine = new Model(config, readTensors((await inflate(weights)).buffer));
    const { tokens, most } = model.get("data");
    const text = new LiveText(engine, new Tokenizer(tokenizer), tokens, most);
    wait.remove();
    return new Explorer(model, made, text).start();
  } catch (error) {
    wait.textContent = `The model cannot be shown. ${/** @type {Error} */ (error).message}`;
    made.stage.append(wait);
    painted(made.root);
    return undefined;
  }
}

/**
 * The model's files: from the page, or from the kernel, which sends them when it is asked.
 * @param {any} model
 * @param {HTMLElement} wait
 * @returns {Promise<Files>}
 */
function filesOf(model, wait) {
  const files = model.get("files");
  if (files) return Promise.resolve(files);
  return new Promise((resolve) => {
    const kernel = watchKernel(model, wait, () => {
      wait.textContent = kernel.computes() ? LOADING : kernel.words();
    });
    const listen = (/** @type {any} */ message, /** @type {any} */ buffers) => {
      if (message?.files === undefined) return;
      kernel.close();
      model.off("msg:custom", listen);
      resolve({ ...message.files, weights: buffers[0] });
    };
    model.on("msg:custom", listen);
    kernel.ask({ files: true });
  });
}

/** Whether a notebook's kernel was shut down: what is saved then would only raise an error. */
const kernelGone = (/** @type {any} */ { widget_manager: manager }) =>
  manager?.kernel === null || Boolean(manager?.kernel?.isDisposed);

class Explorer {
  /**
   * @param {any} model the widget's: state, data, messages
   * @param {Frame} made
   * @param {LiveText} text
   */
  constructor(model, { root, controls, stage, live }, text) {
    this.model = model;
    this.root = root;
    this.live = live;
    this.text = text;
    this.settings = { temperature: 0, topK: 0 };
    this.position = 0;
    /** @type {Place} */
    this.place = { part: "", layer: 0, head: 0 };
    this.head = 0; // the last one that was chosen
    /** @type {object | null} */
    this.generating = null;
    /** @type {number | null} */
    this.speed = null; // tokens per second
    this.number = random(Math.floor(2 ** 32 * Math.random()));
    /** @type {number | null} */
    this.tokenFrame = null;
    this.waiting = false; // whether the picture is to be drawn
    /** @type {ReturnType<ReturnType<typeof nextBars>["draw"]> | null} */
    this.shown = null;
    const flip = (/** @type {Off} */ off) => this.flip(off);
    const open = (/** @type {Place} */ place) => this.open(place);
    this.actions = { flip, open };
    this.top = topCards(root, controls, model.get("data").examples, {
      typed: () => this.typed(this.top.prompt.value),
      example: (words) => this.typed(words),
      pick: (position) => this.choose({ position }),
      press: {
        generate: () => this.toggleGenerate(), step: () => this.guide.step(),
        play: () => this.togglePlay(), tour: () => this.startTour(), allOn: () => this.switchTo([]),
      },
    });
    this.guide = new Guide({
      live, text, position: () => this.position, show: (place) => this.show(place),
      arrive: () => this.arrive(), buttons: this.top.buttons,
    });
    this.picture = modelPicture(root, text.config, this.actions);
    this.bars = nextBars(this.settings, {
      set: (patch) => this.set(patch), append: (id) => this.append(id),
      name: (id) => text.name(id),
    });
    this.cache = cacheLine(text.config, text.room, () => open({ ...this.place, part: "cache" }));
    this.panel = node("div", { class: "qkx-panel" });
    stage.classList.add("qkx-stage");
    stage.append(this.top.box, this.guide.box, node("div", { class: "qkx-body" },
      node("div", { class: "qkx-card qkx-picture" }, this.picture.body),
      node("div", { class: "qkx-side" }, this.bars.box, this.cache.box, this.panel)));
    this.drawPanelSoon = later(() => this.drawPanel(), 40);
    this.share = later(() => {
      if (!kernelGone(model)) choose(model, this.stateNow());
    }, 400);
  }

  /** Show the state, and follow it from now on. @returns {() => void} what ends it */
  start() {
    const follow = () => this.adopt(chosen(this.model));
    follow();
    this.model.on("change:state", follow);
    const ended = onTheme(() => {
      this.picture.forgetColors();
      this.drawPicture();
    });
    this.root.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape") this.guide.end();
    });
    return () => {
      ended();
      this.model.off("change:state", follow);
      this.generating = null;
      this.text.cancel();
      this.guide.pausePlay();
    };
  }

  stateNow() {
    const { text: { text, off }, settings: { temperature, topK } } = this;
    const pairs = off.map(({ layer, head }) => [layer, head]);
    return { prompt: text, temperature, top_k: topK, off: pairs };
  }

  /** Take over a state that was chosen by code. @param {any} state */
  adopt(state) {
    if (JSON.stringify(state) === JSON.stringify(this.stateNow()) && this.shown) return;
    Object.assign(this.settings, { temperature: state.temperature, topK: state.top_k });
    this.bars.update(this.settings);
    this.text.switchTo(state.off.map((/** @type {any} */ [layer, head]) => ({ layer, head })));
    this.read(state.prompt);
  }

  // ---- the text ----

  /** @param {string} words */
  typed(words) {
    this.generating = null;
    this.read(words);
    this.share();
  }

  /** @param {string} words */
  read(words) {
    const { text } = this, atEnd = this.position >= text.ids.length - 1;
    text.write(words);
    const last = Math.max(0, text.ids.length - 1);
    this.position = atEnd ? last : Math.min(this.position, last);
    this.refresh();
    this.drawTokensSoon();
  }

  /** Go on with this token. @param {number} id */
  append(id) {
    if (this.text.full)
      return say(this.live, `This page reads at most ${this.text.room} tokens; shorten the text.`);
    this.take(id);
    this.share();
    this.drawTokensSoon();
    return this.refresh();
  }

  /** @param {number} id */
  take(id) {
    this.position = this.text.ids.length;
    this.text.take(id);
  }

  compute() {
    return this.text.compute(() => {
      this.root.classList.add("qkx-busy");
      this.cache.draw(this.text.run.ids.length, this.speed);
    });
  }

  /** Compute what is missing, then draw. @returns {Promise<boolean>} false: something newer came */
  async refresh() {
    if (!(await this.compute())) return false;
    this.root.classList.remove("qkx-busy");
    this.drawBars();
    this.drawSoon();
    this.guide.again();
    return true;
  }

  // ---- generating ----

  toggleGenerate() {
    if (this.generating) this.generating = null;
    else this.generate();
  }

  async generate() {
    if (!this.text.ids.length) return say(this.live, "Type a prompt first.");
    this.guide.end();
    const mine = {}, { generate } = this.top.buttons;
    this.generating = mine;
    this.root.classList.add("qkx-fast");
    generate.textContent = "Stop";
    const { made, why } = await this.writeOn(mine);
    if (this.generating === mine) this.generating = null;
    generate.textContent = "Generate";
    this.root.classList.remove("qkx-fast");
    this.drawTokens();
    await this.refresh();
    this.share();
    const speed = this.speed ? ` at ${Math.round(this.speed)} per second` : "";
    return this.guide.tell({ title: "Generated", kind: "told",
      text: `${made} token${made === 1 ? "" : "s"}${speed}. ${why}` });
  }

  /**
   * Append tokens until one stops generation, or the reader does.
   * @param {object} mine what `generating` is meanwhile
   */
  async writeOn(mine) {
    const { text } = this, start = performance.now();
    let made = 0;
    for (let free = start; this.generating === mine;) {
      if (!(await this.compute())) continue; // something was switched off meanwhile
      const id = this.pick();
      if (this.stops(id))
        return { made, why: `The model chose ${text.name(id)}, which stops generation.` };
      if (text.full) return { made, why: `This page reads at most ${text.room} tokens.` };
      this.take(id);
      const now = performance.now();
      this.speed = 1000 * ++made / (now - start);
      if (now < free) continue; // a frame may take longer than a token: half of the time for each
      this.drawTokens();
      await this.refresh();
      await frameDrawn();
      free = 2 * performance.now() - now;
    }
    return { made, why: "Stopped." };
  }

  /** The next token by the settings. */
  pick() {
    const logits = this.text.logits(this.text.ids.length - 1);
    return draw(probabilities(logits, this.settings), this.number());
  }

  /** @param {number} id */
  stops(id) {
    return this.model.get("data").stop.includes(id);
  }

  // ---- choosing ----

  /** @param {{position?: number, layer?: number, head?: number}} patch */
  choose({ position = this.position, layer = this.place.layer, head }) {
    const moved = position !== this.position;
    this.position = position;
    this.head = head ?? this.head;
    this.place = { ...this.place, layer, head: this.place.head === null ? null : this.head };
    this.top.line.draw(position);
    if (moved && this.text.ready) this.drawBars();
    this.drawSoon();
  }

  /** Open a part's panel. @param {Place} place */
  open(place) {
    this.place = place;
    this.head = place.head ?? this.head;
    this.picture.light(place);
    this.drawPanelSoon();
  }

  /**
   * Open a part and bring it into sight.
   * @param {Place | null} place null: the walk is over
   */
  show(place) {
    const { list } = this.top.line;
    list.classList.toggle("qkx-lit", place?.part === "tokens");
    this.picture.moveDot(place);
    if (!place) return;
    this.open(place);
    const behavior = this.root.classList.contains("qkx-still") ? "auto" : "smooth";
    (this.picture.find(place)[0] ?? list).scrollIntoView({ block: "nearest", behavior });
  }

  /** Switch a head or an MLP off, or on. @param {Off} one */
  flip(one) {
    const { off } = this.text, is = off.some((other) => sameOff(other, one));
    this.switchTo(is ? off.filter((other) => !sameOff(other, one)) : [...off, one]);
    say(this.live, `${nameOf(one)} is ${is ? "on" : "off"}.`);
  }

  /** @param {Off[]} off */
  switchTo(off) {
    this.text.switchTo(off);
    this.share();
    this.refresh();
  }

  /** @param {Partial<{temperature: number, topK: number}>} patch */
  set(patch) {
    Object.assign(this.settings, patch);
    this.share();
    if (this.text.ready) this.drawBars();
    this.drawPanelSoon();
  }

  togglePlay() {
    this.generating = null;
    this.guide.togglePlay();
  }

  startTour() {
    this.generating = null;
    this.guide.start();
  }

  /** The way of a token ends with the next one. */
  arrive() {
    const id = this.pick(), name = this.text.name(id);
    if (this.stops(id)) {
      this.guide.tell({ title: "The end.", text: `${name} was chosen: it stops generation.` });
      return;
    }
    this.append(id);
    this.guide.tell({ title: `“${name}” is appended.`, kind: "told", text: "The next round starts "
      + "with this token; of all others, the cache holds the keys and values." });
  }

  // ---- drawing ----

  /** Draw the tokens with the next frame: the bars come first. */
  drawTokensSoon() {
    this.tokenFrame ??= requestAnimationFrame(() => {
      this.tokenFrame = null;
      this.drawTokens();
    });
  }

  drawTokens() {
    this.top.drawTokens(this.text, this.position);
  }

  drawBars() {
    const { text, position, settings } = this, { ids, off, changed, base } = text;
    this.top.drawOff(off.length);
    this.cache.draw(text.run.ids.length, this.speed);
    if (!ids.length) {
      this.shown = null;
      this.bars.empty("Type a prompt: the model needs at least one token.");
      return this.done();
    }
    const after = text.name(ids[position]);
    this.shown = this.bars.draw({
      logits: text.logits(position), before: changed && text.logits(position, base),
      settings, after, actual: ids[position + 1] ?? null, off: off.length,
    });
    const { own, order } = this.shown;
    const likely = order.slice(0, 3).map((id) => `${text.name(id)} ${percent(own[id])}`);
    say(this.live, `After ${after}: ${likely.join(", ")}.`);
    return this.done();
  }

  /** Tell tests what is shown. */
  done() {
    const { shown, speed, position, place } = this;
    this.root.qk = {
      state: this.stateNow(), ids: this.text.ids, position, place, speed,
      probabilities: shown?.own ?? null, before: shown?.was ?? null,
      generating: this.generating !== null,
    };
    painted(this.root);
  }

  /** Draw the picture with the next frame; while generating, not for every token. */
  drawSoon() {
    if (this.waiting) return;
    this.waiting = true;
    const drawing = () => {
      this.waiting = false;
      this.drawPicture();
      this.drawPanelSoon();
    };
    if (this.generating) setTimeout(drawing, CALM);
    else requestAnimationFrame(drawing);
  }

  drawPicture() {
    const { text, position, place } = this, { ids, run, off } = text;
    if (ids.length && !text.ready) return; // it is drawn once all tokens are computed
    this.picture.draw({
      run, position, place, off, token: ids.length ? text.name(ids[position]) : "",
      guess: (layer) => text.guess(layer, position),
    });
  }

  drawPanel() {
    const { text, place, panel } = this;
    if (text.ids.length && !text.ready) return;
    const intro = !place.part || !text.ids.length;
    refill(panel, intro ? [introPanel(text)]
      : [panelHead({ ...place, head: this.head }, text.off, this.actions),
        partPanel(place.part, this.view())]);
    this.root.dataset.panel = place.part;
  }

  /** What a panel shows. */
  view() {
    const { text, place: { layer }, head, position, settings, root } = this;
    const { config, ids, run, base, changed, engine } = text;
    const name = (/** @type {number} */ id) => text.name(id);
    return {
      config, ids, tokens: ids.map(name), trace: run.trace(), base: changed && base.trace(),
      layer, head, position, logits: text.logits(ids.length - 1), settings,
      weights: engine.tensors, name, seen: run.cache.length, root,
      choose: (/** @type {any} */ patch) => this.choose(patch),
    };
  }
}
