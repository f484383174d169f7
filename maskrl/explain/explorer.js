// The episode explorer's page: reads the data that explorer.py has put into it, and draws.

const WIDTH = 160, HEIGHT = 210; // of a frame, in pixels
const KEPT = 16; // decoded chunks of frames that are kept for each recording
const ZOOMS = [100, 500, 2000]; // steps that the curves can show, besides the whole game
const NAMES = { game: "game", policy: "policy mask", value: "value mask", both: "both masks" };
const SHOWS = { beside: "side by side", ...NAMES };
const CURVES = { value: "state value", score: "score", entropy: "entropy (nats)" };
const LITTLE = { useGrouping: false, maximumSignificantDigits: 2 };

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

  /** The frame's colours, 0xBBGGRR in a Uint32Array, or their promise if not yet decoded. */
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
    this.reading = make("span");
    this.bars = this.branches.map((branch) => ({
      branch,
      canvas: make("canvas", { width: 256, height: 12, className: "bar" }),
      low: make("span"), high: make("span"), words: make("span", { className: "words" }),
    }));
    this.figure = make("figure", {},
      make("figcaption", {}, make("b", {}, NAMES[name]), this.reading), this.canvas,
      ...this.bars.map(({ canvas, low, high, words }) => make("div", { className: "scale" },
        words, canvas, make("div", { className: "ends" }, low, high))));
    if (!this.branches.length) return;
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
      const prefix = this.bars.length > 1 ? `${half}${NAMES[bar.branch]}, ` : "";
      bar.words.textContent = prefix + words;
      bar.low.textContent = whole ? "0\nnot seen" : `≤\u00a0${short(low)}\nless seen`;
      bar.high.textContent = whole ? "1\nfully seen" : `≥\u00a0${short(high)}\nmore seen`;
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
      this.hovered === null ? ""
        : this.hovered === 255 ? "not seen"
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
      if (name === "lives" && !recording.lives.some(Boolean)) continue; // Fishing Derby has none
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
      `Game over after ${recording.length} steps, score ${points(recording.finalScore)}`);
    const about = `seed ${recording.seed} · ${recording.length} steps · ` +
      `score ${points(recording.finalScore)}`;
    this.section = make("section", { className: "play" },
      make("h2", {}, recording.name, make("small", {}, about)),
      make("div", { className: "panels" }, ...this.panels.map((panel) => panel.figure),
        this.over),
      make("div", { className: "facts" }, numbers,
        make("div", {}, make("h3", {}, "probability of each action"),
          make("ul", { className: "actions" }, ...this.actions.map(({ row }) => row)))));
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
    this.numbers.score.textContent = points(recording.score[now]);
    if (this.numbers.lives) this.numbers.lives.textContent = recording.lives[now];
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
      `score ${points(recording.score[now])}.`;
  }
}

function points(score) {
  return score.toLocaleString("en", { useGrouping: false, maximumFractionDigits: 2 });
}

// ------------------------------------------------------------------------------- the curves

/** Value, score and entropy over the steps. What the cursor does not change is drawn once. */
class Curves {
  constructor(recordings) {
    this.recordings = recordings;
    this.length = Math.max(...recordings.map(({ length }) => length));
    this.canvas = element("curves");
    this.still = make("canvas");
    this.zoom = this.length;
    this.start = 0;
  }

  /** The least and the greatest value of a curve in the window. */
  range(name) {
    let low = Infinity, high = -Infinity;
    for (const recording of this.recordings) {
      for (const y of recording[name].subarray(this.start, this.start + this.zoom)) {
        low = Math.min(low, y);
        high = Math.max(high, y);
      }
    }
    return { low, high: high > low ? high : low + 1 };
  }

  /** Where a step lies, from the left edge. */
  x(step) {
    return this.left + ((step - this.start) / Math.max(this.zoom - 1, 1)) * this.width;
  }

  y(band, name, value) {
    const { low, high } = this.ranges[name];
    const depth = (high - value) / (high - low);
    return this.top + band * this.pitch + 14 + depth * (this.pitch - 22);
  }

  /** The step under a pointer, within the window that is shown. */
  stepAt(event) {
    const x = event.clientX - this.canvas.getBoundingClientRect().left - this.left;
    const step = this.start + Math.round((x / this.width) * (this.zoom - 1));
    return clamp(step, this.start, Math.min(this.start + this.zoom, this.length) - 1);
  }

  /** Draws all but the cursor, for the canvas's size, the window and the theme. */
  prepare() {
    const box = this.canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.still]) {
      canvas.width = Math.round(box.width * ratio);
      canvas.height = Math.round(box.height * ratio);
    }
    const style = getComputedStyle(this.canvas);
    this.colours = Object.fromEntries(["first", "second", "ink", "faint", "line", "boundary"].map(
      (name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.ratio = ratio;
    this.ranges = Object.fromEntries(Object.keys(CURVES).map((name) => [name, this.range(name)]));
    [this.left, this.top, this.width] = [44, 12, box.width - 52];
    this.pitch = (box.height - this.top - 18) / 3;
    const context = this.still.getContext("2d");
    context.scale(ratio, ratio);
    context.font = "12px system-ui, sans-serif";
    this.drawAxes(context);
    context.beginPath(); // what lies outside the window must not be drawn
    context.rect(this.left - 6, 0, this.width + 12, box.height);
    context.clip();
    this.recordings.forEach((recording, index) => this.drawRecording(context, recording, index));
  }

  drawAxes(context) {
    const bottom = this.top + 3 * this.pitch;
    Object.entries(CURVES).forEach(([name, words], band) => {
      context.strokeStyle = this.colours.line;
      for (const end of ["low", "high"]) {
        const y = Math.round(this.y(band, name, this.ranges[name][end])) + 0.5;
        context.beginPath();
        context.moveTo(this.left, y);
        context.lineTo(this.left + this.width, y);
        context.stroke();
        context.fillStyle = this.colours.faint;
        context.textAlign = "right";
        context.fillText(points(this.ranges[name][end]), this.left - 5, y + 4);
      }
      context.textAlign = "left";
      context.fillStyle = this.colours.ink;
      context.fillText(words, this.left + 2, this.top + band * this.pitch + 10);
    });
    context.fillStyle = this.colours.faint;
    for (let part = 0; part <= 4; part++) {
      const step = Math.round(this.start + (part / 4) * (this.zoom - 1));
      context.textAlign = { 0: "left", 4: "right" }[part] ?? "center";
      context.fillText(`${part ? "" : "step "}${step}`, this.x(step), bottom + 13);
    }
  }

  drawRecording(context, recording, index) {
    const bottom = this.top + 3 * this.pitch, second = index > 0;
    const line = (dash, style, width, draw) => {
      context.setLineDash(dash);
      [context.strokeStyle, context.lineWidth] = [style, width];
      context.beginPath();
      draw();
      context.stroke();
    };
    const boundary = second ? this.colours.second : this.colours.boundary;
    for (const [kind, dash] of [["lifeStarts", [1, 3]], ["stageStarts", [6, 4]]]) {
      line(dash, boundary, 1.2, () => {
        for (const step of recording[kind]) {
          context.moveTo(this.x(step), this.top);
          context.lineTo(this.x(step), bottom);
        }
      });
    }
    const stop = Math.min(this.start + this.zoom, recording.length);
    Object.keys(CURVES).forEach((name, band) => {
      line([], second ? this.colours.second : this.colours.first, 1.4, () => {
        for (let step = this.start; step < stop; step++) {
          context.lineTo(this.x(step), this.y(band, name, recording[name][step]));
        }
      });
    });
    context.fillStyle = second ? this.colours.second : this.colours.first;
    for (const { step } of recording.telling) {
      context.beginPath();
      context.moveTo(this.x(step), 10);
      context.lineTo(this.x(step) - 5, 1);
      context.lineTo(this.x(step) + 5, 1);
      context.fill();
    }
  }

  draw(step) {
    const start = Math.floor(step / this.zoom) * this.zoom;
    if (start !== this.start) {
      this.start = start;
      this.prepare();
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.still, 0, 0);
    context.scale(this.ratio, this.ratio);
    const x = this.x(step);
    context.fillStyle = this.colours.ink;
    context.fillRect(x - 0.75, 0, 1.5, this.top + 3 * this.pitch);
    this.recordings.forEach((recording, index) => {
      if (step >= recording.length) return;
      context.fillStyle = index ? this.colours.second : this.colours.first;
      Object.keys(CURVES).forEach((name, band) => {
        context.beginPath();
        context.arc(x, this.y(band, name, recording[name][step]), 3.5, 0, 2 * Math.PI);
        context.fill();
      });
    });
    this.canvas.dataset.step = step;
    this.canvas.dataset.x = x;
  }
}

// ---------------------------------------------------------------------------------- the page

const settings = { show: "beside", scale: "contrast", opacity: header.opacity };
let recordings, plays, curves, telling; // telling: every telling frame, in order
let now = 0; // the step that is wanted
let playing = false, pending = false, busy = false;

/** Asks for a drawing before the browser's next one. */
function request() {
  if (!pending) requestAnimationFrame(draw);
  pending = true;
}

async function draw() {
  pending = false;
  if (busy) return;
  const step = now;
  const frames = plays.map((play) => play.recording.frames.at(play.stepAt(step)));
  if (frames.some((frame) => frame instanceof Promise)) {
    busy = true; // a slow chunk is shown when it comes, and only then the newest step
    for (const index in frames) frames[index] = await frames[index];
    busy = false;
    if (step !== now) request();
  }
  plays.forEach((play, index) => play.draw(step, frames[index], settings));
  curves.draw(step);
  const here = telling.filter((frame) => frame.step === step);
  const reasons = here.map(({ name, reason }) => ` · ${name}${reason}`).join("");
  element("step").textContent = `step ${step} of ${curves.length}${reasons}`;
  for (const frame of telling) frame.button.ariaCurrent = here.includes(frame) ? "step" : null;
  if (here.length) element("telling").scrollTop = here[0].button.offsetTop - 40;
  element("scrub").ariaValueText = `step ${step} of ${curves.length}`;
  if (!playing) say(step);
}

let saying;
/** Says where the page stands, once it stands still. */
function say(step) {
  clearTimeout(saying);
  saying = setTimeout(() => {
    element("state").textContent =
      `${element("step").textContent}. ${plays.map((play) => play.words(step)).join(" ")}`;
  }, 300);
}

function go(step) {
  now = clamp(step, 0, curves.length - 1);
  element("scrub").value = now;
  request();
}

function toTelling(direction) {
  const steps = telling.map(({ step }) => step);
  const found = direction > 0 ? steps.find((step) => step > now)
    : steps.findLast((step) => step < now);
  if (found !== undefined) go(found);
}

function play(wanted) {
  if (wanted && now === curves.length - 1) go(0);
  playing = wanted;
  element("play").textContent = playing ? "Pause" : "Play";
  if (!playing) return request();
  let last = performance.now(), owed = 0;
  const tick = (time) => {
    if (!playing) return;
    owed += (Math.max(time - last, 0) / 1000) * header.fps * Number(element("speed").value);
    last = time;
    const steps = Math.floor(owed);
    owed -= steps;
    if (steps && !busy) go(now + steps);
    if (now === curves.length - 1) return play(false);
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

function setUp() {
  element("plays").append(...plays.map(({ section }) => section));
  element("plays").dataset.count = plays.length;
  addChoices();
  addTelling();
  addLegend();
  const controls = {
    previous: () => toTelling(-1), next: () => toTelling(1), back: () => go(now - 1),
    on: () => go(now + 1), play: () => play(!playing), theme: toggleTheme,
    "help-open": () => element("help").showModal(),
  };
  for (const [id, act] of Object.entries(controls)) element(id).addEventListener("click", act);
  element("scrub").max = curves.length - 1;
  element("scrub").addEventListener("input", (event) => go(Number(event.target.value)));
  curves.canvas.addEventListener("pointerdown", (event) => {
    curves.canvas.setPointerCapture(event.pointerId);
    go(curves.stepAt(event));
  });
  curves.canvas.addEventListener("pointermove", (event) => {
    if (event.buttons) go(curves.stepAt(event));
  });
  document.addEventListener("keydown", onKey);
  new ResizeObserver(redrawCurves).observe(curves.canvas);
}

function addChoices() {
  const branches = new Set(recordings.flatMap(({ scales }) => Object.keys(scales)));
  const none = branches.size === 0;
  for (const [name, words] of Object.entries(SHOWS)) {
    const there = name === "game" || (name === "beside" ? !none
      : name === "both" ? branches.size > 1 : branches.has(name));
    if (!there) continue;
    const input = make("input", { type: "radio", name: "show", value: name });
    input.checked = name === (none ? "game" : "beside");
    input.addEventListener("change", () => set({ show: name }));
    element("show").append(make("label", {}, input, make("span", {}, words)));
  }
  document.querySelector(".tools").hidden = none;
  element("opacity").value = 100 * settings.opacity;
  element("opacity").addEventListener("input",
    (event) => set({ opacity: event.target.value / 100 }));
  settings.scale = header.contrast ? "contrast" : "absolute";
  element("scale").value = settings.scale;
  element("scale").addEventListener("change", (event) => set({ scale: event.target.value }));

  const zooms = [...ZOOMS.filter((steps) => steps < curves.length), curves.length];
  for (const steps of zooms) {
    const words = steps === curves.length ? "the whole game" : `${steps} steps`;
    element("zoom").append(make("option", { value: steps }, words));
  }
  // The shorter of two games would be a sliver of the longer one's curves.
  const shorter = Math.min(...recordings.map(({ length }) => length));
  element("zoom").value = zooms.find((steps) => steps >= shorter);
  element("zoom").addEventListener("change", redrawCurves);
}

function addTelling() {
  telling = recordings.flatMap((recording, index) => recording.telling.map(({ step, reason }) => {
    const name = make("span", { className: index ? "tag second" : "tag first" }, recording.name);
    const button = make("button", { type: "button" }, make("b", {}, `step ${step}`), ` ${reason} `,
      ...(recordings.length > 1 ? [name] : []));
    button.addEventListener("click", () => go(step));
    return { step, name: recordings.length > 1 ? `${recording.name}: ` : "", reason, button };
  }));
  telling.sort((one, other) => one.step - other.step);
  if (plays.length === 1) plays[0].section.lastChild.append(element("telling-part"));
  element("telling").append(...telling.map(({ button }) => make("li", {}, button)));
}

function addLegend() {
  const entry = (kind, words) => make("li", {}, make("i", { className: kind }), words);
  if (plays.length > 1) {
    recordings.forEach(({ name }, index) =>
      element("legend").append(entry(index ? "second" : "first", name)));
  }
  element("legend").append(entry("triangle", "telling frame"));
  const marks = {
    lifeStarts: ["dotted", "a life was lost"], stageStarts: ["dashed", "a stage begins"],
  };
  for (const [name, [kind, words]] of Object.entries(marks)) {
    const there = recordings.some((recording) => recording[name].length);
    if (there) element("legend").append(entry(kind, words));
  }
}

function set(changed) {
  Object.assign(settings, changed);
  element("opacity-text").textContent = `${Math.round(100 * settings.opacity)} %`;
  element("plays").dataset.show = settings.show;
  for (const play of plays) play.show(settings);
  request();
}

function redrawCurves() {
  curves.zoom = Number(element("zoom").value);
  curves.start = Math.floor(now / curves.zoom) * curves.zoom;
  curves.prepare();
  request();
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  element("theme").textContent = dark ? "Light" : "Dark";
}

function toggleTheme() {
  setTheme(document.documentElement.dataset.theme !== "dark");
  redrawCurves();
}

function onKey(event) {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || element("help").open) return;
  const step = event.shiftKey ? header.fps : 1;
  const act = {
    " ": () => play(!playing), ArrowLeft: () => go(now - step), ArrowRight: () => go(now + step),
    Home: () => go(0), End: () => go(curves.length - 1),
    n: () => toTelling(1), p: () => toTelling(-1), "?": () => element("help").showModal(),
  }[event.key];
  // Buttons, menus and the opacity have these keys for themselves.
  const own = target.matches("button") ? [" "]
    : target.matches("select, input:not(#scrub)") ? [" ", "ArrowLeft", "ArrowRight", "Home", "End"]
      : [];
  if (!act || own.includes(event.key)) return;
  event.preventDefault();
  act();
}

const dark = matchMedia("(prefers-color-scheme: dark)");
setTheme(dark.matches);
dark.addEventListener("change", () => {
  setTheme(dark.matches);
  redrawCurves();
});
try {
  recordings = await Promise.all(header.recordings.map(readRecording));
  plays = recordings.map((recording) => new Play(recording));
  curves = new Curves(recordings);
  setUp();
  set({});
} catch (error) {
  element("failure").textContent = `This page cannot be shown: ${error.message}. It needs a ` +
    "browser of 2023 or later (Chrome 103, Firefox 113, Safari 16.4), and the whole file.";
  element("failure").hidden = false;
  throw error;
}
