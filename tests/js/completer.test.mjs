// The inline completer, as JupyterLab loads it: a script that leaves a container.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import vm from "node:vm";

const FOLDER = new URL("../../qwenkit/cli/jupyter/labextensions/qwenkit-completer/", import.meta.url);
const { jupyterlab: { _build: build }, name } = JSON.parse(await readFile(new URL("package.json", FOLDER)));
const SOURCE = await readFile(new URL(build.load, FOLDER), "utf-8");
const TOKEN = {};

// Load the extension with another one there already, and return the provider that it registers.
async function provider(makeRequest) {
  const window = { _JUPYTERLAB: { other: 1 } };
  vm.runInNewContext(SOURCE, { window, AbortController });
  assert.deepEqual(Object.keys(window._JUPYTERLAB), ["other", name]);
  const share = (module) => ({ "4.9.9": { get: async () => () => module } });
  const container = window._JUPYTERLAB[name];
  await container.init({
    "@jupyterlab/completer": share({ ICompletionProviderManager: TOKEN }),
    "@jupyterlab/services": share({ ServerConnection: { makeRequest } }),
  });
  const module = (await container.get(build.extension))();
  assert.equal(module.__esModule, true);
  const plugin = module.default, registered = [];
  assert.equal(plugin.autoStart, true);
  assert.equal(plugin.requires[0], TOKEN);
  const app = { serviceManager: { serverSettings: { baseUrl: "http://here/base/" } } };
  plugin.activate(app, { registerInlineProvider: (one) => registered.push(one) });
  return registered[0];
}

const cell = (type, source) => ({ model: { type, sharedModel: { getSource: () => source } } });
const widgets = [cell("code", "import math"), cell("markdown", "# A"), cell("code", "x = "), cell("code", "y")];
const panel = (active) => ({ content: { widgets, activeCellIndex: active, activeCell: widgets[active] } });
const says = (text) => async () => ({ ok: true, json: async () => ({ text }) });
const plain = (value) => JSON.parse(JSON.stringify(value));

test("it asks with the code cells above and the texts around the cursor", async () => {
  const asked = [];
  const one = await provider(async (url, init, settings) => {
    asked.push([url, init.method, JSON.parse(init.body), settings.baseUrl]);
    return says("1")();
  });
  const found = await one.fetch({ text: "x = \nprint(x)", offset: 4 }, { widget: panel(2) });
  assert.deepEqual(plain(found), { items: [{ insertText: "1" }] });
  const body = { above: ["import math"], before: "x = ", after: "\nprint(x)" };
  assert.deepEqual(asked, [["http://here/base/qwenkit/complete", "POST", body, "http://here/base/"]]);
});

test("an editor without cells has none above, and a text is no code", async () => {
  let body = null, count = 0;
  const one = await provider(async (_url, init) => {
    body = JSON.parse(init.body);
    count += 1;
    return says("2")();
  });
  await one.fetch({ text: "ab", offset: 1 }, { widget: { content: {} } });
  assert.deepEqual(body, { above: [], before: "a", after: "b" });
  assert.deepEqual(plain(await one.fetch({ text: "ab", offset: 1 }, { widget: panel(1) })), { items: [] });
  assert.equal(count, 1);
});

test("no text, and a server that refuses, are no completion", async () => {
  for (const answer of [says(""), async () => ({ ok: false })]) {
    const one = await provider(answer);
    assert.deepEqual(plain(await one.fetch({ text: "a", offset: 1 }, {})), { items: [] });
  }
  const broken = await provider(async () => { throw new Error("no network"); });
  await assert.rejects(broken.fetch({ text: "a", offset: 1 }, {}), /no network/);
});

test("a new question ends the one before", async () => {
  const signals = [];
  const one = await provider((_url, init) => new Promise((done, fail) => {
    signals.push(init.signal);
    init.signal.addEventListener("abort", () => fail(new Error("aborted")));
    if (signals.length === 2) done({ ok: true, json: async () => ({ text: "b" }) });
  }));
  const first = one.fetch({ text: "a", offset: 1 }, {});
  const second = one.fetch({ text: "ab", offset: 2 }, {});
  assert.deepEqual(plain(await first), { items: [] });
  assert.deepEqual(plain(await second), { items: [{ insertText: "b" }] });
  assert.deepEqual(signals.map((signal) => signal.aborted), [true, false]);
});
