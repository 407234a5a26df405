// A field for a number.

import { html, useState } from "../vendor/preact-htm.js";

/** What is typed stays in the field until it is done: the page may be drawn again meanwhile, and would put `value` back. */
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
