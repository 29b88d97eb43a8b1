// Byte-level BPE, as tokenizer.json describes it: text to token ids, and back.
// Sources: Sennrich et al. 2016 (byte-pair encoding); Radford et al. 2019, section 2.2 (bytes).

/** @typedef {{id: number, content: string, special: boolean}} Added */

// Qwen's pattern, with two things written out that JavaScript has not or has otherwise: letters
// after an apostrophe in both cases, and what counts as white space (Unicode's White_Space).
const SPACE = "\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const PIECES = [
  "'(?:[sS\\u017f]|[tT]|[rR][eE]|[vV][eE]|[mM]|[lL][lL]|[dD])",
  "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+",
  "\\p{N}",
  ` ?[^${SPACE}\\p{L}\\p{N}]+[\\r\\n]*`,
  `[${SPACE}]*[\\r\\n]+`,
  `[${SPACE}]+(?![^${SPACE}])`,
  `[${SPACE}]+`,
];
export const QWEN_PATTERN = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"
  + "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/** Each byte as the character that stands for it in a vocabulary: printable ones are themselves. */
const BYTE_TO_CHAR = (() => {
  const chars = Array.from({ length: 256 }, () => "");
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    chars[byte] = String.fromCharCode(printable ? byte : next++);
  }
  return chars;
})();
const CHAR_TO_BYTE = new Map(BYTE_TO_CHAR.map((char, byte) => [char, byte]));

export class Tokenizer {
  /** @param {any} json what tokenizer.json holds */
  constructor(json) {
    checkKind(json);
    /** @type {Map<string, number>} */
    this.ids = new Map(Object.entries(json.model.vocab));
    /** @type {Map<number, string>} */
    this.pieces = new Map([...this.ids].map(([piece, id]) => [id, piece]));
    /** @type {Map<string, number>} pair of pieces -> its rank: smaller ones are merged first */
    this.ranks = new Map();
    for (const [rank, merge] of json.model.merges.entries()) {
      const pair = Array.isArray(merge) ? merge : merge.split(" ");
      this.ranks.set(pair.join(" "), rank);
    }
    /** @type {Map<string, number>} */
    this.added = new Map();
    /** @type {Map<number, string>} */
    this.addedText = new Map();
    for (const { id, content } of /** @type {Added[]} */ (json.added_tokens)) {
      this.added.set(content, id);
      this.addedText.set(id, content);
    }
    const longestFirst = [...this.added.keys()].sort((a, b) => b.length - a.length);
    this.addedPattern = longestFirst.length
      ? new RegExp(`(${longestFirst.map(escaped).join("|")})`, "u") : null;
    this.normalize = json.normalizer?.type === "NFC";
    this.words = new RegExp(PIECES.join("|"), "gu");
    /** @type {Map<string, number[]>} ids of words that were split before */
    this.known = new Map();
  }

  /**
   * @param {string} text
   * @returns {number[]} token ids; special tokens that the text spells out are recognized
   */
  encode(text) {
    const ids = [];
    for (const part of this.addedPattern ? text.split(this.addedPattern) : [text]) {
      const special = this.added.get(part);
      if (special !== undefined) ids.push(special);
      else if (part) ids.push(...this.encodeOrdinary(part));
    }
    return ids;
  }

  /** @param {string} text without special tokens */
  encodeOrdinary(text) {
    const ids = [], normal = this.normalize ? text.normalize("NFC") : text;
    for (const [word] of normal.matchAll(this.words)) ids.push(...this.encodeWord(word));
    return ids;
  }

  /** @param {string} word no merge goes over its end */
  encodeWord(word) {
    const known = this.known.get(word);
    if (known) return known;
    const bytes = new TextEncoder().encode(word);
    const pieces = Array.from(bytes, (byte) => BYTE_TO_CHAR[byte]);
    while (pieces.length > 1) {
      let best = Infinity, at = -1;
      for (let i = 0; i + 1 < pieces.length; i++) {
        const rank = this.ranks.get(`${pieces[i]} ${pieces[i + 1]}`) ?? Infinity;
        if (rank < best) [best, at] = [rank, i];
      }
      if (at < 0) break;
      const [left, right] = [pieces[at], pieces[at + 1]];
      for (let i = 0; i + 1 < pieces.length; i++) { // the pair, wherever it stands
        if (pieces[i] === left && pieces[i + 1] === right) pieces.splice(i, 2, left + right);
      }
    }
    const ids = pieces.map((piece) => {
      const id = this.ids.get(piece);
      if (id === undefined) throw new Error(`The vocabulary lacks ${JSON.stringify(piece)}.`);
      return id;
    });
    if (this.known.size < 100_000) this.known.set(word, ids);
    return ids;
  }

  /**
   * @param {Iterable<number>} ids
   * @returns {string} bytes that are not UTF-8, as of half a character, become U+FFFD
   */
  decode(ids) {
    const bytes = [];
    for (const id of ids) bytes.push(...this.bytes(id));
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(bytes));
  }

  /**
   * @param {number} id
   * @returns {number[]} the bytes that a token stands for
   */
  bytes(id) {
    const special = this.addedText.get(id);
    if (special !== undefined) return [...new TextEncoder().encode(special)];
    const piece = this.pieces.get(id);
    if (piece === undefined) throw new Error(`There is no token ${id}.`);
    return Array.from(piece, (char) => /** @type {number} */ (CHAR_TO_BYTE.get(char)));
  }
}

/** @param {any} json */
function checkKind(json) {
  const split = json?.pre_tokenizer?.pretokenizers?.find((/** @type {any} */ one) => one.type === "Split");
  if (json?.model?.type !== "BPE" || split?.pattern?.Regex !== QWEN_PATTERN) {
    throw new Error("This tokenizer.json is not one of Qwen's; byte-level BPE with its pattern is read.");
  }
}

/** @param {string} text */
function escaped(text) {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, "\\$&");
}
