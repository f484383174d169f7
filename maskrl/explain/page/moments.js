// The list of moments: why each is shown, before and after, filtered and sorted; notes.

class Moments {
  constructor(plays) {
    this.plays = plays;
    this.list = element("moments-list");
    this.told = plays.flatMap(({ recording, rank }) => recording.telling.map((telling) =>
      ({ ...telling, recording, rank })));
    this.thumbs = new Map(); // "recording step" -> a small canvas
    this.waiting = []; // those that are to be drawn
  }

  /** All that can be listed: the telling moments, the chosen cell's highest, the notes. */
  entries() {
    const found = [...this.told];
    const { cell, branch, notes } = state;
    for (const { recording, rank } of cell === null ? [] : this.plays) {
      const highest = recording[`${branch}-highest`];
      if (!highest) continue;
      const count = highest.length / CELLS;
      for (const step of new Set(highest.subarray(cell * count, (cell + 1) * count))) {
        found.push({ step, kind: "cell", recording, rank, before: step, after: step,
          reason: `${branch} mask ${maskAt(recording, branch, step, cell).toFixed(2)} at ` +
            cellName(cell) });
      }
    }
    for (const note of notes) {
      const { step, text } = note;
      const of = this.plays.find(({ recording }) => recording.index === note.play);
      if (!of) continue; // it comes back with its play
      found.push({ step, kind: "note", recording: of.recording, rank: of.rank, reason: text,
        before: step, after: step, note });
    }
    return found;
  }

  /** The moments that the filter lets through, in the chosen order. */
  shown() {
    const kinds = Object.keys(header.kinds);
    const found = this.entries().filter(({ kind }) => state.kind === "all" || kind === state.kind);
    const rank = ({ kind }) => (kinds.indexOf(kind) + kinds.length + 1) % (kinds.length + 1);
    return found.sort((one, other) => (state.order === "kind" ? rank(one) - rank(other) : 0)
      || one.step - other.step);
  }

  /** Writes the list. */
  build() {
    const two = this.plays.length > 1;
    const present = new Set(this.entries().map(({ kind }) => kind));
    const menu = element("kind");
    const names = { all: "all moments", ...header.kinds, cell: "chosen cell", note: "notes" };
    menu.replaceChildren(...Object.entries(names).filter(([kind]) => kind === "all"
      || present.has(kind)).map(([kind, words]) => make("option", { value: kind }, words)));
    if (!present.has(state.kind)) state.kind = "all";
    menu.value = state.kind;
    const focused = this.items?.findIndex(({ item }) => item.contains(document.activeElement));
    this.items = this.shown().map((moment) => {
      const { step, kind, reason, recording, rank, before, after } = moment;
      const small = this.thumb(recording, Math.min(step, recording.length - 1)); // notes: any step
      const main = make("button", { type: "button", className: "moment" }, small,
        make("span", {}, make("b", {}, `step ${step}`), ` ${reason}`,
          ...(two ? [make("span", { className: `tag rank-${rank}` }, recording.name)] : [])));
      main.addEventListener("click", () => show(step));
      const pair = make("span", { className: "pair" });
      for (const [words, sign, to] of [["before", "\u25c2", before], ["after", "\u25b8", after]]) {
        if (to === step) continue;
        const title = `${words} it: step ${to}`;
        const button = make("button", { type: "button", title, ariaLabel: title }, sign);
        button.addEventListener("click", () => show(to));
        pair.append(button);
      }
      if (kind === "note") {
        const button = make("button", { type: "button" }, "\u00d7");
        button.title = button.ariaLabel = "delete this note";
        button.addEventListener("click", () =>
          set({ notes: state.notes.filter((note) => note !== moment.note) }));
        pair.append(button);
      }
      return { step, reason, name: two ? `${recording.name}: ` : "", main,
        item: make("li", { className: kind }, main, pair) };
    });
    this.list.replaceChildren(...this.items.map(({ item }) => item));
    this.marked = null;
    if (focused >= 0) this.items.at(Math.min(focused, this.items.length - 1))?.main.focus();
    this.drawThumbs();
  }

  /** A small picture of a frame; it is drawn when there is time. */
  thumb(recording, step) {
    const key = `${recording.index} ${step}`;
    const canvas = make("canvas", { width: 40, height: 52, className: "thumb" });
    canvas.setAttribute("aria-hidden", "true");
    if (this.thumbs.has(key)) canvas.getContext("2d").drawImage(this.thumbs.get(key), 0, 0);
    else this.waiting.push({ key, canvas, recording, step });
    return canvas;
  }

  /** Draws the small pictures that wait, one after the other, with pauses for all else. */
  async drawThumbs() {
    if (this.drawing) return;
    this.drawing = true;
    try {
      await new Promise((done) => setTimeout(done, 300)); // the page first
      while (this.waiting.length) {
        const { key, canvas, recording, step } = this.waiting.shift();
        if (!canvas.isConnected) continue;
        canvas.getContext("2d").drawImage(await plain(recording.frames, step), 0, 0, 40, 52);
        this.thumbs.set(key, canvas);
        await new Promise((done) => setTimeout(done, 20));
      }
    } finally {
      this.drawing = false;
    }
  }

  /** Marks the moment of this step; returns what is said of it. */
  mark(step) {
    const here = this.items.filter((item) => item.step === step);
    for (const item of this.items) item.main.ariaCurrent = here.includes(item) ? "step" : null;
    if (here.length && step !== this.marked) this.list.scrollTop = here[0].item.offsetTop - 40;
    this.marked = step; // it scrolls no more, whatever else is drawn
    return here.map(({ name, reason }) => ` · ${name}${reason}`).join("");
  }

  /** The next or previous listed step. */
  next(step, direction) {
    const steps = this.items.map((item) => item.step).sort((one, other) => one - other);
    return direction > 0 ? steps.find((at) => at > step) : steps.findLast((at) => at < step);
  }
}

/** Goes to a moment, and never leaves its pictures off the screen. */
function show(step) {
  const [from, to] = state.window;
  if (step < from || step > to) set({ window: [0, timeline.length - 1] });
  go(step);
  element("plays").scrollIntoView({ block: "nearest" });
}
