// Pictures of the server. With an API key they are fetched with a script, because <img> cannot send headers.

import { html, useEffect, useState } from "../vendor/preact-htm.js";
import { bytes, key } from "./api.js";

const REMEMBERED = 400;
const known = new Map();

/** The URL for <img>: the server's, or with an API key one of the fetched bytes. */
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

/** A picture's place: as large as there is room, in its own shape. */
export function Frame({ of, children }) {
  return html`<div class="view"><div class="frame" style=${{ "--ratio": of.width / of.height }}>${children}</div></div>`;
}

export const thumbnail = (shot, side = 320) => `${shot.url}?format=webp&side=${side}`;
