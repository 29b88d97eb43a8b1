// ModelExplorer's detail panels: what a part of the model does, with the numbers of the prompt.

import { node } from "./common.js";
import {
  attnOutPart, cachePart, headsPart, patternPart, qkvPart, ropePart, scoresPart,
} from "./explorer_panel_attention.js";
import { tokenWords } from "./explorer_panel_kit.js";
import { gateUpPart, logitsPart, mlpOutPart, samplingPart } from "./explorer_panel_output.js";
import {
  addAttnPart, addMlpPart, attnNormPart, embedPart, finalNormPart, mlpNormPart, tokensPart,
} from "./explorer_panel_stream.js";

/** @typedef {import("./explorer_panel_kit.js").View} View */
/** @typedef {{title: string, short: string, source: string}} Part */

/**
 * Each part of the model: its title, a sentence, and a line of the package that computes it, with
 * its file. The test of the panels holds every line to its file.
 * @type {Record<string, Part>}
 */
export const PARTS = {
  tokens: {
    title: "Tokens",
    short: "The tokenizer cuts the text into tokens and gives each its id.",
    source: "tokenizer/_tokenizer.py: "
      + "found = backend.encode_batch_fast(texts, add_special_tokens=add)",
  },
  embed: {
    title: "Embedding",
    short: "Each id chooses a row of the embedding matrix: the residual stream begins.",
    source: 'model/qwen.py: x = tap(trace, "embed", self.embed_tokens(input_ids))  # (B, T, C)',
  },
  attn_norm: {
    title: "RMSNorm before attention",
    short: "A copy of the stream is divided by its root mean square.",
    source: "model/norm.py: normed = upcast * torch.rsqrt(mean_square + self.eps)",
  },
  qkv: {
    title: "Query, key, value",
    short: "Three linear layers make a query, a key and a value of each token.",
    source: "model/attention.py: "
      + 'q = tap(trace, "attn.q", split(self.q_proj(x), heads))  # (B, H, T, D)',
  },
  rope: {
    title: "RoPE",
    short: "Queries and keys are rotated by an angle that grows with their position.",
    source: "model/rope.py: return x * cos + torch.cat([-b, a], dim=-1) * sin",
  },
  scores: {
    title: "Scores and mask",
    short: "Each query is compared with the keys of the tokens up to its own.",
    source: "model/attention.py: "
      + "scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (B, H, T, S)",
  },
  pattern: {
    title: "Softmax: attention weights",
    short: "Softmax makes attention weights of the scores; each row adds up to 1.",
    source: "model/attention.py: "
      + "pattern = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)  # (B, H, T, S)",
  },
  heads: {
    title: "Grouped heads",
    short: "Several query heads share the keys and values of one kv head.",
    source: "model/attention.py: return x.repeat_interleave(groups, dim=1)",
  },
  attn_out: {
    title: "Output of attention",
    short: "Each head mixes values by its weights; o_proj joins the heads.",
    source: 'model/attention.py: return tap(trace, "attn.out", self.o_proj(joined))  # (B, T, C)',
  },
  add_attn: {
    title: "Attention is added",
    short: "What attention found is added to the residual stream.",
    source: "model/decoder.py: "
      + 'x = tap(trace, "resid_mid", x + self.self_attn(normed, rope, mask, cache, trace))',
  },
  mlp_norm: {
    title: "RMSNorm before the MLP",
    short: "A copy of the stream is divided by its root mean square again.",
    source: 'model/decoder.py: normed = tap(trace, "mlp_norm", self.post_attention_layernorm(x))',
  },
  gate_up: {
    title: "Gate and up",
    short: "Each unit of the MLP is SiLU(gate) × up: the gate opens or closes it.",
    source: 'model/mlp.py: act = tap(trace, "mlp.act", F.silu(gate) * up)  # (B, T, F)',
  },
  mlp_out: {
    title: "Down",
    short: "down_proj takes the units back to the size of the stream.",
    source: 'model/mlp.py: return tap(trace, "mlp.out", self.down_proj(act))  # (B, T, C)',
  },
  add_mlp: {
    title: "The MLP is added",
    short: "What the MLP computed is added to the residual stream.",
    source: 'model/decoder.py: return tap(trace, "resid_post", x + self.mlp(normed, trace))',
  },
  final_norm: {
    title: "Final norm",
    short: "After the last layer the stream is normalized once more.",
    source: 'model/qwen.py: x = tap(trace, "final_norm", self.norm(x))',
  },
  logits: {
    title: "Logits",
    short: "The head gives each token of the vocabulary a logit; softmax makes probabilities.",
    source: 'model/qwen.py: return tap(trace, "logits", self.head(x))  # (B, T, V)',
  },
  sampling: {
    title: "Next token",
    short: "Temperature and top-k reshape the probabilities; one token is drawn.",
    source: "generate/sampling.py: return logits / temperature",
  },
  cache: {
    title: "KV cache",
    short: "Keys and values of all tokens are kept, so that each is computed only once.",
    source: "model/cache.py: self.keys[layer][:, :, self.length : end] = keys",
  },
};

/** @type {Record<string, (box: HTMLElement, view: View) => void>} */
const RENDERERS = {
  tokens: tokensPart, embed: embedPart, attn_norm: attnNormPart, qkv: qkvPart, rope: ropePart,
  scores: scoresPart, pattern: patternPart, heads: headsPart, attn_out: attnOutPart,
  add_attn: addAttnPart,
  mlp_norm: mlpNormPart, gate_up: gateUpPart, mlp_out: mlpOutPart, add_mlp: addMlpPart,
  final_norm: finalNormPart, logits: logitsPart, sampling: samplingPart, cache: cachePart,
};
const WITH_HEAD = new Set(["qkv", "rope", "scores", "pattern", "heads", "attn_out"]);
export const WHOLE = new Set(["tokens", "embed", "final_norm", "logits", "sampling"]); // in no layer

/** @type {{part: string, control: string} | null} what is to have the focus once it is redrawn */
let focused = null;

/**
 * The panel of a part.
 * @param {string} part a name in PARTS
 * @param {View} view
 * @returns {HTMLElement}
 */
export function partPanel(part, view) {
  const known = PARTS[part];
  const names = Object.keys(PARTS).join(", ");
  if (!known) throw new Error(`${part} is not a part; these are: ${names}.`);
  const box = node("section", { class: "qk-part", "aria-label": known.title, "data-part": part },
    node("header", {}, node("h2", {}, known.title), ...badges(part, view)));
  RENDERERS[part](box, keepingFocus(part, view));
  box.append(sourceLine(known.source));
  const focusAgain = () => {
    if (focused?.part !== part || !box.isConnected) return;
    const found = box.querySelector(`[data-control="${focused.control}"]`);
    /** @type {HTMLElement | null} */ (found)?.focus({ preventScroll: true });
    focused = null;
  };
  queueMicrotask(focusAgain);
  requestAnimationFrame(focusAgain);
  return box;
}

/**
 * The view whose `choose` remembers which control was used: the panel is made again.
 * @param {string} part
 * @param {View} view
 */
const keepingFocus = (part, view) => ({
  ...view,
  choose(/** @type {any} */ patch) {
    const root = /** @type {Document | ShadowRoot} */ (view.root.getRootNode());
    const control = /** @type {HTMLElement | null} */ (root.activeElement)?.dataset.control;
    focused = control ? { part, control } : null;
    view.choose(patch);
  },
});

/** Where the numbers are from. @param {string} part @param {View} view */
function badges(part, { layer, head, position, tokens }) {
  const words = [];
  if (!WHOLE.has(part)) words.push(`layer ${layer}`);
  if (WITH_HEAD.has(part)) words.push(`head ${head}`);
  const made = words.map((one) => node("span", { class: "qk-part-badge" }, one));
  const last = part === "sampling" ? tokens.length - 1 : position;
  return [...made, node("span", { class: "qk-part-badge qk-part-badge-token" },
    "token ", tokenWords(tokens[last]), ` at ${last}`)];
}

/** @param {string} source the file, a colon, and its line */
function sourceLine(source) {
  const cut = source.indexOf(": ");
  return node("footer", { class: "qk-part-source" },
    node("span", {}, `qwenkit/${source.slice(0, cut)}`), node("code", {}, source.slice(cut + 2)));
}
