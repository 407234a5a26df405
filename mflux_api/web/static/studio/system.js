// The system view: engine, memory, queue, and small plots of the statistics.

import { html, useEffect, useState } from "../vendor/preact-htm.js";
import { retry } from "./actions.js";
import { get } from "./api.js";
import { refreshSystem } from "./live.js";
import { Memory } from "./models.js";
import { Queue } from "./stage.js";
import { advice, complain, now, useStore } from "./state.js";
import { date, seconds, size } from "./text.js";

const EVERY = 2000;
const SAMPLES = 60;
const FAILURES = 5;
const WIDTH = 240;
const HEIGHT = 48;
// With fewer points the bars are as wide as with these.
const LEAST_BARS = 24;

export function System() {
  const system = useStore((state) => state.system);
  const models = useStore((state) => state.models);
  const queue = useStore((state) => state.queue);
  const { stats, hours, days, health, failed } = useStats(queue);
  const memory = useSamples();
  const pictures = (point) => point.pictures;
  return html`<section class="system" aria-label="System">
    ${system && html`<${Memory} system=${system} models=${models} /><${Health} system=${system} stats=${stats} queue=${queue} />`}
    <div class="plots">
      ${hours && html`<${Plot} title="Pictures per hour, last 24 hours" points=${hours.points} value=${pictures}
        told=${(value) => value} nothing="Nothing painted in the last 24 hours" />`}
      ${days && html`<${Plot} title="Pictures per day, last 30 days" points=${days.points} value=${pictures}
        told=${(value) => value} nothing="Nothing painted in the last 30 days" />`}
      ${days && html`<${Plot} title="Seconds per picture, by day" points=${days.points}
        value=${(point) => point.seconds_per_picture ?? 0} told=${seconds} nothing="Nothing painted in the last 30 days" />`}
      <${Plot} title="Engine memory, now" points=${memory} value=${(point) => point.gb} told=${size}
        nothing=${memory.length ? "The engine holds no memory" : "Measured every two seconds while this page is open"} />
    </div>
    <h2>Queue</h2>
    ${queue.active && html`<p>Painting: ${queue.active.prompt || "a picture without a prompt"}</p>`}
    ${queue.length || queue.paused ? html`<${Queue} />` : html`<p class="note">No jobs are waiting.</p>`}
    ${failed && html`<${Failed} jobs=${failed} tasks=${health.tasks.filter((each) => each.error)} />`}
    <p class="row"><a href="/docs">API documentation</a> <a href="/metrics">Metrics</a></p>
  </section>`;
}

/** Background tasks that failed, and the last jobs that did, with their reasons. */
function Failed({ jobs, tasks }) {
  return html`<h2>Last errors</h2>
    ${jobs.length + tasks.length ? html`<ul class="errors">
      ${tasks.map((task) => html`<li key=${task.name}>
        <b>${task.error}</b>
        <small>background task “${task.name}”, ${task.state}, started again ${task.restarts} times</small>
      </li>`)}
      ${jobs.map((job) => html`<li key=${job.id}>
        <b>${advice({ message: job.error, code: job.code })}</b>
        <small>${date(job.completed_at)}, ${job.model}: ${job.prompt || "no prompt"}</small>
        <button type="button" aria-label=${`Try again: ${job.prompt}`} onClick=${() => retry(job.id)}>Try again</button>
      </li>`)}
    </ul>` : html`<p class="note">Nothing has failed.</p>`}`;
}

function useStats(queue) {
  const [known, change] = useState({});
  useEffect(() => {
    const history = "/api/v1/stats/history?bucket=";
    const paths = ["/api/v1/stats", `${history}hour&count=24`, `${history}day&count=30`, "/api/v1/health"];
    const known = Promise.all([...paths.map(get), lastFailures()]);
    known.then(([stats, hours, days, health, failed]) => change({ stats, hours, days, health, failed }), complain);
  }, [queue]);
  return known;
}

/** The last failed jobs. Their reasons are not in the list. */
async function lastFailures() {
  const { jobs } = await get(`/api/v1/jobs?status=failed&limit=${FAILURES}`);
  return Promise.all(jobs.map((job) => get(`/api/v1/jobs/${job.id}?images=false`)));
}

/** Memory samples, taken while the page is visible. */
function useSamples() {
  const [samples, change] = useState([]);
  useEffect(() => {
    const timer = setInterval(() => {
      if (document.hidden) return;
      refreshSystem();
      const { system } = now();
      if (!system) return;
      const sample = { start: new Date().toISOString(), gb: system.mlx_memory_gb };
      change((before) => [...before, sample].slice(-SAMPLES));
    }, EVERY);
    return () => clearInterval(timer);
  }, []);
  return samples;
}

function Health({ system, stats, queue }) {
  const { engine, system_memory_gb: memory } = system;
  const doing = queue.active ? "painting" : system.loaded_models.length ? "idle" : "idle, no model in memory";
  const facts = [
    ["Chip", [system.device, engine.backend].filter(Boolean).join(", ")],
    ["Engine", engine.running ? doing : "starts with the next picture"],
    ["Engine crashes", engine.restarts || "none"],
    ["MLX", engine.mlx],
    ["System memory", `${size(memory.free)} free of ${size(memory.total)}`],
    ["Peak memory", system.mlx_peak_gb > 0 && size(system.mlx_peak_gb)],
    ["Painted", stats && `${stats.total_images} pictures in ${stats.total_generations} jobs`],
    ["Failed", stats && (stats.total_failures === 1 ? "1 job" : `${stats.total_failures} jobs`)],
    ["Uptime", stats && seconds(stats.uptime_hours * 3600)],
  ];
  return html`<dl class="health">
    ${facts.filter(([, value]) => value).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

/** A bar chart with the newest value on the right. Each bar has a tooltip. Without values it says `nothing`. */
function Plot({ title, points, value, told, nothing }) {
  const most = Math.max(...points.map(value), 0);
  const step = WIDTH / Math.max(points.length, LEAST_BARS);
  if (!points.some(value))
    return html`<figure class="plot"><figcaption>${title}</figcaption><p class="note">${nothing}.</p></figure>`;
  return html`<figure class="plot">
    <figcaption>${title}: <b>${told(value(points.at(-1)))}</b></figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`${title}; at most ${told(most)}`}>
      ${points.map((point, index) => {
        const height = (value(point) / most) * HEIGHT;
        return html`<rect x=${WIDTH - (points.length - index) * step} y=${HEIGHT - height} width=${Math.max(step - 1, 1)} height=${height}>
          <title>${date(point.start)}: ${told(value(point))}</title></rect>`;
      })}
    </svg>
  </figure>`;
}
