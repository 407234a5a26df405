// Server-sent events over fetch: EventSource cannot send an API key, nor the last event's id after a reload.

import { ApiError, headers } from "./api.js";

const FIRST_WAIT = 500;
const LONGEST_WAIT = 8000;

/** Wait, at most until the signal aborts. */
export function sleep(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}

/** Yield the events of one connection: {id, name, data}. Throws ApiError when it is refused. */
export async function* connected(path, lastId, opened, signal) {
  const more = lastId ? { "Last-Event-ID": lastId } : {};
  const asked = { headers: headers({ Accept: "text/event-stream", ...more }), cache: "no-store", signal };
  const reply = await fetch(path, asked);
  if (!reply.ok) throw new ApiError(reply.status, await reply.json().catch(() => ({})));
  opened();
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const event = parsed(block);
      if (event) yield event;
    }
  }
}

/** Parse one block of the stream; null for a heartbeat. */
export function parsed(block) {
  const fields = { event: "message", id: "", data: [] };
  for (const line of block.split(/\r?\n/)) {
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (name === "data") fields.data.push(value);
    else if (name in fields) fields[name] = value;
  }
  if (!fields.data.length) return null;
  return { id: fields.id, name: fields.event, data: JSON.parse(fields.data.join("\n")) };
}

/**
 * Listen until the signal aborts, reconnecting whenever the stream ends. `opened` is called after each connection; the caller then
 * reloads its data, because the server may no longer have all missed events. `lost` gets the error, or null if the
 * stream ended normally.
 */
export async function follow(path, { heard, opened, lost, signal }) {
  let lastId = "";
  let wait = FIRST_WAIT;
  while (!signal.aborted) {
    try {
      const begun = () => {
        wait = FIRST_WAIT;
        opened();
      };
      for await (const event of connected(path, lastId, begun, signal)) {
        lastId = event.id || lastId;
        heard(event);
      }
      lost(null);
    } catch (error) {
      if (signal.aborted) return;
      lost(error);
    }
    await sleep(wait, signal);
    wait = Math.min(wait * 2, LONGEST_WAIT);
  }
}
