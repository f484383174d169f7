// The whole game under the pictures: curves, and the masks as images of cells by time.

const RIGHT = 46, AXIS = 18; // pixels around the bands
const NARROW = 600; // pixels: less is a phone
const LEAST = 20; // steps that can be zoomed to
const LETTERS = 30; // of a play's name beside the time line

const cut = (words) => (words.length > LETTERS ? `${words.slice(0, LETTERS - 1)}\u2026` : words);

/** Round ticks, at most `count`, within [low, high], and the digits after the point to write them. */
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1), power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 5, 10].map((n) => n * power).find((step) => step >= rough * 0.999);
  const values = [];
  for (let n = Math.ceil(low / unit - 1e-9); n * unit <= high + unit * 1e-9; n++) {
    values.push(n * unit);
  }
  return { values, digits: Math.max(0, Math.ceil(-Math.log10(unit) - 1e-9)) };
}

// Bands that are images: a row for each of so many numbers of a step, and their weight.
const IMAGES = {
  cells: { array: (branch) => `${branch}-mask`, rows: CELLS, weight: 2.6 },
  sights: { array: (branch) => `${branch}-sights`, rows: header.sights.length, weight: 1.3 },
};

class Timeline {
  constructor(recordings, canvas) {
    Object.assign(this, { recordings, canvas, still: make("canvas"), hovered: null });
    this.length = Math.max(...recordings.map(({ length }) => length));
  }

  /** The bands that are shown: curves, the chosen cell's trace, and images of the masks. */
  bands(settings) {
    const { branch } = settings, found = [];
    for (const { name, words, of } of header.curves) {
      const key = of ? `${branch}-${name}` : name;
      if (name in IMAGES) {
        if (!settings.curves.includes(name)) continue;
        for (const recording of this.recordings) {
          if (recording[IMAGES[name].array(branch)]) {
            found.push({ name, words, recording, weight: IMAGES[name].weight });
          }
        }
      } else if (settings.curves.includes(name) && this.recordings.some((r) => r[key])) {
        found.push({ name, key, words, weight: 1, at: (r, step) => r[key]?.[step] });
      }
    }
    if (settings.cell !== null && this.recordings.some((r) => r.branches.includes(branch))) {
      found.push({ name: "cell", words: `cell ${cellName(settings.cell, true)}`, weight: 1,
        at: (r, step) => r.branches.includes(branch)
          ? maskAt(r, branch, step, settings.cell) : undefined });
    }
    return found;
  }

  x(step) {
    const [from, to] = this.window;
    return this.gutter + ((step - from) / Math.max(to - from, 1)) * this.width;
  }

  stepAtX(x) {
    const [from, to] = this.window;
    return clamp(Math.round(from + ((x - this.gutter) / this.width) * (to - from)), from, to);
  }

  /** The steps [first, last) of a pixel's column, one at least; the last column has the last one. */
  stepsOf(column) {
    const [from, to] = this.window, dense = (to - from) / this.width;
    const first = Math.round(from + column * dense);
    if (column + 1 >= this.width) return [first, to + 1];
    return [first, Math.max(Math.round(from + (column + 1) * dense), first + 1)];
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const band = this.laid.find(({ top, height }) => y >= top && y < top + height);
    const { rows } = IMAGES[band?.name] ?? {};
    const row = rows && clamp(Math.floor(((y - band.top - 1) / (band.height - 2)) * rows), 0, rows - 1);
    return { x, y, step: this.stepAtX(x), cell: band?.name === "cells" ? row : null,
      sight: band?.name === "sights" && this.settings.sight === null ? row : null };
  }

  /** Draws all but the cursor, for the canvas's size, the window, the settings and the theme. */
  prepare(settings) {
    const box = this.canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.still]) {
      canvas.width = Math.round(box.width * ratio);
      canvas.height = Math.round(box.height * ratio);
    }
    this.ratio = ratio;
    const context = this.still.getContext("2d");
    context.scale(ratio, ratio);
    this.lay(box, settings);
    this.drawStill(context);
  }

  lay({ width, height }, settings) {
    const style = getComputedStyle(this.canvas);
    this.colours = Object.fromEntries(["rank-0", "rank-1", "ink", "faint", "line", "boundary",
      "card"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
    this.settings = settings;
    this.window = settings.window;
    // At the left stand a band's name and its values, in two lines where there is room.
    this.gutter = width < NARROW ? 104 : 132 + 50 * (this.recordings.length - 1);
    this.width = width - this.gutter - RIGHT;
    this.height = height;
    const bands = this.bands(settings);
    const total = bands.reduce((sum, { weight }) => sum + weight, 0);
    let top = 2;
    this.laid = bands.map((band) => {
      const laid = { ...band, top, height: ((height - AXIS - 2) * band.weight) / total };
      top += laid.height;
      return laid.at ? { ...laid, ...this.range(laid) } : laid;
    });
  }

  /** The curve's least and greatest value in the window. */
  range({ at }) {
    let low = Infinity, high = -Infinity;
    const [from, to] = this.window;
    for (const recording of this.recordings) {
      for (let step = from; step <= Math.min(to, recording.length - 1); step++) {
        const y = at(recording, step);
        if (y < low) low = y;
        if (y > high) high = y;
      }
    }
    if (!(high > low)) [low, high] = Number.isFinite(low) ? [low, low + 1] : [0, 1];
    return { low, high };
  }

  y({ top, height, low, high }, value) {
    return top + 3 + ((high - value) / (high - low)) * (height - 6);
  }

  drawStill(context) {
    context.font = "11px system-ui, sans-serif";
    this.drawAxes(context);
    context.save();
    context.beginPath(); // what lies outside the window must not be drawn
    context.rect(this.gutter - 3, 0, this.width + 6, this.height);
    context.clip();
    for (const band of this.laid) {
      if (band.name === "sights" && this.settings.sight !== null) {
        this.drawShare(context, band, this.settings.sight);
      } else if (band.recording) this.drawImage(context, band);
    }
    this.recordings.forEach((recording, rank) => this.drawBoundaries(context, recording, rank));
    for (const band of this.laid) {
      if (band.at) {
        this.recordings.forEach((recording, rank) => this.drawCurve(context, band, recording, rank));
      }
    }
    this.drawBrush(context);
    context.restore();
  }

  drawAxes(context) {
    const bottom = this.height - AXIS, { ink, faint, line } = this.colours;
    for (const { name, words, top, height, recording, at, ...band } of this.laid) {
      context.fillStyle = line;
      context.fillRect(0, Math.round(top), this.gutter + this.width + RIGHT, 1);
      context.textAlign = "left";
      const two = this.recordings.length > 1; // whose it is, where there is no room for a name
      context.fillStyle = recording && two
        ? this.colours[`rank-${this.recordings.indexOf(recording)}`] : ink;
      context.fillText(words, 4, top + 12);
      if (recording) {
        context.fillStyle = faint;
        const lines = [...(two ? [cut(recording.name)] : []),
          `${this.settings.branch} mask`, ...(name === "cells" ? ["screen: top", "to bottom"] : [])];
        lines.forEach((words, n) => {
          if (26 + 13 * n < height) context.fillText(words, 4, top + 25 + 13 * n, this.gutter - 8);
        });
        continue;
      }
      context.fillStyle = faint;
      let free = Infinity; // above the tick before
      const { values, digits } = ticks(band.low, band.high, height > 45 ? 3 : 2);
      for (const value of values) {
        const y = this.y({ top, height, ...band }, value);
        const label = clamp(y + 4, top + 10, top + height - 1);
        if (label > free) continue;
        free = label - 11;
        context.fillText(number(value, digits), this.gutter + this.width + 6, label);
        context.fillStyle = line;
        context.fillRect(this.gutter, Math.round(y), this.width, 0.5);
        context.fillStyle = faint;
      }
    }
    context.fillStyle = line;
    context.fillRect(0, Math.round(bottom), this.gutter + this.width + RIGHT, 1);
    context.fillStyle = faint;
    context.fillText("step", this.gutter - 34, bottom + 13);
    const [from, to] = this.window;
    for (const step of ticks(from, to, this.width / 80).values) {
      if (!Number.isInteger(step)) continue;
      context.textAlign = "center";
      context.fillText(String(step), this.x(step), bottom + 13);
      context.fillRect(this.x(step), bottom, 1, 3);
    }
    context.textAlign = "left";
  }

  /** One column of the band for each pixel, the mean of its steps; a row for each cell or sight. */
  drawImage(context, { name, recording, top, height }) {
    const { branch, scaleOf } = this.settings, { array, rows } = IMAGES[name];
    const scales = name === "cells" ? Array(rows).fill(scaleOf[branch])
      : header.sights.map((_, sight) => ({ low: 0, high: this.most(sight) || 1 }));
    const [from, to] = this.window, numbers = recording[array(branch)];
    const columns = Math.max(1, Math.min(Math.round(this.width), to - from + 1));
    const image = new ImageData(columns, rows), out = image.data;
    const sum = new Float64Array(rows);
    for (let column = 0; column < columns; column++) {
      const first = from + Math.floor((column * (to - from + 1)) / columns);
      const end = from + Math.floor(((column + 1) * (to - from + 1)) / columns);
      const last = Math.min(Math.max(end, first + 1), recording.length);
      if (first >= recording.length) break;
      sum.fill(0);
      for (let step = first; step < last; step++) {
        for (let row = 0; row < rows; row++) sum[row] += numbers[step * rows + row];
      }
      for (let row = 0; row < rows; row++) {
        const value = sum[row] / (last - first) / 65535;
        const colour = header.colours[Math.round(positionOn(scales[row], value) * 255)];
        const at = 4 * (row * columns + column);
        [out[at], out[at + 1], out[at + 2], out[at + 3]] = [...colour, 255];
      }
    }
    const canvas = make("canvas", { width: columns, height: rows });
    canvas.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    const half = this.width / Math.max(to - from, 1) / 2; // a step's column is centred on it
    context.drawImage(canvas, this.gutter - half, top + 1, this.width + 2 * half, height - 2);
    if (name !== "cells") return;
    context.fillStyle = this.colours.card;
    context.globalAlpha = 0.4;
    for (let row = 1; row < header.cells; row++) { // the screen's rows
      const y = Math.round(top + 1 + (row * (height - 2)) / header.cells);
      context.fillRect(this.gutter - half, y, this.width + 2 * half, 1);
    }
    context.globalAlpha = 1;
  }

  /** The greatest share of the mask on a sight: of all plays, which share one scale. */
  most(sight) {
    const { branch } = this.settings;
    return Math.max(...this.recordings.map((r) => r.lookedAt?.[branch]?.[sight].most ?? 0));
  }

  /** How much of the mask lies on a sight, from 0 to its most, filled. */
  drawShare(context, { recording, top, height }, sight) {
    const { branch } = this.settings, shares = recording[`${branch}-sights`];
    const most = this.most(sight), rows = header.sights.length;
    const to = Math.min(this.window[1], recording.length - 1);
    context.fillStyle = this.colours.card;
    context.fillRect(this.gutter - 3, top + 1, this.width + RIGHT, height - 1);
    context.strokeStyle = this.colours[`rank-${this.recordings.indexOf(recording)}`];
    context.lineWidth = 1;
    context.beginPath();
    for (let column = 0; column < this.width; column++) {
      const [first, last] = this.stepsOf(column);
      if (first > to) break;
      let sum = 0, count = 0;
      for (let step = first; step < Math.min(last, to + 1); step++, count++) {
        sum += shares[step * rows + sight];
      }
      const x = this.gutter + column + 0.5, share = sum / count / 65535 / (most || 1);
      context.moveTo(x, top + height);
      context.lineTo(x, top + height - Math.min(share, 1) * (height - 3));
    }
    context.stroke();
  }

  drawBoundaries(context, recording, rank) {
    context.strokeStyle = rank ? this.colours["rank-1"] : this.colours.boundary;
    context.lineWidth = 1;
    for (const [kind, dash] of [["lifeStarts", [1, 3]], ["stageStarts", [6, 4]]]) {
      context.setLineDash(dash);
      context.beginPath();
      for (const step of recording[kind]) {
        context.moveTo(this.x(step), 2);
        context.lineTo(this.x(step), this.height - AXIS);
      }
      context.stroke();
    }
    context.setLineDash([]);
  }

  /** A line; where steps are denser than pixels, from each pixel's least to its greatest value. */
  drawCurve(context, band, recording, rank) {
    const [from, to] = [this.window[0], Math.min(this.window[1], recording.length - 1)];
    const dense = (this.window[1] - from) / this.width;
    context.strokeStyle = this.colours[`rank-${rank}`];
    context.lineWidth = 1.2;
    context.beginPath();
    if (dense <= 2) {
      for (let step = from; step <= to; step++) {
        const value = band.at(recording, step);
        if (value !== undefined) context.lineTo(this.x(step), this.y(band, value));
      }
    } else {
      for (let column = 0; column < this.width; column++) {
        const [first, last] = this.stepsOf(column);
        let low = Infinity, high = -Infinity;
        for (let step = first; step < Math.min(last, to + 1); step++) {
          const value = band.at(recording, step);
          if (value < low) low = value;
          if (value > high) high = value;
        }
        if (low > high) continue;
        context.lineTo(this.gutter + column, this.y(band, low));
        context.lineTo(this.gutter + column, this.y(band, high));
      }
    }
    context.stroke();
  }

  drawBrush(context) {
    if (!this.settings.brush) return;
    const [from, to] = this.settings.brush.map((step) => this.x(step));
    context.globalAlpha = 0.18;
    context.fillStyle = this.colours["rank-0"];
    context.fillRect(from, 0, Math.max(to - from, 1), this.height - AXIS);
    context.globalAlpha = 1;
  }

  /** The bands, and what changes at every step. */
  draw(step, sight) {
    const context = this.canvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    context.drawImage(this.still, 0, 0);
    context.scale(this.ratio, this.ratio);
    const read = this.drawCursor(context, step, sight);
    Object.assign(this.canvas.dataset, { step, x: this.x(step), read });
  }

  /** The cursor, the hairline, and the values under it; returns the step that they are of. */
  drawCursor(context, step, sight) {
    context.font = "11px system-ui, sans-serif";
    const [from, to] = this.window;
    if (sight !== null && sight !== this.settings.sight) {
      for (const band of this.laid) if (band.name === "sights") this.drawShare(context, band, sight);
    }
    if (step >= from && step <= to) {
      context.fillStyle = this.colours.ink;
      context.fillRect(this.x(step) - 0.75, 0, 1.5, this.height - AXIS);
    }
    const read = this.hovered ? this.stepAtX(this.hovered.x) : step;
    if (this.hovered) {
      context.fillStyle = this.colours.faint;
      context.fillRect(this.x(read) - 0.25, 0, 0.5, this.height - AXIS);
      const words = String(read), x = clamp(this.x(read), this.gutter + 16, this.gutter + this.width - 16);
      context.font = "bold 11px system-ui, sans-serif";
      context.fillStyle = this.colours.card;
      context.fillRect(x - 20, this.height - AXIS + 2, 40, AXIS - 2);
      context.fillStyle = this.colours.ink;
      context.textAlign = "center";
      context.fillText(words, x, this.height - 5);
      context.textAlign = "left";
    }
    this.drawReadings(context, read, sight);
    return read;
  }

  drawReadings(context, step, sight) {
    context.font = "bold 11px system-ui, sans-serif";
    for (const band of this.laid) {
      if (band.name === "sights") {
        const { recording, top } = band;
        if (sight === null || step >= recording.length) continue;
        const share = recording[`${this.settings.branch}-sights`][step * header.sights.length + sight];
        context.fillStyle = this.colours[`rank-${this.recordings.indexOf(recording)}`];
        context.textAlign = "right";
        context.fillText(percent(share / 65535), this.gutter - 8, top + 12);
        context.textAlign = "left";
        context.fillStyle = this.colours.faint;
        context.fillText(percent(this.most(sight)), this.gutter + this.width + 6, top + 11);
        continue;
      }
      if (!band.at) {
        if (this.hovered?.cell != null && step < band.recording.length && band.height > 70) {
          context.fillStyle = this.colours.card; // over the lines that stand there
          context.fillRect(0, band.top + band.height - 30, this.gutter - 4, 29);
          context.fillStyle = this.colours.ink;
          const value = maskAt(band.recording, this.settings.branch, step, this.hovered.cell);
          context.fillText(`${cellName(this.hovered.cell)}`, 4, band.top + band.height - 18);
          context.fillText(value.toFixed(3), 4, band.top + band.height - 5);
        }
        continue;
      }
      context.textAlign = "right";
      this.recordings.forEach((recording, rank) => {
        const value = step < recording.length ? band.at(recording, step) : undefined;
        if (value === undefined) return;
        const left = 50 * (this.recordings.length - 1 - rank), tall = band.height > 27;
        if (!tall && this.gutter < 132) return; // it would cover the name
        context.fillStyle = this.colours[`rank-${rank}`];
        context.fillText(number(value, 3), this.gutter - 8 - left, band.top + (tall ? 25 : 12));
        context.beginPath();
        const [from, to] = this.window;
        if (step < from || step > to) return;
        context.arc(this.x(step), this.y(band, value), 3, 0, 2 * Math.PI);
        context.fill();
      });
      context.textAlign = "left";
    }
  }

  /** The window after zooming by a factor around a step. */
  zoomed(factor, around) {
    const [from, to] = this.window, most = this.length - 1;
    const span = clamp((to - from) * factor, Math.min(LEAST, most), most);
    const start = clamp(around - ((around - from) / Math.max(to - from, 1)) * span, 0, most - span);
    return [Math.round(start), Math.round(start + span)];
  }

  /** The window that shows these steps. */
  spanOf([from, to]) {
    const missing = Math.max(LEAST - (to - from), 0), last = this.length - 1;
    const start = clamp(from - Math.ceil(missing / 2), 0, Math.max(last - LEAST, 0));
    return [start, Math.min(Math.max(to, start + LEAST), last)];
  }

  /** The window moved by so many steps. */
  panned(steps) {
    const [from, to] = this.window, span = to - from;
    const start = clamp(from + steps, 0, this.length - 1 - span);
    return [start, start + span];
  }
}

/** Pointers and wheels on the time line: click, brush, zoom, pinch. */
function listen(canvas) {
  const down = new Map(); // pointer -> its last x
  let start = null, pinch = null;
  canvas.addEventListener("pointerdown", (event) => {
    const beside = event.offsetX - timeline.gutter; // names and numbers are no steps
    if (event.button || beside < -3 || beside > timeline.width + 3) return;
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, event.offsetX);
    if (down.size === 2) {
      const [one, other] = [...down.values()];
      pinch = { apart: Math.max(Math.abs(one - other), 20), window: timeline.window,
        around: timeline.stepAtX((one + other) / 2) };
      start = null;
    } else start = timeline.place(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    const place = timeline.place(event);
    if (down.has(event.pointerId)) down.set(event.pointerId, event.offsetX);
    if (pinch && down.size === 2) {
      const [one, other] = [...down.values()];
      timeline.window = pinch.window;
      const factor = pinch.apart / Math.max(Math.abs(one - other), 20);
      return set({ window: timeline.zoomed(factor, pinch.around) });
    }
    timeline.hovered = place;
    if (start && Math.abs(place.x - start.x) > 6) {
      return set({ brush: [start.step, place.step].sort((a, b) => a - b) });
    }
    request();
  });
  const up = (event) => {
    if (!down.delete(event.pointerId)) return; // begun beside the plot
    if (pinch) {
      if (!down.size) pinch = null;
    } else if (start && event.type === "pointerup") {
      const place = timeline.place(event);
      if (Math.abs(place.x - start.x) <= 6) {
        set({ brush: null, ...(place.cell === null ? {} : { cell: place.cell }),
          ...(place.sight === null ? {} : { sight: place.sight, tab: "sights" }) });
        go(place.step);
      }
    }
    start = null;
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => {
    timeline.hovered = null;
    request();
  });
  const owed = { pan: 0, zoom: 0 }; // a touchpad turns by less than a step at a time
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { window: [from, to] } = timeline;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) {
      owed.pan += ((event.deltaX || event.deltaY) * (to - from)) / 800;
      const steps = Math.trunc(owed.pan);
      owed.pan -= steps;
      if (steps) set({ window: timeline.panned(steps) });
    } else {
      owed.zoom += event.deltaY;
      const zoomed = timeline.zoomed(1.0015 ** owed.zoom, timeline.place(event).step);
      const [span, before] = [zoomed[1] - zoomed[0], to - from];
      if (span !== before) owed.zoom -= Math.log(span / before) / Math.log(1.0015);
      owed.zoom = clamp(owed.zoom, -50, 50); // it may be at its end
      if (span !== before) set({ window: zoomed });
    }
  }, { passive: false });
}
