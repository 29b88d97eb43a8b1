// LayerInspector in a page that carries its model: `data` as _layer_view.py has it, and answers.

import { linear, softmaxInPlace, topIndices } from "./engine/ops.js";
import { Trace } from "./engine/trace.js";
import { render } from "./layer.js";
import { deflate, liveModel, promptIds, tokenStrings } from "./live.js";
import { livePatterns } from "./live_patterns.js";

/**
 * @import { ComparedToken, Comparison, Engine, LayerData, LayerState, Lens, LiveAnswers, Standalone }
 *   from "./types.d.ts"
 */

const KEEP = ["embed", "attn.q", "attn.k", "resid_mid", "resid_post", "mlp.act"];

/** @param {{model: Standalone, el: HTMLElement}} place */
export async function renderLive({ model, el }) {
  return render({ model: await liveModel(model, layerAnswers), el });
}

/** @param {Engine} engine @returns {LiveAnswers} */
function layerAnswers(engine) {
  const { net, model, settings } = engine;
  /** @type {{ids: number[], streams: Float32Array[]} | null} the text, and its residual streams */
  let text = null;

  async function read(/** @type {string} */ words) {
    const ids = promptIds(engine, words, settings.most), trace = new Trace({ keep: KEEP });
    const patterns = await livePatterns(engine, ids, settings.most, trace);
    text = { ids, streams: streamsOf(engine, trace) };
    return { patterns, trace, text };
  }
  return {
    async prompt(words) {
      const { patterns, trace, text: { ids, streams } } = await read(words);
      const last = ids.length - 1;
      const { layers, heads, weights, titles, tokens } = patterns;
      /** @type {Record<string, Lens>} */
      const lens = {};
      const cheap = streams.length * streams[0].length * net.config.vocab < settings.cheap;
      for (let token = cheap ? 0 : last; token <= last; token++)
        lens[token] = lensOf(engine, streams, token);
      /** @type {LayerData} */
      const data = { ...model.get("data"), layers, heads, weights, titles, tokens, lens,
        ...await layerArrays(engine, trace, ids.length) };
      const state = { .../** @type {LayerState} */ (model.get("state")), token: last };
      const without = state.off ? withoutHead(engine, ids, streams, state.off) : {};
      return { data, lens: {}, without, state };
    },
    async state() {
      const { token, off } = /** @type {LayerState} */ (model.get("state"));
      const { ids, streams } = text ?? (await read(model.get("prompt"))).text;
      /** @type {Record<string, object>} */
      const values = {};
      if (!model.get("data").lens[token])
        values.lens = { token, rows: lensOf(engine, streams, token) };
      if (off && String(model.get("without")?.off) !== String(off))
        values.without = withoutHead(engine, ids, streams, off);
      return values;
    },
  };
}

/** The residual stream (T, C) of the embeddings, and after each layer. */
function streamsOf(/** @type {Engine} */ { net }, /** @type {Trace} */ trace) {
  return [trace.get("embed"), ...eachLayer(net.config.layers, (i) => trace.get(`layers.${i}.resid_post`))];
}

/**
 * @template T
 * @param {number} layers
 * @param {(layer: number) => T} make
 */
const eachLayer = (layers, make) => Array.from({ length: layers }, (_, i) => make(i));

/**
 * What is kept of a forward pass, compressed.
 * @param {Engine} engine
 * @param {Trace} trace
 * @param {number} length tokens
 */
async function layerArrays({ net, settings }, trace, length) {
  const { layers, size, hidden, kvHeads } = net.config;
  const of = (/** @type {string} */ name) => eachLayer(layers, (i) => trace.get(`layers.${i}.${name}`));
  const [queries, querySteps] = inSteps(of("attn.q")), [keys, keySteps] = inSteps(of("attn.k"));
  const half = size / 2;
  const angles = Float32Array.from({ length: length * half }, (_, i) =>
    Math.fround(Math.floor(i / half) * net.frequencies[i % half]));
  const { units, acts } = strongestUnits(of("mlp.act"), length, settings.units);
  const middle = of("resid_mid").map((stream) => rowNorms(stream, hidden));
  const after = of("resid_post").map((stream) => rowNorms(stream, hidden));
  const norms = new Float32Array(layers * length * 2);
  middle.forEach((values, i) => values.forEach((norm, t) => {
    norms.set([norm, after[i][t]], 2 * (i * length + t));
  }));
  return {
    kv_heads: kvHeads, dim: size, query_steps: querySteps, key_steps: keySteps,
    queries: await deflate(queries), keys: await deflate(keys),
    cos: await deflate(angles.map(Math.cos)), sin: await deflate(angles.map(Math.sin)),
    units: await deflate(units), acts: await deflate(acts), norms: await deflate(norms),
    embed_norms: await deflate(rowNorms(trace.get("embed"), hidden)),
  };
}

/**
 * Round to integers of 16 bits; also the size of a step in each layer.
 * @param {Float32Array[]} vectors
 * @returns {[Int16Array, number[]]}
 */
function inSteps(vectors) {
  const rounded = new Int16Array(vectors.length * vectors[0].length);
  const steps = vectors.map((values) => (values.reduce((most, x) => Math.max(most, Math.abs(x)), 0) || 1) / 32767);
  vectors.forEach((values, i) => {
    rounded.set(values.map((x) => Math.round(x / steps[i])), i * values.length);
  });
  return [rounded, steps];
}

/**
 * The MLP's most active units at each layer and token, the strongest first, and their activations.
 * @param {Float32Array[]} acts of each layer, (T, F)
 * @param {number} length
 * @param {number} most
 */
function strongestUnits(acts, length, most) {
  const width = acts[0].length / length, count = Math.min(most, width);
  const found = { units: new Uint16Array(acts.length * length * count),
    acts: new Float32Array(acts.length * length * count) };
  acts.forEach((values, i) => {
    for (let t = 0; t < length; t++) {
      const row = values.subarray(t * width, (t + 1) * width);
      const best = topIndices(row.map(Math.abs), count), at = (i * length + t) * count;
      found.units.set(best, at);
      found.acts.set(best.map((unit) => row[unit]), at);
    }
  });
  return found;
}

/** The norm of each row. */
function rowNorms(/** @type {Float32Array} */ stream, /** @type {number} */ hidden) {
  return Float32Array.from({ length: stream.length / hidden }, (_, t) =>
    Math.hypot(...stream.subarray(t * hidden, (t + 1) * hidden)));
}

/**
 * The next token's probabilities (V) after each row of a residual stream.
 * @param {Engine} engine
 * @param {Float32Array} stream (N, C)
 */
function nextTokens({ net, settings: { tokens } }, stream) {
  const { hidden, vocab } = net.config;
  const logits = linear(net.finalNorm(stream), net.head);
  return eachLayer(stream.length / hidden, (i) => {
    const row = logits.slice(i * vocab, i * vocab + tokens); // without padding rows
    softmaxInPlace(row, 0, tokens);
    return row;
  });
}

/**
 * What the model would predict after a token from its embedding and from each layer.
 * @param {Engine} engine
 * @param {Float32Array[]} streams
 * @param {number} token
 * @returns {Lens}
 */
function lensOf(engine, streams, token) {
  const { tokenizer, net: { config: { hidden } }, settings } = engine;
  return streams.map((stream) => {
    const [chances] = nextTokens(engine, stream.subarray(token * hidden, (token + 1) * hidden));
    const best = topIndices(chances, settings.lens), names = tokenStrings(tokenizer, best);
    return best.map((id, i) => [names[i], chances[id]]);
  });
}

/**
 * The next token's probabilities at each position, with a head and without it.
 * @param {Engine} engine
 * @param {number[]} ids
 * @param {Float32Array[]} streams with all heads on
 * @param {[number, number]} off layer and head
 * @returns {Comparison}
 */
function withoutHead(engine, ids, streams, off) {
  const { net, tokenizer, settings } = engine, { size, layers } = net.config;
  const [layer, head] = off, part = ids.length * size;
  const last = `layers.${layers - 1}.resid_post`;
  const ablate = (/** @type {Float32Array} */ z) => z.fill(0, head * part, (head + 1) * part);
  const trace = new Trace({ keep: [last], edits: { [`layers.${layer}.attn.z`]: ablate } });
  net.forward(ids, { trace, last: true });
  const befores = nextTokens(engine, streams[layers]), afters = nextTokens(engine, trace.get(last));
  const moved = befores.map((before, t) => Math.max(0, before.reduce((sum, p, id) =>
    p ? sum + p * (Math.log(p) - Math.log(Math.max(afters[t][id], 1e-37))) : sum, 0)));
  const rows = befores.map((before, t) => {
    const after = afters[t];
    const best = topIndices(before.map((p, id) => Math.max(p, after[id])), settings.shown);
    const names = tokenStrings(tokenizer, best);
    return best.map((id, i) => /** @type {ComparedToken} */ ([names[i], id, before[id], after[id]]));
  });
  return { off, moved, rows };
}
