// The form's values, kept across reloads, and the request made from them.

import { useEffect, useState } from "../vendor/preact-htm.js";
import { base64 } from "./api.js";
import { keepPictures, keptPictures } from "./kept.js";
import { now } from "./state.js";

const KEPT = "mflux.form";
// Used until the list of models has been loaded.
const SIDES = { size_step: 16, smallest_side: 64 };
export const LARGEST_SEED = 4294967295;

const EMPTY = {
  prompt: "",
  negative: "",
  upsample: false,
  model: "",
  width: 0,
  height: 0,
  steps: 0,
  guidance: 0,
  seed: 1,
  locked: false,
  count: 1,
  loras: [],
  // A picture or null: {id, blob, url, width, height}.
  start: null,
  strength: 0.75,
  mask: null,
  references: [],
};

let form = { ...EMPTY, ...recalled() };
const listeners = new Set();

export const current = () => form;

export function change(patch) {
  form = { ...form, ...patch };
  remember();
  if (PICTURES.some((name) => name in patch)) keepPictures(blobs(form));
  for (const listener of listeners) listener(form);
}

/** The form; the component renders again whenever it changes. */
export function useForm() {
  const [seen, look] = useState(form);
  useEffect(() => {
    look(form);
    listeners.add(look);
    return () => listeners.delete(look);
  }, []);
  return seen;
}

function recalled() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) ?? {};
  } catch {
    return {};
  }
}

const PICTURES = ["start", "mask", "references"];
const blobs = ({ start, mask, references }) => ({
  start: start?.blob ?? null,
  mask: mask?.blob ?? null,
  references: references.map((each) => each.blob),
});

/** Take back the pictures from before a reload, unless others have been chosen since. */
export async function recallPictures() {
  const kept = await keptPictures();
  if (!kept) return;
  const again = (blob) => blob && picture(blob);
  const [start, mask] = await Promise.all([again(kept.start), again(kept.mask)]);
  const references = await Promise.all(kept.references.map(again));
  if (!form.start && !form.references.length) change({ start, mask, references });
}

/** Empty the form, but for the model. */
export function clear(model) {
  change({ ...EMPTY, seed: dice(), model: form.model, ...(model && defaults(model)) });
}

function remember() {
  // Pictures are kept elsewhere: they are too large.
  const { start, mask, references, ...kept } = form;
  localStorage.setItem(KEPT, JSON.stringify(kept));
}

/** The sides the chosen model paints: multiples of `step` pixels from `smallest` up. */
export function sideRule() {
  const rule = now().models.find((model) => model.title === form.model)?.capabilities ?? SIDES;
  return { step: rule.size_step, smallest: rule.smallest_side };
}

/** Round to the nearest valid side, in pixels. */
export function side(pixels, largest = 4096) {
  const { step, smallest } = sideRule();
  return Math.min(largest, Math.max(smallest, Math.round(pixels / step) * step));
}

/** Width and height with this aspect ratio and about `area` pixels. */
export function shaped([across, down], area) {
  const unit = Math.sqrt(area / (across * down));
  return { width: side(across * unit), height: side(down * unit) };
}

export const dice = () => Math.floor(Math.random() * (LARGEST_SEED + 1));

/** The model's default values for the form. */
export function defaults(model) {
  return {
    width: model.default_width,
    height: model.default_height,
    steps: model.default_steps,
    guidance: model.default_guidance,
  };
}

/** The body of POST /api/v1/generate. */
export async function order(values, model) {
  const can = model?.capabilities;
  const loras = can?.loras === false ? [] : values.loras;
  const body = {
    prompt: values.prompt,
    model: values.model || undefined,
    width: values.width,
    height: values.height,
    steps: values.steps,
    seed: values.seed,
    num_images: values.count,
    lora_files: loras.map((each) => each.name),
    lora_scales: loras.map((each) => each.scale),
    extra_images: await Promise.all(values.references.map((each) => base64(each.blob))),
  };
  if (can && can.guidance !== "fixed") body.guidance = values.guidance;
  if (can?.negative_prompt) body.negative_prompt = values.negative;
  if (can?.prompt_upsampling && values.upsample) body.prompt_upsampling = true;
  if (values.start) Object.assign(body, await repainting(values, can?.mask !== false));
  return body;
}

async function repainting({ start, mask, strength }, takesMask) {
  const masked = mask && takesMask ? { mask: await base64(mask.blob) } : {};
  return { init_images: [await base64(start.blob)], image_strength: strength, ...masked };
}

let pictures = 0;

/** Make a form's picture from a file. Throws if the file is not a picture. */
export async function picture(blob) {
  const bitmap = await createImageBitmap(blob);
  const { width, height } = bitmap;
  bitmap.close();
  return { id: ++pictures, blob, url: URL.createObjectURL(blob), width, height };
}

/** The form with the given parameters of a job or a file. Undefined ones are left as they are. */
export function filled(parameters) {
  const known = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null);
  return { ...form, loras: [], ...Object.fromEntries(known) };
}

/** Map the infotext that SD-WebUI (and this server) writes into pictures to the form's fields. */
export function fromInfotext(found) {
  const number = (name) => (found[name] === undefined || found[name] === "" ? undefined : Number(found[name]));
  return {
    prompt: found.Prompt,
    negative: found["Negative prompt"],
    steps: number("Steps"),
    guidance: number("CFG scale"),
    seed: number("Seed"),
    locked: true,
    width: found["Size-1"] === undefined ? undefined : side(number("Size-1")),
    height: found["Size-2"] === undefined ? undefined : side(number("Size-2")),
  };
}
