// An input for a number.

import { html, useState } from "../vendor/preact-htm.js";

/** A number input that keeps the typed text until it is committed, because a render meanwhile would restore `value`. */
export function NumberField({ value, put, ...attributes }) {
  const [typed, type] = useState(null);
  const leave = () => type(null);
  const done = (event) => {
    leave();
    put(event.target.value);
  };
  return html`<input type="number" ...${attributes} value=${typed ?? value}
    onInput=${(event) => type(event.target.value)} onChange=${done} onBlur=${leave} />`;
}
