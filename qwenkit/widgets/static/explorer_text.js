// The text of ModelExplorer as the model reads it: tokens, what is switched off, and the runs with
// and without it. Nothing here knows the page.

import { argmax, linear } from "./engine/ops.js";
import { probabilities } from "./engine/sampling.js";
import { Run } from "./explorer_run.js";
import { shownToken } from "./explorer_tokens.js";

/** @typedef {import("./engine/model.js").Model} Model */
/** @typedef {import("./engine/tokenizer.js").Tokenizer} Tokenizer */
/** @typedef {import("./explorer_run.js").Off} Off */

const CHUNK = 8; // tokens computed before the page may react

/** Let the page react, and go on at once. */
export const pause = () => new Promise((resume) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => { port1.close(); resume(undefined); };
  port2.postMessage(0);
});

export class LiveText {
  /**
   * @param {Model} engine
   * @param {Tokenizer} tokenizer
   * @param {number} tokens how many ids are tokens; the rest of the vocabulary is padding
   * @param {number} most tokens that are read
   */
  constructor(engine, tokenizer, tokens, most) {
    this.engine = engine;
    this.tokenizer = tokenizer;
    this.config = engine.config;
    this.tokens = Math.min(tokens, this.config.vocab);
    this.room = Math.min(most, this.config.longest);
    this.text = "";
    /** @type {number[]} what is read of the text */
    this.ids = [];
    this.lost = 0; // tokens beyond the room
    /** @type {Off[]} */
    this.off = [];
    this.base = new Run(engine, this.room);
    /** @type {Run | null} the run with some parts off */
    this.changed = null;
    this.turn = 0; // counts the texts: an older computation gives up
    /** @type {Map<number, string>} */
    this.names = new Map();
  }

  /** The run that is shown. */
  get run() {
    return this.changed ?? this.base;
  }

  /** Whether there are tokens, and all of them are computed. */
  get ready() {
    return this.ids.length > 0 && this.run.ids.length === this.ids.length;
  }

  get full() {
    return this.ids.length >= this.room;
  }

  /** A token as it is shown. @param {number} id */
  name(id) {
    const name = this.names.get(id) ?? shownToken(this.tokenizer, id);
    this.names.set(id, name);
    return name;
  }

  /** @param {string} text */
  write(text) {
    const ids = this.tokenizer.encode(text);
    this.text = text;
    this.lost = Math.max(0, ids.length - this.room);
    this.ids = ids.slice(0, this.room);
  }

  /** Go on with a token. @param {number} id */
  take(id) {
    this.ids = [...this.ids, id];
    this.text = this.tokenizer.decode(this.ids);
  }

  /** @param {Off[]} off */
  switchTo(off) {
    this.off = off;
    this.changed = null;
  }

  /**
   * Compute what is missing, a few tokens at a time.
   * @param {() => void} wait called before each pause
   * @returns {Promise<boolean>} false: another call came, or `stop`
   */
  async compute(wait) {
    const mine = ++this.turn, { ids, base, off } = this;
    if (off.length) this.changed ??= new Run(this.engine, this.room, { off, base });
    base.keep(ids);
    this.changed?.keep(ids);
    while (this.next(ids)) {
      wait();
      await pause();
      if (mine !== this.turn) return false;
    }
    return true;
  }

  /** Compute some tokens. @param {number[]} ids @returns {boolean} whether more are missing */
  next(ids) {
    const { base, changed } = this, at = base.ids.length;
    if (at < ids.length) base.extend(ids.slice(at, at + CHUNK));
    if (!changed) return base.ids.length < ids.length;
    const from = changed.ids.length, to = Math.min(base.ids.length, from + CHUNK);
    if (from < to) changed.extend(ids.slice(from, to));
    return changed.ids.length < ids.length;
  }

  /** End what is being computed. */
  cancel() {
    this.turn++;
  }

  /**
   * Logits after a token, without those of padding rows.
   * @param {number} position
   * @param {Run} [run]
   */
  logits(position, run = this.run) {
    return run.logits(position).subarray(0, this.tokens);
  }

  /** The most likely next token. @param {number} position @returns {[string, number]} */
  best(position) {
    return this.mostLikely(this.logits(position));
  }

  /**
   * What the model predicts if it stops after a layer: the logit lens.
   * @param {number} layer
   * @param {number} position
   * @returns {[string, number]}
   */
  guess(layer, position) {
    const stream = this.run.rows(`layers.${layer}.resid_post`, position, position + 1);
    const logits = linear(this.engine.finalNorm(stream), this.engine.head);
    return this.mostLikely(logits.subarray(0, this.tokens));
  }

  /** @param {Float32Array} logits @returns {[string, number]} */
  mostLikely(logits) {
    const id = argmax(logits);
    return [this.name(id), probabilities(logits)[id]];
  }

  /** The number of parameters; a tied head counts once. */
  get parameters() {
    let count = 0;
    for (const [name, { data }] of this.engine.tensors)
      if (!(this.config.tied && name === "lm_head.weight")) count += data.length;
    return count;
  }
}
