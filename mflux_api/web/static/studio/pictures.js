// Showing pictures of the server, also where it wants a key: an <img> cannot send one, so they are fetched then.

import { html, useEffect, useState } from "../vendor/preact-htm.js";
import { bytes, key } from "./api.js";

const REMEMBERED = 400;
const known = new Map();

/** The address to show: the server's own, or of the fetched bytes. */
async function shown(url) {
  if (!key.get()) return url;
  if (!known.has(url)) {
    known.set(url, bytes(url).then(URL.createObjectURL));
    known.get(url).catch(() => known.delete(url));
    forgetOldest();
  }
  return known.get(url);
}

async function forgetOldest() {
  if (known.size <= REMEMBERED) return;
  const [oldest, made] = known.entries().next().value;
  known.delete(oldest);
  URL.revokeObjectURL(await made);
}

export function Shot({ url, alt, ...more }) {
  const [source, change] = useState(key.get() ? null : url);
  useEffect(() => {
    let wanted = true;
    shown(url).then((found) => wanted && change(found)).catch(() => {});
    return () => {
      wanted = false;
    };
  }, [url]);
  return html`<img src=${source} alt=${alt} decoding="async" ...${more} />`;
}

export const thumbnail = (shot, side = 320) => `${shot.url}?format=webp&side=${side}`;
