// Format numbers for people.

const GIGA = 1000;

/** Format gigabytes (10^9 or 2^30 bytes, as given); below 1 in megabytes. */
export function size(gigabytes, unknown = "size unknown") {
  if (gigabytes === null || gigabytes === undefined) return unknown;
  if (gigabytes === 0) return "0 MB";
  if (gigabytes < 1) return `${Math.max(1, Math.round(gigabytes * GIGA))} MB`;
  return `${gigabytes.toFixed(1).replace(/\.0$/, "")} GB`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 90) return `${Math.max(0, Math.round(value))} s`;
  return value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

export const date = (iso) => new Date(iso).toLocaleString();
export const share = (value) => `${Math.round(value * 100)} %`;
