"use strict"; // loaded as a script, not as a module

// JupyterLab's inline completer, fed by the model of `qwenkit lab --complete`.
//
// JupyterLab loads an extension as a container of webpack's module federation: `init` is given the
// modules that all extensions share, `get` returns the extension. Two functions need no build.

/**
 * @typedef {Record<string, Record<string, {get: () => Promise<() => any>}>>} Scope
 * @typedef {{text: string, offset: number}} Question
 * @typedef {{items: {insertText: string}[]}} Completions
 */

{
  const NAME = "qwenkit-completer";
  const NONE = { items: [] };
  const WAIT = 250; // milliseconds without a key before the model is asked
  const PATIENCE = 10000; // milliseconds until an answer comes too late

  /**
   * The texts that the model is told of: the code cells above, and the cell around the cursor.
   * @param {Question} request
   * @param {any} widget a notebook's panel, or whatever else has an editor
   */
  function surroundings(request, widget) {
    const { text, offset } = request;
    const { widgets = [], activeCellIndex = 0 } = widget?.content ?? {};
    const above = widgets.slice(0, activeCellIndex)
      .filter((/** @type {any} */ cell) => cell.model.type === "code")
      .map((/** @type {any} */ cell) => cell.model.sharedModel.getSource());
    return { above, before: text.slice(0, offset), after: text.slice(offset) };
  }

  /** Asks the Jupyter server, which asks the model. Only the newest question is waited for. */
  class Provider {
    identifier = NAME;
    name = "qwenkit";
    schema = { default: { debouncerDelay: WAIT, timeout: PATIENCE, autoFillInMiddle: true } };

    /**
     * @param {any} connection ServerConnection of @jupyterlab/services: it knows the server's token
     * @param {any} settings of the server
     */
    constructor(connection, settings) {
      this.connection = connection;
      this.settings = settings;
      /** @type {AbortController | undefined} */
      this.asked = undefined;
    }

    /**
     * @param {Question} request
     * @param {{widget?: any}} context
     * @returns {Promise<Completions>}
     */
    async fetch(request, context) {
      this.asked?.abort(); // the server then ends what the model was writing
      const asked = this.asked = new AbortController();
      const cell = context.widget?.content?.activeCell;
      if (cell && cell.model.type !== "code") return NONE;
      const body = JSON.stringify(surroundings(request, context.widget));
      const init = { method: "POST", body, signal: asked.signal };
      try {
        const url = `${this.settings.baseUrl}qwenkit/complete`;
        const answer = await this.connection.makeRequest(url, init, this.settings);
        if (!answer.ok) return NONE; // the server's log says why
        const { text } = await answer.json();
        return text ? { items: [{ insertText: text }] } : NONE;
      } catch (error) {
        if (asked.signal.aborted) return NONE;
        throw error;
      }
    }
  }

  /** @type {Scope} */
  let shared = {};

  /** @param {string} name of a module that JupyterLab shares */
  async function use(name) {
    const [version] = Object.values(shared[name]);
    return (await version.get())();
  }

  const container = {
    init(/** @type {Scope} */ scope) {
      shared = scope;
    },
    async get(/** @type {string} */ _module) {
      const { ICompletionProviderManager } = await use("@jupyterlab/completer");
      const { ServerConnection } = await use("@jupyterlab/services");
      const plugin = {
        id: `${NAME}:plugin`,
        description: "Completes code inline with a model on this machine.",
        autoStart: true,
        requires: [ICompletionProviderManager],
        activate(/** @type {any} */ app, /** @type {any} */ manager) {
          const settings = app.serviceManager.serverSettings;
          manager.registerInlineProvider(new Provider(ServerConnection, settings));
        },
      };
      return () => ({ __esModule: true, default: plugin });
    },
  };

  const jupyter = /** @type {any} */ (window);
  jupyter._JUPYTERLAB = { ...jupyter._JUPYTERLAB, [NAME]: container };
}
