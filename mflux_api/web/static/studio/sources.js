// Input pictures: one to start from, with an optional mask, and references.

import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { fitting } from "./actions.js";
import { post, base64 } from "./api.js";
import { change, current, filled, fromInfotext, picture } from "./form.js";
import { Range } from "./range.js";
import { complain, go, set, toast } from "./state.js";

export function Sources({ form, model }) {
  const input = useRef(null);
  const choose = async (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    for (const file of files) await take(file, current().start ? "reference" : "start");
  };
  return html`<fieldset class="sources">
    <legend>Input pictures</legend>
    ${form.start && html`<${Start} form=${form} masks=${model?.capabilities.mask !== false} />`}
    ${form.references.map((each, index) => html`<${Reference} key=${each.id} of=${each} number=${index + 1} />`)}
    <button type="button" class="drop" onClick=${() => input.current.click()}>
      Choose pictures, drop them anywhere, or paste</button>
    <input ref=${input} type="file" accept="image/png,image/jpeg,image/webp" multiple hidden
      aria-label="Input pictures" onChange=${choose} />
  </fieldset>`;
}

function Start({ form, masks }) {
  const { start, mask } = form;
  const swap = () => change({ start: null, mask: null, references: [...form.references, start] });
  return html`<div class="source">
    <img src=${start.url} alt="The picture to start from" />
    <div>
      <strong>Start from this</strong>
      <${Range} id="strength" label="Change" value=${form.strength} least=${0} most=${1} step=${0.05}
        put=${(strength) => change({ strength })} />
      <div class="row">
        ${masks && html`<button type="button" onClick=${() => set({ dialog: { kind: "mask" } })}>
          ${mask ? "Change the mask" : "Paint a mask"}</button>`}
        ${masks && mask && html`<button type="button" onClick=${() => change({ mask: null })}>No mask</button>`}
        <button type="button" onClick=${swap}>Use as reference</button>
        <button type="button" aria-label="Do not start from this picture"
          onClick=${() => change({ start: null, mask: null })}>✕</button>
      </div>
      ${masks && mask && html`<small>Only the painted part changes.</small>`}
    </div>
  </div>`;
}

function Reference({ of, number }) {
  const rest = () => current().references.filter((each) => each !== of);
  const swap = () => {
    const { start } = current();
    change({ start: of, mask: null, references: start ? [...rest(), start] : rest(), ...fitting(of) });
  };
  return html`<div class="source">
    <img src=${of.url} alt=${`Reference ${number}`} />
    <div>
      <strong>Reference ${number}</strong>
      <div class="row">
        <button type="button" onClick=${swap}>Start from it</button>
        <button type="button" aria-label=${`Remove reference ${number}`}
          onClick=${() => change({ references: rest() })}>✕</button>
      </div>
    </div>
  </div>`;
}

/** Take a dropped, pasted or chosen file. `role`: "start", "reference" or "parameters". */
export async function take(file, role) {
  try {
    if (role === "parameters") return await takeParameters(file);
    const found = await picture(file);
    if (role === "start") change({ start: found, mask: null, ...fitting(found) });
    else change({ references: [...current().references, found] });
    go("paint");
  } catch (error) {
    if (error.status === undefined) toast(`${file.name} cannot be read as a picture.`, { kind: "error" });
    else complain(error);
  }
}

async function takeParameters(file) {
  const { parameters, info } = await post("/sdapi/v1/png-info", { image: await base64(file) });
  if (!info) {
    toast(`${file.name} contains no generation parameters.`, { kind: "error" });
    return;
  }
  change(filled(fromInfotext(parameters)));
  go("paint");
  toast("The picture's parameters are loaded into the form.");
}

const ZONES = [
  ["start", "Start from it"],
  ["reference", "Use as reference"],
  ["parameters", "Load its parameters"],
];

/** Drop zones that cover the page while files are dragged over it, one per role. */
export function DropZones() {
  const [dragged, change] = useState(false);
  useEffect(() => {
    const over = (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      change(true);
    };
    const out = (event) => event.relatedTarget === null && change(false);
    const done = () => change(false);
    const handlers = { dragover: over, dragleave: out, drop: done, paste: pasted };
    for (const [name, handler] of Object.entries(handlers)) document.addEventListener(name, handler);
    return () => {
      for (const [name, handler] of Object.entries(handlers)) document.removeEventListener(name, handler);
    };
  }, []);
  const dropped = (role) => async (event) => {
    event.preventDefault();
    for (const file of event.dataTransfer.files) await take(file, role);
  };
  return html`<div class="zones" hidden=${!dragged}>
    ${ZONES.map(([role, label]) => html`<div class="zone" data-role=${role} onDragOver=${(event) => event.preventDefault()}
      onDrop=${dropped(role)}>${label}</div>`)}
  </div>`;
}

async function pasted(event) {
  const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
  if (!files.length) return;
  event.preventDefault();
  for (const file of files) await take(file, current().start ? "reference" : "start");
}
