// What ModelExplorer tells: the way of a token through the model, and a tour for newcomers.

import { short } from "./parts.js";
import { streamNorms } from "./explorer_picture.js";

/** @typedef {import("./explorer_picture.js").Place} Place */
/** @typedef {import("./explorer_run.js").Run} Run */
/** @typedef {import("./explorer_text.js").LiveText} LiveText */
/** @typedef {{place: Place, title: string, text: string}} Stop */

const IN_A_LAYER = [
  "attn_norm", "qkv", "rope", "scores", "pattern", "heads", "attn_out", "add_attn",
  "mlp_norm", "gate_up", "mlp_out", "add_mlp",
];
const OF_A_HEAD = ["qkv", "rope", "scores", "pattern", "heads"];

/**
 * All stops on the way of a token, in order: every part of the first layer, fewer of the others.
 * @param {number} layers
 * @param {number} head
 * @returns {Place[]}
 */
export function wayThrough(layers, head) {
  const stop = (/** @type {string} */ part, layer = 0) =>
    ({ part, layer, head: OF_A_HEAD.includes(part) ? head : null });
  const stops = [stop("tokens"), stop("embed"), ...IN_A_LAYER.map((part) => stop(part))];
  for (let layer = 1; layer < layers; layer++)
    stops.push(...["pattern", "add_attn", "gate_up", "add_mlp"].map((part) => stop(part, layer)));
  return [...stops, stop("final_norm"), stop("logits"), stop("sampling")];
}

/**
 * The head that looks at one earlier token the most, but not at the first or itself.
 * @param {Run} run
 * @param {number} position
 */
export function clearestHead(run, position) {
  const { layers, heads } = run.model.config, length = run.ids.length;
  let best = { layer: 0, head: 0, key: Math.max(0, position - 1), weight: -1 };
  for (let layer = 0; layer < layers; layer++) {
    const pattern = run.trace().get(`layers.${layer}.attn.pattern`);
    for (let head = 0; head < heads; head++) {
      for (let key = 1; key < position; key++) {
        const weight = pattern[(head * length + position) * length + key];
        if (weight > best.weight) best = { layer, head, key, weight };
      }
    }
  }
  return best;
}

const share = (/** @type {number} */ part) => `${Math.round(100 * part)}%`;
const many = (/** @type {number} */ count) => count.toLocaleString("en");
/** @type {(part: string, layer?: number, head?: number | null) => Place} */
const at = (part, layer = 0, head = null) => ({ part, layer, head });

/**
 * The tour for a text: where to look, and what to say.
 * @param {LiveText} text
 * @param {number} position
 * @returns {Stop[]}
 */
export function tourOf(text, position) {
  const norms = streamNorms(text.run, position), clear = clearestHead(text.run, position);
  return [
    ...aboutTokens(text, position, norms),
    ...aboutAttention(text, position, clear),
    { place: at("add_attn"), title: "Added to the stream",
      text: "What the heads found is added to the stream; nothing is overwritten. In layer 0 its "
        + `norm goes from ${short(norms[0])} to ${short(norms[1])}.` },
    ...aboutTheEnd(text, position),
  ];
}

/** @type {(text: LiveText, position: number, norms: number[]) => Stop[]} */
function aboutTokens(text, position, [norm]) {
  const { ids, tokens, config: { layers, hidden } } = text, token = text.name(ids[position]);
  return [
    { place: at("tokens"), title: "Tokens",
      text: `A model reads tokens, which are pieces of text. Your prompt has ${ids.length}. Each `
        + `is a number: “${token}” is ${many(ids[position])} of ${many(tokens)}.` },
    { place: at("embed"), title: "A token becomes a vector",
      text: `The embedding has ${hidden} numbers for “${token}”. They start the residual stream, `
        + `the line on the left: it is the wider, the larger its norm, here ${short(norm)}.` },
    { place: at("attn_norm"), title: "Layers read the stream",
      text: `${layers} layers follow, all built alike. Each reads a normalized copy of the stream, `
        + "computes something, and adds it to the stream." },
  ];
}

/** @type {(text: LiveText, position: number, clear: ReturnType<typeof clearestHead>) => Stop[]} */
function aboutAttention(text, position, { layer, head, key, weight }) {
  const { ids, config: { layers, heads, kvHeads, size } } = text;
  const from = text.name(ids[position]), to = text.name(ids[key]);
  const each = 2 * layers * kvHeads * size;
  return [
    { place: at("qkv", 0, head), title: "Query, key, value",
      text: `Attention looks back. Each of ${heads} heads makes a query: what this token looks `
        + "for. It is compared with the keys of all tokens so far; their values are passed on." },
    { place: at("pattern", layer, head), title: "Attention", text: position > 1
      ? `Each square is a head, each row a token. Head ${head} of layer ${layer} attends from `
        + `“${from}” to “${to}” with ${share(weight)} of its weight.`
      : "Each square is a head, each row a token: it shows what that token attends to. With more "
        + "tokens there is more to see." },
    { place: at("heads", layer, head), title: "Heads share keys and values",
      text: `${heads} query heads share ${kvHeads} kv heads. So the cache holds ${many(each)} `
        + `values per token instead of ${many(each * heads / kvHeads)}.` },
  ];
}

/** @type {(text: LiveText, position: number) => Stop[]} */
function aboutTheEnd(text, position) {
  const { tokens, config: { layers } } = text, last = layers - 1, middle = Math.floor(last / 2);
  const acts = text.run.rows(`layers.${last}.mlp.act`, position, position + 1);
  const active = acts.reduce((count, value) => count + Number(Math.abs(value) > 1), 0);
  const [first, half] = [0, middle].map((layer) => text.guess(layer, position));
  const [best, chance] = text.best(position);
  return [
    { place: at("gate_up", last), title: "The MLP",
      text: `The MLP looks at one token alone. Of its ${acts.length} units in the last layer, `
        + `${active} are strongly active here (above 1). Its result is added, too.` },
    { place: at("add_mlp", last), title: "A guess becomes an answer",
      text: `Stopped after layer 0, the model predicts “${first[0]}” (${share(first[1])}), after `
        + `layer ${middle} “${half[0]}” (${share(half[1])}). At the end it predicts “${best}” `
        + `(${share(chance)}).` },
    { place: at("sampling"), title: "The next token",
      text: `Each of ${many(tokens)} tokens gets a probability: “${best}” has ${share(chance)}. `
        + "Generate appends a token and starts again. Now switch some heads off, and see what "
        + "changes." },
  ];
}
