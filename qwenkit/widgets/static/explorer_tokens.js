// Tokens as ModelExplorer shows them: the forms that the package's other widgets have.

/** @typedef {import("./engine/tokenizer.js").Tokenizer} Tokenizer */

/** @type {Record<string, string>} */
const VISIBLE = { " ": "·", "\n": "↵", "\t": "→", "\r": "␍" };

/**
 * A token to be shown: white space visible, bytes that are not UTF-8 as \xNN.
 * @param {Tokenizer} tokenizer
 * @param {number} id
 */
export function shownToken(tokenizer, id) {
  const special = tokenizer.addedText.get(id);
  if (special !== undefined) return special;
  if (!tokenizer.pieces.has(id)) return `(padding ${id})`;
  const bytes = tokenizer.bytes(id);
  return [...utf8Parts(Uint8Array.from(bytes))].map((char) => VISIBLE[char] ?? char).join("");
}

/**
 * Characters of bytes; one that is not UTF-8 is written as \xNN.
 * @param {Uint8Array} bytes
 */
function* utf8Parts(bytes) {
  const reader = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  for (let at = 0; at < bytes.length;) {
    let length = 1;
    for (; length <= Math.min(4, bytes.length - at); length++) {
      try {
        yield reader.decode(bytes.subarray(at, at + length));
        break;
      } catch { /* one more byte may complete the character */ }
    }
    const whole = length <= Math.min(4, bytes.length - at);
    if (!whole) yield `\\x${bytes[at].toString(16).padStart(2, "0")}`;
    at += whole ? length : 1;
  }
}
