// Detail view of a picture: its parameters and actions.

import { html, useEffect, useState } from "../vendor/preact-htm.js";
import { again, discard, download, enlargement, load, refer, startFrom, upscale, vary } from "./actions.js";
import { get } from "./api.js";
import { Frame, Shot } from "./pictures.js";
import { complain, set, toast, useStore } from "./state.js";
import { date } from "./text.js";

const FORMATS = [["png", "PNG"], ["jpeg", "JPEG"], ["webp", "WebP"]];

export function DetailDialog({ shots, at }) {
  const shot = shots[at];
  const job = useJob(shot);
  const turn = (by) => {
    const to = at + by;
    if (to >= 0 && to < shots.length) set({ dialog: { kind: "detail", shots, at: to } });
  };
  useEffect(() => {
    const press = (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by && !event.target.matches("input, textarea, select")) turn(by);
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, [shots, at]);
  return html`<div class="detail">
    <${Frame} of=${shot}><${Shot} url=${shot.url} alt=${shot.prompt} width=${shot.width} height=${shot.height} /><//>
    <div class="about">
      <div class="row spread">
        <button type="button" disabled=${at === 0} onClick=${() => turn(-1)}>← Newer</button>
        <span>${at + 1} of ${shots.length}</span>
        <button type="button" disabled=${at === shots.length - 1} onClick=${() => turn(1)}>Older →</button>
      </div>
      <h2 class="prompt">${shot.prompt || "No prompt"}</h2>
      <${Verbs} shot=${shot} />
      <${Facts} shot=${shot} job=${job} />
    </div>
  </div>`;
}

function useJob(shot) {
  const [job, change] = useState(null);
  useEffect(() => {
    let wanted = true;
    change(null);
    get(`/api/v1/jobs/${shot.job_id}?images=false`).then((found) => wanted && change(found), complain);
    return () => {
      wanted = false;
    };
  }, [shot.url]);
  return job;
}

function Verbs({ shot }) {
  useStore((state) => state.models);
  const closed = (verb) => () => {
    set({ dialog: null });
    verb(shot);
  };
  const copy = () => navigator.clipboard?.writeText(shot.prompt).then(() => toast("The prompt is copied."));
  const verbs = [
    ...[["Again", closed(again)], ["Vary", closed(vary)]],
    ...[["Edit this", () => startFrom(shot)], ["Use as reference", () => refer(shot)]],
    ...[["Load into the form", () => load(shot)], ["Copy prompt", copy], [enlargement(shot).label, closed(upscale)]],
  ];
  return html`<div class="row verbs">
      ${verbs.map(([label, act]) => html`<button type="button" onClick=${act}>${label}</button>`)}
    </div>
    <div class="row verbs" role="group" aria-label="Download">
      ${FORMATS.map(([format, label]) => html`<button type="button" onClick=${() => download(shot, format)}>
        ↓ ${label}</button>`)}
      <button type="button" class="danger" onClick=${closed(discard)}>Delete</button>
    </div>`;
}

function Facts({ shot, job }) {
  const parameters = job?.parameters ?? {};
  const facts = [
    ["Size", `${shot.width} × ${shot.height}`],
    ["Model", shot.model],
    ["Seed", shot.seed],
    ["Steps", shot.steps],
    ["Guidance", parameters.guidance],
    ["Negative prompt", parameters.negative_prompt],
    ["Upsampled prompt", parameters.upsampled_prompt],
    ["LoRAs", parameters.loras?.map((each) => `${each.name}: ${each.scale}`).join(", ")],
    ["Started from a picture", job?.inputs?.source && `strength ${parameters.image_strength}`],
    ["Masked", parameters.masked && "yes"],
    ["References", parameters.references || ""],
    ["Painted", date(shot.created_at)],
    ["Duration", job?.started_at && job.completed_at && took(job)],
    ["Job", shot.job_id],
  ];
  const known = facts.filter(([, value]) => value !== undefined && value !== null && value !== "" && value !== false);
  return html`<dl>${known.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>`;
}

const took = (job) => `${Math.max(1, Math.round((new Date(job.completed_at) - new Date(job.started_at)) / 1000))} s`;
