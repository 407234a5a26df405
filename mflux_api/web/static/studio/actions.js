// User actions on jobs and pictures.

import { base64, bytes, get, post, remove } from "./api.js";
import { change, current, dice, filled, order, picture, side } from "./form.js";
import { picturesChanged, refreshQueue } from "./live.js";
import { complain, go, now, set, toast } from "./state.js";

const UNDO_SECONDS = 8;
// An enlargement: by how much, and how much of the picture may change where no model for it is here.
const UPSCALE = 2;
const UPSCALE_STRENGTH = 0.3;

export const modelOf = (name) => now().models.find((model) => model.title === name);

/** Wrap a call so that its errors are shown to the user; it then returns null. */
export const attempt = (call) => async (...given) => {
  try {
    return await call(...given);
  } catch (error) {
    complain(error);
    return null;
  }
};

/** Submit the form as a job. Unless the seed is locked, choose a new one for the next job. */
export const paint = attempt(async () => {
  const form = current();
  if (!form.prompt.trim() && !form.start && !form.references.length) {
    toast("Enter a prompt first.");
    return null;
  }
  const job = await post("/api/v1/generate", await order(form, modelOf(form.model)));
  if (!form.locked) change({ seed: dice() });
  set({ stage: { ...now().stage, failure: null } });
  refreshQueue();
  return job;
});

export const cancel = attempt(async (jobId) => {
  await remove(`/api/v1/jobs/${jobId}`);
  refreshQueue();
});

export const move = attempt(async (jobId, position) => {
  await post(`/api/v1/jobs/${jobId}/move`, { position });
  refreshQueue();
});

export const retry = attempt(async (jobId) => {
  await post(`/api/v1/jobs/${jobId}/retry`);
  set({ stage: { ...now().stage, failure: null } });
  refreshQueue();
});

export const pause = attempt(async (paused) => {
  await post(`/api/v1/queue/${paused ? "pause" : "resume"}`);
  refreshQueue();
});

/** The name in the list of LoRAs of an adapter's file. */
function adapter(file) {
  const stem = file.replace(/\.safetensors$/, "");
  return now().loras.find(({ name }) => name === stem || name.endsWith(`/${stem}`))?.name ?? file;
}

const detailOf = (shot) => get(`/api/v1/jobs/${shot.job_id}?images=false`);
const fetched = async (url) => base64(await bytes(url));

/** Rebuild the request of a finished picture, with the picture's own seed. */
async function orderOf(shot, detail) {
  const { parameters, inputs } = detail;
  const body = {
    ...{ prompt: parameters.prompt, negative_prompt: parameters.negative_prompt, model: parameters.model },
    ...{ width: parameters.width, height: parameters.height, steps: parameters.steps, seed: shot.seed },
    guidance: parameters.guidance,
    lora_files: parameters.loras.map((each) => adapter(each.name)),
    lora_scales: parameters.loras.map((each) => each.scale),
    extra_images: await Promise.all(inputs.references.map(fetched)),
  };
  if (parameters.prompt_upsampling) body.prompt_upsampling = true;
  if (inputs.source) body.init_images = [await fetched(inputs.source)];
  if (inputs.source) body.image_strength = parameters.image_strength;
  if (inputs.mask) body.mask = await fetched(inputs.mask);
  return body;
}

const repeated = (vary) =>
  attempt(async (shot) => {
    const body = await orderOf(shot, await detailOf(shot));
    await post("/api/v1/generate", vary ? { ...body, seed: dice() } : body);
    toast(vary ? "A variation is in the queue." : "The same picture is in the queue again.");
    refreshQueue();
  });

export const again = repeated(false);
export const vary = repeated(true);

/** How `upscale` enlarges a picture: with a model for that if one is here, else by repainting it with a low strength. */
export function enlargement(shot) {
  const upscaler = now().models.find((model) => model.capabilities.enlarges && model.downloaded && !model.unavailable);
  const [width, height] = [side(shot.width * UPSCALE), side(shot.height * UPSCALE)];
  const means = upscaler ? `with ${upscaler.label}` : `by repainting with ${modelOf(shot.model)?.label ?? shot.model}`;
  return { upscaler, width, height, label: `Upscale ${UPSCALE}× to ${width} × ${height} ${means}` };
}

export const upscale = attempt(async (shot) => {
  const { upscaler, width, height } = enlargement(shot);
  const { parameters } = await detailOf(shot);
  await post("/api/v1/generate", {
    prompt: parameters.prompt,
    model: upscaler ? upscaler.title : parameters.model,
    width,
    height,
    steps: upscaler ? undefined : parameters.steps,
    seed: shot.seed,
    init_images: [await fetched(shot.url)],
    image_strength: UPSCALE_STRENGTH,
  });
  toast("The enlarged picture is in the queue.");
  refreshQueue();
});

/** Load a picture's parameters into the form. */
export const load = attempt(async (shot) => {
  const { parameters } = await detailOf(shot);
  change(
    filled({
      ...{ prompt: parameters.prompt, negative: parameters.negative_prompt, model: parameters.model },
      ...{ width: parameters.width, height: parameters.height, steps: parameters.steps },
      ...{ guidance: parameters.guidance, seed: shot.seed, locked: true },
      upsample: parameters.prompt_upsampling ?? false,
      loras: parameters.loras.map((each) => ({ ...each, name: adapter(each.name) })),
    }),
  );
  set({ dialog: null });
  go("paint");
});

export const startFrom = attempt(async (shot) => {
  const start = await picture(await bytes(shot.url));
  change({ start, mask: null, prompt: current().prompt || shot.prompt, ...fitting(start) });
  set({ dialog: null });
  go("paint");
});

export const refer = attempt(async (shot) => {
  const reference = await picture(await bytes(shot.url));
  change({ references: [...current().references, reference] });
  set({ dialog: null });
  go("paint");
});

/** The canvas size that fits a start picture. */
export const fitting = ({ width, height }) => ({ width: side(width), height: side(height) });

/** Hide a picture at once, and delete it when the time to undo is over. */
export const discard = (shot) => {
  hidden.add(shot.url);
  picturesChanged();
  const back = () => {
    hidden.delete(shot.url);
    picturesChanged();
  };
  const gone = () => remove(shot.url).then(picturesChanged, (error) => (back(), complain(error)));
  const action = { label: "Undo", run: back };
  toast("The picture is deleted.", { action, seconds: UNDO_SECONDS, gone });
};

/** URLs of pictures that are hidden and will be deleted. */
export const hidden = new Set();

/** Download a picture, named after its job and index. */
export const download = attempt(async (shot, format) => {
  const blob = await bytes(`${shot.url}?format=${format}`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${shot.job_id}-${shot.index}.${format === "jpeg" ? "jpg" : format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
});
