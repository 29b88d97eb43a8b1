// RopeExplorer: everything is computed here, from the frequencies and two vectors.
// `data` is described in _rope_view.py.

import {
  choice, choose, chosen, frame, hover, ink, node, onLook, painted, say, slider,
} from "./common.js";
import { short } from "./parts.js";
import { curvePanel, grouped, numbersPanel, pairPanel, tablesPanel } from "./rope_panels.js";

/**
 * @import { Choose, Point, Rope, RopeData, RopeModel, RopePanel, RopeState } from "./types.d.ts"
 */

/** @param {{model: RopeModel, el: HTMLElement}} place */
export function render({ model, el }) {
  const { root, controls, stage, live } = frame(el, "Rotary position embedding");
  const data = model.get("data");
  const rope = rotation(data);
  /** @type {Choose<RopeState>} */
  const pick = (patch) => choose(model, patch);
  const title = node("h2", { class: "qk-rope-title" });
  const bar = ropeControls(data, chosen(model), model, pick);
  root.classList.add("qk-quiet");
  controls.classList.add("qk-settings");
  controls.append(...bar.parts);
  stage.classList.add("qk-rope");
  /** @type {RopePanel[]} */
  const parts = [pairPanel(), numbersPanel(), tablesPanel(rope, model, pick),
    curvePanel(rope, model, pick)];
  stage.before(title);
  stage.append(...parts.map((part) => part.panel));
  for (const part of parts) if (part.canvas && part.words) hover(root, part.canvas, part.words);

  function draw() {
    const state = chosen(model);
    const now = rope.at(state);
    title.textContent = now.title;
    bar.update(state);
    const color = (/** @type {string} */ name) => ink(root, name);
    for (const part of parts) part.draw(state, now, color);
    say(live, `${now.title}. Query at ${state.query}, key at ${state.key}, distance `
      + `${state.query - state.key}: q·k ${short(now.product)}, `
      + `this pair ${short(now.pairProduct)}`);
    root.qk = { state, ...now };
    painted(root);
  }
  model.on("change:state", draw);
  draw();
  const end = onLook(root, draw);
  return () => {
    end();
    model.off("change:state", draw);
  };
}

// ---- the computation ----

/** @param {RopeData} data @returns {Rope} */
export function rotation({ thetas, frequencies, factor, vectors, positions }) {
  const half = vectors[0].length / 2;
  /** @param {number} theta */
  const speeds = (theta) => frequencies[thetas.indexOf(theta)];
  /** @param {number[]} vector @param {number} pair @param {number} angle @returns {Point} */
  const turn = (vector, pair, angle) => {
    const [a, b] = [vector[pair], vector[pair + half]];
    const [cos, sin] = [Math.cos(angle) * factor, Math.sin(angle) * factor];
    return [a * cos - b * sin, b * cos + a * sin];
  };
  /** @param {Point} one @param {Point} other */
  const dot = ([a, b], [c, d]) => a * c + b * d;
  /** @param {number[]} vector @param {number} pair @returns {Point} */
  const partsOf = (vector, pair) => [vector[pair], vector[pair + half]];

  // q·k of one pair from the difference of its angles: the factors of its cos and of its sin.
  const weights = Array.from({ length: half }, (_, pair) => {
    const [[qa, qb], [ka, kb]] = vectors.map((vector) => partsOf(vector, pair));
    return [factor ** 2 * (qa * ka + qb * kb), factor ** 2 * (qa * kb - qb * ka)];
  });
  /** @param {number} pair @param {number} angle */
  const partAt = (pair, angle) =>
    weights[pair][0] * Math.cos(angle) + weights[pair][1] * Math.sin(angle);
  const distances = Array.from({ length: 2 * positions - 1 }, (_, i) => i + 1 - positions);
  const products = remembered((theta) => distances.map((distance) =>
    speeds(theta).reduce((sum, speed, pair) => sum + partAt(pair, distance * speed), 0)));
  const tables = remembered((theta) => [Math.cos, Math.sin].map((wave) =>
    Float32Array.from({ length: positions * half }, (_, i) =>
      wave(Math.floor(i / half) * speeds(theta)[i % half]) * factor)));

  /** @type {Rope["at"]} */
  function at({ pair, query, key, theta }) {
    const speed = speeds(theta);
    /** @param {number} one @returns {[Point, Point]} */
    const rotated = (one) => [turn(vectors[0], one, query * speed[one]),
      turn(vectors[1], one, key * speed[one])];
    const [cos, sin] = tables(theta);
    const round = 2 * Math.PI / speed[pair];
    return {
      before: vectors.map((vector) => partsOf(vector, pair)),
      after: rotated(pair),
      angles: [query, key].map((position) => position * speed[pair]),
      product: speed.reduce((sum, _, one) => sum + dot(...rotated(one)), 0),
      pairProduct: dot(...rotated(pair)),
      products: products(theta),
      pairProducts: distances.map((distance) => partAt(pair, distance * speed[pair])),
      cos, sin,
      title: `Pair ${pair}, dimensions ${pair} and ${pair + half}: `
        + `a full rotation every ${grouped(round, 1)} positions`,
    };
  }
  return { at, half, positions };
}

// Compute once for each argument.
/** @template Value @param {(key: number) => Value} compute @returns {(key: number) => Value} */
function remembered(compute) {
  /** @type {Map<number, Value>} */
  const known = new Map();
  return (key) => {
    const value = known.has(key) ? /** @type {Value} */ (known.get(key)) : compute(key);
    known.set(key, value);
    return value;
  };
}

// ---- controls ----

/**
 * @param {RopeData} data @param {RopeState} state @param {RopeModel} model
 * @param {Choose<RopeState>} pick
 */
function ropeControls(data, state, model, pick) {
  const last = data.positions - 1;
  /** @param {"query" | "key"} name @param {string} label */
  const position = (name, label) => slider({
    label, min: 0, max: last, value: state[name], on: (value) => pick({ [name]: value }),
  });
  const pair = slider({
    label: "Pair", min: 0, max: data.vectors[0].length / 2 - 1, value: state.pair,
    on: (value) => pick({ pair: value }),
  });
  const query = position("query", "Query at"), key = position("key", "Key at");
  const shift = slider({
    label: "Shift both", min: 0, max: last, value: 0, show: () => `${chosen(model).query} and ${chosen(model).key}`,
    on(value) {
      const { query, key } = chosen(model);
      const by = value - Math.min(query, key);
      pick({ query: query + by, key: key + by });
    },
  });
  const theta = choice({
    label: "Theta", value: String(state.theta), on: (value) => pick({ theta: Number(value) }),
    options: data.thetas.map((one) => [String(one),
      grouped(one) + (one === data.own && data.scaled ? ` (with ${data.scaled})` : "")]),
  });
  /** @param {RopeState} next */
  function update(next) {
    pair.update(next.pair);
    query.update(next.query);
    key.update(next.key);
    theta.update(String(next.theta));
    shift.input.max = String(last - Math.abs(next.query - next.key));
    shift.update(Math.min(next.query, next.key));
    shift.input.setAttribute("aria-valuetext", `query ${next.query}, key ${next.key}`);
  }
  return { parts: [pair, query, key, shift, theta], update };
}
