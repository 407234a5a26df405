// The two packages that JavaScript has for SD-WebUI's API, each through all it can do. Prints one JSON object.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import path from "node:path";

const [modules, url] = process.argv.slice(2);
const require = createRequire(pathToFileURL(path.join(modules, "clients.cjs")));
const { StableDiffusionApi } = require("stable-diffusion-api");
const sdwebui = require("node-sd-webui").default;
const sharp = require("sharp");

const small = { prompt: "a red circle", seed: 7, steps: 2, width: 64, height: 64 };
const size = async (image) => {
  const { width, height, format } = await image.metadata();
  return [width, height, format];
};

async function stableDiffusionApi() {
  const api = new StableDiffusionApi({ baseUrl: url, timeout: 60_000 });
  const painted = await api.txt2img(small);
  const hires = await api.txt2img({ ...small, enable_hr: true, hr_upscaler: "ESRGAN_4x", hr_scale: 1.5 });
  const repainted = await api.img2img({ ...small, init_images: [painted.image], batch_size: 2 });
  const mask_image = sharp({ create: { width: 64, height: 64, channels: 3, background: "white" } }).png();
  const inpainted = await api.img2img({ ...small, init_images: [painted.image], mask_image });
  const extra = await api.extraSingle({ image: painted.image, upscaler_1: "Lanczos", upscaling_resize: 2 });
  const both = { images: [painted.image, painted.image], name_list: ["a", "b"], upscaler_1: "Nearest" };
  const batch = await api.extraBatch(both);
  const info = await api.pngInfo(painted.image);
  const options = await api.getOptions();
  const written = await api.setOptions({ ...options, send_seed: !options.send_seed });
  const changed = (await api.getOptions()).send_seed !== options.send_seed;
  await api.setOptions(options);
  const missing = await api.interrogate(painted.image, "clip").catch((error) => error.response.status);
  await api.refreshCheckpoints();
  const lists = {};
  for (const name of [
    "getSamplers", "getUpscalers", "getSdModels", "getHypernetworks", "getFaceRestorers", "getRealesrganModels",
    "getPromptStyles",
  ]) lists[name] = await api[name]();
  return {
    painted: await size(painted.image),
    seed: JSON.parse(painted.info).seed,
    hires: await size(hires.image),
    repainted: repainted.images.length,
    inpainted: await size(inpainted.image),
    extra: await size(extra.image),
    batch: await Promise.all(batch.images.map(size)),
    info: info.info,
    written, changed, missing, lists,
    progress: await api.getProgress(true),
    model: await api.getCurrentModel(),
    ready: await api.waitForReady(0.1),
  };
}

async function nodeSdWebui() {
  const client = sdwebui({ apiUrl: url });
  const painted = await client.txt2img({ ...small, negativePrompt: "a square", samplingMethod: "Euler a" });
  const hires = { upscaler: "Latent", upscaleBy: 1.5, denoisingStrength: 0.5, steps: 2 };
  const enlarged = await client.txt2img({ ...small, hires });
  const repainted = await client.img2img({ ...small, imageData: painted.images, batchCount: 2 });
  return {
    painted: painted.images.length,
    hires: await size(sharp(Buffer.from(enlarged.images[0], "base64"))),
    repainted: repainted.images.length,
    info: await client.pngInfo({ imageData: painted.images[0] }),
  };
}

console.log(JSON.stringify({ "stable-diffusion-api": await stableDiffusionApi(), "node-sd-webui": await nodeSdWebui() }));
