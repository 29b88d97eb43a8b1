// One text through the model, kept up to date while it changes: what was computed for the tokens
// before a change is used again, and so is what lies below the first part that is switched off.

import { Cache } from "./engine/model.js";
import { linear } from "./engine/ops.js";
import { POINTS, Trace } from "./engine/trace.js";

/** @typedef {import("./engine/model.js").Model} Model */
/** @typedef {import("./engine/trace.js").Edit} Edit */
/** @typedef {{value: Float32Array, shape: number[]}} Recorded */
/** @typedef {{count: number, values: Map<string, Recorded>}} Stretch tokens computed in one call */
/** @typedef {{layer: number, head: number | null}} Off a head, or with null the MLP */

// Scores and logits of all tokens follow from others: they are computed once they are asked for.
const KEPT = POINTS.filter((name) => name !== "attn.scores" && name !== "logits");
const layerOf = (/** @type {string} */ name) => Number(name.match(/^layers\.(\d+)\./)?.[1] ?? -1);
const pointOf = (/** @type {string} */ name) => name.replace(/^layers\.\d+\./, "");

export class Run {
  /**
   * @param {Model} model
   * @param {number} room the most tokens
   * @param {{off?: Off[], base?: Run}} [options] off: what is switched off; then `base` is the run
   *   with all parts on, which must be ahead of this one
   */
  constructor(model, room, { off = [], base } = {}) {
    this.model = model;
    this.off = off;
    /** @type {Run | undefined} */
    this.base = off.length ? base : undefined;
    /** @type {number} the first layer that differs from the base's */
    this.first = this.base ? Math.min(...off.map(({ layer }) => layer)) : 0;
    this.edits = editsOf(off);
    this.cache = new Cache(model.config, room);
    /** @type {number[]} the tokens that are computed */
    this.ids = [];
    /** @type {Stretch[]} */
    this.stretches = [];
    /** @type {Map<number, Float32Array>} */
    this.known = new Map(); // logits by position
    /** @type {Trace | null} */
    this.whole = null;
  }

  /** Keep what is computed of the tokens with which `ids` begins, too. @param {number[]} ids */
  keep(ids) {
    let same = 0;
    while (same < ids.length && this.ids[same] === ids[same]) same++;
    if (same === this.ids.length) return;
    this.ids = this.ids.slice(0, same);
    this.cache.length = same;
    let left = same;
    this.stretches = this.stretches.flatMap(({ count, values }) => {
      const kept = Math.min(count, left);
      left -= kept;
      return kept ? [{ count: kept, values }] : [];
    });
    for (const position of this.known.keys()) if (position >= same) this.known.delete(position);
    this.whole = null;
  }

  /** Compute the next tokens. @param {number[]} ids */
  extend(ids) {
    const trace = new Trace({ keep: KEPT, edits: this.edits });
    if (this.base) this.extendOver(this.base, ids, trace);
    else this.model.forward(ids, { cache: this.cache, trace, last: true });
    this.stretches.push({ count: ids.length, values: trace.values });
    this.ids = [...this.ids, ...ids];
    this.whole = null;
  }

  /**
   * Layers below the first edit are the base's: go on from its residual stream.
   * @param {Run} base
   * @param {number[]} ids
   * @param {Trace} trace
   */
  extendOver(base, ids, trace) {
    const { hidden, layers } = this.model.config, from = this.ids.length;
    let x = base.rows(`layers.${this.first}.resid_pre`, from, from + ids.length);
    for (let layer = this.first; layer < layers; layer++)
      x = this.model.layer(layer, x, this.cache, trace);
    trace.tap("final_norm", this.model.finalNorm(x), [ids.length, hidden]);
    this.cache.length += ids.length;
  }

  /**
   * Logits after a token, (V).
   * @param {number} position
   */
  logits(position) {
    const found = this.known.get(position)
      ?? linear(this.rows("final_norm", position, position + 1), this.model.head);
    this.known.set(position, found);
    return found;
  }

  /**
   * Some tokens' rows of a point of shape (T, size).
   * @param {string} name
   * @param {number} from
   * @param {number} to
   * @returns {Float32Array}
   */
  rows(name, from, to) {
    if (this.below(name)) return /** @type {Run} */ (this.base).rows(name, from, to);
    const size = this.recorded(this.stretches[0], name).shape[1];
    const found = new Float32Array((to - from) * size);
    let start = 0;
    for (const stretch of this.stretches) {
      const end = start + stretch.count, a = Math.max(from, start), b = Math.min(to, end);
      if (a < b) {
        const { value } = this.recorded(stretch, name);
        found.set(value.subarray((a - start) * size, (b - start) * size), (a - from) * size);
      }
      start = end;
    }
    return found;
  }

  /** Whether a point lies below the first edit. @param {string} name */
  below(name) {
    const layer = layerOf(name);
    return Boolean(this.base)
      && (layer < 0 ? name === "embed" : layer < this.first);
  }

  /** @param {Stretch} stretch @param {string} name */
  recorded(stretch, name) {
    const found = stretch?.values.get(name);
    if (!found) throw new Error(`${name} was not recorded.`);
    return found;
  }

  /** All points of all tokens, as one call would have recorded them; each is put together late. */
  trace() {
    this.whole ??= new LateTrace(this);
    return this.whole;
  }

  /**
   * A point of all tokens.
   * @param {string} name
   * @returns {Recorded}
   */
  point(name) {
    const short = pointOf(name);
    if (this.below(name)) return /** @type {Run} */ (this.base).point(name);
    if (short === "logits") return this.allLogits();
    if (short === "attn.scores") return this.allScores(name.slice(0, -"scores".length));
    const { shape } = this.recorded(this.stretches[0], name), length = this.ids.length;
    if (shape.length === 2)
      return { value: this.rows(name, 0, length), shape: [length, shape[1]] };
    return this.byHead(name, shape[0], short === "attn.pattern" ? length : shape[2]);
  }

  /**
   * A point of shape (heads, T, size); of a pattern, rows of earlier tokens are shorter.
   * @param {string} name
   * @param {number} heads
   * @param {number} size
   */
  byHead(name, heads, size) {
    const length = this.ids.length, value = new Float32Array(heads * length * size);
    let start = 0;
    for (const stretch of this.stretches) {
      const part = this.recorded(stretch, name), [, rows, wide] = part.shape;
      const copied = Math.min(wide, size);
      for (let head = 0; head < heads; head++) {
        for (let t = 0; t < stretch.count; t++) {
          const from = (head * rows + t) * wide;
          value.set(part.value.subarray(from, from + copied), (head * length + start + t) * size);
        }
      }
      start += stretch.count;
    }
    return { value, shape: [heads, length, size] };
  }

  allLogits() {
    const value = linear(this.rows("final_norm", 0, this.ids.length), this.model.head);
    return { value, shape: [this.ids.length, this.model.config.vocab] };
  }

  /** The scores before the mask, (H, T, T). @param {string} at "layers.0.attn." */
  allScores(at) {
    const { heads, kvHeads, size } = this.model.config, length = this.ids.length;
    const q = this.trace().get(`${at}q_rot`), k = this.trace().get(`${at}k_rot`);
    const value = new Float32Array(heads * length * length), scale = 1 / Math.sqrt(size);
    for (let head = 0; head < heads; head++) {
      const kv = Math.floor(head / (heads / kvHeads));
      for (let t = 0; t < length; t++) {
        for (let s = 0; s < length; s++) {
          const a = (head * length + t) * size, b = (kv * length + s) * size;
          let dot = 0;
          for (let i = 0; i < size; i++) dot += q[a + i] * k[b + i];
          value[(head * length + t) * length + s] = dot * scale;
        }
      }
    }
    return { value, shape: [heads, length, length] };
  }
}

/** A trace whose values are put together when they are asked for. */
class LateTrace extends Trace {
  /** @param {Run} run */
  constructor(run) {
    super();
    this.run = run;
  }

  /** @param {string} name */
  get(name) {
    return this.recorded(name).value;
  }

  /** @param {string} name */
  recorded(name) {
    const found = this.values.get(name) ?? this.run.point(name);
    this.values.set(name, found);
    return found;
  }
}

/**
 * @param {Off[]} off
 * @returns {Record<string, Edit>} a head gives zeros, and so does an MLP
 */
function editsOf(off) {
  /** @type {Record<string, Edit>} */
  const edits = {};
  for (const layer of new Set(off.map((one) => one.layer))) {
    const here = off.filter((one) => one.layer === layer);
    const heads = here.flatMap(({ head }) => (head === null ? [] : [head]));
    if (heads.length) edits[`layers.${layer}.attn.z`] = (value, [, length, size]) => {
      for (const head of heads) value.fill(0, head * length * size, (head + 1) * length * size);
      return value;
    };
    if (heads.length < here.length) edits[`layers.${layer}.mlp.out`] = (value) => value.fill(0);
  }
  return edits;
}
