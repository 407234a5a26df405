// The middle of the page: the current picture with its progress, the queue, and recent pictures.

import { html } from "../vendor/preact-htm.js";
import { cancel, download, hidden, modelOf, move, paint, pause, retry, startFrom, vary } from "./actions.js";
import { change, useForm } from "./form.js";
import { Frame, Shot, thumbnail } from "./pictures.js";
import { advice, now, set, useStore } from "./state.js";
import { seconds, share } from "./text.js";

const RECENT = 24;
const STAGES = {
  loading: "The model is being loaded",
  downloading: "The model is being downloaded",
  upsampling: "The model writes the prompt out",
};

export function Stage() {
  const { active } = useStore((state) => state.queue);
  const { pictures, latest, failure } = useStore((state) => state.stage);
  const shots = (pictures ?? []).filter((each) => !hidden.has(each.url));
  const shot = shots.find((each) => each.job_id === latest) ?? shots[0];
  return html`<section class=${`stage ${shots.length ? "" : "bare"}`} aria-label="The picture">
    ${active ? html`<${Painting} job=${active} />` : failure ? html`<${Failure} job=${failure} />`
      : shot ? html`<${Finished} shot=${shot} shots=${shots} />` : pictures && html`<${Welcome} />`}
    <${Queue} />
    ${shots.length > 0 && html`<${Recent} shots=${shots} shown=${active || failure ? null : shot} />`}
  </section>`;
}

function Welcome() {
  const models = useStore((state) => state.models);
  const model = modelOf(useForm().model);
  const none = models.length > 0 && !models.some((each) => each.downloaded && !each.unavailable);
  if (none)
    return html`<div class="empty"><h2>No pictures yet</h2>
      <p>There is no model on this machine yet. <a href="#models">Download one.</a></p></div>`;
  const examples = model?.examples ?? [];
  return html`<div class="empty">
    <h2>What should it be?</h2>
    <p>Write a prompt${examples.length ? ", or start with one of these" : " and press Paint"}:</p>
    <div class="examples">
      ${examples.map((prompt) => html`<button type="button" key=${prompt} onClick=${() => start(prompt)}>${prompt}</button>`)}
    </div>
  </div>`;
}

function start(prompt) {
  change({ prompt });
  paint();
}

function Painting({ job }) {
  const progress = useStore((state) => state.progress[job.job_id]) ?? {};
  const done = progress.progress ?? job.progress ?? 0;
  const source = progress.preview && `data:image/png;base64,${progress.preview}`;
  return html`<div class="painting">
    <${Frame} of=${job}>
      ${source ? html`<img src=${source} alt=${`So far: ${job.prompt}`} />` : html`<span class="blank"></span>`}
    <//>
    <progress value=${done} max="1" aria-label="Progress">${share(done)}</progress>
    <div class="caption">
      <p class="prompt">${job.prompt}</p>
      <span class="status">${status(progress, job)}</span>
      <button type="button" onClick=${() => cancel(job.job_id)}>Cancel <kbd>Esc</kbd></button>
    </div>
  </div>`;
}

function status(progress, job) {
  const left = progress.eta ?? job.eta_seconds;
  const of = progress.of > 1 ? `, picture ${progress.image} of ${progress.of}` : "";
  const step = progress.step ? `Step ${progress.step} of ${progress.steps}${of}` : (STAGES[progress.stage] ?? "Starting");
  return left === null || left === undefined ? step : `${step} · ${seconds(left)} left`;
}

const dismiss = () => set({ stage: { ...now().stage, failure: null } });

function Failure({ job }) {
  return html`<div class="failure" role="alert">
    <h2>The job failed</h2>
    <p>${advice({ message: job.error, code: job.code })}</p>
    <p class="prompt">${job.prompt}</p>
    <div class="row">
      <button type="button" onClick=${() => retry(job.id)}>Try again</button>
      <button type="button" onClick=${dismiss}>Dismiss</button>
    </div>
  </div>`;
}

const open = (shots, shot) => () => set({ dialog: { kind: "detail", shots, at: shots.indexOf(shot) } });

function Finished({ shot, shots }) {
  return html`<div class="done">
    <${Frame} of=${shot}>
      <button type="button" class="finished" onClick=${open(shots, shot)} aria-label=${`The newest picture: ${shot.prompt}`}>
        <${Shot} url=${shot.url} alt=${shot.prompt} width=${shot.width} height=${shot.height} />
      </button>
    <//>
    <div class="caption">
      <p class="prompt" title=${shot.prompt}>${shot.prompt}</p>
      <button type="button" onClick=${() => vary(shot)}>Vary</button>
      <button type="button" onClick=${() => startFrom(shot)}>Edit this</button>
      <button type="button" onClick=${() => download(shot, "png")}>↓ PNG</button>
    </div>
  </div>`;
}

function Recent({ shots, shown }) {
  return html`<div class="recent" role="group" aria-label="Recent pictures">
    ${shots.slice(0, RECENT).map((shot) => html`<button type="button" key=${shot.url} onClick=${open(shots, shot)}
      class=${shot === shown ? "shown" : ""}>
      <${Shot} url=${thumbnail(shot)} alt=${shot.prompt || "A picture without a prompt"} loading="lazy" />
    </button>`)}
    <a href="#gallery">All pictures</a>
  </div>`;
}

/** The queue: jobs can be moved and cancelled, and the queue paused. */
export function Queue() {
  const { queued, length, paused } = useStore((state) => state.queue);
  if (!length && !paused) return null;
  return html`<section class="queue" aria-label="Queue">
    <div class="row spread">
      <h3>${length === 1 ? "1 job waits" : `${length} jobs wait`}${paused ? ", paused" : ""}</h3>
      <button type="button" aria-pressed=${paused} onClick=${() => pause(!paused)}>${paused ? "Resume" : "Pause"}</button>
    </div>
    <ol>${queued.map((job) => html`<${Waiting} key=${job.job_id} job=${job} last=${length} />`)}</ol>
  </section>`;
}

function Waiting({ job, last }) {
  const download = useStore((state) => state.progress[job.job_id]?.download);
  const named = `“${job.prompt || "no prompt"}”`;
  const when = download === undefined ? seconds(job.eta_seconds) : `downloading the model, ${share(download)}`;
  return html`<li>
    <span class="place">${job.position}</span>
    <span class="prompt">${job.prompt}</span>
    <span class="when">${when}</span>
    <button type="button" aria-label=${`Move ${named} up`} disabled=${job.position === 1}
      onClick=${() => move(job.job_id, job.position - 1)}>↑</button>
    <button type="button" aria-label=${`Move ${named} down`} disabled=${job.position === last}
      onClick=${() => move(job.job_id, job.position + 1)}>↓</button>
    <button type="button" aria-label=${`Cancel ${named}`} onClick=${() => cancel(job.job_id)}>✕</button>
  </li>`;
}
