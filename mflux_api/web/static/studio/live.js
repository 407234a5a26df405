// Keeps the state up to date: listens to the server's events, and reloads what they do not contain.

import { get } from "./api.js";
import { complain, now, say, set, toast } from "./state.js";
import { followInOneTab } from "./tabs.js";

const SOON = 80;
const NEWEST = 24;
const DAY = 86400;
const listeners = new Set();

/** Register a listener for added or deleted pictures. Returns a function that removes it. */
export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function picturesChanged() {
  for (const listener of listeners) listener();
}

/** Debounce a call: at most one runs at a time, and one more follows if it was requested meanwhile. */
function debounced(call) {
  let timer = 0;
  let running = false;
  let again = false;
  const run = async () => {
    running = true;
    await call().catch(refused);
    running = false;
    if (again) later();
    again = false;
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(run, SOON);
  };
  return () => (running ? (again = true) : later());
}

function refused(error) {
  if (error.status === 0) set({ online: false });
  else complain(error);
}

export const refreshQueue = debounced(async () => {
  const queue = await get("/api/v1/queue?limit=200");
  const known = new Set([queue.active, ...queue.queued].map((job) => job?.job_id));
  // Progress of an ended job is kept until the job has left the queue, to avoid flicker.
  set({ queue, progress: Object.fromEntries(Object.entries(now().progress).filter(([id]) => known.has(id))) });
});
export const refreshModels = debounced(async () => set({ models: (await get("/api/v1/models")).models }));
export const refreshLoras = debounced(async () => set({ loras: (await get("/api/v1/loras")).loras }));
export const refreshSystem = debounced(async () => {
  const system = await get("/api/v1/system");
  set({ system });
  warn(system.warnings);
});
export const refreshStage = debounced(async () => {
  const { pictures } = await get(`/api/v1/pictures?limit=${NEWEST}`);
  set({ stage: { ...now().stage, pictures } });
  picturesChanged();
});

const warned = new Set();

/** Show each warning of the server until it is dismissed, and again when it has been over. The sizes in it change. */
function warn(warnings) {
  const kinds = warnings.map((text) => text.replace(/[\d.]+/g, ""));
  warnings.forEach((text, index) => {
    if (!warned.has(kinds[index])) toast(text, { kind: "error", seconds: DAY });
  });
  warned.clear();
  for (const kind of kinds) warned.add(kind);
}

function refreshAll() {
  for (const refresh of [refreshQueue, refreshModels, refreshLoras, refreshSystem, refreshStage]) refresh();
}

const HEARD = {
  progress: painted,
  queued: refreshQueue,
  moved: refreshQueue,
  started: ({ job_id }) => {
    set({ stage: { ...now().stage, failure: null }, progress: { ...now().progress, [job_id]: {} } });
    say("Painting begins.");
    refreshQueue();
  },
  complete: ended("The picture is finished."),
  cancelled: ended("The job was cancelled."),
  failed: (data) => {
    ended("The job failed.")(data);
    get(`/api/v1/jobs/${data.job_id}?images=false`).then(fallen, refused);
  },
  download: downloading,
  downloaded: (data) => arrived(data, null),
  download_failed: (data) => arrived(data, data.error),
  closing: () => set({ online: false }),
};

function painted(data) {
  const before = now().progress[data.job_id] ?? {};
  tellQuarter(before, data);
  set({ progress: { ...now().progress, [data.job_id]: { ...before, ...data } } });
}

/** Announce every quarter to screen readers, not every step. */
function tellQuarter(before, data) {
  const quarter = Math.floor((data.progress ?? 0) * 4);
  if (quarter > Math.floor((before.progress ?? 0) * 4) && quarter < 4) say(`${quarter * 25} percent painted.`);
}

function ended(words) {
  return ({ job_id }) => {
    say(words);
    set({ stage: { ...now().stage, latest: job_id } });
    refreshQueue();
    refreshStage();
    refreshModels();
    refreshSystem();
  };
}

const fallen = (job) => set({ stage: { ...now().stage, failure: job } });

function downloading(data) {
  set({ downloads: { ...now().downloads, [data.model]: data } });
}

function arrived(data, error) {
  const { [data.model]: over, ...rest } = now().downloads;
  set({ downloads: error ? { ...rest, [data.model]: { ...data, error } } : rest });
  say(error ? `${data.model} could not be downloaded.` : `${data.model} is downloaded.`);
  refreshModels();
}

let begun = false;

/** Load everything, then listen until the page closes. If the API key is refused, ask for another. */
export function start() {
  refreshAll();
  if (begun) return;
  begun = true;
  followInOneTab("/api/v1/events?preview=true", {
    heard: ({ name, data }) => HEARD[name]?.(data),
    opened: () => {
      // Jobs may have ended unheard: the newest picture is that of the list.
      set({ online: true, locked: false, stage: { ...now().stage, latest: null } });
      refreshAll();
    },
    lost: (error) => set(error?.status === 401 ? { locked: true } : { online: false }),
  });
}
