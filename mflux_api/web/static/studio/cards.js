// Groups the list of models into cards: a model with all its versions, such as those in fewer bits.

import { size } from "./text.js";

/** Cards in the order of the list. `name`: that of the model itself; `versions`: the most memory first. */
export function cards(models) {
  const names = models.filter((each) => !each.variant_of).map((each) => each.title);
  return names.map((name) => cardOf(models, name));
}

const widestFirst = (one, other) =>
  (other.memory_gb ?? 0) - (one.memory_gb ?? 0) || (other.quantize ?? 0) - (one.quantize ?? 0);

/** The card of a model or of one of its versions; null if there is none. */
export function cardOf(models, title) {
  const chosen = models.find((each) => each.title === title);
  if (!chosen) return null;
  const name = chosen.variant_of ?? title;
  const versions = models.filter((each) => each.title === name || each.variant_of === name);
  const { label, description, demo, licence, unavailable, capabilities } = versions[0];
  return {
    ...{ name, label, description, demo, licence, unavailable, capabilities },
    versions: versions.sort(widestFirst),
    here: versions.some((each) => each.downloaded),
    loaded: versions.some((each) => each.loaded),
  };
}

/** The version to choose first: the one in memory, the server's own, else the best that is here or could be and fits. */
export function recommended({ name, versions }) {
  const ready = versions.filter((each) => each.downloaded);
  const own = versions.filter((each) => each.title === name || each.quantize);
  const could = ready.length ? ready : own;
  return (
    ready.find((each) => each.loaded) ?? ready.find((each) => each.default) ??
    could.find((each) => each.fits !== false) ?? could.at(-1) ?? versions[0]
  );
}

/** The model to move on to from a demo: one that is here, else the first that anybody may download. */
export function realModel(models) {
  const real = cards(models).filter((card) => !card.demo && !card.unavailable && card.capabilities.from_words);
  return real.find((card) => card.here) ?? real.find((card) => card.versions.every((each) => !each.gated)) ?? null;
}

/** The memory that a version takes, in words; null if that is not known. */
export const memory = (model) => (model.memory_gb ? size(model.memory_gb) : null);

/** Whether this machine can paint with a version, in words; null if that is not known. */
export function fit(model) {
  if (model.fits === null) return null;
  return model.fits ? "fits" : "does not fit on this machine";
}

/** What has to be downloaded for a version, in words; null if it is here. */
export const toFetch = (model) => (model.downloaded ? null : `${size(model.download_gb)} to download`);
