// Numbers and actions of one play at one step, and what would be at the same state.

const TOP = [4, 3]; // actions in the table of one play, of each of two

class Facts {
  constructor(recording, rank) {
    this.recording = recording;
    this.numbers = {};
    const numbers = make("dl", { className: "numbers" });
    for (const name of ["score", "lives", "value", "entropy"]) {
      if (name === "lives" && !recording.lives.some(Boolean)) continue; // Fishing Derby has none
      this.numbers[name] = make("dd");
      numbers.append(make("div", {}, make("dt", {}, name), this.numbers[name]));
    }
    this.stick = make("div", { className: "stick" });
    this.stick.setAttribute("role", "img");
    this.keys = new Map();
    for (const [x, y] of [-1, 0, 1].flatMap((y) => [-1, 0, 1].map((x) => [x, y]))) {
      const here = recording.actions.map((action, index) => ({ ...action, index }))
        .filter((action) => action.x === x && action.y === y);
      const place = make("div", { className: here.length ? "key" : "key absent" });
      for (const { name, index, fire } of here) {
        const fill = make("i"), key = make("span", { className: fire ? "fire" : "",
          title: name }, fill);
        this.keys.set(index, { key, fill });
        place.append(key);
      }
      this.stick.append(place);
    }
    this.whatIf = "unmasked-probabilities" in recording || "unmasked-value" in recording;
    this.chosen = make("p", { className: "chosen" });
    this.head = make("tr");
    this.body = make("tbody");
    this.hangs = make("p", { className: "hangs" });
    this.part = make("section", { className: "facts" },
      make("h3", { className: `rank-${rank}` }, recording.name), numbers,
      make("div", { className: "decision" },
        make("div", {}, this.stick, make("p", { className: "key-words" },
          make("i"), " stick ", make("i", { className: "fire" }), " + fire")),
        make("div", { className: "table" }, this.chosen,
          make("table", {}, make("thead", {}, this.head), this.body), this.hangs)));
    this.part.setAttribute("aria-label", `${recording.name}: numbers and actions`);
  }

  draw(step, settings) {
    const { recording } = this, count = recording.actions.length;
    this.numbers.score.textContent = number(recording.score[step]);
    if (this.numbers.lives) this.numbers.lives.textContent = recording.lives[step];
    this.numbers.value.textContent = number(recording.value[step]);
    this.numbers.entropy.textContent = number(recording.entropy[step]);
    const at = (array) => array?.subarray(step * count, (step + 1) * count) ?? [];
    const { brush } = settings, part = brushed(recording, brush);
    const columns = [["played", at(recording.probabilities), recording.value[step]]];
    if (brush) {
      columns[0] = part ? ["mean", meanOver(recording.probabilities, count, part),
        meanOver(recording.value, 1, part)[0]] : ["mean", [], null];
    } else if (this.whatIf) {
      columns.push(["no mask", at(recording["unmasked-probabilities"]),
        recording["unmasked-value"]?.[step]]);
      columns.push([recording.inverted.length ? "M" : "1 \u2212 M", at(this.other("policy", "probabilities")),
        this.other("value", "value")?.[step]]);
      const moment = recording.telling.findIndex((telling) => telling.step === step);
      const known = "cell-off" in recording || "cell-off-value" in recording;
      if (known && settings.cell !== null && moment >= 0) { // each branch's own cell
        const at = moment * CELLS + settings.cell;
        const off = recording["cell-off"]?.subarray(at * count, (at + 1) * count) ?? [];
        columns.push(["cell off", Array.from(off, (x) => x / 65535),
          recording["cell-off-value"]?.[at]]);
      }
    }
    const action = recording.action[step], played = columns[0][1];
    for (const [index, { key, fill }] of this.keys) {
      fill.style.height = `${100 * (played[index] ?? 0)}%`;
      key.classList.toggle("pressed", index === action && !brush);
      key.title = `${recording.actions[index].name} ${played[index]?.toFixed(2) ?? ""}`;
    }
    this.chosen.textContent = brush ? meanOf(part, brush)
      : `${recording.actions[action].name} ${played[action].toFixed(2)}`;
    this.stick.setAttribute("aria-label", `probabilities: ${this.chosen.textContent}${brush ? "" : " is played"}`);
    this.head.replaceChildren(make("th", {}), ...columns.map(([words]) => make("th", {}, words)));
    const most = (index) => Math.max(...columns.map(([, p]) => p[index] ?? 0));
    const order = [...recording.actions.keys()].sort((one, other) => most(other) - most(one));
    const rows = order.slice(0, settings.all ? count : TOP[settings.plays.length - 1]).map((index) => make("tr",
      { className: index === action && !brush ? "chosen" : "" },
      make("th", { title: recording.actions[index].name }, recording.actions[index].name),
      ...columns.map(([, p]) => bar(p[index]))));
    rows.push(make("tr", { className: "value" }, make("th", {}, "value"),
      ...columns.map(([, , value]) => make("td", {}, value == null ? "" : number(value)))));
    this.body.replaceChildren(...rows);
    this.hangs.textContent = this.hanging(step, settings);
  }

  /** What is said with 1 - M, in inverted play with M: of a branch not inverted, what was played. */
  other(branch, name) {
    const { recording } = this, other = recording[`inverted-${name}`];
    const own = recording.inverted.length && !recording.inverted.includes(branch);
    return other && own ? recording[name] : other;
  }

  /** How much the decision hangs on the mask, and on the chosen cell. */
  hanging(step, { cell, brush }) {
    const { recording } = this, words = [];
    if (!recording.hangs || brush) return "";
    words.push(`KL to no mask ${number(recording.hangs[step], 3)} nats`);
    if (cell !== null && "cell-hangs" in recording) {
      const hangs = recording["cell-hangs"][step * CELLS + cell] * recording.cellHangsUnit;
      words.push(`${cellName(cell)} of the policy's mask off: KL ${number(hangs, 3)}`);
    }
    return words.join(" · ");
  }
}

function bar(probability) {
  if (probability === undefined) return make("td");
  const cell = make("td", {}, probability.toFixed(2));
  cell.style.setProperty("--part", `${100 * probability}%`);
  return cell;
}
