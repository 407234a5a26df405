// Something that one tab does at a time: by a Web Lock, or by a lease in localStorage where there are no locks, which
// is over plain HTTP from another machine.

import { sleep } from "./stream.js";

// In milliseconds: how long a lease lasts without its tab, how often a tab renews its own and looks for a free one, and
// how long two tabs may take to see that both have written one.
const LEASE = 6000;
const RENEW = 2000;
const LOOK = 1000;
const SETTLE = 200;

/** Wait for a turn and call `run` with a signal that aborts when the turn is over. Ends when `signal` aborts. */
export function takeTurn(name, run, signal) {
  if (!navigator.locks) return takeLease(name, run, signal);
  return navigator.locks.request(name, { signal }, () => run(signal)).catch(() => {});
}

async function takeLease(name, run, signal) {
  const own = Math.random();
  const read = () => JSON.parse(localStorage.getItem(name)) ?? { until: 0 };
  const write = () => localStorage.setItem(name, JSON.stringify({ own, until: Date.now() + LEASE }));
  const isOwn = () => read().own === own;
  const renew = () => {
    if (isOwn()) write();
    return isOwn();
  };
  const left = () => read().until - Date.now();
  while (!signal.aborted) {
    // A lease beyond its length is from before the clock was set back.
    if (left() > 0 && left() <= LEASE) {
      await sleep(LOOK, signal);
      continue;
    }
    write();
    await sleep(SETTLE, signal);
    if (isOwn()) await runTurn(run, signal, renew);
    if (isOwn()) localStorage.removeItem(name);
  }
}

/** Run until the signal aborts, or until the turn cannot be renewed: the computer slept, and another tab has it. */
async function runTurn(run, signal, renew) {
  const turn = new AbortController();
  const end = () => turn.abort();
  const timer = setInterval(() => renew() || end(), RENEW);
  signal.addEventListener("abort", end);
  if (signal.aborted) end();
  await run(turn.signal);
  clearInterval(timer);
  signal.removeEventListener("abort", end);
}
