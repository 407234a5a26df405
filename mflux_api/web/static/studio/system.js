// The system view: engine, memory, queue, and small plots of the statistics.

import { html, useEffect, useState } from "../vendor/preact-htm.js";
import { get } from "./api.js";
import { refreshSystem } from "./live.js";
import { Memory } from "./models.js";
import { Queue } from "./stage.js";
import { complain, now, useStore } from "./state.js";
import { date, seconds, size } from "./text.js";

const EVERY = 2000;
const SAMPLES = 60;
const WIDTH = 240;
const HEIGHT = 48;

export function System() {
  const system = useStore((state) => state.system);
  const models = useStore((state) => state.models);
  const queue = useStore((state) => state.queue);
  const { stats, hours, days } = useStats(queue);
  const memory = useSamples();
  return html`<section class="system" aria-label="System">
    ${system && html`<${Memory} system=${system} models=${models} /><${Health} system=${system} stats=${stats} />`}
    <div class="plots">
      ${hours && html`<${Plot} title="Pictures per hour, last 24 hours" points=${hours.points}
        value=${(point) => point.pictures} told=${(value) => value} />`}
      ${days && html`<${Plot} title="Pictures per day, last 30 days" points=${days.points}
        value=${(point) => point.pictures} told=${(value) => value} />`}
      ${days && html`<${Plot} title="Seconds per picture, by day" points=${days.points}
        value=${(point) => point.seconds_per_picture ?? 0} told=${seconds} />`}
      <${Plot} title="Engine memory, now" points=${memory} value=${(point) => point.gb} told=${size} />
    </div>
    ${queue.length || queue.paused ? html`<${Queue} />` : html`<p>No jobs are waiting.</p>`}
    <p class="row"><a href="/docs">API documentation</a> <a href="/metrics">Metrics</a></p>
  </section>`;
}

function useStats(queue) {
  const [known, change] = useState({});
  useEffect(() => {
    const paths = ["/api/v1/stats", "/api/v1/stats/history?bucket=hour&count=24", "/api/v1/stats/history?bucket=day&count=30"];
    Promise.all(paths.map(get)).then(([stats, hours, days]) => change({ stats, hours, days }), complain);
  }, [queue]);
  return known;
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

function Health({ system, stats }) {
  const { engine, system_memory_gb: memory } = system;
  const facts = [
    ["Engine", engine.running ? "running" : "stopped; it starts with the first picture"],
    ["Ended unexpectedly", engine.restarts ? `${engine.restarts} times` : "never"],
    ["Device", [system.device, engine.backend].filter(Boolean).join(", ")],
    ["MLX", engine.mlx],
    ["System memory", `${size(memory.free)} free of ${size(memory.total)}`],
    ["Peak memory", size(system.mlx_peak_gb)],
    ["Painted", stats && `${stats.total_images} pictures in ${stats.total_generations} jobs`],
    ["Failed", stats && `${stats.total_failures} jobs`],
    ["Uptime", stats && seconds(stats.uptime_hours * 3600)],
  ];
  return html`<dl class="health">
    ${facts.filter(([, value]) => value).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}
  </dl>`;
}

/** A bar chart with the newest value on the right. Each bar has a tooltip. */
function Plot({ title, points, value, told }) {
  const most = Math.max(...points.map(value), 0) || 1;
  const step = WIDTH / Math.max(points.length, 1);
  return html`<figure class="plot">
    <figcaption>${title}: <b>${told(points.length ? value(points.at(-1)) : 0)}</b></figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`${title}; at most ${told(most)}`}>
      ${points.map((point, index) => {
        const height = (value(point) / most) * HEIGHT;
        return html`<rect x=${index * step} y=${HEIGHT - height} width=${Math.max(step - 1, 1)} height=${height}>
          <title>${date(point.start)}: ${told(value(point))}</title></rect>`;
      })}
    </svg>
  </figure>`;
}
