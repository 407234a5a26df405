// Icons for buttons. They are hidden from screen readers; the button's label has the meaning.

import { html } from "../vendor/preact-htm.js";

const icon = (...paths) => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">
  ${paths.map((path) => html`<path d=${path} />`)}
</svg>`;

const BODY = "M5 11h14v9H5z";

export const DICE = icon("M4 4h16v16H4z", "M8 8h.01M16 8h.01M12 12h.01M8 16h.01M16 16h.01");
export const LOCKED = icon(BODY, "M8 11V8a4 4 0 0 1 8 0v3");
export const UNLOCKED = icon(BODY, "M8 11V8a4 4 0 0 1 7-2.6");
