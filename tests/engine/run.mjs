// Answers the questions of test_engine.py: node run.mjs MODEL_FOLDER QUESTIONS.json ANSWERS.json

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [folder, asked, answered] = process.argv.slice(2);
const engine = new URL("../../qwenkit/widgets/static/engine/", import.meta.url);
const load = (name) => import(new URL(name, engine));
const { readTensors } = await load("safetensors.js");
const { Tokenizer } = await load("tokenizer.js");
const { Model, Cache } = await load("model.js");
const { Trace } = await load("trace.js");
const { generate } = await load("generate.js");
const { probabilities } = await load("sampling.js");

const json = (name) => JSON.parse(readFileSync(join(folder, name), "utf8"));
const bytes = readFileSync(join(folder, "model.safetensors"));
const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
const tokenizer = new Tokenizer(json("tokenizer.json"));
const model = new Model(json("config.json"), readTensors(buffer));

const EDITS = {
  zero: (value) => value.fill(0),
  triple: (value) => value.map((one) => 3 * one),
  zeroHead2: (value, [, length, size]) => value.fill(0, 2 * length * size, 3 * length * size),
};
const rows = (flat, size) => Array.from({ length: flat.length / size }, (_, i) =>
  Array.from(flat.subarray(i * size, (i + 1) * size)));

const ANSWERS = {
  encode: ({ texts }) => texts.map((text) => tokenizer.encode(text)),
  decode: ({ ids }) => ids.map((one) => tokenizer.decode(one)),
  logits: ({ ids }) => rows(model.forward(ids), model.config.vocab),
  cached: ({ ids, cuts }) => { // the same text in several calls
    const cache = new Cache(model.config, ids.length), found = [];
    [0, ...cuts].forEach((cut, i) => {
      found.push(...rows(model.forward(ids.slice(cut, cuts[i] ?? ids.length), { cache }), model.config.vocab));
    });
    return found;
  },
  trace: ({ ids }) => {
    const trace = new Trace();
    model.forward(ids, { trace });
    return Object.fromEntries([...trace.values].map(([name, { value, shape }]) =>
      [name, { shape, value: Array.from(value, (one) => Number.isFinite(one) ? one : null) }]));
  },
  edited: ({ ids, edits }) => {
    const functions = Object.fromEntries(Object.entries(edits).map(([at, how]) => [at, EDITS[how]]));
    return rows(model.forward(ids, { trace: new Trace({ keep: [], edits: functions }) }), model.config.vocab);
  },
  generate: ({ ids, options }) => Array.from(generate(model, ids, options), (step) => step.id),
  probabilities: ({ logits, options }) =>
    Array.from(probabilities(Float32Array.from(logits, (one) => one ?? -Infinity), options)),
  speed: ({ ids, count }) => {
    let start = performance.now(), first = 0, made = 0;
    for (const _ of generate(model, ids, { count })) {
      if (++made === 1) [first, start] = [performance.now() - start, performance.now()];
    }
    return { first, perSecond: 1000 * (made - 1) / (performance.now() - start) };
  },
  fails: ({ what, with: given }) => {
    const tries = {
      ids: () => model.forward(given), point: () => new Trace({ keep: [given] }),
      edit: () => model.forward([1], { trace: new Trace({ edits: { embed: () => given } }) }),
      file: () => readTensors(Uint8Array.from(given).buffer), tokenizer: () => new Tokenizer(given),
      room: () => model.forward([1, 2, 3], { cache: new Cache(model.config, given) }),
      options: () => probabilities(Float32Array.of(1, 2), given), token: () => tokenizer.decode([given]),
    };
    try { tries[what](); } catch (error) { return error.message; }
    return null;
  },
};
const questions = JSON.parse(readFileSync(asked, "utf8"));
const answers = questions.map(({ ask, ...rest }) => ANSWERS[ask](rest));
writeFileSync(answered, JSON.stringify(answers));
