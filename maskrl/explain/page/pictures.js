// Masks over frames, as overlay.py draws them, and the panels that show them.

const NAMES = { game: "game", policy: "policy mask", value: "value mask", both: "both masks" };
const DASH = 4; // pixels: where two lines fall together they take turns

/** Which cell covers each pixel (CELLS: none), and the pixels beside another cell. */
function cover([top, bottom]) {
  const cell = new Uint8Array(WIDTH * HEIGHT).fill(CELLS);
  const n = header.cells;
  for (let row = top; row < bottom; row++) {
    const y = Math.floor(((row - top + 0.5) * n) / (bottom - top));
    for (let column = 0; column < WIDTH; column++) {
      cell[row * WIDTH + column] = y * n + Math.floor(((column + 0.5) * n) / WIDTH);
    }
  }
  const borders = []; // [pixel, its cell, the cell beside it]
  for (let row = top; row < bottom; row++) {
    for (let column = 0; column < WIDTH; column++) {
      const at = row * WIDTH + column;
      for (const [y, x] of [[row - 1, column], [row + 1, column], [row, column - 1],
        [row, column + 1]]) {
        const outside = x < 0 || x >= WIDTH || y < 0 || y >= HEIGHT;
        const other = outside ? CELLS : cell[y * WIDTH + x];
        if (other !== cell[at]) borders.push([at, cell[at], other]);
      }
    }
  }
  return { cell, borders };
}

const positionOn = ({ low, high }, value) => clamp((value - low) / (high - low), 0, 1);

/**
 * Draws masks over the frame.
 * masks: [{ positions, light }]: a place on the scale, 0 to 1, for each cell; the light's colour.
 */
function paint(context, frame, masks, { cell, borders }, { style, strength }) {
  const image = context.createImageData(WIDTH, HEIGHT);
  const out = new Uint32Array(image.data.buffer);
  const gain = new Float64Array(3 * CELLS + 3).fill(1), offset = new Float64Array(3 * CELLS + 3);
  const grey = masks.length > 0 && style === "colours";
  for (let i = 0; masks.length && i < CELLS; i++) {
    const most = Math.max(...masks.map(({ positions }) => positions[i]));
    for (let channel = 0; channel < 3; channel++) {
      const at = 3 * i + channel;
      if (style === "spotlight") {
        let haze = 0;
        for (const { positions, light } of masks) haze += header.haze * positions[i] * light[channel];
        haze = Math.min(haze, 255);
        gain[at] = (1 - strength * (1 - most)) * (1 - haze / 255);
        offset[at] = haze;
      } else if (grey) {
        gain[at] = 1 - strength;
        offset[at] = strength * header.colours[Math.round(masks[0].positions[i] * 255)][channel];
      }
    }
  }
  for (let i = 0; i < out.length; i++) {
    const pixel = frame[i], at = 3 * cell[i];
    let red = pixel & 255, green = (pixel >> 8) & 255, blue = pixel >> 16;
    if (at < 3 * CELLS) {
      if (grey) red = green = blue = (red + green + blue) / 3;
      red = gain[at] * red + offset[at] + 0.5;
      green = gain[at + 1] * green + offset[at + 1] + 0.5;
      blue = gain[at + 2] * blue + offset[at + 2] + 0.5;
    }
    out[i] = (blue << 16) | (green << 8) | red | 0xff000000;
  }
  const lined = grey ? masks.slice(1) : masks;
  const levels = grey ? [0.5] : header.contours[style] ?? [];
  const colour = ({ light: [red, green, blue] }) => (blue << 16) | (green << 8) | red | 0xff000000;
  const owner = new Uint8Array(WIDTH * HEIGHT); // bit n: a line of mask n
  lined.forEach(({ positions }, n) => {
    for (const [at, own, other] of borders) {
      const between = levels.some((level) =>
        positions[own] > level && !(other < CELLS && positions[other] > level));
      if (between) owner[at] |= 1 << n;
    }
  });
  for (let i = 0; i < owner.length; i++) {
    if (!owner[i]) continue;
    const turn = Math.floor(((i % WIDTH) + Math.floor(i / WIDTH)) / DASH) % 2;
    out[i] = colour(lined[owner[i] === 3 ? turn : owner[i] - 1]);
  }
  context.putImageData(image, 0, 0);
}

const BARE = { cell: new Uint8Array(WIDTH * HEIGHT).fill(CELLS), borders: [] };

/** A canvas with the frame of a step alone. */
async function plain(frames, step) {
  const canvas = make("canvas", { width: WIDTH, height: HEIGHT });
  paint(canvas.getContext("2d"), await frames.at(step), [], BARE, { style: "" });
  return canvas;
}

const LINE = "line"; // as the second mask is drawn over one in colours

/** Draws the scale as it looks over black (top) to over white (bottom). */
function paintBar(canvas, light, { style, strength }) {
  const context = canvas.getContext("2d"), { width, height } = canvas;
  const image = context.createImageData(width, height);
  for (let row = 0, i = 0; row < height; row++) {
    const under = 255 * (row / (height - 1));
    for (let column = 0; column < width; column++) {
      const along = column / (width - 1);
      const levels = style === LINE ? [0.5] : header.contours[style] ?? [];
      const lined = levels.some((level) =>
        column === Math.round(level * (width - 1)));
      for (let channel = 0; channel < 3; channel++) {
        const haze = header.haze * along * light[channel];
        image.data[i++] = lined ? light[channel]
          : style === "spotlight"
            ? under * (1 - strength * (1 - along)) * (1 - haze / 255) + haze + 0.5
            : style === "colours"
              ? strength * header.colours[Math.round(along * 255)][channel]
                + (1 - strength) * under + 0.5
              : under;
      }
      image.data[i++] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

/** The scale of a branch's mask that all recordings on the page share. */
function sharedScale(recordings, branch, kind) {
  const scales = recordings.map(({ scales: own }) => own[branch]?.[kind]).filter(Boolean);
  if (scales.some(({ low, high }) => low === 0 && high === 1)) return { low: 0, high: 1 };
  return {
    low: Math.min(...scales.map(({ low }) => low)), high: Math.max(...scales.map(({ high }) => high)),
  };
}

/** A picture of the game, with the masks `branches` over it. */
class Panel {
  constructor(name, recording, geometry) {
    Object.assign(this, { name, recording, geometry, hovered: null });
    this.branches = { game: [], both: ["policy", "value"] }[name] ?? [name];
    this.canvas = make("canvas", { width: WIDTH, height: HEIGHT, className: "frame" });
    this.canvas.dataset.panel = name;
    this.canvas.setAttribute("role", "img");
    const inverted = this.branches.filter((branch) => recording.inverted.includes(branch));
    this.inverted = inverted.length
      ? `1 \u2212 M${this.branches.length > inverted.length ? ` (${inverted})` : ""}` : "";
    this.context = this.canvas.getContext("2d");
    this.caption = make("b");
    this.call("");
    this.reading = make("span");
    this.bars = this.branches.map((branch) => ({
      branch, canvas: make("canvas", { width: 256, height: 10, className: "bar" }),
      low: make("span"), high: make("span"),
    }));
    this.figure = make("figure", {},
      make("figcaption", {}, this.caption, this.reading), this.canvas,
      make("div", { className: `scales${this.bars.length > 1 ? " two" : ""}` }, ...this.bars.map(({ canvas, low, high }) =>
        make("div", { className: "scale" }, low, canvas, high))));
    if (!this.branches.length) return;
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", () => this.hover(null));
    this.canvas.addEventListener("click", (event) => {
      const cell = this.cellUnder(event);
      if (cell !== null) set({ cell: cell === state.cell ? null : cell,
        ...(this.branches.length === 1 ? { branch: this.branches[0] } : {}) });
    });
  }

  /** The cell under a pointer; null outside what the agent sees. */
  cellUnder(event) {
    const box = this.canvas.getBoundingClientRect(); // the picture is fitted into it, centred
    const zoom = Math.min(box.width / WIDTH, box.height / HEIGHT);
    const x = Math.floor((event.clientX - box.left - (box.width - zoom * WIDTH) / 2) / zoom);
    const y = Math.floor((event.clientY - box.top - (box.height - zoom * HEIGHT) / 2) / zoom);
    if (x < 0 || x >= WIDTH || y < 0 || y >= HEIGHT) return null;
    const cell = this.geometry.cell[y * WIDTH + x];
    return cell === CELLS ? null : cell;
  }

  hover(event) {
    this.hovered = event && this.cellUnder(event);
    this.read();
  }

  /** The scale's bars: they change only with the settings. */
  setScale(settings) {
    for (const [n, { branch, canvas, low, high }] of this.bars.entries()) {
      const scale = settings.scaleOf[branch];
      const prefix = this.bars.length > 1 ? `${branch} ` : "";
      low.textContent = prefix + number(scale.low);
      high.textContent = number(scale.high);
      low.title = "this much or less of the cell is let through";
      high.title = "this much or more of the cell is let through";
      // Of two masks in one picture, in colours the second one is a line.
      const lined = n && settings.style === "colours";
      paintBar(canvas, header.light[branch], lined ? { ...settings, style: LINE } : settings);
    }
  }

  draw(step, frame, settings) {
    const { recording } = this, { brush } = settings, part = brushed(recording, brush);
    const branches = brush && !part ? [] : this.branches;
    this.masks = branches.map((branch) => part ? meanMask(recording, branch, part)
      : Float64Array.from({ length: CELLS }, (_, cell) => maskAt(recording, branch, step, cell)));
    const masks = branches.map((branch, n) => ({
      positions: this.masks[n].map((value) => positionOn(settings.scaleOf[branch], value)),
      light: header.light[branch],
    }));
    paint(this.context, frame, masks, this.geometry, settings);
    if (settings.cell !== null && this.branches.length) this.mark(settings.cell);
    if (settings.sight !== null && recording.sights) this.surround(step, settings.sight);
    this.call(brush && this.branches.length ? meanOf(part, brush) : "");
    this.canvas.dataset.step = step;
    this.read();
  }

  /** Says what it shows; first what is special, for where there is no room a caption's end is cut. */
  call(mean) {
    const words = [this.inverted, mean, NAMES[this.name]].filter(Boolean).join(", ");
    if (words === this.caption.title) return;
    this.caption.textContent = this.caption.title = words;
    this.canvas.setAttribute("aria-label", `${this.recording.name}: ${words}`);
  }

  /** A frame around the chosen cell. */
  mark(cell) {
    const [top, bottom] = this.recording.view, n = header.cells, high = (bottom - top) / n;
    const [row, column] = [Math.floor(cell / n), cell % n];
    this.context.strokeStyle = "#ffffff";
    this.context.setLineDash([2, 2]);
    this.context.strokeRect(column * WIDTH / n + 0.5, Math.round(top + row * high) + 0.5,
      WIDTH / n - 1, Math.round(high) - 1);
  }

  /** A line around the cells that show a sight, black and white in turn: seen on everything. */
  surround(step, sight) {
    const first = step * CELLS, { sights } = this.recording;
    const shows = (cell) => cell < CELLS && sights[first + cell] === sight;
    for (const [at, own, other] of this.geometry.borders) {
      if (!shows(own) || shows(other)) continue;
      const x = at % WIDTH, y = Math.floor(at / WIDTH);
      this.context.fillStyle = Math.floor((x + y) / DASH) % 2 ? "#000000" : "#ffffff";
      this.context.fillRect(x, y, 1, 1);
    }
  }

  read() {
    const cell = this.hovered;
    this.reading.textContent = cell === null || !this.masks?.length ? ""
      : `${cellName(cell)}: ${this.masks.map((mask) => mask[cell].toFixed(3)).join(", ")}`;
  }
}

function cellName(cell, short = false) {
  const [row, column] = [Math.floor(cell / header.cells) + 1, (cell % header.cells) + 1];
  return short ? `${row}, ${column}` : `row ${row}, column ${column}`;
}

const meanMasks = new Map();
function meanMask(recording, branch, part) {
  const key = `${recording.index} ${branch} ${part}`;
  if (!meanMasks.has(key)) {
    if (meanMasks.size > 50) meanMasks.clear();
    meanMasks.set(key, meanOver(recording[`${branch}-mask`], CELLS, part, 65535));
  }
  return meanMasks.get(key);
}

/** A recording's part of the page: its pictures, and beside them its numbers and actions. */
class Play {
  constructor(recording, rank) {
    Object.assign(this, { recording, rank });
    const geometry = cover(recording.view);
    const names = ["game", ...recording.branches,
      ...(recording.branches.length > 1 ? ["both"] : [])];
    this.panels = names.map((name) => new Panel(name, recording, geometry));
    this.over = make("p", { className: "over", hidden: true },
      `${recording.end} after ${recording.length} steps, score ${number(recording.finalScore)}`);
    this.pictures = make("div", { className: "panels" },
      ...this.panels.map((panel) => panel.figure), this.over);
    const title = make("h2", { className: `rank-${rank}`, title: recording.name },
      recording.name, make("small", {},
        `seed ${recording.seed} · ${recording.length} steps · score ${number(recording.finalScore)}`));
    this.section = make("section", { className: "play" }, title, this.pictures);
    this.section.setAttribute("aria-label", recording.name);
    this.facts = new Facts(recording, rank);
    new ResizeObserver(([{ contentRect }]) => {
      const beside = 46; // a caption and a scale
      this.pictures.style.setProperty("--wide", `${(contentRect.height - beside) * WIDTH / HEIGHT}px`);
    }).observe(this.pictures);
  }

  /** The recording's own step at a step of the page: after its end, its last. */
  stepAt(step) {
    return Math.min(step, this.recording.length - 1);
  }

  /** Whether there is such a picture of it. */
  has(name) {
    return this.panels.some((panel) => panel.name === name);
  }

  show(settings) {
    const found = this.panels.filter(({ name }) => settings.show.includes(name));
    this.shown = found.length ? found : this.panels.slice(0, 1); // it may lack this mask
    for (const panel of this.panels) {
      panel.figure.hidden = !this.shown.includes(panel);
      panel.setScale(settings);
    }
  }

  draw(step, frame, settings) {
    const now = this.stepAt(step);
    for (const panel of this.shown) panel.draw(now, frame, settings);
    this.over.hidden = step === now;
    this.section.classList.toggle("ended", step !== now);
    this.facts.draw(now, settings);
  }

  /** One sentence about the step, for those who hear the page. */
  words(step) {
    const { recording } = this, now = this.stepAt(step), action = recording.action[now];
    if (step !== now) return `${recording.name}: ${this.over.textContent}.`;
    const probability = recording.probabilities[now * recording.actions.length + action];
    return `${recording.name}: action ${recording.actions[action].name}, probability ` +
      `${probability.toFixed(2)}, value ${number(recording.value[now])}, ` +
      `score ${number(recording.score[now])}.`;
  }
}
