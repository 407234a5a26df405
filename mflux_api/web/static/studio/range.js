// A slider and the same as a number.

import { html } from "../vendor/preact-htm.js";

/** A slider with its number beside it. */
export function Range({ id, label, value, least, most, step, put }) {
  const given = (event) => {
    const number = Number(event.target.value);
    if (event.target.value !== "" && Number.isFinite(number)) put(number);
  };
  return html`<div class="range">
    <label for=${id}>${label}</label>
    <input id=${id} type="range" min=${least} max=${most} step=${step} value=${value} onInput=${given} />
    <input type="number" aria-label=${`${label}, as a number`} min=${least} max=${Math.max(most, value)} step=${step}
      value=${value} onChange=${given} />
  </div>`;
}
