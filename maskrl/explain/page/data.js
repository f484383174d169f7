// The data that explorer.py has put into the page: numbers at once, frames when they are wanted.

const WIDTH = 160, HEIGHT = 210; // of a frame, in pixels
const KEPT = 16; // decoded chunks of frames that are kept for each recording

const element = (id) => document.getElementById(id);
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const number = (x, digits = 2) => x.toLocaleString("en",
  { useGrouping: false, maximumFractionDigits: digits, signDisplay: "negative" })
  .replace("-", "\u2212");

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const header = JSON.parse(element("header").textContent);
const CELLS = header.cells ** 2;

async function inflate(name) {
  const text = atob(element(name).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** A recording's frames, decoded chunk by chunk when they are asked for. */
class Frames {
  constructor(index, { length, palette }) {
    this.index = index;
    this.chunks = Math.ceil(length / header.chunk);
    this.palette = palette && Uint32Array.from(palette);
    this.cache = new Map(); // chunk -> its pixels, or their promise; the latest used comes last
  }

  /** The frame's colours, 0xBBGGRR in a Uint32Array, or their promise if not yet decoded. */
  at(step) {
    const chunk = Math.floor(step / header.chunk);
    const pixels = this.load(chunk);
    if (pixels instanceof Promise) return pixels.then((decoded) => this.frame(decoded, step));
    for (const near of [chunk - 1, chunk + 1]) {
      if (near >= 0 && near < this.chunks) this.load(near);
    }
    return this.frame(pixels, step);
  }

  frame(pixels, step) {
    const start = (step % header.chunk) * WIDTH * HEIGHT;
    const frame = pixels.subarray(start, start + WIDTH * HEIGHT);
    return this.palette ? Uint32Array.from(frame, (entry) => this.palette[entry]) : frame;
  }

  load(chunk) {
    const found = this.cache.get(chunk) ?? this.decode(chunk);
    this.cache.delete(chunk);
    this.cache.set(chunk, found);
    if (this.cache.size > KEPT) this.cache.delete(this.cache.keys().next().value);
    return found;
  }

  async decode(chunk) {
    const buffer = await inflate(`${this.index}-frames-${chunk}`);
    const words = new Uint32Array(buffer); // a frame has a multiple of four pixels
    const size = (WIDTH * HEIGHT * (this.palette ? 1 : 4)) / 4;
    for (let i = size; i < words.length; i++) words[i] ^= words[i - size];
    const pixels = this.palette ? new Uint8Array(buffer) : words;
    if (this.cache.has(chunk)) this.cache.set(chunk, pixels);
    return pixels;
  }
}

const KINDS = { f4: Float32Array, i4: Int32Array, u1: Uint8Array, u2: Uint16Array };
const loaded = new Map(); // index -> a recording or its promise

/** The recording of this index with its arrays, read once. */
function load(index) {
  if (!loaded.has(index)) loaded.set(index, read(index));
  return loaded.get(index);
}

async function read(index) {
  const described = header.recordings[index];
  const arrays = await Promise.all(Object.entries(described.arrays).map(
    async ([name, kind]) => [name, new KINDS[kind](await inflate(`${index}-${name}`))]));
  return {
    ...described, index, ...Object.fromEntries(arrays), frames: new Frames(index, described),
    branches: Object.keys(described.scales),
  };
}

/** The mask's value, 0 to 1, in a cell. */
function maskAt(recording, branch, step, cell) {
  return recording[`${branch}-mask`][step * CELLS + cell] / 65535;
}

/** The brush's steps that a recording has, [from, to]; null if it ended before, or without a brush. */
function brushed({ length }, brush) {
  return brush && brush[0] < length ? [brush[0], Math.min(brush[1], length - 1)] : null;
}

/** What a mean is of: these steps, or none of a recording that had ended. */
const meanOf = (part, brush) => (part ? `mean of ${part.join("\u2013")}` : `ended before ${brush[0]}`);

/** The mean over steps [from, to] of an array with `size` numbers a step. */
function meanOver(array, size, [from, to], scale = 1) {
  const sum = new Float64Array(size);
  for (let step = from; step <= to; step++) {
    for (let i = 0; i < size; i++) sum[i] += array[step * size + i];
  }
  return sum.map((x) => x / (to - from + 1) / scale);
}
