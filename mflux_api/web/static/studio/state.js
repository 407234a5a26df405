// The page's state: one object, replaced by each change. Components watch parts of it with `useStore`.

import { useEffect, useState } from "../vendor/preact-htm.js";

let state = {
  view: "paint",
  // What the view is to show: the name of a model in "#models/NAME".
  part: "",
  online: null,
  locked: false,
  models: [],
  loras: [],
  system: null,
  queue: { active: null, queued: [], length: 0, paused: false },
  // Job id -> {step, steps, image, of, eta, stage, preview}.
  progress: {},
  downloads: {},
  // The newest finished pictures (null until they are known), and the job that ended last: after reordering, its
  // pictures may not be the newest.
  stage: { pictures: null, latest: null, failure: null },
  toasts: [],
  said: "",
  dialog: null,
  // Name of the model that is being loaded or unloaded.
  busy: null,
};
const listeners = new Set();

export const now = () => state;

export function set(patch) {
  state = { ...state, ...patch };
  for (const listener of listeners) listener();
}

/** A part of the state; the component renders again when that part changes. */
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

/** Switch the view by changing the URL, so that the browser's Back button works. */
export const go = (view) => (location.hash = view === "paint" ? "" : view);

/** Announce a text to screen readers. */
export const say = (said) => set({ said });

let toasts = 0;

/** Show a message for `seconds`. `action`: {label, run} of a button. `gone` is called if the action was not used. */
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

/** Show an error with advice. If the API key was refused, ask for one instead. */
export function complain(error) {
  if (error.status === 401) set({ locked: true });
  else toast(advice(error), { kind: "error", seconds: 12 });
}

const ADVICE = {
  OFFLINE: "Is it running? Start it with: mflux-api serve",
  OOM_ERROR: "Choose a smaller size, fewer pictures or a model with fewer bits.",
  MODEL_NOT_DOWNLOADED: "Download it on the Models page first.",
  QUEUE_FULL: "Wait until some jobs are finished.",
};

export const advice = (error) => [error.message, ADVICE[error.code]].filter(Boolean).join(" ");
