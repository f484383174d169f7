// The page's state, its controls, its address, and the drawing of every step.

const SHOWS = { game: "game", policy: "policy", value: "value", both: "both in one" };
const state = {
  step: 0, plays: [0], show: null, style: header.style, scale: "contrast",
  strength: header.strength, branch: "policy", cell: null, brush: null, window: null,
  curves: header.curves.map(({ name }) => name),
  kind: "all", order: "time", all: false, notes: [], tab: "moments", sight: null,
};
let plays = [], timeline, moments, sights;
let playing = false, pending = false, busy = false, saying, addressing, usualCurves;
let loops = 0, choices = 0; // so that only the newest goes on

// ------------------------------------------------------------------------------- drawing

/** Asks for a drawing before the browser's next one. */
function request() {
  if (!pending) requestAnimationFrame(draw);
  pending = true;
}

async function draw() {
  pending = false;
  if (busy || !timeline) return;
  const { step } = state, shown = plays;
  const frames = plays.map((play) => play.recording.frames.at(play.stepAt(step)));
  if (frames.some((frame) => frame instanceof Promise)) {
    busy = true; // a slow chunk is shown when it comes, and only then the newest step
    try {
      for (const index in frames) frames[index] = await frames[index];
    } finally {
      busy = false;
    }
    if (step !== state.step || shown !== plays) request();
    if (shown !== plays) return;
  }
  const sight = sights.active;
  plays.forEach((play, index) => play.draw(step, frames[index], { ...state, sight }));
  timeline.draw(step, sight);
  element("step").textContent = `step ${step} of ${timeline.length}${moments.mark(step)}`;
  element("scrub").ariaValueText = `step ${step} of ${timeline.length}`;
  if (!playing) settle(step);
}

/** Once the page stands still: says where, and writes it into the address. */
function settle(step) {
  clearTimeout(saying);
  saying = setTimeout(() => {
    element("state").textContent =
      `${element("step").textContent}. ${plays.map((play) => play.words(step)).join(" ")}`;
    writeAddress();
  }, 300);
}

function go(step) {
  state.step = clamp(step, 0, timeline.length - 1);
  element("scrub").value = state.step;
  const [from, to] = state.window;
  if (state.step < from || state.step > to) { // the window follows, page by page
    const span = to - from, pages = Math.floor((state.step - from) / span);
    const start = clamp(from + pages * span, 0, timeline.length - 1 - span);
    set({ window: [start, start + span] });
  }
  request();
}

/** Changes the state, and what depends on it. */
function set(changed) {
  Object.assign(state, changed);
  state.scaleOf = Object.fromEntries(Object.keys(header.light).map((branch) =>
    [branch, sharedScale(plays.map(({ recording }) => recording), branch, state.scale)]));
  for (const play of plays) play.show(state);
  element("plays").dataset.panels = Math.max(...plays.map(({ shown }) => shown.length));
  timeline.prepare(state);
  if (["cell", "notes", "kind", "order", "branch", "plays"].some((name) => name in changed)) {
    moments.build();
  }
  if (["sight", "branch", "plays"].some((name) => name in changed)) sights.build();
  showControls();
  request();
}

// ------------------------------------------------------------------------------ the games

/** Shows these recordings, by index: one, or two to compare.
 *
 * `wanted` is their window (null: the whole; if not given, the one there is). The state keeps the
 * former ones' window until they are unpacked, for those are shown, and may play, until then. */
async function choose(chosen, wanted) {
  const choice = ++choices, recordings = await Promise.all(chosen.map(load));
  if (choice !== choices) return;
  plays = recordings.map((recording, rank) => new Play(recording, rank));
  element("plays").replaceChildren(...plays.map(({ section }) => section));
  element("plays").dataset.count = plays.length;
  element("facts").replaceChildren(...plays.map(({ facts }) => facts.part));
  timeline = new Timeline(recordings, element("curves"));
  moments = new Moments(plays);
  sights = new Sights(plays);
  const branches = new Set(recordings.flatMap((recording) => recording.branches));
  state.show ??= chosen.length > 1 ? ["policy", "value"] : ["game", "policy", "value"];
  if (!branches.has(state.branch)) state.branch = [...branches][0] ?? "policy";
  const last = timeline.length - 1;
  if (wanted === undefined) wanted = state.window;
  state.window = wanted?.[1] <= last ? wanted : [0, last];
  if (state.brush?.[1] > last) state.brush = null;
  state.plays = chosen;
  addShows(branches);
  addLegend();
  element("scrub").max = last;
  set({ plays: chosen });
  go(Math.min(state.step, last));
}

function addGames() {
  const words = ({ name, seed, length, finalScore }) =>
    `${name}, seed ${seed}: ${number(finalScore)} points, ${length} steps`;
  const options = header.recordings.map((recording, index) => ({ index, text: words(recording),
    ...recording }));
  for (const [id, none] of [["first-game", false], ["second-game", true]]) {
    const menu = element(id);
    if (none) menu.append(make("option", { value: "" }, "nothing"));
    for (const [by, key] of [["by score", "finalScore"], ["by length", "length"]]) {
      const group = make("optgroup", { label: by });
      const sorted = [...options].sort((one, other) => other[key] - one[key]);
      // The same game stands in both lists; its first place is the one that is selected.
      group.append(...sorted.map(({ index, text }) => make("option", { value: index }, text)));
      menu.append(group);
    }
    menu.addEventListener("change", () => {
      const chosen = ["first-game", "second-game"].map((which) => element(which).value);
      const whole = element("whole").disabled; // then of the next ones, too
      choose(chosen.filter((value) => value !== "").map(Number), whole ? null : undefined);
    });
  }
  element("games").hidden = header.recordings.length < 2;
}

// ------------------------------------------------------------------------------- controls

/** A phone shows fewer curves, so that each can be read. */
function fewerCurves() {
  if (innerWidth < NARROW) {
    state.curves = state.curves.filter((name) => !["score", "entropy", "change", "concentration"]
      .includes(name));
  }
}

function addShows(branches) {
  const there = Object.keys(SHOWS).filter((name) => plays.some((play) => play.has(name)));
  element("show").replaceChildren(make("legend", {}, "Show"), ...there.map((name) => {
    const input = make("input", { type: "checkbox", name: "show", value: name });
    input.addEventListener("change", () => {
      const chosen = there.filter((other) =>
        other === name ? input.checked : state.show.includes(other));
      set({ show: chosen.length ? chosen : [name] });
    });
    return make("label", {}, input, make("span", {}, SHOWS[name]));
  }));
  element("drawing").hidden = !branches.size;
  element("branch").replaceChildren(...[...branches].map((branch) =>
    make("option", { value: branch }, `${branch} mask`)));
}

function addLegend() {
  const entry = (kind, words) => make("li", {}, make("i", { className: kind }), words);
  const recordings = plays.map(({ recording }) => recording);
  const there = (kind) => recordings.some((recording) => recording[kind].length);
  element("legend").replaceChildren(
    ...(plays.length > 1 ? recordings.map(({ name }, rank) => entry(`rank-${rank}`, name)) : []),
    ...(there("lifeStarts") ? [entry("dotted", "a life was lost")] : []),
    ...(there("stageStarts") ? [entry("dashed", "a stage begins")] : []));
}

/** Sets every control as the state says. */
function showControls() {
  const shows = [...element("show").querySelectorAll("input")];
  const bare = !shows.some(({ value }) => state.show.includes(value)); // no play has what is chosen
  for (const input of shows) {
    input.checked = bare ? input.value === "game" : state.show.includes(input.value);
  }
  for (const name of ["style", "scale", "branch", "order"]) element(name).value = state[name];
  element("strength").value = 100 * state.strength;
  element("strength").disabled = state.style === "contours";
  element("first-game").value = state.plays[0];
  element("second-game").value = state.plays[1] ?? "";
  for (const input of element("bands").querySelectorAll("input")) {
    input.checked = state.curves.includes(input.value);
  }
  element("whole").disabled = state.window[0] === 0 && state.window[1] === timeline.length - 1;
  const looking = state.tab === "sights" && header.sights.length > 0;
  element("moments").hidden = looking;
  element("sights").hidden = !looking;
  element("tab-moments").ariaPressed = !looking;
  element("tab-sights").ariaPressed = looking;
  element("tab-sights").hidden = !header.sights.length;
  element("selection").hidden = !state.brush && state.cell === null && state.sight === null;
  element("selection-words").textContent = [
    ...(state.brush ? [`steps ${state.brush[0]}\u2013${state.brush[1]}: means are shown`] : []),
    ...(state.cell === null ? [] : [cellName(state.cell)]),
    ...(state.sight === null ? [] : [`kind ${state.sight + 1} of what is looked at`])].join(" · ");
  element("zoom-brush").hidden = !state.brush;
}

function zoom(factor) {
  const [from, to] = state.window;
  const around = state.step >= from && state.step <= to ? state.step : (from + to) / 2;
  set({ window: timeline.zoomed(factor, around) });
}

function clear() {
  const chosen = ["brush", "cell", "sight"].filter((name) => state[name] !== null);
  if (!chosen.length) return;
  if (element("selection").contains(document.activeElement)) element("play").focus();
  set(Object.fromEntries(chosen.map((name) => [name, null])));
}

function toMoment(direction) {
  const step = moments.next(state.step, direction);
  if (step !== undefined) go(step);
}

function play(wanted) {
  if (wanted && state.step === timeline.length - 1) go(0);
  playing = wanted;
  element("play").textContent = playing ? "Pause" : "Play";
  if (!playing) return request();
  const loop = ++loops;
  let last = performance.now(), owed = 0;
  const tick = (time) => {
    if (!playing || loop !== loops) return;
    owed += (clamp(time - last, 0, 250) / 1000) * header.fps * Number(element("speed").value);
    last = time;
    const steps = Math.floor(owed);
    owed -= steps;
    if (steps && !busy) go(state.step + steps);
    if (state.step === timeline.length - 1) return play(false);
    requestAnimationFrame(tick);
  };
  requestAnimationFrame(tick);
}

function note() {
  if (playing) play(false); // it is of this step
  element("note-step").textContent = `Note at step ${state.step}`;
  element("note-text").value = "";
  element("noting").returnValue = ""; // Escape leaves it so
  element("noting").showModal();
}

function addControls() {
  const controls = {
    previous: () => toMoment(-1), next: () => toMoment(1), back: () => go(state.step - 1),
    on: () => go(state.step + 1), play: () => play(!playing), theme: toggleTheme,
    "help-open": () => element("help").showModal(), note, "save-png": () => save("png"),
    "save-svg": () => save("svg"), "zoom-in": () => zoom(0.5), "zoom-out": () => zoom(2),
    whole: () => set({ window: [0, timeline.length - 1] }),
    "zoom-brush": () => set({ window: timeline.spanOf(state.brush) }),
    clear, "tab-moments": () => set({ tab: "moments" }), "tab-sights": () => set({ tab: "sights" }),
    "all-actions": (event) => {
      set({ all: !state.all });
      event.target.textContent = state.all ? "Fewer" : "All";
    },
  };
  for (const [id, act] of Object.entries(controls)) element(id).addEventListener("click", act);
  element("scrub").addEventListener("input", (event) => go(Number(event.target.value)));
  element("strength").addEventListener("input",
    (event) => set({ strength: event.target.value / 100 }));
  for (const name of ["style", "scale", "branch", "kind", "order"]) {
    element(name).addEventListener("change", (event) => set({ [name]: event.target.value }));
  }
  element("noting").addEventListener("close", ({ target }) => {
    const text = element("note-text").value.trim();
    if (!text || target.returnValue !== "keep") return;
    set({ notes: [...state.notes, { step: state.step, text, play: state.plays[0] }] });
  });
  for (const { name, words } of header.curves) {
    const input = make("input", { type: "checkbox", value: name });
    input.addEventListener("change", () => {
      const wanted = header.curves.map((curve) => curve.name).filter((other) =>
        other === name ? input.checked : state.curves.includes(other));
      set({ curves: wanted });
    });
    element("bands").append(make("label", {}, input, words));
  }
  listen(element("curves"));
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", ({ target }) => { // menus close when one clicks elsewhere
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(target)) menu.open = false;
    }
  });
  new ResizeObserver(() => timeline && set({})).observe(element("curves"));
  window.addEventListener("hashchange", () => {
    if (location.hash === addressing) return;
    const curves = usualCurves.split(","); // an address leaves out what is usual
    Object.assign(state, { brush: null, cell: null, sight: null, notes: [], curves });
    open();
  });
}

function onKey(event) {
  const { target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (target.matches("select") && event.key !== "Escape") return; // letters find a menu's entries
  const step = event.shiftKey ? header.fps : 1;
  const act = {
    " ": () => play(!playing), ArrowLeft: () => go(state.step - step),
    ArrowRight: () => go(state.step + step), Home: () => go(0),
    End: () => go(timeline.length - 1), n: () => toMoment(1), p: () => toMoment(-1),
    "+": () => zoom(0.5), "-": () => zoom(2), 0: () => set({ window: [0, timeline.length - 1] }),
    m: note, Escape: clear,
    l: () => set({ tab: state.tab === "moments" ? "sights" : "moments" }),
    "?": () => element("help").showModal(),
  }[event.key];
  // Buttons and sliders have these keys for themselves.
  const own = target.matches("button, summary") ? [" "]
    : target.matches("input[type=checkbox]") ? [" "]
      : target.matches("input:not(#scrub)") ? [" ", "ArrowLeft", "ArrowRight", "Home", "End"]
        : [];
  if (!act || own.includes(event.key)) return;
  event.preventDefault();
  act();
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  element("theme").textContent = dark ? "Light" : "Dark";
  if (timeline) set({});
}

function toggleTheme() {
  setTheme(document.documentElement.dataset.theme !== "dark");
}

// ------------------------------------------------------------------------------ the address

const LISTS = { plays: Number, show: String, brush: Number, curves: String };

/** Writes the state behind the # of the address: copied, it opens this moment with its notes. */
function writeAddress() {
  const words = new URLSearchParams({ step: state.step });
  for (const name of ["style", "scale", "branch"]) words.set(name, state[name]);
  for (const name of ["cell", "sight"]) if (state[name] !== null) words.set(name, state[name]);
  for (const name of ["plays", "show", "brush"]) {
    if (state[name]) words.set(name, state[name].join(","));
  }
  if (state.curves.join() !== usualCurves) words.set("curves", state.curves.join(","));
  const [from, to] = state.window;
  if (to - from < timeline.length - 1) words.set("window", state.window.join(","));
  if (state.notes.length) words.set("notes", JSON.stringify(state.notes));
  addressing = `#${words}`;
  if (location.hash !== addressing) history.replaceState(null, "", addressing);
}

/** Takes the state from the address, and shows it. Settings that it does not say stay. */
async function open() {
  const words = new URLSearchParams(location.hash.slice(1));
  const options = { style: [...element("style").options], scale: [...element("scale").options] };
  const wanted = steps(words.get("window")?.split(",").map(Number), 1);
  for (const [name, text] of words) {
    if (LISTS[name]) state[name] = text.split(",").map(LISTS[name]);
    if (["step", "cell", "sight"].includes(name) && /^\d+$/.test(text)) state[name] = Number(text);
    if (options[name]?.some(({ value }) => value === text)) state[name] = text;
    if (name === "branch" && text in header.light) state.branch = text;
    if (name === "notes") state.notes = readNotes(text);
  }
  state.brush = steps(state.brush, 0);
  if (state.cell >= CELLS) state.cell = null;
  if (state.sight >= header.sights.length) state.sight = null;
  if (state.sight !== null) state.tab = "sights";
  const known = state.plays.filter((index) => index in header.recordings).slice(0, 2);
  await choose(known.length ? known : header.opens, wanted);
}

/** The list, if it is the first and last of some steps, so many apart at least; else null. */
function steps(list, apart) {
  const right = list?.length === 2 && list.every(Number.isInteger)
    && list[0] >= 0 && list[1] - list[0] >= apart;
  return right ? list : null;
}

function readNotes(text) {
  try {
    return JSON.parse(text).filter(({ step }) => Number.isInteger(step) && step >= 0)
      .map(({ step, text: words, play }) =>
        ({ step, text: String(words), play: header.recordings[play] ? play : 0 }));
  } catch {
    return []; // an address that was cut off
  }
}

const dark = matchMedia("(prefers-color-scheme: dark)");
setTheme(dark.matches);
dark.addEventListener("change", () => setTheme(dark.matches));
try {
  document.title = element("title").textContent = header.title;
  state.scale = header.contrast ? "contrast" : "absolute";
  state.plays = header.opens;
  fewerCurves();
  usualCurves = state.curves.join();
  addGames();
  addControls();
  await open();
} catch (error) {
  element("failure").textContent = `This page cannot be shown: ${error.message}. It needs a ` +
    "browser of late 2023 or later (Chrome 108, Firefox 119, Safari 16.4), and the whole file.";
  element("failure").hidden = false;
  throw error;
}
