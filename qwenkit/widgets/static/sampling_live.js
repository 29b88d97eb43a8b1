// SamplingExplorer in a page that carries its model: `data` as sampling.py has it.

import { deflate, liveModel, promptIds, tokenStrings } from "./live.js";
import { render } from "./sampling.js";

/** @import { Engine, LiveAnswers, SamplingData, Standalone } from "./types.d.ts" */

/** @param {{model: Standalone, el: HTMLElement}} place */
export async function renderLive({ model, el }) {
  return render({ model: await liveModel(model, samplingAnswers), el });
}

/** @param {Engine} engine @returns {LiveAnswers} */
function samplingAnswers(engine) {
  const { net, tokenizer, settings, model } = engine;
  const { tokens: count, named, shown, most_draws } = settings;
  return {
    async prompt(text) {
      const ids = promptIds(engine, text, Infinity);
      const logits = net.forward(ids, { last: true }).subarray(0, count); // without padding rows
      const order = Array.from(logits.keys()).sort((a, b) => logits[b] - logits[a] || a - b);
      const first = order.slice(0, named);
      /** @type {SamplingData} */
      const data = {
        logits: await deflate(Float32Array.from(order, (id) => logits[id])),
        names: tokenStrings(tokenizer, first), ids: first, prompt: tokenStrings(tokenizer, ids),
        shown, most_draws,
      };
      return { data, state: model.get("state") };
    },
  };
}
