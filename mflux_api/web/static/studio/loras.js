// Selected LoRAs, each with a slider for its weight.

import { html } from "../vendor/preact-htm.js";
import { change } from "./form.js";
import { Range } from "./range.js";
import { useStore } from "./state.js";

export function Loras({ form }) {
  const loras = useStore((state) => state.loras);
  const chosen = new Set(form.loras.map((each) => each.name));
  const add = (event) => {
    if (event.target.value) change({ loras: [...form.loras, { name: event.target.value, scale: 1 }] });
    event.target.value = "";
  };
  const put = (name, scale) => change({ loras: form.loras.map((each) => (each.name === name ? { name, scale } : each)) });
  const drop = (name) => change({ loras: form.loras.filter((each) => each.name !== name) });
  return html`<fieldset class="loras">
    <legend>LoRAs</legend>
    ${form.loras.map((each) => html`<div class="lora" key=${each.name}>
      <${Range} id=${`lora-${each.name}`} label=${each.name} value=${each.scale} least=${-2} most=${2} step=${0.05}
        put=${(scale) => put(each.name, scale)} />
      <button type="button" aria-label=${`Remove ${each.name}`} onClick=${() => drop(each.name)}>✕</button>
    </div>`)}
    ${loras.length
      ? html`<select aria-label="Add a LoRA" onChange=${add}>
          <option value="">Add a LoRA…</option>
          ${loras.filter((each) => !chosen.has(each.name)).map((each) => html`<option value=${each.name}>${each.name}</option>`)}
        </select>`
      : html`<small>Put .safetensors files into models/loras to choose them here.</small>`}
  </fieldset>`;
}
