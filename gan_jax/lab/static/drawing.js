// The dialog in which a distribution is drawn by mouse, pen or finger.

// The size of a drawing of a density in 1-D, in pixels.
const COLUMNS = 200;

export function setUpDrawing(use) {
  const dialog = document.querySelector('#drawing');
  const canvas = dialog.querySelector('canvas');
  const context = canvas.getContext('2d');
  const [dim, pen] = ['dim', 'pen'].map((id) => document.querySelector(`#drawing-${id}`));
  let heights = new Float32Array(COLUMNS);
  let last = null;

  const clear = () => {
    heights = new Float32Array(COLUMNS);
    context.fillStyle = '#fff';
    context.fillRect(0, 0, canvas.width, canvas.height);
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * canvas.width,
      ((event.clientY - box.top) / box.height) * canvas.height,
    ];
  };
  const stroke = (from, to) => {
    context.strokeStyle = context.fillStyle = '#000';
    context.lineWidth = Number(pen.value);
    context.lineCap = 'round';
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
  };
  // In 1-D the height of the pen is the density.
  const raise = (from, to) => {
    const column = ([x]) => Math.floor((x / canvas.width) * COLUMNS);
    const steps = Math.max(1, Math.abs(column(to) - column(from)));
    for (let i = 0; i <= steps; i++) {
      const t = i / steps;
      const at = Math.round(column(from) + t * (column(to) - column(from)));
      const y = from[1] + t * (to[1] - from[1]);
      if (at >= 0 && at < COLUMNS) heights[at] = Math.max(0, 1 - y / canvas.height);
    }
    context.fillStyle = '#fff';
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = '#17609e';
    const width = canvas.width / COLUMNS;
    heights.forEach((height, i) => context.fillRect(
      i * width, (1 - height) * canvas.height, width + 0.5, height * canvas.height));
  };

  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    (dim.value === '1' ? raise : stroke)(last, last);
  };
  canvas.onpointermove = (event) => {
    if (!last) return;
    const next = place(event);
    (dim.value === '1' ? raise : stroke)(last, next);
    last = next;
  };
  canvas.onpointerup = canvas.onpointercancel = () => { last = null; };
  dim.onchange = clear;
  document.querySelector('#drawing-clear').onclick = clear;
  document.querySelector('#drawing-cancel').onclick = () => dialog.close();
  document.querySelector('#draw').onclick = () => {
    clear();
    dialog.showModal();
  };
  document.querySelector('#drawing-use').onclick = () => {
    let source = canvas;
    if (dim.value === '1') {
      source = document.createElement('canvas');
      source.width = COLUMNS;
      source.height = 1;
      const row = source.getContext('2d');
      heights.forEach((height, i) => {
        const grey = Math.round(255 * (1 - height));
        row.fillStyle = `rgb(${grey},${grey},${grey})`;
        row.fillRect(i, 0, 1, 1);
      });
    }
    source.toBlob((blob) => use(blob), 'image/png');
    dialog.close();
  };
}
