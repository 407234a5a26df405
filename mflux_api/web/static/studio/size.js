// The picture's size: by aspect ratio, by area, by number, or by dragging the corner of a small canvas.

import { html, useRef } from "../vendor/preact-htm.js";
import { change, shaped, side, sideRule } from "./form.js";
import { NumberField } from "./number.js";

const SHAPES = [
  ...[["1:1", [1, 1]], ["4:3", [4, 3]], ["3:2", [3, 2]], ["16:9", [16, 9]], ["21:9", [21, 9]]],
  ...[["3:4", [3, 4]], ["2:3", [2, 3]], ["9:16", [9, 16]]],
];
const AREAS = [["256²", 256], ["512²", 512], ["768²", 768], ["1024²", 1024], ["1440²", 1440]];
// Pixels of the picture per CSS pixel of the pad.
const SCALE = 12;
const PAD = 1536;

export function Size({ form }) {
  const { width, height } = form;
  const area = width * height || 512 * 512;
  const { step } = sideRule();
  const isShape = ([across, down]) => {
    const wanted = shaped([across, down], area);
    return Math.abs(wanted.width - width) < step && Math.abs(wanted.height - height) < step;
  };
  const nearest = AREAS.reduce((best, each) => (distance(each[1], area) < distance(best[1], area) ? each : best));
  return html`<fieldset class="size">
    <legend>Size</legend>
    <div class="shapes" role="group" aria-label="Shape">
      ${SHAPES.map(([name, shape]) => html`<button type="button" aria-pressed=${isShape(shape)}
        onClick=${() => change(shaped(shape, area))}><i class="shape" style=${outline(shape)}></i>${name}</button>`)}
    </div>
    <div class="measures">
      <${Pad} width=${width} height=${height} />
      <div class="sides">
        <label for="area">Area</label>
        <select id="area" value=${nearest[1]} onChange=${(event) =>
          change(shaped([width || 1, height || 1], Number(event.target.value) ** 2))}>
          ${AREAS.map(([name, of]) => html`<option value=${of}>${name}</option>`)}
        </select>
        <${Side} name="width" value=${width} /><${Side} name="height" value=${height} />
        <button type="button" onClick=${() => change({ width: height, height: width })}>⇄ Swap</button>
      </div>
    </div>
  </fieldset>`;
}

const distance = (of, area) => Math.abs(Math.log(of * of) - Math.log(area));
const outline = ([across, down]) => {
  const unit = 14 / Math.max(across, down);
  return { width: `${across * unit}px`, height: `${down * unit}px` };
};

function Side({ name, value }) {
  const { step, smallest } = sideRule();
  return html`<label for=${name}>${name === "width" ? "Width" : "Height"}</label>
    <${NumberField} id=${name} min=${smallest} step=${step} value=${value}
      put=${(text) => change({ [name]: side(Number(text) || value) })} />`;
}

/** A small canvas whose corner can be dragged, or moved with the arrow keys. */
function Pad({ width, height }) {
  const pad = useRef(null);
  const { step, smallest } = sideRule();
  const drag = (event) => {
    if (!(event.buttons & 1)) return;
    const box = pad.current.getBoundingClientRect();
    change({
      width: side((event.clientX - box.left) * SCALE, PAD),
      height: side((event.clientY - box.top) * SCALE, PAD),
    });
  };
  const hold = (event) => {
    event.preventDefault();
    event.target.setPointerCapture?.(event.pointerId);
    drag(event);
  };
  const MOVES = { ArrowRight: [step, 0], ArrowLeft: [-step, 0], ArrowDown: [0, step], ArrowUp: [0, -step] };
  const press = (event) => {
    const [across, down] = MOVES[event.key] ?? [0, 0];
    if (!across && !down) return;
    event.preventDefault();
    change({ width: side(width + across), height: side(height + down) });
  };
  const sides = { width: `${Math.min(width, PAD) / SCALE}px`, height: `${Math.min(height, PAD) / SCALE}px` };
  return html`<div class="pad" ref=${pad} onPointerDown=${hold} onPointerMove=${drag}>
    <div class="canvas" style=${sides}>
      <span tabindex="0" role="slider" class="corner" aria-label="Size of the canvas: arrow keys change it"
        aria-valuenow=${width} aria-valuemin=${smallest} aria-valuemax="4096"
        aria-valuetext=${`${width} by ${height} pixels`} onKeyDown=${press}></span>
    </div>
    <output>${width} × ${height}</output>
  </div>`;
}
