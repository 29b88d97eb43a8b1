// The engine's parts one by one: values computed by hand, and input that is refused.
// tests/engine compares the whole engine with the Python package.

import assert from "node:assert/strict";
import { test } from "node:test";

import { load, near } from "./load.mjs";

const ops = await load("engine/ops.js");
const sampling = await load("engine/sampling.js");
const { readHeader, readTensors } = await load("engine/safetensors.js");
const { QWEN_PATTERN, Tokenizer } = await load("engine/tokenizer.js");
const { POINTS, Trace } = await load("engine/trace.js");
const { Cache, Model, readConfig } = await load("engine/model.js");
const { generate } = await load("engine/generate.js");

const floats = (...values) => Float32Array.from(values);

// A test for each row: what is tried, and the start of the error's message.
function refused(what, rows) {
  for (const [name, attempt, message] of rows)
    test(`${what} refuses ${name}`, () => {
      assert.throws(attempt, (error) => {
        assert.ok(error.message.startsWith(message), error.message);
        return true;
      });
    });
}

// ---- ops ----

test("linear multiplies each row by the weight's rows, also beyond a multiple of four", () => {
  const weight = { shape: [2, 5], data: floats(1, 2, 3, 4, 5, 1, 0, -1, 0, 2) };
  const x = floats(1, 1, 1, 1, 1, 1, 2, 3, 4, 5);
  near(ops.linear(x, weight), [15, 2, 55, 8]);
  near(ops.linear(x, weight, floats(0.5, -1)), [15.5, 1, 55.5, 7]);
});

test("rmsNorm divides each row by its root mean square", () => {
  near(ops.rmsNorm(floats(3, 4, 0, 5), floats(1, 2), 0),
    [3 / Math.sqrt(12.5), 8 / Math.sqrt(12.5), 0, 2 * Math.SQRT2], 1e-6);
  near(ops.rmsNorm(floats(0, 0), floats(1, 1), 1e-6), [0, 0]);
});

test("softmaxInPlace changes its own values alone, and -Infinity becomes 0", () => {
  const values = floats(9, Math.log(1), Math.log(3), -Infinity, 9);
  ops.softmaxInPlace(values, 1, 3);
  near(values, [9, 0.25, 0.75, 0, 9], 1e-7);
  const large = floats(1000, 1000); // no overflow
  ops.softmaxInPlace(large, 0, 2);
  near(large, [0.5, 0.5]);
});

test("argmax takes the first of equal values", () => {
  for (const [values, index] of [[[1, 3, 2], 1], [[2, 2], 0], [[-Infinity, -1], 1], [[5], 0]])
    assert.equal(ops.argmax(floats(...values)), index);
});

test("silu and sum", () => {
  near([0, 1, -1].map(ops.silu), [0, 0.7310585786300049, -0.2689414213699951]);
  near(ops.sum(floats(1, 2), floats(10, -2)), [11, 0]);
});

// ---- sampling ----

const logits = floats(...[0.5, 0.25, 0.125, 0.125].map(Math.log));

test("probabilities keep what the settings allow", () => {
  const rows = [
    [{}, [0.5, 0.25, 0.125, 0.125]],
    [{ temperature: 0 }, [1, 0, 0, 0]],
    [{ temperature: 0.5 }, [16 / 22, 4 / 22, 1 / 22, 1 / 22]],
    [{ topK: 1 }, [1, 0, 0, 0]],
    [{ topK: 3 }, [0.5, 0.25, 0.125, 0.125]], // the fourth is as likely as the third
    [{ topK: 9 }, [0.5, 0.25, 0.125, 0.125]],
    [{ topP: 0.4 }, [1, 0, 0, 0]],
    [{ topP: 0.6 }, [2 / 3, 1 / 3, 0, 0]],
    [{ topP: 0.8 }, [4 / 7, 2 / 7, 1 / 7, 0]],
    [{ topK: 2, topP: 0.9 }, [2 / 3, 1 / 3, 0, 0]],
  ];
  for (const [options, wanted] of rows) near(sampling.probabilities(logits, options), wanted, 1e-6);
});

refused("probabilities", [
  ["a negative temperature", () => sampling.probabilities(logits, { temperature: -1 }), "The temperature is -1"],
  ["a temperature of NaN", () => sampling.probabilities(logits, { temperature: NaN }), "The temperature is NaN"],
  ["topP 0", () => sampling.probabilities(logits, { topP: 0 }), "topP is 0"],
  ["topP above 1", () => sampling.probabilities(logits, { topP: 1.1 }), "topP is 1.1"],
  ["topK -1", () => sampling.probabilities(logits, { topK: -1 }), "topK is -1"],
  ["half a token", () => sampling.probabilities(logits, { topK: 0.5 }), "topK is 0.5"],
]);

test("draw takes the token whose part of [0, 1) holds the number", () => {
  const values = floats(0.25, 0, 0.5, 0.25);
  const rows = [[0, 0], [0.2499, 0], [0.25, 2], [0.7499, 2], [0.75, 3], [0.9999999, 3]];
  for (const [number, token] of rows) assert.equal(sampling.draw(values, number), token);
  assert.equal(sampling.draw(floats(0.5, 0.49, 0), 0.995), 1); // a gap left by rounding
});

test("random is mulberry32", () => {
  near([0, 1, 2 ** 32 - 1].map((seed) => sampling.random(seed)()),
    [0.26642920868471265, 0.6270739405881613, 0.8964226141106337]);
});

// ---- safetensors ----

// A file with this header (an object, or any text) and these bytes.
function file(header, bytes = []) {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const whole = new Uint8Array(8 + text.length + bytes.length);
  new DataView(whole.buffer).setBigUint64(0, BigInt(text.length), true);
  whole.set(text, 8);
  whole.set(bytes, 8 + text.length);
  return whole.buffer;
}
const entry = (dtype, shape, from, to) => ({ dtype, shape, data_offsets: [from, to] });

test("float32, bfloat16 and float16 are read as they are", () => {
  const rows = [
    ["F32", [0, 0, 0xc0, 0x3f, 0, 0, 0x80, 0xff], [1.5, -Infinity]],
    ["BF16", [0xc0, 0x3f, 0x80, 0xff, 0xc0, 0x7f], [1.5, -Infinity, NaN]],
    ["F16", [0, 0x3e, 1, 0, 0xff, 3, 0, 0x7c, 0, 0x7e, 0xff, 0xfb, 0, 0x80],
      [1.5, 2 ** -24, 1023 * 2 ** -24, Infinity, NaN, -65504, -0]],
  ];
  for (const [dtype, bytes, wanted] of rows) {
    const found = readTensors(file({ __metadata__: { a: "b" },
      x: entry(dtype, [wanted.length], 0, bytes.length) }, bytes));
    assert.deepEqual([...found.keys()], ["x"]);
    assert.deepEqual([...found.get("x").data], wanted);
  }
});

test("the tensors' bytes begin after the header", () => {
  const buffer = file({ x: entry("F32", [2, 1], 0, 8), y: entry("F32", [], 8, 12) }, Array(12).fill(0));
  const { entries, start } = readHeader(buffer);
  assert.equal(start, buffer.byteLength - 12);
  assert.deepEqual(entries.get("x").shape, [2, 1]);
  assert.equal(readTensors(buffer).get("y").data.length, 1);
});

const huge = new Uint8Array(16).fill(255).buffer;
refused("readTensors", [
  ["an empty file", () => readTensors(new ArrayBuffer(0)), "The file is shorter than a safetensors header."],
  ["seven bytes", () => readTensors(new ArrayBuffer(7)), "The file is shorter than a safetensors header."],
  ["a header that is cut off", () => readTensors(file("{}").slice(0, 9)), "The header should have 2 bytes"],
  ["a huge header", () => readTensors(huge), "The header should have 18446744073709552000 bytes"],
  ["bytes that are not there", () => readTensors(file({ x: entry("F32", [1], 0, 4) }, [0, 0])),
    "The bytes of x are not in the file"],
  ["offsets in the wrong order", () => readTensors(file({ x: entry("F32", [1], 4, 0) }, [0, 0, 0, 0])),
    "The bytes of x are not in the file"],
  ["a negative offset", () => readTensors(file({ x: entry("F32", [1], -4, 0) }, [0, 0, 0, 0])),
    "The bytes of x are not in the file"],
  ["int64", () => readTensors(file({ x: entry("I64", [1], 0, 8) }, Array(8).fill(0))), "x has dtype I64"],
  ["a shape of other size", () => readTensors(file({ x: entry("F32", [2, 3], 0, 8) }, Array(8).fill(0))),
    "x has 2 values; its shape 2 × 3 has 6."],
  ["a header that is not JSON", () => readTensors(file("{x")), ""], // words of the runtime
  ["a header that is not UTF-8", () => readTensors(Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0, 255).buffer), ""],
]);

// ---- the tokenizer ----

const VOCAB = ["a", "b", "c", "ab", "abc", "Ġ", "Ġab", "Ã", "©", "1"];
const json = (changes = {}) => ({
  model: { type: "BPE", vocab: Object.fromEntries(VOCAB.map((piece, id) => [piece, id])),
    merges: ["a b", ["ab", "c"], "Ġ ab"] },
  pre_tokenizer: { pretokenizers: [{ type: "Split", pattern: { Regex: QWEN_PATTERN } }] },
  normalizer: { type: "NFC" },
  added_tokens: [{ id: 20, content: "<|x|>" }, { id: 21, content: "<|x|>y" }],
  ...changes,
});

test("merges go by their rank, and special tokens by the longest match", () => {
  const tokenizer = new Tokenizer(json());
  const rows = [
    ["", []], ["a", [0]], ["abc", [4]], ["cab", [2, 3]], [" abc", [5, 4]], [" ab", [6]], ["11", [9, 9]],
    ["é", [7, 8]], ["e\u0301", [7, 8]], // both ways to write é
    ["<|x|>ab", [20, 3]], ["<|x|>y", [21]], ["a<|x|>", [0, 20]],
  ];
  for (const [text, ids] of rows) {
    assert.deepEqual(tokenizer.encode(text), ids, text);
    assert.equal(tokenizer.decode(ids), text.normalize("NFC"));
  }
  assert.equal(tokenizer.decode([7]), "\ufffd");
});

refused("Tokenizer", [
  ["null", () => new Tokenizer(null), "This tokenizer.json is not one of Qwen's"],
  ["another model", () => new Tokenizer(json({ model: { type: "Unigram" } })), "This tokenizer.json"],
  ["another pattern", () => new Tokenizer(json({ pre_tokenizer: { pretokenizers: [
    { type: "Split", pattern: { Regex: "\\w+" } }] } })), "This tokenizer.json"],
  ["no pre-tokenizer", () => new Tokenizer(json({ pre_tokenizer: null })), "This tokenizer.json"],
  ["a piece that is not in the vocabulary", () => new Tokenizer(json()).encode("z"), 'The vocabulary lacks "z".'],
  ["an unknown id", () => new Tokenizer(json()).decode([99]), "There is no token 99."],
  ["half an id", () => new Tokenizer(json()).decode([0.5]), "There is no token 0.5."],
]);

// ---- trace ----

test("a trace keeps what is named, in all layers or in one, and edits come first", () => {
  const trace = new Trace({ keep: ["attn.z", "layers.1.mlp.out"], edits: { "layers.0.attn.z": (x) => x.fill(7) } });
  const value = floats(1, 2);
  assert.deepEqual([...trace.tap("attn.z", value, [2], 0)], [7, 7]);
  assert.deepEqual([...value], [1, 2]); // the edit got a copy
  for (const layer of [0, 1]) trace.tap("mlp.out", value, [2], layer);
  assert.deepEqual([...trace.values.keys()], ["layers.0.attn.z", "layers.1.mlp.out"]);
  assert.deepEqual([...trace.get("layers.0.attn.z")], [7, 7]);
  assert.equal(new Trace().keep.size, POINTS.length);
});

refused("Trace", [
  ["an unknown point", () => new Trace({ keep: ["attn.nothing"] }), "attn.nothing is not a point of the model"],
  ["a layer of what is there once", () => new Trace({ keep: ["layers.0.logits"] }), "layers.0.logits is not"],
  ["a layer that is not a number", () => new Trace({ keep: ["layers.x.attn.z"] }), "layers.x.attn.z is not"],
  ["an edit of an unknown point", () => new Trace({ edits: { mlp: (x) => x } }), "mlp is not a point"],
  ["a value that was not recorded", () => new Trace().get("embed"), "embed was not recorded."],
  ["an edit of other length", () => new Trace({ edits: { embed: () => floats(1) } }).tap("embed", floats(1, 2), [2]),
    "The edit of embed must return a Float32Array of 2 values."],
  ["an edit that returns a list", () => new Trace({ edits: { "attn.z": (x) => [...x] } })
    .tap("attn.z", floats(1), [1], 3), "The edit of layers.3.attn.z must return a Float32Array of 1 values."],
]);

// ---- the model ----

const CONFIG = {
  model_type: "qwen2", num_attention_heads: 2, num_key_value_heads: 1, hidden_size: 4,
  num_hidden_layers: 2, rope_theta: 100, rms_norm_eps: 0, vocab_size: 3, max_position_embeddings: 4,
  tie_word_embeddings: true,
};

// Attention and MLP add nothing, so that the logits are easy to compute by hand.
function tiny(changes = {}) {
  const tensors = new Map([
    ["model.embed_tokens.weight", { shape: [3, 4], data: floats(2, 0, 0, 0, 0, 2, 0, 0, 1, 1, 1, 1) }],
    ["model.norm.weight", { shape: [4], data: floats(1, 1, 1, 1) }],
  ]);
  const shapes = {
    "self_attn.q_proj.weight": [4, 4], "self_attn.k_proj.weight": [2, 4], "self_attn.v_proj.weight": [2, 4],
    "self_attn.o_proj.weight": [4, 4], "mlp.gate_proj.weight": [6, 4], "mlp.up_proj.weight": [6, 4],
    "mlp.down_proj.weight": [4, 6], "input_layernorm.weight": [4], "post_attention_layernorm.weight": [4],
  };
  for (const layer of [0, 1])
    for (const [name, shape] of Object.entries(shapes))
      tensors.set(`model.layers.${layer}.${name}`, {
        shape, data: new Float32Array(shape.reduce((one, other) => one * other)).fill(shape.length === 1 ? 1 : 0),
      });
  return new Model({ ...CONFIG, ...changes }, tensors);
}

test("logits by hand: the normalized embedding times all embeddings", () => {
  const model = tiny(), rows = [[4, 0, 2], [0, 4, 2], [2, 2, 4]];
  near(model.forward([0, 1, 2]), rows, 1e-6);
  near(model.forward([0, 1, 2], { last: true }), rows[2], 1e-6);
  const cache = new Cache(model.config, 4);
  near([model.forward([0], { cache }), model.forward([1, 2], { cache })], rows, 1e-6);
  assert.equal(cache.length, 3);
});

test("the first position attends to itself alone, the second to both alike", () => {
  const trace = new Trace({ keep: ["attn.pattern"] });
  tiny().forward([0, 1], { trace });
  near(trace.get("layers.1.attn.pattern"), [1, 0, 0.5, 0.5, 1, 0, 0.5, 0.5]);
});

test("RoPE rotates the pair (i, i + D/2) by position times frequency", () => {
  const model = tiny({ hidden_size: 8, head_dim: 4 });
  near(model.frequencies, [1, 0.1], 1e-7);
  const found = model.rotated(floats(1, 1, 0, 0, 1, 1, 0, 0), 2, 3); // positions 3 and 4
  near(found, [3, 4].flatMap((at) => [Math.cos(at), Math.cos(at / 10), Math.sin(at), Math.sin(at / 10)]), 1e-6);
});

test("generation stops at a stop id, at the count, and where the model's context ends", () => {
  const ids = (options) => Array.from(generate(tiny(), [0], options), (step) => step.id);
  assert.deepEqual(ids({ count: 2 }), [0, 0]);
  assert.deepEqual(ids({ stop: [0] }), [0]);
  assert.deepEqual(ids({}), [0, 0, 0, 0]); // after 4 tokens none can be read
  assert.deepEqual(ids({ count: 0 }), []);
});

const room = (size, read = 0) => {
  const model = tiny(), cache = new Cache(model.config, size);
  if (read) model.forward(Array(read).fill(0), { cache });
  return (count) => model.forward(Array(count).fill(0), { cache });
};
refused("the model", [
  ["a token that is not there", () => tiny().forward([3]), "3 is not a token id; they go from 0 to 2."],
  ["a negative token", () => tiny().forward([0, -1]), "-1 is not a token id"],
  ["half a token", () => tiny().forward([0.5]), "0.5 is not a token id"],
  ["no token", () => tiny().forward([]), "There is no token to read."],
  ["more than the cache has room for", () => room(2)(3), "The cache has room for 2 tokens, not for 3."],
  ["more than is left in the cache", () => room(3, 2)(2), "The cache has room for 3 tokens, not for 4."],
  ["more than its context", () => tiny().forward([0, 0, 0, 0, 0]), "The model reads at most 4 tokens, not 5."],
  ["more than its context with a cache", () => room(9, 3)(2), "The model reads at most 4 tokens, not 5."],
  ["a missing tensor", () => tiny({ num_hidden_layers: 3 }).forward([0]), "The checkpoint lacks model.layers.2."],
  ["a missing head", () => tiny({ tie_word_embeddings: false }), "The checkpoint lacks lm_head.weight."],
  ["another architecture", () => readConfig({ ...CONFIG, model_type: "llama" }), "The model is a llama"],
  ["RoPE scaling", () => readConfig({ ...CONFIG, rope_scaling: { type: "yarn" } }), "RoPE scaling"],
  ["a sliding window", () => readConfig({ ...CONFIG, use_sliding_window: true }), "A sliding window"],
]);

test("a refused call leaves the cache as it was", () => {
  const model = tiny(), cache = new Cache(model.config, 2);
  assert.throws(() => model.forward([0, 1, 2], { cache }));
  assert.equal(cache.length, 0);
  near(model.forward([2], { cache }), [2, 2, 4], 1e-6);
});
