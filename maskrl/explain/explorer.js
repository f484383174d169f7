// The episode explorer's page: reads the data that explorer.py has put into it, and draws.

const WIDTH = 160, HEIGHT = 210; // of a frame, in pixels
const KEPT = 16; // decoded chunks of frames that are kept for each recording
const ZOOMS = [100, 500, 2000]; // steps that the curves can show, besides the whole game
const NAMES = { game: "game", policy: "policy mask", value: "value mask", both: "both masks" };
const SHOWS = { beside: "side by side", ...NAMES };
const CURVES = { value: "state value", score: "score", entropy: "entropy (nats)" };
const LITTLE = { useGrouping: false, maximumSignificantDigits: 3 };

const element = (id) => document.getElementById(id);
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const short = (x) => x.toLocaleString("en", LITTLE);

function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// ---------------------------------------------------------------------------------- the data

const header = JSON.parse(element("header").textContent);

async function inflate(name) {
  const text = atob(element(name).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** A recording's frames, decoded chunk by chunk when they are asked for. */
class Frames {
  constructor(number, { length, palette }) {
    this.number = number;
    this.chunks = Math.ceil(length / header.chunk);
    this.palette = palette && Uint32Array.from(palette);
    this.cache = new Map(); // chunk -> its pixels, or their promise; the latest used comes last
  }

  /** The frame's colours, 0xBBGGRR in a Uint32Array, or their promise where they are not at hand. */
  at(step) {
    const chunk = Math.floor(step / header.chunk);
    const pixels = this.load(chunk);
    if (pixels instanceof Promise) return pixels.then(() => this.at(step));
    for (const near of [chunk - 1, chunk + 1]) {
      if (near >= 0 && near < this.chunks) this.load(near);
    }
    const start = (step % header.chunk) * WIDTH * HEIGHT;
    const frame = pixels.subarray(start, start + WIDTH * HEIGHT);
    return this.palette ? Uint32Array.from(frame, (index) => this.palette[index]) : frame;
  }

  load(chunk) {
    const found = this.cache.get(chunk) ?? this.decode(chunk);
    this.cache.delete(chunk);
    this.cache.set(chunk, found);
    if (this.cache.size > KEPT) this.cache.delete(this.cache.keys().next().value);
    return found;
  }

  async decode(chunk) {
    const buffer = await inflate(`${this.number}-frames-${chunk}`);
    const words = new Uint32Array(buffer); // a frame has a multiple of four pixels
    const size = (WIDTH * HEIGHT * (this.palette ? 1 : 4)) / 4;
    for (let i = size; i < words.length; i++) words[i] ^= words[i - size];
    const pixels = this.palette ? new Uint8Array(buffer) : words;
    if (this.cache.has(chunk)) this.cache.set(chunk, pixels);
    return pixels;
  }
}

async function readRecording(described, number) {
  const kinds = {
    value: Float32Array, score: Float32Array, reward: Float32Array, entropy: Float32Array,
    probabilities: Float32Array, action: Int32Array, lives: Int32Array,
  };
  for (const branch of Object.keys(described.scales)) kinds[`${branch}-mask`] = Uint16Array;
  const read = await Promise.all(Object.entries(kinds).map(
    async ([name, Kind]) => [name, new Kind(await inflate(`${number}-${name}`))]));
  return { ...described, ...Object.fromEntries(read), frames: new Frames(number, described) };
}

// -------------------------------------------------------------------------------- the masks

/** Which cell covers each pixel (255: none), and which half of the cell, cut from lower left. */
function cover([top, bottom]) {
  const cell = new Uint8Array(WIDTH * HEIGHT).fill(255);
  const lower = new Uint8Array(WIDTH * HEIGHT);
  const n = header.cells;
  for (let row = top; row < bottom; row++) {
    const y = ((row - top + 0.5) * n) / (bottom - top);
    for (let column = 0; column < WIDTH; column++) {
      const x = ((column + 0.5) * n) / WIDTH;
      cell[row * WIDTH + column] = Math.floor(y) * n + Math.floor(x);
      lower[row * WIDTH + column] = (x % 1) + (y % 1) >= 1;
    }
  }
  return { cell, lower };
}

/** The mask's value, 0 to 1, in a cell. */
function maskAt(recording, branch, step, cell) {
  return recording[`${branch}-mask`][step * header.cells ** 2 + cell] / 65535;
}

/** The colour that a mask's value takes on a scale: [red, green, blue]. */
function colour(value, { low, high }) {
  return header.colours[Math.round(clamp((value - low) / (high - low), 0, 1) * 255)];
}

/** Draws the frame into a canvas, under one mask, under two halved ones, or bare. */
function paint(context, frame, cells, { cell, lower }, opacity) {
  const image = context.createImageData(WIDTH, HEIGHT);
  const out = new Uint32Array(image.data.buffer);
  const rest = 1 - opacity;
  for (let i = 0; i < out.length; i++) {
    let pixel = frame[i];
    if (cells.length && cell[i] !== 255) {
      const [red, green, blue] = cells[lower[i] && cells.length - 1][cell[i]];
      const under = (rest * ((pixel & 255) + ((pixel >> 8) & 255) + (pixel >> 16))) / 3 + 0.5;
      pixel = ((opacity * blue + under) << 16) | ((opacity * green + under) << 8)
        | (opacity * red + under);
    }
    out[i] = pixel | 0xff000000;
  }
  context.putImageData(image, 0, 0);
}

/** Draws the scale's colours as they look over black (top) to over white (bottom). */
function paintBar(canvas, opacity) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let row = 0, i = 0; row < canvas.height; row++) {
    const under = (1 - opacity) * 255 * (row / (canvas.height - 1));
    for (let column = 0; column < canvas.width; column++) {
      for (const part of header.colours[column]) image.data[i++] = opacity * part + under + 0.5;
      image.data[i++] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

// ------------------------------------------------------------------- one recording on the page

/** A picture of the game, with the masks `branches` over it. */
class Panel {
  constructor(name, recording, geometry) {
    Object.assign(this, { name, recording, geometry, hovered: null });
    this.branches = { game: [], both: ["policy", "value"] }[name] ?? [name];
    this.canvas = make("canvas", { width: WIDTH, height: HEIGHT, className: "frame" });
    this.canvas.dataset.panel = name;
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `${recording.name}: ${NAMES[name]}`);
    this.context = this.canvas.getContext("2d");
    this.reading = make("p", { className: "reading" });
    this.bars = this.branches.map((branch) => ({
      branch,
      canvas: make("canvas", { width: 256, height: 12, className: "bar" }),
      low: make("span"), high: make("span"), words: make("span", { className: "words" }),
    }));
    const over = make("div", { className: "screen" }, this.canvas);
    this.figure = make("figure", {}, make("figcaption", {}, NAMES[name]), over,
      ...this.bars.map(({ canvas, low, high, words }) => make("div", { className: "scale" },
        words, canvas, make("div", { className: "ends" }, low, high))));
    if (this.branches.length) this.figure.append(this.reading);
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerdown", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", () => this.hover(null));
  }

  hover(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = event && Math.floor(((event.clientX - box.left) / box.width) * WIDTH);
    const row = event && Math.floor(((event.clientY - box.top) / box.height) * HEIGHT);
    this.hovered = event && (this.geometry.cell[row * WIDTH + column] ?? 255);
    request();
  }

  /** The scale's bars and words: they change only with the settings. */
  setScale({ scale, opacity }) {
    for (const bar of this.bars) {
      const { low, high, words } = this.recording.scales[bar.branch][scale];
      const whole = low === 0 && high === 1;
      const half = { policy: "upper left half: ", value: "lower right half: " }[bar.branch];
      bar.words.textContent = `${this.bars.length > 1 ? half + NAMES[bar.branch] + ", " : ""}${words}`;
      bar.low.textContent = whole ? "0: blocked" : `≤ ${short(low)}: blocked most`;
      bar.high.textContent = whole ? "1: let through" : `≥ ${short(high)}: let through most`;
      paintBar(bar.canvas, opacity);
    }
  }

  draw(step, frame, { scale, opacity }) {
    const { recording } = this;
    const cells = this.branches.map((branch) => Array.from({ length: header.cells ** 2 },
      (_, cell) => colour(maskAt(recording, branch, step, cell), recording.scales[branch][scale])));
    paint(this.context, frame, cells, this.geometry, opacity);
    this.canvas.dataset.step = step;
    const [row, column] = [Math.floor(this.hovered / header.cells), this.hovered % header.cells];
    this.reading.textContent =
      this.hovered === null ? "point at a cell for its value"
        : this.hovered === 255 ? "outside what the agent sees"
          : `row ${row + 1}, column ${column + 1}: ` + this.branches.map((branch) =>
            maskAt(recording, branch, step, this.hovered).toFixed(3)).join(" and ");
  }
}

/** A recording's part of the page: pictures, numbers, and the actions' probabilities. */
class Play {
  constructor(recording) {
    this.recording = recording;
    const geometry = cover(recording.view);
    const branches = Object.keys(recording.scales);
    const names = ["game", ...branches, ...(branches.length > 1 ? ["both"] : [])];
    this.panels = names.map((name) => new Panel(name, recording, geometry));
    this.numbers = {};
    const numbers = make("dl", { className: "numbers" });
    for (const name of ["score", "lives", "value", "entropy"]) {
      this.numbers[name] = make("dd");
      numbers.append(make("div", {}, make("dt", {}, name), this.numbers[name]));
    }
    this.actions = recording.actions.map((name) => {
      const fill = make("span", { className: "fill" }), number = make("span");
      const row = make("li", {}, make("span", { className: "name" }, name),
        make("span", { className: "track" }, fill), number);
      return { row, fill, number };
    });
    this.over = make("p", { className: "over", hidden: true },
      `Game over after ${recording.length} steps, score ${short0(recording.finalScore)}`);
    const about = `seed ${recording.seed} · ${recording.length} steps · ` +
      `score ${short0(recording.finalScore)}`;
    this.section = make("section", { className: "play" },
      make("h2", {}, recording.name, make("small", {}, about)),
      make("div", { className: "panels" }, ...this.panels.map((panel) => panel.figure)),
      make("div", { className: "facts" }, this.over, numbers,
        make("h3", {}, "probability of each action"),
        make("ul", { className: "actions" }, ...this.actions.map(({ row }) => row))));
    this.section.setAttribute("aria-label", recording.name);
  }

  /** The recording's own step at a step of the page: after its end, its last. */
  stepAt(step) {
    return Math.min(step, this.recording.length - 1);
  }

  show(settings) {
    const wanted = settings.show === "beside" ? ["game", "policy", "value"] : [settings.show];
    const found = this.panels.filter(({ name }) => wanted.includes(name));
    this.shown = found.length ? found : this.panels.slice(0, 1); // it may lack this mask
    for (const panel of this.panels) {
      panel.figure.hidden = !this.shown.includes(panel);
      panel.setScale(settings);
    }
  }

  draw(step, frame, settings) {
    const { recording } = this, now = this.stepAt(step);
    for (const panel of this.shown) panel.draw(now, frame, settings);
    this.over.hidden = step === now;
    this.section.classList.toggle("ended", step !== now);
    this.numbers.score.textContent = short0(recording.score[now]);
    this.numbers.lives.textContent = recording.lives[now];
    this.numbers.value.textContent = recording.value[now].toFixed(2);
    this.numbers.entropy.textContent = recording.entropy[now].toFixed(2);
    this.actions.forEach(({ row, fill, number }, index) => {
      const probability = recording.probabilities[now * recording.actions.length + index];
      const chosen = index === recording.action[now];
      fill.style.width = `${100 * probability}%`;
      number.textContent = probability.toFixed(2);
      row.classList.toggle("chosen", chosen);
      row.ariaCurrent = chosen ? "true" : null;
    });
  }

  /** One sentence about the step, for those who hear the page. */
  words(step) {
    const { recording } = this, now = this.stepAt(step), action = recording.action[now];
    if (step !== now) return `${recording.name}: ${this.over.textContent}.`;
    const probability = recording.probabilities[now * recording.actions.length + action];
    return `${recording.name}: action ${recording.actions[action]}, probability ` +
      `${probability.toFixed(2)}, value ${recording.value[now].toFixed(2)}, ` +
      `score ${short0(recording.score[now])}.`;
  }
}

function short0(score) {
  return score.toLocaleString("en", { useGrouping: false, maximumFractionDigits: 2 });
}
