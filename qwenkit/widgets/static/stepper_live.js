// GenerationStepper in a page that carries its model: `data` as stepper.py has it.

import { Cache } from "./engine/model.js";
import { liveModel, promptIds, tokenStrings, topTokens } from "./live.js";
import { render } from "./stepper.js";

/** @import { Engine, LiveAnswers, Offer, Standalone, StepperData } from "./types.d.ts" */

/** @param {{model: Standalone, el: HTMLElement}} place */
export async function renderLive({ model, el }) {
  return render({ model: await liveModel(model, stepperAnswers), el });
}

/** @param {Engine} engine @returns {LiveAnswers} */
function stepperAnswers(engine) {
  const { net, tokenizer, settings, model } = engine;
  const data = () => /** @type {StepperData} */ (model.get("data"));
  const fresh = (/** @type {string} */ text) => {
    const ids = promptIds(engine, text, net.config.longest - data().max_new_tokens);
    /** @type {number[]} */
    const held = []; // the ids whose keys and values the cache holds
    return { ids, held, cache: new Cache(net.config, ids.length + data().max_new_tokens) };
  };
  /** @type {ReturnType<typeof fresh> | null} */
  let text = null;

  /** Add what comes next after each beginning of a path, as StepperView has it. */
  function visit(/** @type {Record<string, Offer[]>} */ visited, /** @type {number[]} */ path) {
    text ??= fresh(model.get("prompt"));
    const known = { ...visited };
    for (let step = 0; step <= path.length; step++) {
      const begun = path.slice(0, step), key = begun.join(",");
      if (key in known) continue;
      const ended = step > 0 && data().stop_ids.includes(path[step - 1]);
      known[key] = ended ? [] : next([...text.ids, ...begun]);
    }
    return known;
  }
  /** The most likely tokens after some ids; only those that the cache lacks are computed. */
  function next(/** @type {number[]} */ ids) {
    const { held, cache } = /** @type {ReturnType<typeof fresh>} */ (text);
    let same = 0;
    while (same < held.length && same < ids.length - 1 && held[same] === ids[same]) same++;
    cache.length = same;
    held.splice(same, held.length, ...ids.slice(same));
    const logits = net.forward(ids.slice(same), { cache, last: true });
    return topTokens(logits.subarray(0, settings.tokens), settings.offered)
      .map(([id, chance]) => /** @type {Offer} */ ([id, tokenStrings(tokenizer, [id])[0], chance]));
  }
  return {
    async prompt(words) {
      text = fresh(words);
      const prompt = tokenStrings(tokenizer, text.ids);
      return { data: { ...data(), prompt, visited: visit({}, []) }, state: { path: [], at: 0 } };
    },
    state() {
      return { data: { ...data(), visited: visit(data().visited, model.get("state").path) } };
    },
  };
}
