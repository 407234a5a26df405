// The form on the left: prompt, model, size, parameters, input pictures and LoRAs.

import { html, useEffect, useRef } from "../vendor/preact-htm.js";
import { modelOf, paint } from "./actions.js";
import { cardOf, cards, fit, memory, realModel, recommended, toFetch } from "./cards.js";
import { change, clear, defaults, dice, LARGEST_SEED, useForm } from "./form.js";
import { DICE, LOCKED, UNLOCKED } from "./icons.js";
import { Loras } from "./loras.js";
import { NumberField } from "./number.js";
import { Sources } from "./sources.js";
import { Range } from "./range.js";
import { Size } from "./size.js";
import { useStore } from "./state.js";
import { size } from "./text.js";

export function Form() {
  const form = useForm();
  const models = useStore((state) => state.models);
  const model = modelOf(form.model);
  const prompt = useRef(null);
  useEffect(() => settle(form, models), [form.model, models]);
  // Not where a finger points: the keyboard would cover half the screen.
  useEffect(() => {
    if (matchMedia("(hover: hover) and (pointer: fine)").matches) prompt.current.focus({ preventScroll: true });
  }, []);
  const send = (event) => {
    event.preventDefault();
    paint();
  };
  return html`<form class="form" noValidate onSubmit=${send} aria-label="What to paint">
    <label class="field">
      <span>Prompt</span>
      <textarea id="prompt" ref=${prompt} rows="4" placeholder="a small house by the sea at sunset" value=${form.prompt}
        onInput=${(event) => change({ prompt: event.target.value })}></textarea>
    </label>
    ${model?.capabilities.negative_prompt && html`<label class="field">
      <span>Negative prompt</span>
      <textarea id="negative" rows="2" value=${form.negative}
        onInput=${(event) => change({ negative: event.target.value })}></textarea>
    </label>`}
    <button class="primary" type="submit">Paint <kbd>⌘/Ctrl ⏎</kbd></button>
    ${model?.capabilities.prompt_upsampling && html`<${Upsampling} on=${form.upsample} />`}
    <${Model} models=${models} form=${form} />
    <${Size} form=${form} />
    <${Numbers} form=${form} model=${model} />
    <${Sources} form=${form} model=${model} />
    ${model?.capabilities.loras !== false && html`<${Loras} form=${form} />`}
    <button type="button" class="clear" onClick=${() => clear(model)}>Clear the form</button>
  </form>`;
}

/** Fill empty fields: the server's default model if it is downloaded, else another one, and the model's defaults. */
function settle(form, models) {
  if (!models.length) return;
  const usable = models.filter((model) => !model.unavailable && model.capabilities.from_words);
  const ready = usable.filter((each) => each.downloaded);
  const model = modelOf(form.model) ?? ready.find((each) => each.default) ?? ready.find((each) => each.loaded) ?? ready[0];
  if (!model) return;
  const wanted = defaults(model);
  const missing = Object.keys(wanted).filter((name) => !form[name]);
  if (form.model && !missing.length) return;
  change({ model: model.title, ...Object.fromEntries(missing.map((name) => [name, wanted[name]])) });
}

function Upsampling({ on }) {
  return html`<label class="switch">
    <input type="checkbox" role="switch" checked=${on} onChange=${(event) => change({ upsample: event.target.checked })} />
    <span>Prompt upsampling <small>The model first puts the prompt into more words.</small></span>
  </label>`;
}

/** Two choices: the model, then its version, which is most often the number of bits. */
function Model({ models, form }) {
  const card = cardOf(models, form.model);
  const use = (model) => change({ model: model.title, ...defaults(model) });
  const usable = cards(models).filter((each) => !each.unavailable);
  const groups = [
    ["On this machine", usable.filter((each) => each.here)],
    ["Available for download", usable.filter((each) => !each.here)],
  ];
  return html`<div class="field model">
    <label for="model">Model</label>
    <select id="model" aria-describedby="about-model" value=${card?.name}
      onChange=${(event) => use(recommended(cardOf(models, event.target.value)))}>
      ${groups.map(([label, rows]) => rows.length > 0 && html`<optgroup label=${label}>
        ${rows.map((each) => html`<option value=${each.name}>${each.label}</option>`)}
      </optgroup>`)}
    </select>
    ${card?.versions.length > 1 && html`<select aria-label="Version of the model" value=${form.model}
      onChange=${(event) => use(modelOf(event.target.value))}>
      ${card.versions.map((each) => html`<option value=${each.title}>${version(each)}</option>`)}
    </select>`}
    <small id="about-model">${card && html`<${About} card=${card} model=${modelOf(form.model)} />`}</small>
  </div>`;
}

const version = (model) =>
  [model.variant, memory(model) && `${memory(model)} of memory`, model.fits === false && fit(model), toFetch(model)].filter(Boolean).join(", ");

function About({ card, model }) {
  const real = realModel(useStore((state) => state.models));
  if (card.demo && real) return html`This is the demo model. <a href=${`#models/${real.name}`}>${offer(real)}</a>`;
  const facts = [card.description, model.loaded && "in memory", !model.downloaded && "downloaded on first use"];
  return facts.filter(Boolean).join(" · ");
}

function offer(card) {
  if (card.here) return `${card.label} is on this machine.`;
  return `Get ${card.label}: ${size(recommended(card).download_gb)}, ${card.licence}.`;
}

function Numbers({ form, model }) {
  return html`<fieldset class="numbers">
    <legend>Details</legend>
    ${!model?.capabilities.fixed_steps && html`<${Range} id="steps" label="Steps" value=${form.steps} least=${1}
      most=${50} step=${1} put=${(steps) => change({ steps })} />`}
    ${model && model.capabilities.guidance !== "fixed" && html`<${Range} id="guidance" label="Guidance"
      value=${form.guidance} least=${0} most=${15} step=${0.1} put=${(guidance) => change({ guidance })} />`}
    <${Range} id="count" label="Pictures" value=${form.count} least=${1} most=${4} step=${1}
      put=${(count) => change({ count })} />
    <${Seed} form=${form} />
  </fieldset>`;
}

function Seed({ form }) {
  const put = (text) => {
    const seed = Math.min(LARGEST_SEED, Math.max(0, Math.trunc(Number(text)) || 0));
    change({ seed, locked: true });
  };
  const lock = form.locked ? "Keep this seed" : "A new seed each time";
  return html`<div class="seed">
    <label for="seed">Seed</label>
    <${NumberField} id="seed" min="0" max=${LARGEST_SEED} value=${form.seed} put=${put} />
    <button type="button" title="Another seed" aria-label="Another seed"
      onClick=${() => change({ seed: dice() })}>${DICE}</button>
    <button type="button" class=${form.locked ? "on" : ""} aria-pressed=${form.locked} title=${lock}
      aria-label="Keep this seed" onClick=${() => change({ locked: !form.locked })}>${form.locked ? LOCKED : UNLOCKED}</button>
  </div>`;
}
