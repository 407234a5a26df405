// The form's pictures, kept across reloads in IndexedDB because they are too large for localStorage. Where a browser has
// none, as in some private windows, a reload forgets them.

const BASE = "mflux";
const STORE = "pictures";
const FORM = "form";

function opened() {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(BASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE);
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** Run one request on the store and return its result. */
async function run(mode, act) {
  const base = await opened();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = base.transaction(STORE, mode);
      const request = act(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = () => reject(transaction.error);
    });
  } finally {
    base.close();
  }
}

let last = Promise.resolve();

/** Keep these pictures in place of the last ones: {start, mask, references}, each a Blob or null. */
export function keepPictures(pictures) {
  const none = !pictures.start && !pictures.references.length;
  const save = () => run("readwrite", (store) => (none ? store.delete(FORM) : store.put(pictures, FORM)));
  // One after the other, so that the last call wins.
  last = last.then(save).catch(() => {});
  return last;
}

/** The pictures that were kept last, or null. */
export const keptPictures = () => run("readonly", (store) => store.get(FORM)).then((found) => found ?? null, () => null);
