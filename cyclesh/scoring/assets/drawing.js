// One slice on a canvas: the picture, the outlines on it, the crosshair.

const DARKER = [86, 180, 233], BRIGHTER = [230, 159, 0];  // of differences: sky blue, orange
const GAP = 0.05;  // of the picture's width, left free about the crosshair's centre

/** Grey values of a slice as opaque pixels. */
function greyPixels(slice) {
  const pixels = new Uint8ClampedArray(4 * slice.length);
  slice.forEach((value, i) => pixels.set([value, value, value, 255], 4 * i));
  return pixels;
}

/** What must be added to `before` to make `after`: full colour at half of the whole range. */
function differencePixels(after, before) {
  const pixels = new Uint8ClampedArray(4 * after.length);
  after.forEach((value, i) => {
    const change = value - before[i];
    const share = Math.min(1, Math.abs(change) / 127.5);
    const [red, green, blue] = change < 0 ? DARKER : BRIGHTER;
    pixels.set([share * red, share * green, share * blue, 255], 4 * i);
  });
  return pixels;
}

/** Fill a canvas with pixels of a slice, stretched to millimetre proportions. */
function drawPixels(canvas, pixels, plane, smooth) {
  const small = document.createElement("canvas");
  [small.width, small.height] = [plane.columns, plane.rows];
  small.getContext("2d").putImageData(new ImageData(pixels, plane.columns, plane.rows), 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

/** Labels as wide solid lines, predictions as narrow dashed ones on black, in the same colours. */
function drawOutlines(canvas, slice, plane, colours, predicted) {
  const context = canvas.getContext("2d");
  const unit = Math.max(1, canvas.width / 240);
  const scale = [canvas.width / plane.columns, canvas.height / plane.rows];
  context.lineJoin = "round";
  for (const index of widestFirst(slice, plane.columns)) {
    if (!colours[index]) continue;
    const path = new Path2D();
    for (const line of outlines(slice, plane.rows, plane.columns, index)) {
      line.forEach(([x, y], i) => path[i ? "lineTo" : "moveTo"](x * scale[0], y * scale[1]));
      path.closePath();
    }
    const stroke = (style, width, dashes) => {
      context.strokeStyle = style;
      context.lineWidth = width * unit;
      context.setLineDash(dashes.map((length) => length * unit));
      context.stroke(path);
    };
    if (predicted) stroke("#000", 1.2, []);
    stroke(colours[index], predicted ? 1.2 : 2.2, predicted ? [4.5, 3.5] : []);
  }
  context.setLineDash([]);
}

/** Two lines that meet at a voxel, with a gap where they would hide it. */
function drawCrosshair(canvas, plane, voxel) {
  const context = canvas.getContext("2d");
  const [across, down] = placeOf(plane, voxel);
  const x = across * canvas.width, y = down * canvas.height, gap = GAP * canvas.width;
  context.beginPath();
  for (const [x0, y0, x1, y1] of [[0, y, x - gap, y], [x + gap, y, canvas.width, y],
    [x, 0, x, y - gap], [x, y + gap, x, canvas.height]]) {
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
  }
  context.lineWidth = Math.max(1, canvas.width / 260);
  context.strokeStyle = "#ffffff99";
  context.stroke();
}
