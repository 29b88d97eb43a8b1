// The forward pass of Qwen2 for one text, with a cache. The names are those of the checkpoint.
// Letters: T new tokens, S all tokens, C hidden size, H query heads, KV kv heads, D head_dim.

import { linear, rmsNorm, silu, softmaxInPlace, sum } from "./ops.js";

/** @typedef {import("./safetensors.js").Tensor} Tensor */
/** @typedef {import("./trace.js").Trace} Trace */
/** @typedef {{heads: number, kvHeads: number, size: number, hidden: number, layers: number,
 *   theta: number, eps: number, vocab: number, longest: number, tied: boolean}} Config */

/**
 * @param {any} json what config.json holds
 * @returns {Config}
 */
export function readConfig(json) {
  if (json.model_type !== "qwen2") throw new Error(`The model is a ${json.model_type}, not a qwen2.`);
  if (json.rope_scaling ?? json.rope_parameters?.factor) throw new Error("RoPE scaling is not supported.");
  if (json.use_sliding_window) throw new Error("A sliding window is not supported.");
  return {
    heads: json.num_attention_heads, kvHeads: json.num_key_value_heads,
    size: json.head_dim ?? json.hidden_size / json.num_attention_heads,
    hidden: json.hidden_size, layers: json.num_hidden_layers,
    theta: json.rope_theta ?? json.rope_parameters.rope_theta,
    eps: json.rms_norm_eps, vocab: json.vocab_size, longest: json.max_position_embeddings,
    tied: json.tie_word_embeddings,
  };
}

/** Keys and values of the tokens so far, for each layer: (S, KV, D). */
export class Cache {
  /**
   * @param {Config} config
   * @param {number} room the most tokens
   */
  constructor(config, room) {
    const size = room * config.kvHeads * config.size;
    this.room = room;
    this.length = 0;
    this.keys = Array.from({ length: config.layers }, () => new Float32Array(size));
    this.values = Array.from({ length: config.layers }, () => new Float32Array(size));
  }
}

export class Model {
  /**
   * @param {any} json what config.json holds
   * @param {Map<string, Tensor>} tensors
   */
  constructor(json, tensors) {
    this.config = readConfig(json);
    this.tensors = tensors;
    const { size, theta } = this.config;
    this.frequencies = Array.from({ length: size / 2 }, (_, i) => Math.fround(theta ** (-2 * i / size)));
    this.head = this.config.tied ? this.weight("model.embed_tokens.weight") : this.weight("lm_head.weight");
  }

  /** @param {string} name */
  weight(name) {
    const found = this.tensors.get(name);
    if (!found) throw new Error(`The checkpoint lacks ${name}.`);
    return found;
  }

  /**
   * @param {number[]} ids the new tokens
   * @param {{cache?: Cache, trace?: Trace, last?: boolean}} [options] last: only the logits after
   *   the last token are computed
   * @returns {Float32Array} logits, (T, V), or (V) of the last token alone
   */
  forward(ids, { cache = new Cache(this.config, ids.length), trace, last = false } = {}) {
    const { hidden, vocab, layers } = this.config, length = ids.length;
    this.check(ids, cache);
    const table = this.weight("model.embed_tokens.weight").data;
    /** @type {Float32Array} */
    let x = new Float32Array(length * hidden); // the residual stream, (T, C)
    ids.forEach((id, t) => x.set(table.subarray(id * hidden, (id + 1) * hidden), t * hidden));
    x = trace?.tap("embed", x, [length, hidden]) ?? x;
    for (let layer = 0; layer < layers; layer++) x = this.layer(layer, x, cache, trace);
    x = this.finalNorm(x);
    x = trace?.tap("final_norm", x, [length, hidden]) ?? x;
    cache.length += length;
    if (last) x = x.slice(-hidden);
    const logits = linear(x, this.head);
    return trace?.tap("logits", logits, [logits.length / vocab, vocab]) ?? logits;
  }

  /** What the head reads: the stream after the last norm. @param {Float32Array} x (T, C) */
  finalNorm(x) {
    return rmsNorm(x, this.weight("model.norm.weight").data, this.config.eps);
  }

  /**
   * @param {number[]} ids
   * @param {Cache} cache
   */
  check(ids, cache) {
    const { vocab, longest } = this.config;
    const wrong = ids.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocab));
    if (wrong !== undefined) throw new Error(`${wrong} is not a token id; they go from 0 to ${vocab - 1}.`);
    if (!ids.length) throw new Error("There is no token to read.");
    const total = cache.length + ids.length;
    if (total > cache.room) throw new Error(`The cache has room for ${cache.room} tokens, not for ${total}.`);
    if (total > longest) throw new Error(`The model reads at most ${longest} tokens, not ${total}.`);
  }

  /**
   * One decoder layer: attention, then the MLP, each reading a normalized copy of the stream.
   * @param {number} layer
   * @param {Float32Array} x (T, C)
   * @param {Cache} cache
   * @param {Trace} [trace]
   */
  layer(layer, x, cache, trace) {
    const { hidden, eps } = this.config, at = `model.layers.${layer}.`;
    const shape = [x.length / hidden, hidden];
    const tap = (/** @type {string} */ name, /** @type {Float32Array} */ value) =>
      trace?.tap(name, value, shape, layer) ?? value;
    x = tap("resid_pre", x);
    let normed = tap("attn_norm", rmsNorm(x, this.weight(`${at}input_layernorm.weight`).data, eps));
    x = tap("resid_mid", sum(x, tap("attn.out", this.attention(layer, normed, cache, trace))));
    normed = tap("mlp_norm", rmsNorm(x, this.weight(`${at}post_attention_layernorm.weight`).data, eps));
    return tap("resid_post", sum(x, tap("mlp.out", this.mlp(layer, normed, trace))));
  }

  /**
   * @param {number} layer
   * @param {Float32Array} x (T, C), normalized
   * @param {Cache} cache
   * @param {Trace} [trace]
   */
  attention(layer, x, cache, trace) {
    const { heads, kvHeads, size, hidden } = this.config;
    const at = `model.layers.${layer}.self_attn.`, length = x.length / hidden, past = cache.length;
    const project = (/** @type {string} */ part, /** @type {number} */ count) => {
      const bias = this.tensors.get(`${at}${part}_proj.bias`)?.data;
      const rows = linear(x, this.weight(`${at}${part}_proj.weight`), bias); // (T, count · D)
      const value = byHead(rows, length, count, size);
      return trace?.tap(`attn.${part}`, value, [count, length, size], layer) ?? value;
    };
    let q = project("q", heads), k = project("k", kvHeads);
    const v = project("v", kvHeads); // (KV, T, D)
    q = this.rotated(q, length, past);
    k = this.rotated(k, length, past);
    q = trace?.tap("attn.q_rot", q, [heads, length, size], layer) ?? q;
    k = trace?.tap("attn.k_rot", k, [kvHeads, length, size], layer) ?? k;
    const keys = cache.keys[layer], values = cache.values[layer];
    keys.set(byToken(k, length, kvHeads, size), past * kvHeads * size);
    values.set(byToken(v, length, kvHeads, size), past * kvHeads * size);

    const total = past + length;
    /** @type {Float32Array} */
    let scores = new Float32Array(heads * length * total); // (H, T, S)
    const groups = heads / kvHeads, scale = 1 / Math.sqrt(size);
    for (let head = 0; head < heads; head++) {
      const kv = Math.floor(head / groups);
      for (let t = 0; t < length; t++) {
        const query = (head * length + t) * size, to = (head * length + t) * total;
        for (let s = 0; s < total; s++) {
          const key = (s * kvHeads + kv) * size;
          let dot = 0;
          for (let i = 0; i < size; i++) dot += q[query + i] * keys[key + i];
          scores[to + s] = dot * scale;
        }
      }
    }
    scores = trace?.tap("attn.scores", scores, [heads, length, total], layer) ?? scores;
    /** @type {Float32Array} */
    let pattern = scores.slice();
    for (let row = 0; row < heads * length; row++) {
      const seen = past + (row % length) + 1; // a token sees itself and those before it
      pattern.fill(-Infinity, row * total + seen, (row + 1) * total);
      softmaxInPlace(pattern, row * total, total);
    }
    pattern = trace?.tap("attn.pattern", pattern, [heads, length, total], layer) ?? pattern;

    /** @type {Float32Array} */
    let z = new Float32Array(heads * length * size); // (H, T, D)
    for (let head = 0; head < heads; head++) {
      const kv = Math.floor(head / groups);
      for (let t = 0; t < length; t++) {
        const to = (head * length + t) * size, from = (head * length + t) * total;
        for (let s = 0; s < total; s++) {
          const share = pattern[from + s], value = (s * kvHeads + kv) * size;
          if (share === 0) continue;
          for (let i = 0; i < size; i++) z[to + i] += share * values[value + i];
        }
      }
    }
    z = trace?.tap("attn.z", z, [heads, length, size], layer) ?? z;
    return linear(byToken(z, length, heads, size), this.weight(`${at}o_proj.weight`));
  }

  /**
   * RoPE (Su et al. 2021): rotate each pair (i, i + D/2) by position × frequency.
   * @param {Float32Array} x (heads, T, D)
   * @param {number} length
   * @param {number} past
   */
  rotated(x, length, past) {
    const { size } = this.config, half = size / 2, y = new Float32Array(x.length);
    for (let row = 0; row < x.length / size; row++) {
      const position = past + (row % length), at = row * size;
      for (let i = 0; i < half; i++) {
        const angle = Math.fround(position * this.frequencies[i]);
        const cos = Math.cos(angle), sin = Math.sin(angle), a = x[at + i], b = x[at + half + i];
        y[at + i] = a * cos - b * sin;
        y[at + half + i] = b * cos + a * sin;
      }
    }
    return y;
  }

  /**
   * SwiGLU (Shazeer 2020): down(SiLU(gate(x)) × up(x)).
   * @param {number} layer
   * @param {Float32Array} x (T, C), normalized
   * @param {Trace} [trace]
   */
  mlp(layer, x, trace) {
    const at = `model.layers.${layer}.mlp.`, length = x.length / this.config.hidden;
    const tap = (/** @type {string} */ name, /** @type {Float32Array} */ value) =>
      trace?.tap(name, value, [length, value.length / length], layer) ?? value;
    const gate = tap("mlp.gate", linear(x, this.weight(`${at}gate_proj.weight`))); // (T, F)
    const up = tap("mlp.up", linear(x, this.weight(`${at}up_proj.weight`)));
    const act = tap("mlp.act", gate.map((value, i) => silu(value) * up[i]));
    return linear(act, this.weight(`${at}down_proj.weight`));
  }
}

/**
 * (T, count, D) to (count, T, D).
 * @param {Float32Array} x
 * @param {number} length
 * @param {number} count
 * @param {number} size
 */
function byHead(x, length, count, size) {
  const y = new Float32Array(x.length);
  for (let t = 0; t < length; t++) {
    for (let head = 0; head < count; head++) {
      const from = (t * count + head) * size;
      y.set(x.subarray(from, from + size), (head * length + t) * size);
    }
  }
  return y;
}

/**
 * (count, T, D) to (T, count, D).
 * @param {Float32Array} x
 * @param {number} length
 * @param {number} count
 * @param {number} size
 */
function byToken(x, length, count, size) {
  return byHead(x, count, length, size);
}
