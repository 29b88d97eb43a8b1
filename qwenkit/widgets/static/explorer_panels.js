// A stand-in until the panels are written: the part's name and one sentence.

import { node } from "./common.js";

const SAYS = {
  tokens: ["Tokens", "The text is cut into tokens; each is a number of the vocabulary."],
  embed: ["Embedding", "Each token becomes a vector: its row of the embedding table."],
  attn_norm: ["RMSNorm", "A copy of the stream is scaled to the same size at every token."],
  qkv: ["Queries, keys, values", "Three products make a query, a key and a value of each token."],
  rope: ["RoPE", "Queries and keys are rotated by their position."],
  scores: ["Scores", "Each query is compared with all keys: a dot product per pair."],
  pattern: ["Attention weights", "Softmax turns the scores of a token into weights that sum to 1."],
  heads: ["Grouped heads", "Several query heads share one kv head."],
  attn_out: ["Output projection", "The heads' results are mixed into one vector."],
  add_attn: ["Addition", "What attention found is added to the stream."],
  mlp_norm: ["RMSNorm", "A copy of the stream is scaled again."],
  gate_up: ["Gate and up", "Two products and SiLU decide which units are active."],
  mlp_out: ["Down projection", "The active units write a vector."],
  add_mlp: ["Addition", "What the MLP computed is added to the stream."],
  final_norm: ["Final RMSNorm", "The stream after the last layer is scaled once more."],
  logits: ["Logits", "One number for each token of the vocabulary."],
  sampling: ["Sampling", "A token is drawn from the probabilities."],
  cache: ["KV cache", "Keys and values are kept, so that only new tokens are computed."],
};

export const PARTS = Object.fromEntries(Object.entries(SAYS).map(([name, [title, short]]) =>
  [name, { title, short, source: "" }]));

/** @param {string} part @param {any} view @returns {HTMLElement} */
export function partPanel(part, view) {
  const { title, short } = PARTS[part];
  return node("section", { class: "qk-panel", "aria-label": title }, node("h4", {}, title),
    node("p", {}, `${short} Layer ${view.layer}, head ${view.head}, token ${view.position}.`));
}
