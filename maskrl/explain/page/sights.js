// The legend of what the masks look at: kinds of things, where they are, and how much of a mask
// lies on each.

const AROUND = 2.4; // cells, across and down, that a sight's picture shows
const PICTURE = [46, 54]; // pixels: its width and height

const HINT = "Kinds of what is on the screen, and how many times as much of the mask lies on each " +
  "as an even mask would put there. Point at one to see where and when, click to keep it.";

const percent = (share) => `${number(100 * share, share < 0.095 ? 1 : 0)} %`;

class Sights {
  constructor(plays) {
    this.plays = plays;
    this.hovered = null;
    this.list = element("sights-list");
  }

  /** The sight to show: the one under the pointer or with the focus, else the chosen one. */
  get active() {
    return this.hovered ?? state.sight;
  }

  build() {
    const focused = this.items?.findIndex((item) => item.contains(document.activeElement));
    this.items = header.sights.map((sight, index) => this.item(index));
    this.list.replaceChildren(...this.items);
    if (focused >= 0) this.items[focused].querySelector("button").focus();
    this.tell();
  }

  /** What the plays' masks lay on a sight: [{ recording, rank, share }]. */
  shares(index) {
    return this.plays.map(({ recording, rank }) =>
      ({ recording, rank, share: recording.lookedAt?.[state.branch]?.[index] }))
      .filter(({ share }) => share);
  }

  item(index) {
    const shares = this.shares(index), chosen = index === state.sight;
    const main = make("button", { type: "button", className: "sight", ariaPressed: chosen,
      ariaLabel: `Kind ${index + 1}: ${shares.map((of) => this.words(of)).join("; ")}` },
    this.picture(index), ...shares.map(({ share, rank }) =>
      make("span", { className: this.colour(rank) },
        share.screen ? `\u00d7${(share.mask / share.screen).toFixed(1)}` : "\u2013")));
    main.addEventListener("click", () => {
      set({ sight: chosen ? null : index });
      element("plays").scrollIntoView({ block: "nearest" });
    });
    const item = make("li", {}, main);
    const hover = (sight) => () => {
      this.hovered = sight;
      this.tell();
      request();
    };
    for (const kind of ["pointerenter", "focusin"]) item.addEventListener(kind, hover(index));
    for (const kind of ["pointerleave", "focusout"]) item.addEventListener(kind, hover(null));
    return item;
  }

  colour(rank) {
    return this.plays.length > 1 ? `rank-${rank}` : "";
  }

  words({ share }) {
    return `${percent(share.mask)} of the ${state.branch} mask on ${percent(share.screen)} of the ` +
      `screen, high in ${percent(share.steps)} of steps`;
  }

  /** Says all of the active sight, and, if it is chosen, when most of the mask was on it. */
  tell() {
    const { active } = this, key = [active, state.sight, state.branch].join();
    if (key === this.told) return; // a button that is being pressed must not be replaced
    this.told = key;
    const told = active === null ? [make("p", {}, HINT)] : [];
    for (const of of active === null ? [] : this.shares(active)) {
      told.push(make("p", { className: this.colour(of.rank) }, this.words(of)));
      if (active !== state.sight) continue;
      told.push(make("p", { className: "times" }, ...of.share.highest.map((step) => {
        const button = make("button", { type: "button" }, String(step));
        button.ariaLabel = button.title = `much of the mask is on it: step ${step}`;
        button.addEventListener("click", () => show(step));
        return button;
      })));
    }
    element("sight-facts").replaceChildren(...told);
  }

  /** The sight's most typical cell, in a frame, and what is around it. */
  picture(index) {
    pictures[index] ??= this.drawPicture(header.sights[index]);
    return pictures[index];
  }

  drawPicture({ recording, step, cell }) {
    const [width, height] = PICTURE, canvas = make("canvas", { width, height, className: "thumb" });
    canvas.setAttribute("aria-hidden", "true");
    const { view: [top, bottom] } = header.recordings[recording], n = header.cells;
    const [wide, high] = [WIDTH / n, (bottom - top) / n];
    const [row, column] = [Math.floor(cell / n), cell % n];
    const [x, y] = [(column + 0.5 - AROUND / 2) * wide, top + (row + 0.5 - AROUND / 2) * high];
    const draw = async () => {
      const whole = await plain(new Frames(recording, header.recordings[recording]), step);
      const context = canvas.getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(whole, x, y, AROUND * wide, AROUND * high, 0, 0, width, height);
      const [across, down] = [width / AROUND, height / AROUND];
      context.strokeStyle = "#ffffff";
      context.strokeRect(Math.round((width - across) / 2) + 0.5, Math.round((height - down) / 2) + 0.5,
        Math.round(across) - 1, Math.round(down) - 1);
    };
    setTimeout(draw, 300); // the page first
    return canvas;
  }
}

const pictures = []; // of every sight, drawn once
