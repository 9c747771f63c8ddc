// The case browser: one voxel, seen in three planes of every volume of a case.

const NARROW = "(max-width: 640px)";
const byId = (id) => document.getElementById(id);

/** An element with properties, attributes (names with a dash) and children. */
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

/** A checkbox or radio button within its label. */
function choice(input, ...children) {
  return element("label", {}, element("input", input), ...children);
}

class Browser {
  constructor(data) {
    this.data = data;
    this.voxels = data.shape.reduce((a, b) => a * b);
    this.planes = data.planes.map((plane) => layout(plane, data.shape, data.spacing));
    this.hidden = new Set();  // structures whose outlines are switched off, by class index
    this.chosen = new Map();  // name of a volume -> whether to show it, where the user said so
    this.listCases();
    this.listStructures();
    for (const id of ["show-label", "show-predicted", "smooth", "crosshair"]) {
      byId(id).addEventListener("change", () => this.draw());
    }
    this.buildPlanes();
    new ResizeObserver(() => this.draw()).observe(byId("planes"));
    matchMedia(NARROW).addEventListener("change", () => this.listViews());
    byId("browser").hidden = false;
  }

  listCases() {
    for (const direction of new Set(this.data.cases.map((entry) => entry.direction))) {
      const group = element("div");
      this.data.cases.forEach((entry, number) => {
        if (entry.direction !== direction) return;
        const rank = entry.rank ? [element("b", { className: "rank", textContent: entry.rank })] : [];
        const input = { type: "radio", name: "case", value: number, checked: number === 0 };
        group.append(choice(
          { ...input, onchange: () => this.open(number) }, ...rank,
          element("span", { textContent: entry.id }),
          element("span", { className: "score", textContent: entry.score }),
        ));
      });
      byId("case-list").append(
        element("fieldset", {}, element("legend", { textContent: direction }), group));
    }
  }

  listStructures() {
    this.data.structures.forEach(({ name, colour }, position) => {
      const toggle = (event) => {
        this.hidden[event.target.checked ? "delete" : "add"](position + 1);
        this.draw();
      };
      const swatch = element("i", { className: "swatch" });
      swatch.style.background = colour;
      byId("structures").append(
        choice({ type: "checkbox", checked: true, onchange: toggle }, swatch, name));
    });
  }

  /** A row for each plane: its name, its slider, and the views, which a case brings. */
  buildPlanes() {
    for (const plane of this.planes) {
      const name = element("label", { htmlFor: `slice-${plane.name}`, textContent: plane.name });
      plane.slider = element("input", {
        type: "range", id: `slice-${plane.name}`, min: 0, max: plane.slices - 1,
        oninput: () => this.move(plane.axis, Number(plane.slider.value)),
      });
      plane.output = element("output", { htmlFor: `slice-${plane.name}` });
      plane.views = element("div", { className: "views" });
      byId("planes").append(element("section", { className: "plane" },
        element("div", { className: "slice" }, name, plane.slider, plane.output), plane.views));
    }
  }

  /** Show a case, at the centre of its structures. */
  async open(number) {
    const entry = this.data.cases[number];
    entry.arrays ??= unpack(entry.data, this.voxels);
    const arrays = await entry.arrays;
    if (Number(document.querySelector("input[name=case]:checked").value) !== number) return;
    [this.entry, this.arrays, this.voxel] = [entry, arrays, [...entry.centre]];
    this.listViews();
  }

  /** The switches of the volumes and their canvases. */
  listViews() {
    const narrow = matchMedia(NARROW).matches;
    const visible = (view) => this.chosen.get(view.name) ?? (narrow ? view.narrow : view.wide);
    byId("views").replaceChildren();
    for (const view of this.entry.views) {
      const toggle = (event) => {
        this.chosen.set(view.name, event.target.checked);
        this.fillPlanes(this.entry.views.filter(visible));
      };
      byId("views").append(
        choice({ type: "checkbox", checked: visible(view), onchange: toggle }, view.name));
    }
    this.fillPlanes(this.entry.views.filter(visible));
  }

  fillPlanes(views) {
    const widest = Math.max(...this.planes.map((plane) => plane.widthMm));
    for (const plane of this.planes) {
      plane.canvases = views.map((view) => this.canvas(plane, view, widest));
      plane.views.replaceChildren(...plane.canvases.map(({ canvas, view }) => {
        const sides = Object.entries(plane.sides).map(([side, letter]) =>
          element("b", { className: side, textContent: letter, "aria-hidden": "true" }));
        const frame = element("div", { className: "frame" }, canvas, ...sides);
        frame.style.width = `${(100 * plane.widthMm) / widest}%`;
        const note = view.note ? [element("small", { textContent: view.note })] : [];
        return element("figure", {}, element("div", { className: "cell" }, frame),
          element("figcaption", {}, view.name, ...note));
      }));
    }
    this.draw();
  }

  canvas(plane, view) {
    const canvas = element("canvas", {
      tabIndex: 0, role: "img", "data-plane": plane.name, "data-view": view.name,
      "aria-label": `${this.entry.id}, ${view.name}, ${plane.name}: arrow keys move the ` +
        "crosshair, page up and page down the slice",
    });
    canvas.style.aspectRatio = `${plane.widthMm} / ${plane.heightMm}`;
    const follow = (event) => {
      const box = canvas.getBoundingClientRect();
      this.voxel = voxelAt(plane, (event.clientX - box.left) / box.width,
        (event.clientY - box.top) / box.height, this.voxel);
      this.draw();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      follow(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) follow(event);
    });
    canvas.addEventListener("keydown", (event) => this.press(event, plane));
    return { canvas, view };
  }

  /** Both axes of a picture run against the indices, so left and up are steps forwards. */
  press(event, plane) {
    const steps = {
      ArrowLeft: [plane.across, 1], ArrowRight: [plane.across, -1], ArrowUp: [plane.down, 1],
      ArrowDown: [plane.down, -1], PageUp: [plane.axis, 1], PageDown: [plane.axis, -1],
    };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const [axis, step] = steps[event.key];
    this.move(axis, this.voxel[axis] + step);
  }

  move(axis, index) {
    this.voxel[axis] = Math.min(this.data.shape[axis] - 1, Math.max(0, index));
    this.draw();
  }

  /** Everything, once before the next frame. */
  draw() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      if (this.entry) this.drawNow();
    });
  }

  drawNow() {
    for (const plane of this.planes) {
      const index = this.voxel[plane.axis];
      plane.slider.value = index;
      plane.output.value = `${index + 1} / ${plane.slices}`;
      plane.canvases.forEach(({ canvas, view }) => this.drawView(canvas, view, plane, index));
    }
    byId("readout").textContent = this.describe();
  }

  drawView(canvas, view, plane, index) {
    const width = Math.round(canvas.clientWidth * devicePixelRatio);
    if (!width) return;
    canvas.width = width;
    canvas.height = Math.round((width * plane.heightMm) / plane.widthMm);
    const slice = (position) => cut(this.arrays[position], plane, index);
    const pixels = view.before === undefined ? greyPixels(slice(view.image))
      : differencePixels(slice(view.image), slice(view.before));
    drawPixels(canvas, pixels, plane, byId("smooth").checked);
    const colours = [null, ...this.data.structures.map(({ colour }, position) =>
      this.hidden.has(position + 1) ? null : colour)];
    for (const kind of ["label", "predicted"]) {
      if (view[kind] === undefined || !byId(`show-${kind}`).checked) continue;
      drawOutlines(canvas, slice(view[kind]), plane, colours, kind === "predicted");
    }
    if (byId("crosshair").checked) drawCrosshair(canvas, plane, this.voxel);
  }

  /** Where the crosshair is and what it meets. */
  describe() {
    const [depth, height, width] = this.data.shape, [z, y, x] = this.voxel;
    const place = (z * height + y) * width + x;
    const name = (index) => (index ? this.data.structures[index - 1].name : "background");
    const parts = [`voxel z ${z + 1}, y ${y + 1}, x ${x + 1} of ${depth}×${height}×${width}`];
    const source = this.entry.views[0];
    if (source.label !== undefined) parts.push(`label ${name(this.arrays[source.label][place])}`);
    for (const view of this.entry.views) {
      if (view.before !== undefined) continue;
      const value = (this.arrays[view.image][place] / 127.5 - 1).toFixed(2).replace("-", "−");
      const predicted = view.predicted === undefined ? ""
        : ` (predicted ${name(this.arrays[view.predicted][place])})`;
      parts.push(`${view.name} ${value}${predicted}`);
    }
    return parts.join(" · ");
  }
}

/** Say in the page what went wrong, rather than only in the console. */
function trouble(text) {
  byId("trouble").hidden = false;
  byId("trouble").textContent = text;
}

if (byId("case-data")) {
  if (!("DecompressionStream" in window)) {
    trouble("This browser is too old to unpack the volumes; any of 2023 or later can.");
  } else {
    const browser = new Browser(JSON.parse(byId("case-data").textContent));
    browser.open(0).catch((error) => {
      trouble(`The volumes cannot be shown (${error}).`);
      throw error;
    });
  }
}
