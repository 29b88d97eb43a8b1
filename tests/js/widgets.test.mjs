// The numbers behind the widgets' pictures, computed by hand. tests/browser draws the pictures.

import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync } from "node:zlib";

import { load, near } from "./load.mjs";

const common = await load("common.js");
const parts = await load("parts.js");
const maps = await load("maps.js");
const sampling = await load("sampling.js");
const gqa = await load("gqa.js");
const rope = await load("rope.js");
const ropePanels = await load("rope_panels.js");
const layer = await load("layer.js");
const layerPanels = await load("layer_panels.js");
const attention = await load("attention.js");
const attentionMap = await load("attention_map.js");
const checkpoint = await load("checkpoint.js");
const stepper = await load("stepper.js");
const engine = await load("engine/sampling.js");

// A test for each function: rows of arguments and the result.
function table(name, apply, rows) {
  test(name, () => {
    for (const [...row] of rows) {
      const wanted = row.pop();
      assert.deepEqual(apply(...row), wanted, `${name}(${row.map((one) => JSON.stringify(one))})`);
    }
  });
}

// ---- common ----

table("percent", common.percent, [
  [0, "0%"], [0.001, "<1%"], [0.0099, "<1%"], [0.01, "1%"], [0.014, "1%"], [0.5, "50%"],
  [0.996, "100%"], [1, "100%"],
]);

test("a page without a kernel keeps values, unpacks bytes and tells what changes", () => {
  const model = common.standalone({
    state: { at: 1 }, data: { list: [{ base64: "AP8=" }, null], text: "base64", both: { base64: "", a: 1 } },
  });
  assert.deepEqual(model.get("data"),
    { list: [Uint8Array.of(0, 255), null], text: "base64", both: { base64: "", a: 1 } });
  const heard = [];
  model.on("change:state", () => heard.push(model.get("state")));
  model.on("change:data", () => heard.push("data"));
  common.choose(model, { path: [2] });
  assert.deepEqual(heard, [{ at: 1, path: [2] }]);
  assert.deepEqual(common.chosen(model), { at: 1, path: [2] });
  assert.equal(model.alone, true);
});

test("inflate takes bytes of every kind, also a part of a larger buffer", async () => {
  const bytes = Uint8Array.from({ length: 1000 }, (_, i) => i % 7), packed = deflateSync(bytes);
  const larger = new Uint8Array(packed.length + 8);
  larger.set(packed, 5);
  const view = new DataView(larger.buffer, 5, packed.length);
  const buffer = larger.buffer.slice(5, 5 + packed.length);
  for (const one of [new Uint8Array(packed), larger.subarray(5, 5 + packed.length), view, buffer])
    assert.deepEqual(await common.inflate(one), bytes);
  await assert.rejects(common.inflate(Uint8Array.of(1, 2, 3)));
});

test("a color map is 256 pixels, red in the lowest byte", async () => {
  assert.equal(common.PACKED.viridis.length, 256);
  assert.equal(common.PACKED.viridis[0], 0xff000000);
  assert.equal(common.PACKED.RdBu_r[0x12], 0xff121212);
  globalThis.MAPS = { cividis: "aabbcc".repeat(256) };
  const { PACKED } = await import(`${new URL("../../qwenkit/widgets/static/common.js", import.meta.url)}?other`);
  assert.equal(PACKED.cividis[255], 0xffccbbaa);
});

test("heat paints each value between the ends of the map, and what is beyond at the end", () => {
  let pixels;
  const context = {
    createImageData: (width, height) => ({ data: new Uint8ClampedArray(4 * width * height) }),
    putImageData: ({ data }) => { pixels = [...new Uint32Array(data.buffer)]; },
  };
  const canvas = { getContext: () => context };
  common.heat(canvas, [-1, 0, 0.5, 1, 9, -9], 2, 3, { low: -1, high: 1 });
  assert.deepEqual([canvas.width, canvas.height], [3, 2]);
  assert.deepEqual(pixels.map((pixel) => pixel & 255), [0, 128, 191, 255, 255, 0]);
  common.heat(canvas, [5, 6], 1, 2, { low: 5, high: 5 }); // no range: no division by zero
  assert.deepEqual(pixels.map((pixel) => pixel & 255), [0, 255]);
});

// ---- parts ----

table("short", parts.short, [
  [0, "0.00"], [0.001, "0.0010"], [0.00999, "0.0100"], [0.01, "0.01"], [9.999, "10.00"], [10, "10.0"],
  [99.96, "100.0"], [100, "100"], [12345.6, "12346"], [-1.5, "−1.50"], [-0.002, "−0.0020"],
]);

table("sizeOf", parts.sizeOf, [
  [0, "0 B"], [1, "1 B"], [999, "999 B"], [1000, "1 kB"], [1234, "1.23 kB"], [999499, "999 kB"],
  [999500, "1 MB"], [999600, "1 MB"], [403e6, "403 MB"], [988097536, "988 MB"], [1.5e9, "1.5 GB"],
  [2e12, "2 TB"], [5e15, "5000 TB"],
]);

test("keys walk along positions and stay within them", () => {
  let at = 5;
  const keys = parts.walkKeys(() => 20, () => at, (next) => { at = next; });
  const walk = (...pressed) => pressed.map((key) => { keys[key](); return at; });
  assert.deepEqual(walk("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"), [6, 7, 6, 5]);
  assert.deepEqual(walk("PageUp", "ArrowLeft", "PageDown", "PageDown"), [0, 0, 10, 19]);
  assert.deepEqual(walk("ArrowRight", "Home", "End"), [19, 0, 19]);
});

test("later calls once, after the last wish", () => {
  const { setTimeout, clearTimeout } = globalThis, planned = new Map();
  globalThis.setTimeout = (action, pause) => planned.set(planned.size + 1, [action, pause]).size;
  globalThis.clearTimeout = (id) => { if (id) planned.set(id, null); };
  try {
    let calls = 0;
    const wish = parts.later(() => { calls++; }, 100);
    wish();
    wish();
    const left = [...planned.values()].filter(Boolean);
    assert.deepEqual([planned.size, left.length, left[0][1], calls], [2, 1, 100, 0]);
    left[0][0]();
    assert.equal(calls, 1);
  } finally {
    Object.assign(globalThis, { setTimeout, clearTimeout });
  }
});

// ---- maps ----

table("AREA", maps.AREA, [[0, 0], [1, 1], [2, 3], [100, 5050]]);

table("shortened", maps.shortened, [
  ["", 3, ""], ["abc", 3, "abc"], ["abcd", 3, "ab…"], ["😀😀😀", 3, "😀😀😀"], ["😀😀😀😀", 3, "😀😀…"],
]);

test("small weights are brought out by their square root", () => {
  const gray = (shades, i) => shades[i] & 255;
  const plain = maps.shadesOf(false), faint = maps.shadesOf(true);
  assert.deepEqual([0, 64, 255].map((i) => gray(plain, i)), [0, 64, 255]);
  assert.deepEqual([0, 1, 64, 255].map((i) => gray(faint, i)), [0, 16, 128, 255]);
});

test("few positions keep the scale to 100%; many get the contrast of their weights", () => {
  assert.equal(maps.brightest(new Uint8Array(maps.AREA(64)), 64), 255);
  const weights = new Uint8Array(maps.AREA(100)).fill(2);
  assert.equal(maps.brightest(weights, 100), 5); // never less
  weights.fill(40, 0, 26).fill(200, 26, 46);
  assert.equal(maps.brightest(weights, 100), 40); // of 5050 weights, 25.25 may be above
  const shades = maps.shadesOf(false, 51);
  assert.deepEqual([0, 17, 51, 255].map((i) => shades[i] & 255), [0, 85, 255, 255]);
});

test("a part of a map is around the chosen position and what it attends to most", () => {
  const weights = new Uint8Array(maps.AREA(100));
  weights[maps.AREA(90) + 20] = 50;
  weights[maps.AREA(90)] = 99; // the first token is left out
  assert.deepEqual(maps.partOf(weights, 100, 90, false, 32), { row: 68, key: 4, span: 32 });
  assert.deepEqual(maps.partOf(weights, 100, 20, true, 32), { row: 68, key: 4, span: 32 });
  assert.deepEqual(maps.partOf(weights, 100, 90, false, 0), { row: 0, key: 0, span: 100 });
  const part = maps.squared(weights, { row: 68, key: 4, span: 32 }, 16);
  assert.equal(part[11 * 16 + 8], 50);
  assert.deepEqual([...maps.squared([1, 2, 3, 4, 5, 6], { row: 0, key: 0, span: 3 }, 3)],
    [1, -1, -1, 2, 3, -1, 4, 5, 6]);
});

// ---- late answers ----

test("a late answer is put back, a new one and the kernel's own are taken", () => {
  const model = common.standalone({ state: { at: 0 } }), page = common.steady(model);
  const seen = [];
  page.on("change:state", () => seen.push(page.get("state").at));
  page.set("state", { at: 1 });
  const old = model.get("state");
  page.set("state", { at: 2 });
  model.set("state", old);
  assert.deepEqual(page.get("state"), { at: 2 });
  assert.ok(!seen.slice(1).includes(1)); // nobody is told of it
  model.set("state", { at: 7, turn: 2 }); // the kernel's choice when it has heard all
  assert.deepEqual(page.get("state"), { at: 7 });
  model.set("state", { at: 8, turn: 1002 }); // for a new text
  page.set("state", { at: 9 });
  assert.deepEqual(model.get("state"), { at: 9, turn: 1003 });
  model.set("state", { at: 3 }); // a kernel that has heard of no choice
  assert.deepEqual(page.get("state"), { at: 3 });
});

// ---- sampling ----

const probs = [0.5, 0.25, 0.125, 0.125];
const logits = Float32Array.from(probs, Math.log);
const plain = { temperature: 1, top_k: 0, top_p: 1, min_p: 0 };

test("softmax divides by the temperature; the largest logit comes first", () => {
  near(sampling.softmax(logits, 1), probs, 1e-7);
  near(sampling.softmax(logits, 0.5), [16 / 22, 4 / 22, 1 / 22, 1 / 22], 1e-7);
  near(sampling.softmax(Float32Array.of(5000, 5000, -5000), 1), [0.5, 0.5, 0]);
});

test("the settings one by one and together: how many stay, and what each cuts", () => {
  const rows = [
    [{}, 4, {}, probs],
    [{ temperature: 0, top_k: 2, top_p: 0.5 }, 1, {}, [1, 0, 0, 0]], // greedy: nothing is cut
    [{ top_k: 1 }, 1, { top_k: [3, 0.5] }, [1, 0, 0, 0]],
    [{ top_k: 3 }, 4, { top_k: [0, 0] }, probs], // the fourth is as likely as the third
    [{ top_k: 100 }, 4, { top_k: [0, 0] }, probs],
    [{ top_p: 0.5 }, 1, { top_p: [3, 0.5] }, [1, 0, 0, 0]],
    [{ top_p: 0.7 }, 2, { top_p: [2, 0.25] }, [2 / 3, 1 / 3, 0, 0]],
    [{ top_p: 0.8 }, 3, { top_p: [1, 0.125] }, [4 / 7, 2 / 7, 1 / 7, 0]],
    [{ min_p: 0.3 }, 2, { min_p: [2, 0.25] }, [2 / 3, 1 / 3, 0, 0]],
    [{ top_k: 2, top_p: 0.6, min_p: 0.9 }, 1, { top_k: [2, 0.25], top_p: [1, 0.25], min_p: [0, 0] },
      [1, 0, 0, 0]],
    [{ temperature: 0.5, min_p: 0.2 }, 2, { min_p: [2, 2 / 22] }, [0.8, 0.2, 0, 0]],
  ];
  for (const [settings, end, cuts, after] of rows) {
    const found = sampling.sampled(logits, { ...plain, ...settings });
    const name = JSON.stringify(settings);
    assert.equal(found.end, end, name);
    assert.deepEqual(Object.keys(found.cuts), Object.keys(cuts), name);
    near(Object.values(found.cuts), Object.values(cuts), 1e-7);
    near(found.after, after, 1e-7);
    near([found.share], [after.reduce((sum, one, i) => sum + (one ? found.tempered[i] : 0), 0)], 1e-12);
  }
});

test("the widget keeps the same tokens as the engine", () => {
  const values = Float32Array.from({ length: 50 }, (_, i) => Math.sin(i) * 3).sort().reverse();
  for (const temperature of [0.3, 1, 1.7])
    for (const top_k of [0, 1, 7, 60])
      for (const top_p of [0.05, 0.5, 0.93, 1]) {
        const found = sampling.sampled(values, { ...plain, temperature, top_k, top_p }).after;
        const wanted = engine.probabilities(values, { temperature, topK: top_k, topP: top_p });
        near(found, wanted, 1e-6);
      }
});

test("entropy in nats", () => {
  near(sampling.entropy(Float64Array.of(0.25, 0.25, 0.25, 0.25)), Math.log(4));
  near(sampling.entropy(Float64Array.of(0.5, 0.25, 0.25)), 1.5 * Math.LN2);
  assert.equal(sampling.entropy(Float64Array.of(1, 0)), 0);
});

test("sumOf takes a part", () => {
  for (const [from, to, wanted] of [[0, 4, 1], [1, 3, 0.375], [2, 2, 0], [3, 2, 0]])
    assert.equal(sampling.sumOf(probs, from, to), wanted);
});

table("above", sampling.above, [
  [[0.5, 0.75, 1], 0, 0], [[0.5, 0.75, 1], 0.5, 1], [[0.5, 0.75, 1], 0.74, 1], [[0.5, 0.75, 1], 0.75, 2],
  [[0.5, 0.75, 1], 1, 2], [[1], 0.3, 0], [[0, 0, 1], 0, 2],
]);

test("random numbers are those of the engine, whatever the seed", () => {
  for (const seed of [0, 1, 42, 2 ** 31, 2 ** 32 - 1]) {
    const next = engine.random(seed);
    for (const number of sampling.randomNumbers(seed, 20)) assert.equal(number, next());
  }
  near([...sampling.randomNumbers(0, 1)], [0.26642920868471265]);
  assert.deepEqual([...sampling.randomNumbers(1, 0)], []);
});

test("draws follow the probabilities and are counted by rank", () => {
  const { order, sums } = sampling.countDraws(Float64Array.from([...probs, 0]), { seed: 3, draws: 10_000 });
  assert.equal(order.length, 10_000);
  assert.equal([...sums.values()].reduce((one, other) => one + other), 10_000);
  assert.equal(sums.has(4), false);
  near(probs.map((_, rank) => sums.get(rank) / 10_000), probs, 0.02);
  const few = sampling.countDraws(Float64Array.from(probs), { seed: 3, draws: 5 });
  assert.deepEqual(few.order, order.slice(0, 5)); // more draws begin with the same
  assert.deepEqual(sampling.countDraws(Float64Array.of(1), { seed: 1, draws: 2 }).order, [0, 0]);
});

test("the table says what cuts a token, what was drawn, and what the others have together", () => {
  const data = { names: ["a", "b", "c"], shown: 3 }, settings = { ...plain, top_k: 2, min_p: 0.6, draws: 4 };
  const uneven = Float32Array.from([0.5, 0.25, 0.13, 0.12], Math.log);
  const before = sampling.softmax(uneven, 1), result = sampling.sampled(uneven, settings);
  const counts = { order: [0, 0, 0, 0], sums: new Map([[0, 4]]) };
  const rows = sampling.tokenRows(data, before, result, counts, settings);
  assert.deepEqual(rows.map(({ name, texts, faint }) => [name, ...texts, faint]), [
    ["a", "50%", "→ 100%", "4×", false],
    ["b", "25%", "→ cut by min-p", "0×", true],
    ["c", "13%", "→ cut by top-k", "0×", true],
    ["1 others", "12%", "→ 0%", "0×", true],
  ]);
  near(rows[0].bars.map(([length]) => length), [0.5, 1], 1e-7);
  const greedy = sampling.sampled(uneven, { ...plain, temperature: 0 });
  const [, second] = sampling.tokenRows(data, before, greedy, { order: [], sums: new Map() }, { draws: 0 });
  assert.deepEqual(second.texts, ["25%", "→ never drawn"]);
});

// ---- grouped-query attention ----

const qwen = { heads: 14, kv_heads: 2, head_dim: 64, layers: 24, tokens: 32768, value_bytes: 2, head: 9 };

test("the cache of Qwen2.5-Coder-0.5B", () => {
  const { token, whole } = gqa.cacheBytes(qwen);
  assert.deepEqual(token, { MHA: 86016, chosen: 12288, MQA: 6144 });
  assert.equal(whole.chosen, 402_653_184);
  assert.equal(parts.sizeOf(whole.chosen), "403 MB");
  assert.deepEqual(gqa.sumLines(qwen, { token, whole }), [
    "2 (a key and a value) × 24 layers × 2 kv heads × 64 values × 2 bytes = 12,288 bytes per token",
    "12,288 bytes × 32,768 tokens = 403 MB",
    "7 query heads share a kv head: the cache is 7 times smaller than MHA's.",
  ]);
});

table("divisors", gqa.divisors, [[1, [1]], [7, [1, 7]], [12, [1, 2, 3, 4, 6, 12]]]);
table("kindOf", gqa.kindOf, [
  [{ heads: 4, kv_heads: 4 }, "MHA"], [{ heads: 4, kv_heads: 2 }, "GQA"], [{ heads: 4, kv_heads: 1 }, "MQA"],
  [{ heads: 1, kv_heads: 1 }, "MHA"],
]);
table("sharing", gqa.sharing, [
  [qwen, "Query head 9 uses kv head 1, as do all from 7 to 13."],
  [{ ...qwen, kv_heads: 14 }, "Query head 9 has kv head 9 for itself."],
  [{ ...qwen, kv_heads: 1 }, "Query head 9 uses kv head 0, as do all from 0 to 13."],
]);

// ---- RoPE ----

test("one pair, rotated by its position: q·k depends on the distance alone", () => {
  const data = { thetas: [10], frequencies: [[0.5]], factor: 1, vectors: [[1, 0], [0, 2]], positions: 4,
    own: 10, scaled: null };
  const { at, half, positions } = rope.rotation(data);
  assert.deepEqual([half, positions], [1, 4]);
  const now = at({ pair: 0, query: 3, key: 1, theta: 10 });
  near(now.before, [1, 0, 0, 2]);
  near(now.angles, [1.5, 0.5]);
  near(now.after, [Math.cos(1.5), Math.sin(1.5), -2 * Math.sin(0.5), 2 * Math.cos(0.5)]);
  near([now.product, now.pairProduct], [2 * Math.sin(1), 2 * Math.sin(1)]); // distance 2, 0.5 each
  near(now.products, [-3, -2, -1, 0, 1, 2, 3].map((distance) => 2 * Math.sin(distance / 2)));
  near(now.cos, [0, 1, 2, 3].map((position) => Math.cos(position / 2)), 1e-7);
  near(now.sin, [0, 1, 2, 3].map((position) => Math.sin(position / 2)), 1e-7);
  assert.equal(now.title, "Pair 0, dimensions 0 and 1: a full rotation every 12.6 positions");
});

test("two pairs: the partner of dimension i is i + D/2, and products add up", () => {
  const data = { thetas: [1, 2], frequencies: [[1, 1], [1, 0.25]], factor: 2, positions: 6, own: 1, scaled: null,
    vectors: [[1, 2, 3, 4], [5, 6, 7, 8]] };
  const { at } = rope.rotation(data);
  const still = at({ pair: 1, query: 2, key: 2, theta: 2 });
  near(still.before, [2, 4, 6, 8]);
  near([still.pairProduct, still.product], [4 * (2 * 6 + 4 * 8), 4 * (5 + 21 + 12 + 32)], 1e-9);
  for (const [query, key] of [[5, 0], [0, 5], [3, 1]]) {
    const now = at({ pair: 1, query, key, theta: 2 });
    near([now.product], [now.products[query - key + 5]], 1e-9);
    near([now.pairProduct], [now.pairProducts[query - key + 5]], 1e-9);
  }
});

table("grouped", ropePanels.grouped, [[0, "0"], [1e6, "1,000,000"], [12.56, 1, "12.6"], [-1234, "-1,234"]]);
table("clamp", ropePanels.clamp, [[5, 0, 3, 3], [-5, 0, 3, 0], [2, 0, 3, 2]]);

// ---- one layer ----

test("a vector is rotated by the tables' row of its token", () => {
  const quarter = { cos: [1, 1, 0, -1], sin: [0, 0, 1, 0] }; // token 1: by 90° and by 180°
  assert.deepEqual(layer.rotated([1, 2, 3, 4], quarter, 0), [1, 2, 3, 4]);
  near(layer.rotated([1, 2, 3, 4], quarter, 1), [-3, -2, 1, -4]);
});

test("the rotation of a pair in words", () => {
  const words = layerPanels.pairWords({ before: [1, 0, 0, 0], after: [0, 0, -1, 0] }, 0, 2);
  assert.equal(words, "dimensions 0 and 2: (1.00, 0.00), rotated by 270° "
    + "(full rotations not counted): (0.00, −1.00)");
});

test("the spoken line of a layer names the three largest weights", () => {
  const shown = { state: { layer: 0, head: 3, token: 4 }, row: [0.1, 0.5, 0, 0.15, 0.25], lens: null };
  const tokens = ["a", "b", "c", "d", "e"];
  const start = "Layer 0, head 3: token 4, e, attends to b (1) 50%, e (4) 25%, d (3) 15%";
  assert.equal(layer.layerWords({ tokens }, shown), start);
  const lens = [[["x", 0.5]], [["y", 0.9]]];
  assert.equal(layer.layerWords({ tokens }, { ...shown, lens }), `${start}; here the model would predict y`);
});

// ---- attention ----

const triangle = Uint8Array.of(255, 100, 155, 50, 60, 145); // of three positions

table("arcWeights", attention.arcWeights, [
  [triangle, 3, { token: 1, arcs: "attends to" }, [100, 155, 0]],
  [triangle, 3, { token: 2, arcs: "attends to" }, [50, 60, 145]],
  [triangle, 3, { token: 0, arcs: "is attended to by" }, [255, 100, 50]],
  [triangle, 3, { token: 1, arcs: "is attended to by" }, [0, 155, 60]],
]);

test("the grid shows the largest weight of each pixel, and what is masked", () => {
  const data = { layers: 1, heads: 2, labels: ["a", "b", "c"] };
  const at = (_, head) => head ? triangle.map((one) => 255 - one) : triangle;
  assert.deepEqual([...attention.mosaic(data, at, 3)],
    [255, -1, -1, 0, -1, -1, 100, 155, -1, 155, 100, -1, 50, 60, 145, 205, 195, 110]);
  assert.deepEqual([...attention.mosaic(data, at, 1)], [255, 205]);
});

table("named", attentionMap.named, [
  [{ labels: ["a", "b"], factor: 1, length: 2 }, 1, "b (1)"],
  [{ labels: ["a", "b"], factor: 4, length: 7 }, 0, "a (0–3)"],
  [{ labels: ["a", "b"], factor: 4, length: 7 }, 1, "b (4–6)"],
]);

// ---- the tensors of a checkpoint ----

const tensors = [["embed", 10], ["layers.0.attn.q", 1], ["layers.0.attn.k", 2], ["layers.1.mlp", 4]];

test("groups by name, and only the rows that are open or found", () => {
  const tree = checkpoint.grouped(tensors);
  assert.deepEqual([...tree.keys()], ["layers", "layers.0", "layers.0.attn", "layers.1"]);
  const rows = (opened, text = "") => checkpoint.visibleRows(tensors, tree, { opened, text })
    .map(({ name, depth, count, bytes }) => [name, depth, count, bytes]);
  assert.deepEqual(rows([]), [["embed", 0, 1, 10], ["layers", 0, 3, 7]]);
  assert.deepEqual(rows(["layers", "layers.1"]), [["embed", 0, 1, 10], ["layers", 0, 3, 7],
    ["layers.0", 1, 2, 3], ["layers.1", 1, 1, 4], ["layers.1.mlp", 2, 1, 4]]);
  assert.deepEqual(rows(["layers.0.attn"]), rows([])); // below a closed group
  assert.deepEqual(rows([], "ATTN.K"), [["layers", 0, 1, 2], ["layers.0", 1, 1, 2],
    ["layers.0.attn", 2, 1, 2], ["layers.0.attn.k", 3, 1, 2]]);
  assert.deepEqual(rows([], "nothing"), []);
});

test("a tensor may be called constructor", () => {
  const odd = [["constructor.__proto__", 1], ["constructor.toString", 2]];
  const found = checkpoint.visibleRows(odd, checkpoint.grouped(odd), { opened: ["constructor"], text: "" });
  assert.deepEqual(found.map(({ name, count }) => [name, count]),
    [["constructor", 2], ["constructor.__proto__", 1], ["constructor.toString", 1]]);
});

// ---- generation ----

test("what is shown of a path: tokens, what comes next, how full the cache is", () => {
  const data = {
    prompt: ["p", "q"], max_new_tokens: 3, stop_ids: [9],
    visited: { "": [[5, "five", 0.6], [6, "six", 0.4]], 5: [[9, "end", 0.8]], "5,9": [] },
  };
  const view = (path, at, alone) => stepper.stepView({ alone, get: (name) => ({ data, state: { path, at } })[name] });
  const start = view([], 0);
  assert.deepEqual([start.tokens, start.length, start.cached, start.full, start.ended],
    [["p", "q"], 2, 2, false, false]);
  const middle = view([5, 9], 1);
  assert.deepEqual([middle.tokens, middle.length, middle.offers],
    [["p", "q", "five", "end"], 3, [[9, "end", 0.8]]]);
  near(middle.shades, [0, 0, 0.4, 0.5]);
  const last = view([5, 9], 2);
  assert.deepEqual([last.ended, last.length, last.cached], [true, 4, 3]); // the end is not in the cache
  const unknown = view([6, 7, 8], 3);
  assert.deepEqual([unknown.tokens, unknown.offers, unknown.full], [["p", "q", "six", "…", "…"], undefined, true]);
  assert.deepEqual([5, 6].map(view([], 0, true).open), [true, false]); // without a kernel
  assert.deepEqual([5, 6].map(view([], 0).open), [true, true]);
});

test("text on any shade of any color stands out by 4.5:1", async () => {
  const { channels, legible } = await load("parts.js");
  const light = (rgb) => rgb.map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, i) => sum + one * [0.2126, 0.7152, 0.0722][i], 0);
  for (let red = 0; red <= 255; red += 15)
    for (let green = 0; green <= 255; green += 15)
      for (let blue = 0; blue <= 255; blue += 15) {
        const ground = light([red, green, blue]);
        const ratio = legible([red, green, blue]) === "black" ? (ground + 0.05) / 0.05 : 1.05 / (ground + 0.05);
        assert.ok(ratio >= 4.5, `${[red, green, blue]}: ${ratio}`);
      }
  assert.deepEqual(channels("rgb(0, 105, 166)"), [0, 105, 166]);
  assert.deepEqual(channels("0, 114, 178"), [0, 114, 178]);
  assert.deepEqual(channels(""), [0, 0, 0]); // not on the page yet
});
