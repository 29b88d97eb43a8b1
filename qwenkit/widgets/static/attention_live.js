// AttentionExplorer in a page that carries its model: `data` as attention.py has it.

import { render } from "./attention.js";
import { liveModel, promptIds } from "./live.js";
import { farToken, hasInduction, livePatterns, strongestHeads } from "./live_patterns.js";

/** @import { AttentionData, Engine, LiveAnswers, Standalone } from "./types.d.ts" */

/** @param {{model: Standalone, el: HTMLElement}} place */
export async function renderLive({ model, el }) {
  return render({ model: await liveModel(model, attentionAnswers), el });
}

/** @param {Engine} engine @returns {LiveAnswers} */
function attentionAnswers(engine) {
  const { most, largest, meaning } = engine.settings;
  return {
    async prompt(text) {
      const ids = promptIds(engine, text, most);
      const read = await livePatterns(engine, ids, largest);
      const { layers, heads, weights, titles, tokens, factor } = read;
      const labels = Array.from({ length: Math.ceil(tokens.length / factor) }, (_, i) =>
        tokens.slice(i * factor, (i + 1) * factor).join(""));
      const pooling = factor === 1 ? "" : `${tokens.length.toLocaleString("en")} tokens: each pixel `
        + `is the largest of ${factor} × ${factor} weights`;
      /** @type {AttentionData} */
      const data = {
        layers, heads, weights, titles, labels, length: tokens.length, factor,
        strongest: strongestHeads(read), pooling, meaning: hasInduction(read) ? meaning : "",
      };
      const state = engine.model.get("state");
      return { data, state: { ...state, token: farToken(read, state) } };
    },
  };
}
