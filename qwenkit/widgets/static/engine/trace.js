// Looking inside a forward pass, and changing it there: the points that qwenkit.Trace has.

/** @typedef {(value: Float32Array, shape: number[]) => Float32Array} Edit */

export const POINTS = [
  "embed", "resid_pre", "attn_norm", "attn.q", "attn.k", "attn.v", "attn.q_rot", "attn.k_rot",
  "attn.scores", "attn.pattern", "attn.z", "attn.out", "resid_mid", "mlp_norm", "mlp.gate",
  "mlp.up", "mlp.act", "mlp.out", "resid_post", "final_norm", "logits",
];
const ONCE = new Set(["embed", "final_norm", "logits"]); // the others are in every layer

export class Trace {
  /**
   * @param {{keep?: string[], edits?: Record<string, Edit>}} [options] keep: names to record, short
   *   ("attn.pattern": in every layer) or full ("layers.3.attn.pattern"); without it, all of them.
   *   edits: name -> function of a value that returns its replacement.
   */
  constructor({ keep = POINTS, edits = {} } = {}) {
    this.keep = new Set(keep);
    this.edits = new Map(Object.entries(edits));
    /** @type {Map<string, {value: Float32Array, shape: number[]}>} */
    this.values = new Map();
    for (const name of [...this.keep, ...this.edits.keys()]) {
      const short = name.replace(/^layers\.\d+\./, "");
      if (!POINTS.includes(short) || (short !== name && ONCE.has(short))) {
        throw new Error(`${name} is not a point of the model; these are: ${POINTS.join(", ")}.`);
      }
    }
  }

  /**
   * Edit and record a value; return the value to go on with.
   * @param {string} name
   * @param {Float32Array} value
   * @param {number[]} shape without the batch: there is one text
   * @param {number} [layer]
   */
  tap(name, value, shape, layer) {
    const full = layer === undefined ? name : `layers.${layer}.${name}`;
    const edit = this.edits.get(full) ?? this.edits.get(name);
    if (edit) {
      const size = value.length;
      value = edit(value.slice(), shape);
      if (!(value instanceof Float32Array) || value.length !== size) {
        throw new Error(`The edit of ${full} must return a Float32Array of ${size} values.`);
      }
    }
    if (this.keep.has(full) || this.keep.has(name)) this.values.set(full, { value, shape });
    return value;
  }

  /** @param {string} name */
  get(name) {
    const found = this.values.get(name);
    if (!found) throw new Error(`${name} was not recorded.`);
    return found.value;
  }
}
