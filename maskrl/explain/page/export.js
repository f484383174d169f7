// The present view as a picture: PNG from the canvases, SVG with its lines and words as such.

/** What drawing on a canvas is in SVG, as far as the time line draws. */
class SvgContext {
  constructor() {
    Object.assign(this, { parts: [], path: "", dash: [], globalAlpha: 1, clips: 0,
      measuring: make("canvas").getContext("2d") });
  }

  get family() {
    const [, bold, size] = /(bold )?(\d+)px/.exec(this.font);
    return `font-size="${size}"${bold ? ' font-weight="bold"' : ""}`;
  }

  beginPath() { this.path = ""; }
  moveTo(x, y) { this.path += `M${x.toFixed(2)} ${y.toFixed(2)}`; }
  lineTo(x, y) { this.path += `${this.path ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`; }
  rect(x, y, width, height) { this.path = `M${x} ${y}h${width}v${height}h${-width}z`; }
  arc(x, y, r) { this.path = `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`; }
  setLineDash(dash) { this.dash = dash; }

  stroke() {
    this.parts.push(`<path d="${this.path}" fill="none" stroke="${this.strokeStyle}" ` +
      `stroke-width="${this.lineWidth}" stroke-dasharray="${this.dash.join(" ")}"/>`);
  }

  fill() { this.parts.push(`<path d="${this.path}" fill="${this.fillStyle}"/>`); }

  clip() {
    this.clips += 1;
    this.parts.push(`<clipPath id="clip-${this.clips}"><path d="${this.path}"/></clipPath>` +
      `<g clip-path="url(#clip-${this.clips})">`);
  }

  save() {}
  restore() { this.parts.push("</g>"); }

  fillRect(x, y, width, height) {
    this.parts.push(`<rect x="${x.toFixed(2)}" y="${y.toFixed(2)}" width="${width.toFixed(2)}" ` +
      `height="${height.toFixed(2)}" fill="${this.fillStyle}" opacity="${this.globalAlpha}"/>`);
  }

  fillText(words, x, y, most = Infinity) {
    this.measuring.font = this.font;
    const squeezed = this.measuring.measureText(words).width <= most ? ""
      : ` textLength="${most.toFixed(2)}" lengthAdjust="spacingAndGlyphs"`;
    const anchor = { left: "start", right: "end", center: "middle" }[this.textAlign] ?? "start";
    const safe = words.replace(/[<&]/g, (sign) => (sign === "<" ? "&lt;" : "&amp;"));
    this.parts.push(`<text x="${x.toFixed(2)}" y="${y.toFixed(2)}" fill="${this.fillStyle}" ` +
      `${this.family} text-anchor="${anchor}"${squeezed}>${safe}</text>`);
  }

  drawImage(canvas, x, y, width, height) {
    this.parts.push(`<image x="${x}" y="${y}" width="${width}" height="${height}" ` +
      `preserveAspectRatio="none" style="image-rendering:pixelated" href="${canvas.toDataURL()}"/>`);
  }
}

/** Draws title, pictures with their words, and the time line; returns its size. */
function drawView(context) {
  const shown = plays.map((play) => play.shown), wide = 240, high = (wide * HEIGHT) / WIDTH;
  const count = shown.flat().length;
  const width = Math.max(timeline.width + timeline.gutter + RIGHT, count * (wide + 12) + 12);
  const style = getComputedStyle(document.body);
  const [ink, back] = ["--ink", "--card"].map((name) => style.getPropertyValue(name).trim());
  const top = 90 + high, size = { width, height: top + 20 + timeline.height };
  Object.assign(context, { fillStyle: back });
  context.fillRect(0, 0, size.width, size.height);
  Object.assign(context, { fillStyle: ink, textAlign: "left", font: "bold 14px system-ui" });
  context.fillText(`${document.title} · ${element("step").textContent}`, 12, 22, width - 24);
  let x = 12;
  for (const [rank, play] of plays.entries()) {
    context.font = "bold 12px system-ui";
    if (plays.length > 1) context.fillStyle = style.getPropertyValue(`--rank-${rank}`).trim();
    context.fillText(play.words(state.step), x, 40, play.shown.length * (wide + 12) - 12);
    context.fillStyle = ink;
    for (const panel of play.shown) {
      context.font = "12px system-ui";
      const scales = panel.bars.map(({ low, high }) => `${low.textContent} to ${high.textContent}`);
      context.fillText(panel.caption.textContent, x, 56, wide);
      context.fillText(scales.join(", "), x, 72, wide);
      context.imageSmoothingEnabled = false;
      context.drawImage(panel.canvas, x, 78, wide, high);
      x += wide + 12;
    }
  }
  const lines = [...element("legend").querySelectorAll(".dotted, .dashed")].map((line) =>
    `${line.className}: ${line.parentElement.textContent}`);
  if (lines.length) context.fillText(lines.join(" · "), timeline.gutter, top + timeline.height + 14);
  return { size, top };
}

function svgView() {
  const context = new SvgContext();
  const { size, top } = drawView(context);
  context.parts.push(`<g transform="translate(0 ${top})">`);
  timeline.drawStill(context);
  timeline.drawCursor(context, state.step, sights.active);
  context.parts.push("</g>");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${size.height}" ` +
    `font-family="system-ui, sans-serif">${context.parts.join("\n")}</svg>`;
}

function pngView() {
  const canvas = make("canvas", { width: 1, height: 1 });
  const { size, top } = drawView(canvas.getContext("2d"));
  Object.assign(canvas, { width: 2 * size.width, height: 2 * size.height });
  const context = canvas.getContext("2d");
  context.scale(2, 2);
  drawView(context);
  context.drawImage(timeline.canvas, 0, top, timeline.width + timeline.gutter + RIGHT, timeline.height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

async function save(kind) {
  const blob = kind === "png" ? await pngView() : new Blob([svgView()], { type: "image/svg+xml" });
  const name = document.title.split(" · ")[0].replace(/\W+/g, "-");
  const link = make("a", { href: URL.createObjectURL(blob),
    download: `${name}-step${state.step}.${kind}` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
