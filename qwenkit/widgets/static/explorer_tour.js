// What ModelExplorer tells: the way of a token through the model, and a tour for newcomers.

import { short } from "./parts.js";
import { streamNorms } from "./explorer_picture.js";

/** @typedef {import("./explorer_picture.js").Place} Place */
/** @typedef {import("./explorer_run.js").Run} Run */
/**
 * What a tour's sentences speak of.
 * @typedef {{run: Run, position: number, tokens: string[], vocab: number,
 *   guess: (layer: number) => [string, number], best: [string, number]}} Facts
 */

const ATTENTION = ["attn_norm", "qkv", "rope", "scores", "pattern", "heads", "attn_out", "add_attn"];
const MLP = ["mlp_norm", "gate_up", "mlp_out", "add_mlp"];

/**
 * All stops on the way of a token, in order: every part of the first layer, fewer of the others.
 * @param {number} layers
 * @param {number} head
 * @returns {Place[]}
 */
export function wayThrough(layers, head) {
  const stop = (/** @type {string} */ part, layer = 0) =>
    ({ part, layer, head: ["scores", "pattern", "heads", "qkv", "rope"].includes(part) ? head : null });
  const stops = [stop("tokens"), stop("embed"),
    ...[...ATTENTION, ...MLP].map((part) => stop(part))];
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

/**
 * The tour for a text: where to look, and what to say.
 * @param {Facts} facts
 * @returns {{place: Place, title: string, text: string}[]}
 */
export function tourOf({ run, position, tokens, vocab, guess, best }) {
  const { config } = run.model, { layers, heads, kvHeads, size, hidden } = config;
  const norms = streamNorms(run, position), clear = clearestHead(run, position);
  const acts = run.rows(`layers.${layers - 1}.mlp.act`, position, position + 1);
  const active = acts.reduce((count, value) => count + Number(Math.abs(value) > 1), 0);
  const token = tokens[position], id = run.ids[position];
  const each = 2 * layers * kvHeads * size;
  const middle = Math.max(0, Math.floor(layers / 2) - 1);
  const at = (/** @type {string} */ part, layer = 0, head = /** @type {number | null} */ (null)) =>
    ({ part, layer, head });
  const [early, earlyShare] = guess(0), [half, halfShare] = guess(middle);
  return [
    { place: at("tokens"), title: "Tokens",
      text: `The model reads tokens, pieces of text. Your prompt has ${tokens.length}. Each is a number: “${token}” is ${id} of ${vocab.toLocaleString("en")}.` },
    { place: at("embed"), title: "A token becomes a vector",
      text: `The embedding table gives “${token}” ${hidden} numbers. They start the residual stream, the line on the left. Its length (norm) here is ${short(norms[0])}.` },
    { place: at("attn_norm"), title: "Layers read the stream",
      text: `${layers} layers follow, all of the same form. Each reads a normalized copy of the stream, computes something and adds it to the stream.` },
    { place: at("qkv", 0, 0), title: "Query, key, value",
      text: `Each of ${heads} heads makes a query: what this token looks for. Each token also has keys, which queries are compared with, and values, which are passed on.` },
    { place: at("pattern", clear.layer, clear.head), title: "Attention",
      text: position > 1
        ? `Head ${clear.head} of layer ${clear.layer} attends from “${token}” to “${tokens[clear.key]}” with ${share(clear.weight)} of its weight. Each square is such a head; the marked row is your token.`
        : "Each square is a head: it shows which token attends to which. With more tokens there is more to see." },
    { place: at("heads", clear.layer, clear.head), title: "Heads share keys and values",
      text: `${heads} query heads share ${kvHeads} kv heads. So the cache holds ${each.toLocaleString("en")} numbers per token, not ${(each * heads / kvHeads).toLocaleString("en")}.` },
    { place: at("add_attn", 0), title: "Added to the stream",
      text: `What the heads found is added to the stream. In layer 0 its norm goes from ${short(norms[0])} to ${short(norms[1])}. Nothing is overwritten.` },
    { place: at("gate_up", layers - 1), title: "The MLP",
      text: `The MLP works on each token alone. In the last layer ${active} of its ${acts.length} units are strongly active here (above 1). Its result is added, too.` },
    { place: at("add_mlp", layers - 1), title: "A guess becomes an answer",
      text: `If the model stopped after layer 0, it would say “${early}” (${share(earlyShare)}); after layer ${middle}, “${half}” (${share(halfShare)}); at the end it says “${best[0]}” (${share(best[1])}).` },
    { place: at("sampling"), title: "The next token",
      text: `Each of ${vocab.toLocaleString("en")} tokens gets a probability; “${best[0]}” has ${share(best[1])}. Generate appends one and starts again, and the cache keeps what was computed. Now switch some heads off and see what changes.` },
  ];
}
