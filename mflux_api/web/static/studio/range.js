// A slider with a number input.

import { html } from "../vendor/preact-htm.js";
import { NumberField } from "./number.js";

/** A slider with an input for the same number beside it. */
export function Range({ id, label, value, least, most, step, put }) {
  const given = (text) => {
    const number = Number(text);
    if (text !== "" && Number.isFinite(number)) put(number);
  };
  return html`<div class="range">
    <label for=${id}>${label}</label>
    <input id=${id} type="range" min=${least} max=${most} step=${step} value=${value}
      onInput=${(event) => given(event.target.value)} />
    <${NumberField} aria-label=${`${label}, as a number`} min=${least} max=${Math.max(most, value)} step=${step}
      value=${value} put=${given} />
  </div>`;
}
