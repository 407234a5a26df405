// The mask editor: the painted part of the picture may change.

import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { change, current, picture } from "./form.js";
import { set } from "./state.js";
import { Range } from "./range.js";

const COLOUR = "#fff";
const UNDOS = 20;
// Height of the canvas in per cent of the window.
const TALL = 55;

/** The mask, as large as the picture: white strokes on a transparent canvas. */
class Mask {
  constructor(canvas, mask) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d", { willReadFrequently: true });
    this.before = [];
    if (mask) this.load(mask);
  }

  async load(mask) {
    const bitmap = await createImageBitmap(mask.blob);
    this.pen.drawImage(bitmap, 0, 0, this.canvas.width, this.canvas.height);
    this.map((light) => light);
  }

  keep() {
    this.before.push(this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height));
    if (this.before.length > UNDOS) this.before.shift();
  }

  undo() {
    const last = this.before.pop();
    if (last) this.pen.putImageData(last, 0, 0);
  }

  stroke([fromX, fromY], [toX, toY], width, erasing) {
    Object.assign(this.pen, { lineWidth: width, lineCap: "round", strokeStyle: COLOUR });
    this.pen.globalCompositeOperation = erasing ? "destination-out" : "source-over";
    this.pen.beginPath();
    this.pen.moveTo(fromX, fromY);
    this.pen.lineTo(toX, toY);
    this.pen.stroke();
    this.pen.globalCompositeOperation = "source-over";
  }

  /** Map the whiteness of each pixel, 0 to 255, with `to`. */
  map(to) {
    const image = this.pen.getImageData(0, 0, this.canvas.width, this.canvas.height);
    for (let at = 0; at < image.data.length; at += 4) {
      const light = to((image.data[at] * image.data[at + 3]) / 255);
      image.data.fill(255, at, at + 3);
      image.data[at + 3] = light;
    }
    this.pen.putImageData(image, 0, 0);
  }

  /** The mask as PNG, white on black; null if nothing is painted. */
  async taken() {
    const { width, height } = this.canvas;
    const seen = this.pen.getImageData(0, 0, width, height).data.some((value, at) => at % 4 === 3 && value);
    if (!seen) return null;
    const whole = Object.assign(document.createElement("canvas"), { width, height });
    const pen = whole.getContext("2d");
    pen.fillRect(0, 0, width, height);
    pen.drawImage(this.canvas, 0, 0);
    return picture(await new Promise((resolve) => whole.toBlob(resolve, "image/png")));
  }
}

export function MaskDialog() {
  const canvas = useRef(null);
  const tool = useRef(null);
  const [width, setWidth] = useState(0);
  const [erasing, setErasing] = useState(false);
  const { start, mask } = current();
  useEffect(() => {
    tool.current = new Mask(canvas.current, mask);
    setWidth(Math.round(Math.max(start.width, start.height) / 8));
  }, []);
  const drawing = useDrawing(canvas, tool, width, erasing);
  const all = (to) => () => (tool.current.keep(), tool.current.map(to));
  const finish = async () => {
    change({ mask: await tool.current.taken() });
    set({ dialog: null });
  };
  return html`<h2>Mask</h2>
    <p>Paint over the part that should change.</p>
    <div class="easel" style=${{ width: `min(100%, ${(TALL * start.width) / start.height}vh)` }}>
      <img src=${start.url} alt="The picture to start from" />
      <canvas ref=${canvas} width=${start.width} height=${start.height} aria-label="Mask" ...${drawing}></canvas>
    </div>
    <${Range} id="brush" label="Brush" value=${width} least=${1} most=${Math.max(start.width, start.height)} step=${1}
      put=${setWidth} />
    <div class="row">
      <button type="button" aria-pressed=${erasing} onClick=${() => setErasing(!erasing)}>Erase</button>
      <button type="button" onClick=${() => tool.current.undo()}>Undo</button>
      <button type="button" onClick=${all(() => 255)}>All</button>
      <button type="button" onClick=${all(() => 0)}>None</button>
      <button type="button" onClick=${all((light) => 255 - light)}>Invert</button>
      <button type="button" class="primary" onClick=${finish}>Use this mask</button>
    </div>`;
}

/** Pointer handlers of the canvas, which draw strokes. */
function useDrawing(canvas, tool, width, erasing) {
  const last = useRef(null);
  const at = (event) => {
    const box = canvas.current.getBoundingClientRect();
    const scale = canvas.current.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  return {
    onPointerDown: (event) => {
      event.preventDefault();
      event.target.setPointerCapture(event.pointerId);
      tool.current.keep();
      last.current = at(event);
      tool.current.stroke(last.current, last.current, width, erasing);
    },
    onPointerMove: (event) => {
      if (!last.current) return;
      const point = at(event);
      tool.current.stroke(last.current, point, width, erasing);
      last.current = point;
    },
    onPointerUp: () => (last.current = null),
    onPointerCancel: () => (last.current = null),
  };
}
