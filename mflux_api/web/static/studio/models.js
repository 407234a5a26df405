// The models: list, download, load and unload them, and show whether they fit in memory.

import { html } from "../vendor/preact-htm.js";
import { attempt } from "./actions.js";
import { post, remove } from "./api.js";
import { refreshModels, refreshSystem } from "./live.js";
import { now, set, useStore } from "./state.js";
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
  const groups = [
    ["On this machine", models.filter((each) => each.downloaded && !each.unavailable)],
    ["Available for download", models.filter((each) => !each.downloaded && !each.unavailable)],
    ["Not supported by this version", models.filter((each) => each.unavailable)],
  ];
  return html`<section class="models" aria-label="Models">
    ${system && html`<${Memory} system=${system} models=${models} />`}
    ${groups.map(([title, rows]) => rows.length > 0 && html`<h2>${title}</h2>
      <ul class="cards">${rows.map((model) => html`<${Model} key=${model.title} model=${model} system=${system} />`)}</ul>`)}
  </section>`;
}

/** Memory in use and the budget, with the models in memory. */
export function Memory({ system, models }) {
  const budget = system.engine.memory_budget_gb;
  if (!budget) return html`<p class="note">The engine has not started yet. It starts with the first picture.</p>`;
  const used = Math.min(1, system.mlx_memory_gb / budget);
  const cached = Math.min(1 - used, system.mlx_cache_gb / budget);
  const loaded = models.filter((each) => each.loaded).map((each) => each.title);
  return html`<div class="memory">
    <h2>Memory</h2>
    <div class="bar" role="img" aria-label=${`${size(system.mlx_memory_gb)} of ${size(budget)} are used`}>
      <i class="used" style=${{ width: share(used).replace(" ", "") }}></i>
      <i class="cached" style=${{ width: share(cached).replace(" ", "") }}></i>
    </div>
    <p><b>${size(system.mlx_memory_gb)}</b> in use${system.mlx_cache_gb ? `, ${size(system.mlx_cache_gb)} kept for reuse` : ""},
      of <b>${size(budget)}</b> for models. ${loaded.length ? `In memory: ${loaded.join(", ")}.` : "No model is in memory."}</p>
  </div>`;
}

function Model({ model, system }) {
  const download = useStore((state) => state.downloads[model.title]);
  const busy = useStore((state) => state.busy) === model.title;
  return html`<li class="card">
    <h3>${model.title} ${model.loaded && html`<mark>in memory</mark>`}</h3>
    <p>${model.description}</p>
    <p class="facts">${facts(model, system).join(" · ")}</p>
    ${model.unavailable && html`<p class="note">${model.unavailable}</p>`}
    ${model.gated && !model.downloaded && html`<p class="note">Accept its licence on Hugging Face first;
      then start the server with HF_TOKEN set.</p>`}
    ${download ? html`<${Download} model=${model} download=${download} />` : html`<${Buttons} model=${model} busy=${busy} />`}
  </li>`;
}

function facts(model, system) {
  const budget = system?.engine.memory_budget_gb;
  const fits = budget && model.memory_gb ? (model.memory_gb <= budget ? "fits" : "too large for this machine") : null;
  const memory = model.memory_gb ? `${size(model.memory_gb)} in memory${fits ? ` (${fits})` : ""}` : null;
  const disk = model.downloaded ? `${size(model.size_gb)} on disk` : `${size(model.download_gb)} to download`;
  return [disk, memory, model.licence, model.capabilities.enlarges && "enlarges pictures"].filter(Boolean);
}

function Buttons({ model, busy }) {
  if (model.unavailable) return null;
  const button = (label, act) => html`<button type="button" disabled=${busy} aria-label=${`${label} ${model.title}`}
    onClick=${() => act(model.title)}>${busy ? "…" : label}</button>`;
  if (!model.downloaded) return button("Download", fetchModel);
  return model.loaded ? button("Unload", unload) : button("Load", load);
}

function Download({ model, download }) {
  if (download.error)
    return html`<div role="alert"><p class="note">${download.error}</p>
      <button type="button" onClick=${() => fetchModel(model.title)}>Try again</button></div>`;
  return html`<div class="row">
    <progress value=${download.progress ?? 0} max="1" aria-label=${`Download of ${model.title}`}></progress>
    <span>${share(download.progress ?? 0)}</span>
    <button type="button" onClick=${() => stop(model.title)}>Stop</button>
  </div>`;
}
