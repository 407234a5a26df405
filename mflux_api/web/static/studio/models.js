// The models, one card each: download, load and unload them, and show whether they fit in memory.

import { html, useEffect, useRef, useState } from "../vendor/preact-htm.js";
import { attempt } from "./actions.js";
import { post, remove } from "./api.js";
import { cards, fit, memory, realModel, recommended, toFetch } from "./cards.js";
import { change, defaults } from "./form.js";
import { refreshModels, refreshSystem } from "./live.js";
import { go, now, set, useStore } from "./state.js";
import { share, size } from "./text.js";

const verb = (call) =>
  attempt(async (name) => {
    set({ busy: name });
    try {
      await call(`/api/v1/models/${encodeURIComponent(name)}`);
    } finally {
      set({ busy: null });
      refreshModels();
      refreshSystem();
    }
  });
const load = verb((path) => post(`${path}/load`));
const unload = verb((path) => post(`${path}/unload`));
const fetchModel = verb((path) => post(`${path}/download`));
const stop = attempt(async (name) => {
  await remove(`/api/v1/models/${encodeURIComponent(name)}/download`);
  const { [name]: over, ...rest } = now().downloads;
  set({ downloads: rest });
  refreshModels();
});

export function Models() {
  const models = useStore((state) => state.models);
  const system = useStore((state) => state.system);
  const real = realModel(models);
  const all = cards(models);
  const groups = [
    ["On this machine", all.filter((each) => each.here && !each.unavailable)],
    ["Available for download", all.filter((each) => !each.here && !each.unavailable)],
    ["Not supported by this version", all.filter((each) => each.unavailable)],
  ];
  return html`<section class="models" aria-label="Models">
    ${system && html`<${Memory} system=${system} models=${models} />`}
    ${groups.map(([title, rows]) => rows.length > 0 && html`<h2>${title}</h2>
      <ul class="cards">${rows.map((card) => html`<${Card} key=${card.name} card=${card} real=${real} />`)}</ul>`)}
  </section>`;
}

/** Memory in use and the budget, by model. */
export function Memory({ system, models }) {
  const budget = system.engine.memory_budget_gb;
  if (!budget) return html`<p class="note">The engine has not started yet. It starts with the first picture.</p>`;
  const loaded = models.filter((each) => each.loaded);
  // What each model holds is estimated; together it is no more than what is in use.
  const known = loaded.reduce((sum, each) => sum + (each.memory_gb ?? 0), 0);
  const rest = Math.max(0, system.mlx_memory_gb - known);
  const parts = [
    ...loaded.map((each) => [each.title, each.memory_gb, "used"]),
    [loaded.length ? "Pictures and prompts" : "In use", rest, "rest"],
    ["Kept for reuse", system.mlx_cache_gb, "cached"],
  ].filter(([, gigabytes]) => gigabytes > 0);
  const width = (gigabytes) => share(Math.min(1, gigabytes / budget)).replace(" ", "");
  return html`<div class="memory">
    <h2>Memory <small>${size(system.mlx_memory_gb)} of ${size(budget)} for models</small></h2>
    <div class="bar" role="img" aria-label=${`${size(system.mlx_memory_gb)} of ${size(budget)} are used`}>
      ${parts.map(([name, gigabytes, kind]) => html`<i class=${kind} key=${name} style=${{ width: width(gigabytes) }}></i>`)}
    </div>
    <ul class="legend">
      ${parts.map(([name, gigabytes, kind]) => html`<li key=${name}><i class=${kind}></i>${name} <b>${size(gigabytes)}</b></li>`)}
      ${!loaded.length && html`<li>No model is in memory.</li>`}
    </ul>
  </div>`;
}

function Card({ card, real }) {
  const { name, versions } = card;
  const [chosen, choose] = useState(null);
  const box = useRef(null);
  const wanted = useStore((state) => state.part) === name;
  const model = versions.find((each) => each.title === chosen) ?? recommended(card);
  const downloads = useStore((state) => state.downloads);
  const download = versions.map((each) => downloads[each.title]).find(Boolean);
  useEffect(() => {
    if (wanted) box.current.scrollIntoView({ block: "center" });
  }, [wanted]);
  return html`<li class=${`card ${wanted ? "wanted" : ""}`} ref=${box} aria-label=${card.label}>
    <h3>${card.label} ${card.loaded && html`<mark>in memory</mark>`}</h3>
    <p>${card.description}</p>
    ${versions.length > 1 && html`<${Versions} card=${card} model=${model} choose=${choose} />`}
    <p class="facts">${facts(card, model).map((fact) => html`<span>${fact}</span>`)}</p>
    <${Notes} card=${card} model=${model} real=${real} />
    ${download ? html`<${Download} download=${download} />` : html`<${Buttons} model=${model} next=${real?.name === name} />`}
  </li>`;
}

/** The versions with their memory, and with their downloads where these differ. */
function Versions({ card, model, choose }) {
  const downloads = new Set(card.versions.map((each) => each.download_gb)).size > 1;
  return html`<fieldset class=${`versions ${downloads ? "wide" : ""}`}>
    <legend class="said">Version of ${card.label}</legend>
    <div aria-hidden="true"><span>Version</span>${downloads && html`<span>Download</span>`}<span>Memory</span><span></span></div>
    ${card.versions.map((each) => html`<label key=${each.title} class=${each.fits === false ? "misfit" : ""}>
      <input type="radio" name=${`version-${card.name}`} value=${each.title} checked=${each === model}
        aria-label=${[each.variant, memory(each) && `${memory(each)} of memory`, fit(each)].filter(Boolean).join(", ")}
        onChange=${() => choose(each.title)} />
      <span>${each.variant}</span>${downloads && html`<span>${each.downloaded ? "here" : size(each.download_gb, "?")}</span>`}
      <span>${memory(each) ?? "?"}</span><span>${each.fits ? "fits" : each.fits === false && "does not fit"}</span>
    </label>`)}
  </fieldset>`;
}

function facts(card, model) {
  const alone = card.versions.length === 1;
  const needed = memory(model) && `${memory(model)} of memory${fit(model) ? `, ${fit(model)}` : ""}`;
  const disk = model.downloaded ? `${size(model.size_gb)} on disk` : toFetch(model);
  return [disk, (alone || model.fits === false) && needed, model.licence, html`<code>${model.title}</code>`].filter(Boolean);
}

function Notes({ card, model, real }) {
  if (card.unavailable) return html`<p class="note">${card.unavailable}</p>`;
  if (card.demo && real) return html`<p class="note">For real pictures: <a href=${`#models/${real.name}`}>${real.label}</a>.</p>`;
  if (!model.gated || model.downloaded) return null;
  return html`<p class="note">Accept first: <a href=${model.url} target="_blank" rel="noreferrer">its licence</a>. Then start the server with HF_TOKEN set.</p>`;
}

const use = (model) => {
  change({ model: model.title, ...defaults(model) });
  go("paint");
};

/** `next`: it is the model to get after a demo. */
function Buttons({ model, next }) {
  const busy = useStore((state) => state.busy) === model.title;
  if (model.unavailable) return null;
  const button = (label, act, kind = "") => html`<button type="button" class=${kind} disabled=${busy}
    aria-label=${`${label} ${model.title}`} onClick=${() => act(model.title)}>${busy ? "…" : label}</button>`;
  if (!model.downloaded) return button("Download", fetchModel, next ? "primary" : "");
  return html`<div class="row">
    ${model.capabilities.from_words && html`<button type="button" aria-label=${`Paint with it: ${model.title}`}
      onClick=${() => use(model)}>Paint with it</button>`}
    ${model.loaded ? button("Unload", unload) : button("Load", load)}
  </div>`;
}

function Download({ download }) {
  const name = download.model;
  if (download.error)
    return html`<div role="alert"><p class="note">${download.error}</p>
      <button type="button" onClick=${() => fetchModel(name)}>Try again</button></div>`;
  return html`<div class="row">
    <progress value=${download.progress ?? 0} max="1" aria-label=${`Download of ${name}`}></progress>
    <span>${share(download.progress ?? 0)}</span>
    <button type="button" onClick=${() => stop(name)}>Stop</button>
  </div>`;
}
