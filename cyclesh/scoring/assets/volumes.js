// Volumes of a case: arrays of bytes, z-major, all of one shape.

/** Undo zlib and base64; a promise of the arrays, one byte a voxel. */
async function unpack(text, voxels) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = bytes.length / voxels;
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * voxels, (i + 1) * voxels));
}

/**
 * How a plane lies in a volume of shape [z, y, x]. Both axes are turned around: indices grow to
 * the superior, the anterior and the right, which radiologists see above and to the left.
 */
function layout(plane, shape, spacing) {
  const [down, across] = [0, 1, 2].filter((axis) => axis !== plane.axis);
  const strides = [shape[1] * shape[2], shape[2], 1];
  return {
    ...plane, down, across, strides,
    rows: shape[down], columns: shape[across], slices: shape[plane.axis],
    heightMm: shape[down] * spacing[down], widthMm: shape[across] * spacing[across],
  };
}

/** The slice of a volume at an index across the plane: rows downwards, columns to the right. */
function cut(volume, plane, index) {
  const { rows, columns, strides, down, across, axis } = plane;
  const slice = new Uint8Array(rows * columns);
  let place = 0;
  for (let row = rows - 1; row >= 0; row--) {
    const start = index * strides[axis] + row * strides[down];
    for (let column = columns - 1; column >= 0; column--) {
      slice[place++] = volume[start + column * strides[across]];
    }
  }
  return slice;
}

/** The voxel [z, y, x] under a position of the picture, given as shares of its width and height. */
function voxelAt(plane, across, down, voxel) {
  const clamp = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
  const found = [...voxel];
  found[plane.across] = plane.columns - 1 - clamp(across, plane.columns);
  found[plane.down] = plane.rows - 1 - clamp(down, plane.rows);
  return found;
}

/** Where a voxel's centre lies in the picture, as shares of its width and height. */
function placeOf(plane, voxel) {
  return [
    (plane.columns - 0.5 - voxel[plane.across]) / plane.columns,
    (plane.rows - 0.5 - voxel[plane.down]) / plane.rows,
  ];
}
