// What the page knows. One object, replaced by each change; parts of it are watched with `useStore`.

import { useEffect, useState } from "../vendor/preact-htm.js";

let state = {
  view: "paint",
  online: null,
  locked: false,
  models: [],
  loras: [],
  system: null,
  queue: { active: null, queued: [], length: 0, paused: false },
  // By job: step, steps, image, of, eta, stage, preview.
  progress: {},
  downloads: {},
  // The newest finished pictures, for the stage, and the job that ended last: what was moved up in the line is not the newest.
  stage: { pictures: [], latest: null, failure: null },
  toasts: [],
  said: "",
  dialog: null,
  // The model that is being loaded or let go.
  busy: null,
};
const listeners = new Set();

export const now = () => state;

export function set(patch) {
  state = { ...state, ...patch };
  for (const listener of listeners) listener();
}

/** A part of the state; the component is drawn again when that part is another. */
export function useStore(select) {
  const [value, change] = useState(() => select(state));
  useEffect(() => {
    const look = () => change(() => select(state));
    look();
    listeners.add(look);
    return () => listeners.delete(look);
  }, []);
  return value;
}

/** To another part of the page; the address leads, so that the browser's Back goes back. */
export const go = (view) => (location.hash = view === "paint" ? "" : view);

/** Tell whoever listens to the page instead of looking at it. */
export const say = (said) => set({ said });

let toasts = 0;

/** A message that goes by itself. `action`: {label, run}. `gone` is called when it went without that. */
export function toast(text, { kind = "note", action = null, seconds = 6, gone = () => {} } = {}) {
  const id = ++toasts;
  const close = (acted) => {
    if (!state.toasts.some((each) => each.id === id)) return;
    clearTimeout(timer);
    set({ toasts: state.toasts.filter((each) => each.id !== id) });
    if (acted) action.run();
    else gone();
  };
  const timer = setTimeout(() => close(false), seconds * 1000);
  set({ toasts: [...state.toasts, { id, text, kind, action, close }] });
  return close;
}

/** Show what went wrong, with what to do about it. */
export function complain(error) {
  if (error.status === 401) set({ locked: true });
  else toast(advice(error), { kind: "error", seconds: 12 });
}

const ADVICE = {
  OFFLINE: "Is it running? Start it with: python api_main.py",
  OOM_ERROR: "Choose a smaller size, fewer pictures or a model with fewer bits.",
  MODEL_NOT_DOWNLOADED: "Download it on the Models page first.",
  QUEUE_FULL: "Wait until some of the queue is painted.",
};

export const advice = (error) => [error.message, ADVICE[error.code]].filter(Boolean).join(" ");
