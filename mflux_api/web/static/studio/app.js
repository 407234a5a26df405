// The page: navigation, keyboard shortcuts, dialogs and messages.

import { html, render, useEffect, useRef } from "../vendor/preact-htm.js";
import { cancel, hidden, paint } from "./actions.js";
import { headers, key } from "./api.js";
import { DetailDialog } from "./detail.js";
import { recallPictures } from "./form.js";
import { Gallery } from "./gallery.js";
import { start } from "./live.js";
import { MaskDialog } from "./mask.js";
import { Models } from "./models.js";
import { Form } from "./paint.js";
import { DropZones } from "./sources.js";
import { Stage } from "./stage.js";
import { go, now, set, useStore } from "./state.js";
import { System } from "./system.js";

const VIEWS = { paint: ["Paint", Paint], gallery: ["Gallery", Gallery], models: ["Models", Models], system: ["System", System] };
const DIALOGS = { mask: MaskDialog, detail: DetailDialog, keys: KeysDialog };

function Paint() {
  return html`<div class="studio"><${Form} /><${Stage} /></div>`;
}

function App() {
  const view = useStore((state) => state.view);
  const [, View] = VIEWS[view];
  return html`
    <header>
      <h1>Studio</h1>
      <nav aria-label="Views">
        ${Object.entries(VIEWS).map(([name, [label]]) => html`<a href=${`#${name}`}
          aria-current=${name === view ? "page" : null}>${label}</a>`)}
      </nav>
      <${Connection} />
      <button type="button" class="help" aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)"
        onClick=${() => set({ dialog: { kind: "keys" } })}>?</button>
    </header>
    <${Trouble} />
    <main id="main"><${View} /></main>
    <${Dialog} /><${Locked} /><${Toasts} /><${DropZones} /><${Said} />`;
}

function Connection() {
  const online = useStore((state) => state.online);
  const { length, active } = useStore((state) => state.queue);
  const waiting = length + (active ? 1 : 0);
  const text = online === false ? "offline" : waiting ? `${waiting} in the queue` : "ready";
  return html`<span class=${`connection ${online === false ? "off" : "on"}`}>${text}</span>`;
}

function Trouble() {
  const online = useStore((state) => state.online);
  if (online !== false) return null;
  return html`<p class="trouble" role="alert">The server does not answer. Start it with <code>mflux-api serve</code>,
    or <code>python api_main.py</code> in a checkout; this page then reconnects automatically. No queued job is lost.</p>`;
}

/** The open dialog. Escape and the browser's other ways close it. */
function Dialog() {
  const dialog = useStore((state) => state.dialog);
  const box = useRef(null);
  useEffect(() => {
    if (dialog && !box.current.open) box.current.showModal();
    if (!dialog && box.current.open) box.current.close();
  }, [dialog]);
  const Inside = dialog && DIALOGS[dialog.kind];
  return html`<dialog ref=${box} class=${dialog?.kind ?? ""} aria-label=${dialog?.kind ?? ""}
    onClose=${() => set({ dialog: null })}>
    ${dialog && html`<button type="button" class="close" aria-label="Close" onClick=${() => box.current.close()}>✕</button>
      <${Inside} ...${dialog} />`}
  </dialog>`;
}

const KEYS = [
  ["⌘/Ctrl + Enter", "Paint"],
  ["Esc", "Close the dialog, or cancel the running job"],
  ["Arrows", "Go to the next or previous picture"],
  ["Enter", "Open a picture"],
  ["Delete", "Delete the picture in the gallery (can be undone)"],
  ["Alt + 1 … 4", "Paint, gallery, models, system"],
  ["/", "Go to the prompt, or to the search in the gallery"],
];

function KeysDialog() {
  return html`<h2>Keyboard shortcuts</h2>
    <dl>${KEYS.map(([keys, meaning]) => html`<dt><kbd>${keys}</kbd></dt><dd>${meaning}</dd>`)}</dl>
    ${key.get() && html`<button type="button" onClick=${() => (key.set(""), location.reload())}>Forget the API key</button>`}`;
}

function Locked() {
  const locked = useStore((state) => state.locked);
  const box = useRef(null);
  useEffect(() => {
    if (locked && !box.current.open) box.current.showModal();
    if (!locked && box.current.open) box.current.close();
  }, [locked]);
  const enter = async (event) => {
    event.preventDefault();
    const field = event.target.elements.key;
    const asked = field.value;
    key.set(asked.trim());
    const reply = await fetch("/api/v1/queue", { headers: headers() }).catch(() => null);
    if (reply?.ok) return location.reload();
    // The field has changed since: an error about the old key would block the new one.
    if (field.value !== asked) return;
    field.setCustomValidity(reply ? "The server does not know this key." : "The server does not answer.");
    field.reportValidity();
  };
  return html`<dialog ref=${box} class="locked" aria-label="API key" onCancel=${(event) => event.preventDefault()}>
    <h2>This server requires an API key</h2>
    <p>Enter one of the keys under <code>security.api_keys</code> in the server's settings. This browser stores it.</p>
    <form onSubmit=${enter}>
      <label class="field"><span>API key</span><input name="key" type="password" required autocomplete="current-password"
        onInput=${(event) => event.target.setCustomValidity("")} /></label>
      <button type="submit" class="primary">Open</button>
    </form>
  </dialog>`;
}

function Toasts() {
  const toasts = useStore((state) => state.toasts);
  return html`<div class="toasts" aria-live="polite">
    ${toasts.map((each) => html`<div key=${each.id} class=${`toast ${each.kind}`}>
      <span>${each.text}</span>
      ${each.action && html`<button type="button" onClick=${() => each.close(true)}>${each.action.label}</button>`}
      <button type="button" aria-label="Dismiss" onClick=${() => each.close(false)}>✕</button>
    </div>`)}
  </div>`;
}

function Said() {
  return html`<p class="said" role="status">${useStore((state) => state.said)}</p>`;
}

const isWriting = (event) => event.target.matches?.("input:not([type=range]), textarea, select");

function press(event) {
  const { dialog, locked, queue } = now();
  if (event.key === "Enter" && (event.metaKey || event.ctrlKey) && !dialog && !locked) {
    event.preventDefault();
    paint();
  } else if (event.key === "Escape" && !dialog && !locked && queue.active) {
    cancel(queue.active.job_id);
  } else if (event.altKey && Object.keys(VIEWS)[event.code.replace("Digit", "") - 1]) {
    event.preventDefault();
    go(Object.keys(VIEWS)[event.code.replace("Digit", "") - 1]);
  } else if (!isWriting(event) && event.key === "/") {
    event.preventDefault();
    document.querySelector("#search, #prompt")?.focus();
  } else if (!isWriting(event) && event.key === "?") {
    set({ dialog: { kind: "keys" } });
  }
}

// "#models/NAME" shows a view with one thing in it.
function look() {
  const [view, ...part] = location.hash.slice(1).split("/");
  set({ view: view in VIEWS ? view : "paint", part: decodeURIComponent(part.join("/")) });
}

// Pictures that are still hidden are deleted when the page closes.
function leave() {
  for (const url of hidden) fetch(url, { method: "DELETE", headers: headers(), keepalive: true });
}

addEventListener("keydown", press);
addEventListener("hashchange", look);
addEventListener("pagehide", leave);
look();
const place = document.getElementById("studio");
place.replaceChildren();
render(html`<${App} />`, place);
recallPictures().catch(() => {});
start();
