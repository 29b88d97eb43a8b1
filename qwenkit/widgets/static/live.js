// The engine in the place of a kernel: an exported page that carries its model answers by itself.

import { inflate } from "./common.js";
import { Model } from "./engine/model.js";
import { softmaxInPlace, topIndices } from "./engine/ops.js";
import { readTensors } from "./engine/safetensors.js";
import { Tokenizer } from "./engine/tokenizer.js";
import { shownToken } from "./explorer_tokens.js";

/** @import { Answer, Engine, LiveAnswers, Standalone } from "./types.d.ts" */

const BREATH = 20; // milliseconds for the page to show that it computes

/**
 * Let a page's model answer prompts and choices.
 * @param {Standalone} model its "engine" is what _carried.py writes
 * @param {(engine: Engine) => LiveAnswers} answersOf
 * @returns {Promise<Standalone>}
 */
export async function liveModel(model, answersOf) {
  const { config, tokenizer, weights, settings } = model.get("engine");
  const answers = answersOf({
    net: new Model(config, readTensors((await inflate(weights)).buffer)),
    tokenizer: new Tokenizer(tokenizer), settings, model,
  });
  let work = Promise.resolve(); // one after another, as a kernel does
  const later = (/** @type {() => Promise<void>} */ task) => {
    work = work.then(() => new Promise((go) => setTimeout(go, BREATH))).then(task);
  };
  /** @param {Answer} answer @param {() => Promise<object>} compute */
  async function answered(answer, compute) {
    let error = "";
    try {
      const values = await compute();
      for (const [name, value] of Object.entries(values)) model.set(name, value);
    } catch (problem) {
      error = problem instanceof Error ? problem.message : String(problem);
    }
    if (error || answer.done) model.emit("msg:custom", { ...answer, error });
  }
  /** @param {{ask?: string, prompt?: string}} question */
  function send({ ask, prompt }) {
    if (!ask) return;
    later(async () => {
      model.emit("msg:custom", { heard: ask });
      if (prompt === undefined) return;
      await answered({ done: ask }, async () => {
        const { state, ...values } = await answers.prompt(prompt);
        return { ...values, prompt, state }; // the state last: it belongs to the others
      });
    });
  }
  const change = answers.state?.bind(answers);
  const saved = () => {
    if (change) later(() => answered({}, async () => change()));
  };
  return Object.assign(model, { alone: false, live: true, send, save_changes: saved });
}

/**
 * The ids of a prompt; what Python refuses is refused here in the same words.
 * @param {Engine} engine
 * @param {string} prompt
 * @param {number} most tokens
 */
export function promptIds({ tokenizer, net }, prompt, most) {
  if (!prompt) throw new Error("prompt is ''; it must be a text of at least one token");
  const ids = tokenizer.encode(prompt), allowed = Math.min(most, net.config.longest);
  if (ids.length > allowed) {
    throw new Error(`the prompt has ${ids.length.toLocaleString("en")} tokens; this widget takes at `
      + `most ${allowed.toLocaleString("en")}: shorten it`);
  }
  return ids;
}

/**
 * Tokens as they are shown, as Tokenizer.token_strings in Python has them.
 * @param {Tokenizer} tokenizer
 * @param {Iterable<number>} ids
 */
export const tokenStrings = (tokenizer, ids) => Array.from(ids, (id) => shownToken(tokenizer, id));

/**
 * The most likely tokens, each with its probability.
 * @param {Float32Array} logits
 * @param {number} count
 * @returns {[number, number][]}
 */
export function topTokens(logits, count) {
  const chances = logits.slice();
  softmaxInPlace(chances, 0, chances.length);
  return topIndices(chances, count).map((id) => [id, chances[id]]);
}

/**
 * Compress as zlib does; `inflate` undoes it.
 * @param {{buffer: ArrayBufferLike, byteOffset: number, byteLength: number}} values
 */
export async function deflate({ buffer, byteOffset, byteLength }) {
  const bytes = new Uint8Array(/** @type {ArrayBuffer} */ (buffer), byteOffset, byteLength);
  const packed = new Blob([bytes]).stream().pipeThrough(new CompressionStream("deflate"));
  return new Uint8Array(await new Response(packed).arrayBuffer());
}
