// The middle of the page: the current picture with its progress, the queue, and recent pictures.

import { html } from "../vendor/preact-htm.js";
import { cancel, hidden, move, pause, retry } from "./actions.js";
import { Shot, thumbnail } from "./pictures.js";
import { advice, now, set, useStore } from "./state.js";
import { seconds, share } from "./text.js";

const RECENT = 12;
const STAGES = { loading: "The model is being loaded", downloading: "The model is being downloaded" };

export function Stage() {
  const { active } = useStore((state) => state.queue);
  const { pictures, latest, failure } = useStore((state) => state.stage);
  const shots = pictures.filter((each) => !hidden.has(each.url));
  const shot = shots.find((each) => each.job_id === latest) ?? shots[0];
  return html`<section class="stage" aria-label="The picture">
    ${active ? html`<${Painting} job=${active} />` : failure ? html`<${Failure} job=${failure} />`
      : shot ? html`<${Finished} shot=${shot} shots=${shots} />` : html`<${Welcome} />`}
    <${Queue} />
    ${shots.length > 0 && html`<${Recent} shots=${active || failure ? shots : shots.filter((each) => each !== shot)} all=${shots} />`}
  </section>`;
}

function Welcome() {
  const models = useStore((state) => state.models);
  const none = models.length > 0 && !models.some((each) => each.downloaded && !each.unavailable);
  return html`<div class="empty">
    <h2>No pictures yet</h2>
    ${none
      ? html`<p>There is no model on this machine yet. <a href="#models">Download one.</a></p>`
      : html`<p>Enter a prompt and press Paint. The picture appears here, step by step.</p>`}
  </div>`;
}

function Painting({ job }) {
  const progress = useStore((state) => state.progress[job.job_id]) ?? {};
  const done = progress.progress ?? job.progress ?? 0;
  const source = progress.preview && `data:image/png;base64,${progress.preview}`;
  return html`<div class="painting">
    <div class="frame" style=${{ aspectRatio: `${job.width} / ${job.height}` }}>
      ${source ? html`<img src=${source} alt=${`So far: ${job.prompt}`} />` : html`<span class="blank"></span>`}
    </div>
    <progress value=${done} max="1" aria-label="Progress">${share(done)}</progress>
    <div class="row spread">
      <span class="status">${status(progress, job)}</span>
      <button type="button" onClick=${() => cancel(job.job_id)}>Cancel <kbd>Esc</kbd></button>
    </div>
    <p class="prompt">${job.prompt}</p>
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
  return html`<button type="button" class="finished" onClick=${open(shots, shot)}
    aria-label=${`The newest picture: ${shot.prompt}`}>
    <${Shot} url=${shot.url} alt=${shot.prompt} width=${shot.width} height=${shot.height} />
  </button>`;
}

function Recent({ shots, all }) {
  return html`<div class="recent" role="group" aria-label="Recent pictures">
    ${shots.slice(0, RECENT).map((shot) => html`<button type="button" key=${shot.url} onClick=${open(all, shot)}>
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
