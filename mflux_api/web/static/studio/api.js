// Client of the server's API: sends this browser's API key, and turns every failure into an ApiError.

const KEY = "mflux.key";

export const key = {
  get: () => localStorage.getItem(KEY) ?? "",
  set: (value) => (value ? localStorage.setItem(KEY, value) : localStorage.removeItem(KEY)),
};

/** An error reply of the server. `status` is 0 when the server could not be reached. */
export class ApiError extends Error {
  constructor(status, body) {
    super(body.error ?? `The server answered ${status}.`);
    this.status = status;
    this.code = body.code ?? "";
    this.details = body.details ?? {};
  }
}

export function headers(more = {}) {
  return key.get() ? { ...more, "X-API-Key": key.get() } : more;
}

/** Send a request and return the successful response. Throws ApiError. */
async function request(method, path, body) {
  const json = body === undefined ? {} : { "Content-Type": "application/json" };
  const text = body === undefined ? undefined : JSON.stringify(body);
  let reply;
  try {
    reply = await fetch(path, { method, headers: headers(json), body: text });
  } catch {
    throw new ApiError(0, { error: "The server does not answer.", code: "OFFLINE" });
  }
  if (reply.ok) return reply;
  throw new ApiError(reply.status, await reply.json().catch(() => ({})));
}

export const get = async (path) => (await request("GET", path)).json();
export const post = async (path, body) => (await request("POST", path, body)).json();
export const remove = async (path) => (await request("DELETE", path)).json();
export const bytes = async (path) => (await request("GET", path)).blob();

/** Encode a file as base64, without the data URL's prefix. */
export function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}
