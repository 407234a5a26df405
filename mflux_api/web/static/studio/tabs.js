// One event stream for all tabs: a stream holds a connection, and a browser has only six of them to a host.

import { follow } from "./stream.js";
import { takeTurn } from "./turns.js";

const NAME = "mflux.events";

/**
 * Follow a stream in one visible tab, which passes what it hears to the others. A hidden tab lets go: it needs no
 * events, and reloads its data when it is seen again. The handlers are those of `follow`.
 */
export function followInOneTab(path, handlers) {
  const own = Math.random();
  const channel = new BroadcastChannel(NAME);
  // Ends this tab's turn, or its wait for one. `latest`: the state of the connection, while this tab has its turn.
  let turn = null;
  let latest = null;

  const pass = (name, value) => {
    handlers[name](value);
    channel.postMessage({ name, value });
  };
  const passState = (name, value) => {
    latest = { name, value };
    pass(name, value);
  };

  async function run(signal) {
    await follow(path, {
      heard: (event) => pass("heard", event),
      opened: () => passState("opened"),
      lost: (error) => passState("lost", error && { status: error.status }),
      signal,
    });
    latest = null;
  }

  function look() {
    if (document.hidden) {
      turn?.abort();
      turn = null;
    } else if (!turn) {
      turn = new AbortController();
      channel.postMessage({ name: "asked", value: own });
      takeTurn(NAME, run, turn.signal);
    }
  }

  channel.onmessage = ({ data: { name, value, to } }) => {
    if (name === "asked") {
      if (latest) channel.postMessage({ ...latest, to: value });
    } else if (!document.hidden && (to === undefined || to === own)) handlers[name](value);
  };
  document.addEventListener("visibilitychange", look);
  look();
}
