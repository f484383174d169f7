// The legend of what the masks look at: kinds of things, where they are, and how much of a mask
// lies on each.

const AROUND = 2.4; // cells, across and down, that a sight's picture shows
const PICTURE = [46, 54]; // pixels: its width and height

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
    element("sights-of").textContent = `${state.branch} mask`;
    if (focused >= 0) this.items[focused].querySelector("button").focus();
  }

  item(index) {
    const facts = [], times = make("p", { className: "times" });
    for (const { recording, rank } of this.plays) {
      const share = recording.lookedAt?.[state.branch]?.[index];
      if (!share) continue;
      const words = this.plays.length > 1 ? `rank-${rank}` : "";
      facts.push(make("span", { className: words }, make("b", {}, percent(share.mask)),
        ` on ${percent(share.screen)} of the screen`));
      facts.push(make("span", { className: words }, `high in ${percent(share.steps)} of steps`));
      times.append(...share.highest.map((step) => {
        const button = make("button", { type: "button", className: words }, String(step));
        button.ariaLabel = button.title = `most of the mask is on it: step ${step}`;
        button.addEventListener("click", () => show(step));
        return button;
      }));
    }
    const chosen = index === state.sight;
    const main = make("button", { type: "button", className: "sight", ariaPressed: chosen },
      this.picture(index), make("span", {}, ...facts));
    main.addEventListener("click", () => {
      set({ sight: chosen ? null : index });
      element("plays").scrollIntoView({ block: "nearest" });
    });
    const item = make("li", {}, main, ...(chosen ? [times] : []));
    const hover = (sight) => () => {
      this.hovered = sight;
      request();
    };
    for (const kind of ["pointerenter", "focusin"]) item.addEventListener(kind, hover(index));
    for (const kind of ["pointerleave", "focusout"]) item.addEventListener(kind, hover(null));
    return item;
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
