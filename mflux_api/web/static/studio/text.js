// Format numbers for people.

const GIGA = 1000;

/** Format gigabytes (10^9 or 2^30 bytes, as given); below 1 in megabytes. */
export function size(gigabytes) {
  if (gigabytes === null || gigabytes === undefined) return "size unknown";
  return gigabytes < 1 ? `${Math.max(1, Math.round(gigabytes * GIGA))} MB` : `${gigabytes.toFixed(1)} GB`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 90) return `${Math.max(0, Math.round(value))} s`;
  return value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

export const date = (iso) => new Date(iso).toLocaleString();
export const share = (value) => `${Math.round(value * 100)} %`;
