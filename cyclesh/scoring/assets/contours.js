// Outlines of structures: half-way between voxels inside and outside, nothing smoothed away.

// For each pattern of a cell's four corners (top left 8, top right 4, bottom right 2, bottom left
// 1 inside): the sides on which its pieces of outline begin and end, the inside on their right.
const PIECES = ["", "LB", "BR", "LR", "RT", "LBRT", "BT", "LT", "TL", "TB", "TLBR", "TR", "RL",
  "RB", "BL", ""];

/** Closed lines [[x, y], ...] around one class of a slice; pixel (0, 0) fills [0, 1] x [0, 1]. */
function outlines(slice, rows, columns, index) {
  const inside = (row, column) =>
    row >= 0 && column >= 0 && row < rows && column < columns &&
    slice[row * columns + column] === index ? 1 : 0;
  const width = 2 * columns + 4;  // of the grid of half pixels that the ends of pieces lie on
  const next = new Map();
  for (let row = -1; row < rows; row++) {
    for (let column = -1; column < columns; column++) {
      const pattern = 8 * inside(row, column) + 4 * inside(row, column + 1) +
        2 * inside(row + 1, column + 1) + inside(row + 1, column);
      const x = 2 * column + 2, y = 2 * row + 2;  // the cell's centre, in half pixels
      const sides = { T: [x, y - 1], R: [x + 1, y], B: [x, y + 1], L: [x - 1, y] };
      const piece = PIECES[pattern];
      for (let i = 0; i < piece.length; i += 2) {
        const [from, to] = [sides[piece[i]], sides[piece[i + 1]]];
        next.set(from[0] + from[1] * width, to[0] + to[1] * width);
      }
    }
  }
  return chains(next).map((line) => line.map((p) => [(p % width) / 2, Math.floor(p / width) / 2]));
}

/** The closed chains of a map from each point to the next; it is emptied. */
function chains(next) {
  const found = [];
  for (const start of next.keys()) {
    const line = [];
    let point = start;
    while (next.has(point)) {
      line.push(point);
      const following = next.get(point);
      next.delete(point);
      point = following;
    }
    if (line.length) found.push(line);
  }
  return found;
}

/** The classes of a slice, the widest first: an enclosed structure is then drawn on top. */
function widestFirst(slice, columns) {
  const boxes = new Map();
  slice.forEach((index, place) => {
    if (!index) return;
    const row = Math.floor(place / columns), column = place % columns;
    const box = boxes.get(index) ?? [row, row, column, column];
    boxes.set(index, [Math.min(box[0], row), Math.max(box[1], row),
      Math.min(box[2], column), Math.max(box[3], column)]);
  });
  const area = ([top, bottom, left, right]) => (bottom - top + 1) * (right - left + 1);
  return [...boxes.keys()].sort((a, b) => area(boxes.get(b)) - area(boxes.get(a)));
}
