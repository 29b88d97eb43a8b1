// ModelExplorer: the whole model, computed and drawn in the page. What the reader chose is `state`;
// `data` holds the examples. An exported page holds the model's files; a notebook asks for them.

import { button, choice, choose, chosen, frame, inflate, node, onTheme, painted, percent, say, tick } from "./common.js";
import { allow, keyed, later, tokenLine } from "./parts.js";
import { Model } from "./engine/model.js";
import { argmax, linear, rmsNorm } from "./engine/ops.js";
import { readTensors } from "./engine/safetensors.js";
import { draw, probabilities, random } from "./engine/sampling.js";
import { Tokenizer } from "./engine/tokenizer.js";
import { cacheLine, nextBars } from "./explorer_bars.js";
import { PARTS, partPanel } from "./explorer_panels.js";
import { modelPicture, nameOf, sameOff } from "./explorer_picture.js";
import { Run } from "./explorer_run.js";
import { shownToken } from "./explorer_tokens.js";
import { clearestHead, tourOf, wayThrough } from "./explorer_tour.js";

/** @typedef {import("./explorer_picture.js").Place} Place */
/** @typedef {import("./explorer_run.js").Off} Off */
/** @typedef {{config: any, tokenizer: any, weights: Uint8Array}} Files weights: compressed */
/** @typedef {{title: string, text: string, buttons?: HTMLElement[], kind?: string}} Told */

const MOST_READ = 256; // of a text: the small maps, and the time for a new text, grow with it
const CHUNK = 8; // tokens computed before the page may react
const SLOW = 1600, FAST = 480; // milliseconds per stop of Play, in the first layer and later
const CALM = 150; // milliseconds between pictures while generating
const PATIENCE = 8000; // milliseconds until a silent kernel is called silent

/** Let the page react, and go on at once. */
const pause = () => new Promise((resume) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => { port1.close(); resume(undefined); };
  port2.postMessage(0);
});

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
  const { root, controls, stage, live } = frame(el, "Model explorer");
  root.classList.add("qkx");
  const wait = node("p", { class: "qkx-wait" }, "Loading the model …");
  stage.append(wait);
  try {
    const { config, tokenizer, weights } = await filesOf(model, wait);
    const tensors = readTensors((await inflate(weights)).buffer);
    const explorer = new Explorer({
      model, root, controls, stage, live,
      engine: new Model(config, tensors), tokenizer: new Tokenizer(tokenizer),
    });
    wait.remove();
    return explorer.start();
  } catch (error) {
    wait.textContent = `The model cannot be shown. ${/** @type {Error} */ (error).message}`;
    painted(root);
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
    const silent = setTimeout(() => {
      wait.textContent = "The kernel does not answer. It may be busy; if it was restarted, run this cell again.";
    }, PATIENCE);
    const listen = (/** @type {any} */ message, /** @type {DataView[]} */ buffers) => {
      if (message?.files === undefined) return;
      clearTimeout(silent);
      model.off("msg:custom", listen);
      resolve({ ...message.files, weights: buffers[0] });
    };
    model.on("msg:custom", listen);
    model.send({ ask: "files" });
  });
}

/** Whether a notebook's kernel was shut down: what is saved then would only raise an error. */
const kernelGone = (/** @type {any} */ { widget_manager: manager }) =>
  manager?.kernel === null || Boolean(manager?.kernel?.isDisposed);

class Explorer {
  /** @param {any} given */
  constructor({ model, root, controls, stage, live, engine, tokenizer }) {
    this.model = model;
    this.root = root;
    this.live = live;
    this.engine = engine;
    this.tokenizer = tokenizer;
    this.config = engine.config;
    this.data = model.get("data");
    /** @type {number[]} */
    this.stop = this.data.stop;
    this.tokens = Math.min(this.data.tokens, this.config.vocab); // without padding rows
    this.room = Math.min(MOST_READ, this.config.longest);
    this.base = new Run(engine, this.room);
    /** @type {Run | null} the run with some parts off */
    this.changed = null;
    /** @type {Off[]} */
    this.off = [];
    this.settings = { temperature: 0, topK: 0 };
    this.text = "";
    /** @type {number[]} */
    this.ids = [];
    this.lost = 0; // tokens beyond the room
    this.position = 0;
    /** @type {Place} */
    this.place = { part: "", layer: 0, head: 0 };
    this.turn = 0; // counts the texts: an older computation gives up
    /** @type {object | null} */
    this.generating = null;
    this.speed = /** @type {number | null} */ (null);
    this.next = random(Math.floor(2 ** 32 * Math.random()));
    this.way = /** @type {{stops: Place[], at: number} | null} */ (null);
    this.timer = 0; // of Play
    this.frame = /** @type {number | null} */ (null); // of the tokens
    this.tour = -1;
    /** @type {Map<number, string>} */
    const names = new Map();
    this.name = (/** @type {number} */ id) => {
      const name = names.get(id) ?? shownToken(tokenizer, id);
      names.set(id, name);
      return name;
    };
    this.build(controls, stage);
  }

  /** The run that is shown. */
  get run() {
    return this.changed ?? this.base;
  }

  // ---- the page ----

  /** @param {HTMLElement} controls @param {HTMLElement} stage */
  build(controls, stage) {
    const { config } = this;
    const prompt = node("textarea", {
      class: "qkx-prompt", rows: 3, spellcheck: "false", autocapitalize: "off", autocomplete: "off",
      "aria-label": "Prompt",
      oninput: () => {
        this.examples.update("");
        this.typed();
      },
    });
    this.prompt = /** @type {HTMLTextAreaElement} */ (prompt);
    this.line = tokenLine("Tokens of the prompt", (/** @type {number} */ at) => this.choose({ position: at }));
    this.count = node("span", { class: "qkx-count" });
    this.examples = choice({
      label: "Example", options: [["", "choose …"], ...Object.keys(this.data.examples)], value: "",
      on: (/** @type {string} */ name) => {
        if (name) this.write(this.data.examples[name]);
      },
    });
    this.buttons = {
      generate: button("Generate", () => this.toggleGenerate(), { class: "qkx-main" }),
      step: button("Step", () => this.step()),
      play: button("Play", () => this.togglePlay()),
      tour: button("Take the tour", () => this.startTour()),
      on: button("All on again", () => this.switchTo([])),
    };
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.motion = tick({ label: "Motion", value: !still, on: (/** @type {boolean} */ yes) => this.move(yes) });
    this.move(!still);
    controls.classList.add("qkx-toolbar");
    const { generate, step, play, tour, on } = this.buttons;
    controls.append(generate, step, play, tour, on, this.motion);
    const head = (/** @type {string} */ words, /** @type {HTMLElement} */ more) =>
      node("div", { class: "qkx-head-line" }, node("h2", {}, words), more);
    const top = node("div", { class: "qkx-top" },
      node("div", { class: "qkx-card" }, head("Prompt", this.examples), prompt, controls),
      node("div", { class: "qkx-card" }, head("Tokens", this.count), this.line.list));

    this.coach = node("section", { class: "qkx-coach", "aria-label": "What happens", tabindex: -1 });
    keyed(this.coach, {
      ArrowRight: () => this.tourTo(this.tour + 1), ArrowLeft: () => this.tourTo(this.tour - 1),
    });
    this.root.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if (event.key === "Escape") this.quiet();
    });
    this.picture = modelPicture(this.root, config, {
      open: (place) => this.open(place), flip: (off) => this.flip(off),
    });
    this.bars = nextBars(this.settings, {
      set: (patch) => this.set(patch), append: (id) => this.append(id), name: this.name,
    });
    this.cache = cacheLine(config, this.room, () => this.open({ ...this.place, part: "cache" }));
    this.panel = node("div", { class: "qkx-panel" });
    stage.classList.add("qkx-stage");
    stage.append(top, this.coach,
      node("div", { class: "qkx-body" },
        node("div", { class: "qkx-card qkx-picture" }, this.picture.body),
        node("div", { class: "qkx-side" }, this.bars.box, this.cache.box, this.panel)));
    this.drawPanelSoon = later(() => this.drawPanel(), 40);
    this.share = later(() => {
      if (!kernelGone(this.model)) choose(this.model, this.stateNow());
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
    this.idle();
    return () => {
      ended();
      this.model.off("change:state", follow);
      this.generating = null;
      this.turn++;
      clearTimeout(this.timer);
    };
  }

  stateNow() {
    return {
      prompt: this.text, temperature: this.settings.temperature, top_k: this.settings.topK,
      off: this.off.map(({ layer, head }) => [layer, head]),
    };
  }

  /** Take over a state that was chosen by code. @param {any} state */
  adopt(state) {
    if (JSON.stringify(state) === JSON.stringify(this.stateNow()) && this.ids.length) return;
    this.settings = { temperature: state.temperature, topK: state.top_k };
    this.bars.update(this.settings);
    this.off = state.off.map(([layer, head]) => ({ layer, head }));
    this.changed = null;
    this.read(state.prompt);
  }

  /** @param {boolean} yes */
  move(yes) {
    this.root.classList.toggle("qkx-still", !yes);
  }

  // ---- the text ----

  typed() {
    this.generating = null;
    this.read(this.prompt.value);
    this.share();
  }

  /** Replace the text. @param {string} text */
  write(text) {
    this.prompt.value = text;
    this.typed();
  }

  /** @param {string} text */
  read(text) {
    this.text = text;
    const ids = this.tokenizer.encode(text);
    this.lost = Math.max(0, ids.length - this.room);
    this.renew(ids.slice(0, this.room));
  }

  /** Go on with this token. @param {number} id */
  append(id) {
    if (this.ids.length >= this.room) return this.full();
    this.take(id);
    this.share();
    this.drawTokensSoon();
    return this.refresh();
  }

  /** Add a token to the text, and choose it. @param {number} id */
  take(id) {
    this.position = this.ids.length;
    this.ids = [...this.ids, id];
    this.text = this.tokenizer.decode(this.ids);
  }

  full() {
    say(this.live, `The explorer reads at most ${this.room} tokens; shorten the text.`);
  }

  /** Compute and show other tokens. @param {number[]} ids */
  async renew(ids) {
    const last = this.position >= this.ids.length - 1;
    this.ids = ids;
    this.position = Math.max(0, last ? ids.length - 1 : Math.min(this.position, ids.length - 1));
    const whole = this.refresh();
    this.drawTokensSoon();
    return whole;
  }

  /** Draw the tokens with the next frame: the bars come first. */
  drawTokensSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.drawTokens();
    });
  }

  /** Compute what is missing, then draw. @returns {Promise<boolean>} false: something newer came */
  async refresh() {
    if (!(await this.compute())) return false;
    this.root.classList.remove("qkx-busy");
    this.drawBars();
    this.drawSoon();
    if (this.tour >= 0) this.tourTo(this.tour, false);
    return true;
  }

  async compute() {
    const mine = ++this.turn, { ids, base } = this;
    if (this.off.length && !this.changed)
      this.changed = new Run(this.engine, this.room, { off: this.off, base });
    const { changed } = this;
    base.keep(ids);
    changed?.keep(ids);
    const behind = () => ids.length - Math.min(base.ids.length, changed?.ids.length ?? Infinity);
    while (behind()) {
      const at = base.ids.length;
      if (at < ids.length) base.extend(ids.slice(at, at + CHUNK));
      if (changed && changed.ids.length < base.ids.length) {
        const from = changed.ids.length;
        changed.extend(ids.slice(from, Math.min(base.ids.length, from + CHUNK)));
      }
      if (!behind()) break;
      this.root.classList.add("qkx-busy");
      this.cache.draw(this.run.ids.length, this.speed);
      await pause();
      if (mine !== this.turn) return false;
    }
    return true;
  }

  // ---- generating ----

  toggleGenerate() {
    if (this.generating) this.generating = null;
    else this.generate();
  }

  async generate() {
    if (!this.ids.length) return say(this.live, "Type a prompt first.");
    this.quiet();
    const mine = {}, { generate } = this.buttons;
    this.generating = mine;
    this.root.classList.add("qkx-fast");
    generate.textContent = "Stop";
    let made = 0, why = "Stopped.";
    const start = performance.now();
    for (let free = start; this.generating === mine;) {
      if (!(await this.compute())) continue;
      const id = this.pick();
      if (this.stop.includes(id)) {
        why = `The model chose ${this.name(id)}, which stops generation.`;
        break;
      }
      if (this.ids.length >= this.room) {
        why = `The explorer reads at most ${this.room} tokens.`;
        break;
      }
      this.take(id);
      const now = performance.now();
      this.speed = 1000 * ++made / (now - start);
      if (now < free) continue; // a frame may take longer than a token: half of the time for each
      this.drawTokens();
      await this.refresh();
      await frameDrawn();
      free = 2 * performance.now() - now;
    }
    if (this.generating === mine) this.generating = null;
    generate.textContent = "Generate";
    this.root.classList.remove("qkx-fast");
    this.drawTokens();
    await this.refresh();
    this.tell({ title: "Generated", kind: "told",
      text: `${made} token${made === 1 ? "" : "s"}${this.speed ? ` at ${Math.round(this.speed)} per second` : ""}. ${why}` });
  }

  /** The next token by the settings. */
  pick() {
    return draw(probabilities(this.logitsAt(this.ids.length - 1), this.settings), this.next());
  }

  /** @param {number} position @param {Run} [run] */
  logitsAt(position, run = this.run) {
    return run.logits(position).subarray(0, this.tokens);
  }

  // ---- choosing ----

  /** @param {{position?: number, layer?: number, head?: number}} patch */
  choose({ position = this.position, layer = this.place.layer, head = this.place.head ?? 0 }) {
    const moved = position !== this.position;
    this.position = position;
    this.place = { ...this.place, layer, head: this.place.head === null ? null : head };
    this.head = head;
    this.drawLine();
    if (moved) this.drawBars();
    this.drawSoon();
  }

  /** Open a part's panel. @param {Place} place */
  open(place) {
    this.place = place;
    if (place.head !== null) this.head = place.head;
    this.picture.light(place);
    this.drawPanelSoon();
  }

  /** Switch a head or an MLP off, or on. @param {Off} one */
  flip(one) {
    const is = this.off.some((other) => sameOff(other, one));
    this.switchTo(is ? this.off.filter((other) => !sameOff(other, one)) : [...this.off, one]);
    say(this.live, `${nameOf(one)} is ${is ? "on" : "off"}.`);
  }

  /** @param {Off[]} off */
  switchTo(off) {
    this.off = off;
    this.changed = null;
    this.share();
    this.refresh();
  }

  /** @param {Partial<{temperature: number, topK: number}>} patch */
  set(patch) {
    Object.assign(this.settings, patch);
    this.share();
    if (this.ready()) this.drawBars();
    this.drawPanelSoon();
  }

  // ---- drawing ----

  ready() {
    return this.ids.length > 0 && this.run.ids.length === this.ids.length;
  }

  drawTokens() {
    const { ids, lost, room } = this;
    if (this.prompt.value !== this.text) this.prompt.value = this.text;
    this.prompt.rows = Math.max(2, Math.min(8, this.prompt.value.split("\n").length));
    this.line.fill(ids.map(this.name));
    for (const [i, item] of [...this.line.list.querySelectorAll(".qk-token")].entries())
      item.title = `token ${i}, id ${ids[i]}`;
    this.count.textContent = lost ? `the first ${room} of ${room + lost}: this page reads at most ${room}`
      : String(ids.length);
    this.count.classList.toggle("qkx-warn", lost > 0);
    this.drawLine();
  }

  drawLine() {
    this.line.draw(this.position);
  }

  drawBars() {
    const { ids, position } = this;
    allow(this.buttons.on, this.off.length > 0);
    this.buttons.on.textContent = this.off.length ? `All on again (${this.off.length} off)` : "All on again";
    this.cache.draw(this.run.ids.length, this.speed);
    if (!ids.length) {
      this.bars.empty("Type a prompt: the model needs at least one token.");
      return this.done();
    }
    const before = this.changed ? this.logitsAt(position, this.base) : null;
    this.shown = this.bars.draw({
      logits: this.logitsAt(position), before, settings: this.settings, off: this.off.length,
      after: this.name(ids[position]), actual: ids[position + 1] ?? null,
    });
    const { own, order } = this.shown;
    say(this.live, `After ${this.name(ids[position])}: ${order.slice(0, 3).map(
      (id) => `${this.name(id)} ${percent(own[id])}`).join(", ")}.`);
    return this.done();
  }

  /** Tell tests what is shown. */
  done() {
    this.root.qk = {
      state: this.stateNow(), ids: this.ids, position: this.position, place: this.place,
      probabilities: this.ids.length ? this.shown?.own : null, before: this.shown?.was ?? null,
      speed: this.speed, generating: this.generating !== null, tour: this.tour,
    };
    painted(this.root);
  }

  /** Draw the picture with the next frame; while generating, not for every token. */
  drawSoon() {
    if (this.waiting) return;
    this.waiting = true;
    const again = () => {
      this.waiting = false;
      this.drawPicture();
      this.drawPanelSoon();
    };
    if (this.generating) setTimeout(again, CALM);
    else requestAnimationFrame(again);
  }

  drawPicture() {
    const { run, position, place, off, ids } = this;
    if (ids.length && !this.ready()) return; // it is drawn once all tokens are computed
    this.picture.draw({
      run, position, place, off, token: ids.length ? this.name(ids[position]) : "",
      guess: (layer) => this.guess(layer),
    });
    this.root.dataset.pictures = String(Number(this.root.dataset.pictures ?? 0) + 1);
  }

  /** What the model would say after a layer: the logit lens. @param {number} layer @returns {[string, number]} */
  guess(layer) {
    const { engine, position, run } = this;
    const stream = run.rows(`layers.${layer}.resid_post`, position, position + 1);
    const normed = rmsNorm(stream, engine.weight("model.norm.weight").data, this.config.eps);
    const chances = probabilities(linear(normed, engine.head).subarray(0, this.tokens));
    const best = argmax(chances);
    return [this.name(best), chances[best]];
  }

  drawPanel() {
    const { ids, place, panel } = this;
    if (ids.length && !this.ready()) return;
    const focused = pathTo(panel);
    const shown = !place.part || !ids.length ? this.intro() : [this.panelHead(), partPanel(place.part, this.view())];
    panel.replaceChildren(...shown);
    refocus(panel, focused);
    this.root.dataset.panel = place.part;
  }

  view() {
    const { ids, run, base, changed, place, position, settings, config, engine, root } = this;
    return {
      config, ids, tokens: ids.map(this.name), trace: run.trace(), base: changed ? base.trace() : null,
      layer: place.layer, head: place.head ?? this.head ?? 0, position,
      logits: this.logitsAt(ids.length - 1), settings, weights: engine.tensors, name: this.name,
      seen: run.cache.length, root,
      choose: (/** @type {any} */ patch) => this.choose(patch),
    };
  }

  /** The parts before and after, and the switch of a head or an MLP. */
  panelHead() {
    const { part, layer } = this.place, off = this.switchable();
    const stops = wayThrough(1, this.head ?? 0), at = stops.findIndex((one) => one.part === part);
    const go = (/** @type {number} */ to, /** @type {(title: string) => string} */ words) => {
      const next = at < 0 ? undefined : stops[to];
      return next ? [button(words(PARTS[next.part].title), () => this.open({ ...next, layer }))] : [];
    };
    const made = node("div", { class: "qkx-panel-head" },
      ...go(at - 1, (title) => `← ${title}`), ...go(at + 1, (title) => `${title} →`));
    if (!off) return made;
    const is = this.off.some((one) => sameOff(one, off));
    made.append(button(`Switch ${off.head === null ? "this MLP" : `head ${off.head}`} ${is ? "on" : "off"}`,
      () => this.flip(off), { class: `qkx-switch${is ? " qkx-warned" : ""}` }));
    return made;
  }

  /** @returns {Off | null} */
  switchable() {
    const { part, layer, head } = this.place;
    if (["gate_up", "mlp_out"].includes(part)) return { layer, head: null };
    return ["pattern", "scores"].includes(part) ? { layer, head: head ?? 0 } : null;
  }

  intro() {
    const { config, tokens, engine } = this;
    let count = 0;
    for (const [name, { data }] of engine.tensors)
      if (!(config.tied && name === "lm_head.weight")) count += data.length;
    const size = (count / 1e6).toFixed(1);
    return [node("section", { class: "qk-panel qkx-intro", "aria-label": "About" },
      node("h2", {}, "A language model, running in this page"),
      node("p", {}, `It has ${size} million parameters in ${config.layers} layers of ${config.heads} `
        + `heads, and knows ${tokens.toLocaleString("en")} tokens. Change the prompt, and everything `
        + "here is computed again."),
      node("ul", {},
        node("li", {}, "Click a part of the drawing to see its numbers."),
        node("li", {}, "Press x on a head or an MLP to switch it off, and watch the bars."),
        node("li", {}, "Click a token to follow it through the layers.")))];
  }

  // ---- telling ----

  /** @param {Told} told */
  tell({ title, text, buttons = [], kind = "" }) {
    this.coach.dataset.kind = kind;
    this.coach.replaceChildren(
      node("p", {}, node("b", {}, title), " ", text), node("div", { class: "qkx-coach-buttons" }, ...buttons));
  }

  idle() {
    this.tell({ title: "New here?", text: "The tour explains the drawing in ten steps, with the numbers of your prompt. "
      + "Or press Play, and follow a token through the model." });
  }

  /** End a tour or a walk. */
  quiet() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.buttons.play.textContent = "Play";
    const had = this.tour >= 0;
    this.way = null;
    this.tour = -1;
    this.picture.moveDot(null);
    this.idle();
    if (had) this.buttons.tour.focus();
  }

  step() {
    if (!this.ready()) return;
    this.tour = -1;
    this.way ??= { stops: wayThrough(this.config.layers, clearestHead(this.run, this.position).head), at: -1 };
    const { way } = this;
    if (++way.at >= way.stops.length) return this.arrive();
    this.goTo(way.stops[way.at]);
    const place = way.stops[way.at], { title, short } = PARTS[place.part];
    const once = ["tokens", "embed", "final_norm", "logits", "sampling"].includes(place.part);
    this.tell({ kind: "step", title: `${way.at + 1} of ${way.stops.length}. ${title}${once ? "" : `, layer ${place.layer}`}.`,
      text: short, buttons: [button("End", () => this.quiet())] });
    if (!this.timer) say(this.live, `${title}. ${short}`);
  }

  /** The way ends with a new token. */
  arrive() {
    const id = this.pick();
    this.quiet();
    if (this.stop.includes(id)) {
      this.tell({ title: "The end.", text: `The model chose ${this.name(id)}, which stops generation.` });
      return;
    }
    this.append(id);
    this.tell({ title: `“${this.name(id)}” is appended.`,
      text: "The next round starts with this token; for all others, the cache holds what attention needs.", kind: "told" });
  }

  togglePlay() {
    if (this.timer) {
      clearTimeout(this.timer);
      this.timer = 0;
      this.buttons.play.textContent = "Play";
      return;
    }
    this.generating = null;
    this.buttons.play.textContent = "Pause";
    const tick = () => {
      this.timer = -1;
      this.step();
      const { way } = this;
      if (!way) return;
      const { layer, part } = way.stops[way.at];
      this.timer = setTimeout(tick, layer === 0 || part === "sampling" ? SLOW : FAST);
    };
    tick();
  }

  /** Show a part as the text speaks of it. @param {Place} place */
  goTo(place) {
    this.open(place);
    const [target] = this.picture.find(place);
    this.line.list.classList.toggle("qkx-lit", place.part === "tokens");
    (target ?? this.line.list).scrollIntoView({ block: "nearest", behavior: this.root.classList.contains("qkx-still") ? "auto" : "smooth" });
    this.picture.moveDot(place);
  }

  startTour() {
    if (!this.ready()) return say(this.live, "Type a prompt first.");
    this.quiet();
    this.generating = null;
    this.tourTo(0);
    return this.coach.focus();
  }

  /**
   * @param {number} at
   * @param {boolean} [moved] false: the same stop, for another text
   */
  tourTo(at, moved = true) {
    if (at < 0 || (this.tour < 0 && at > 0) || !this.ready()) return;
    const { run, position, ids, tokens: vocab } = this;
    const own = probabilities(this.logitsAt(position)), best = argmax(own);
    const stops = tourOf({
      run, position, tokens: ids.map(this.name), vocab, guess: (layer) => this.guess(layer),
      best: [this.name(best), own[best]],
    });
    if (at >= stops.length) return this.quiet();
    this.tour = at;
    const { place, title, text } = stops[at];
    if (moved) this.goTo(place);
    const back = button("Back", () => this.tourTo(this.tour - 1));
    allow(back, at > 0);
    this.tell({ kind: "tour", title: `${at + 1} of ${stops.length}. ${title}.`, text, buttons: [
      back, button(at + 1 < stops.length ? "Next" : "Finish", () => this.tourTo(this.tour + 1), { class: "qkx-main" }),
      button("End", () => this.quiet())] });
    if (!moved) return;
    this.coach.focus({ preventScroll: true });
    say(this.live, `${title}. ${text}`);
  }
}

/** The way of the focused element from a box: the number of the child at each step. @param {HTMLElement} box */
function pathTo(box) {
  const path = [];
  let one = /** @type {Element | null} */ (box.querySelector(":focus"));
  for (; one && one !== box; one = one.parentElement)
    path.unshift([.../** @type {Element} */ (one.parentElement).children].indexOf(one));
  return path;
}

/** @param {HTMLElement} box @param {number[]} path */
function refocus(box, path) {
  let one = /** @type {Element | undefined} */ (box);
  for (const at of path) one = one?.children[at];
  if (path.length && one instanceof HTMLElement) one.focus({ preventScroll: true });
}
