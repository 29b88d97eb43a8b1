// A safetensors file: 8 bytes with the header's length, a JSON header, then the tensors' bytes.
// Source: https://github.com/huggingface/safetensors, "Format".

/** @typedef {{dtype: string, shape: number[], data_offsets: [number, number]}} Entry */
/** @typedef {{shape: number[], data: Float32Array}} Tensor */

const MOST_HEADER = 100_000_000; // bytes; more is refused by the format's own reader, too

/**
 * Read the names, dtypes and shapes.
 * @param {ArrayBuffer} buffer the whole file
 * @returns {{entries: Map<string, Entry>, start: number}} start: where the tensors' bytes begin
 */
export function readHeader(buffer) {
  if (buffer.byteLength < 8) throw new Error("The file is shorter than a safetensors header.");
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  if (length > MOST_HEADER || 8 + length > buffer.byteLength) {
    throw new Error(`The header should have ${length} bytes, and the file ends before.`);
  }
  const text = new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(buffer, 8, length));
  const entries = new Map(Object.entries(JSON.parse(text)));
  entries.delete("__metadata__");
  for (const [name, { data_offsets: [from, to] }] of entries) {
    if (!(from >= 0 && from <= to && 8 + length + to <= buffer.byteLength)) {
      throw new Error(`The bytes of ${name} are not in the file; it may be cut off.`);
    }
  }
  return { entries, start: 8 + length };
}

/**
 * Read all tensors as float32. bfloat16 and float16 are upcast, which changes no value.
 * @param {ArrayBuffer} buffer the whole file
 * @returns {Map<string, Tensor>}
 */
export function readTensors(buffer) {
  const { entries, start } = readHeader(buffer);
  const tensors = new Map();
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of entries) {
    const upcast = UPCAST[dtype];
    if (!upcast) throw new Error(`${name} has dtype ${dtype}; float32, float16 and bfloat16 are read.`);
    const data = upcast(buffer.slice(start + from, start + to));
    const count = shape.reduce((product, size) => product * size, 1);
    if (data.length !== count) {
      throw new Error(`${name} has ${data.length} values; its shape ${shape.join(" × ")} has ${count}.`);
    }
    tensors.set(name, { shape, data });
  }
  return tensors;
}

/** @type {Record<string, (bytes: ArrayBuffer) => Float32Array>} */
const UPCAST = {
  F32: (bytes) => new Float32Array(bytes),
  BF16: (bytes) => { // the upper half of a float32
    const halves = new Uint16Array(bytes), bits = new Uint32Array(halves.length);
    for (let i = 0; i < halves.length; i++) bits[i] = halves[i] << 16;
    return new Float32Array(bits.buffer);
  },
  F16: (bytes) => Float32Array.from(new Uint16Array(bytes), fromFloat16),
};

/** @param {number} bits a sign, 5 bits of exponent, 10 of fraction */
function fromFloat16(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
