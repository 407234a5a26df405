// The gallery: all pictures, newest first. Only the visible rows are in the DOM.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../vendor/preact-htm.js";
import { discard, hidden } from "./actions.js";
import { get } from "./api.js";
import { onChange } from "./live.js";
import { Shot, thumbnail } from "./pictures.js";
import { complain, set, useStore } from "./state.js";

const PAGE = 200;
const LEAST = 150;
const GAP = 8;
const AROUND = 2;
const TYPING = 250;

/** The pictures of a search, loaded page by page. */
class Listing {
  constructor(asked, told) {
    this.asked = asked;
    this.told = told;
    this.begin();
  }

  begin() {
    this.shots = [];
    this.total = 0;
    this.next = null;
    this.begun = false;
    this.loading = null;
  }

  /** Load until the first `count` pictures are known. */
  async reach(count) {
    while (this.shots.length < count && (!this.begun || this.next !== null)) {
      this.loading ??= this.more();
      await this.loading;
    }
  }

  async more() {
    const words = new URLSearchParams({ limit: PAGE, ...this.asked });
    if (this.next !== null) words.set("before", this.next);
    const { pictures, next, total } = await get(`/api/v1/pictures?${words}`);
    Object.assign(this, { shots: [...this.shots, ...pictures], next, total, begun: true, loading: null });
    this.told();
  }

  /** Load the first page again after a change, and keep the following pages if they still connect to it. */
  async renew() {
    if (this.loading) await this.loading;
    const { pictures, next, total } = await get(`/api/v1/pictures?${new URLSearchParams({ limit: PAGE, ...this.asked })}`);
    const last = pictures.at(-1);
    const from = this.shots.findIndex((each) => each.url === last?.url) + 1;
    const rest = from > 0 ? this.shots.slice(from) : [];
    Object.assign(this, { shots: [...pictures, ...rest], total, begun: true });
    if (!rest.length) this.next = next;
    this.told();
  }
}

function useListing(search, model) {
  const [, draw] = useState(0);
  const listing = useRef(null);
  useEffect(() => {
    const asked = { ...(search && { search }), ...(model && { model }) };
    listing.current = new Listing(asked, () => draw((count) => count + 1));
    listing.current.reach(1).catch(complain);
    return onChange(() => listing.current.renew().catch(complain));
  }, [search, model]);
  return listing.current;
}

export function Gallery() {
  const [search, setSearch] = useState("");
  const [model, setModel] = useState("");
  const models = useStore((state) => state.models);
  const listing = useListing(search, model);
  const timer = useRef(0);
  const type = (event) => {
    clearTimeout(timer.current);
    const { value } = event.target;
    timer.current = setTimeout(() => setSearch(value.trim()), TYPING);
  };
  return html`<section class="gallery" aria-label="Gallery">
    <div class="row filters">
      <input type="search" id="search" placeholder="Search the prompts" aria-label="Search the prompts" onInput=${type} />
      <select id="of-model" aria-label="Filter by model" onChange=${(event) => setModel(event.target.value)}>
        <option value="">All models</option>
        ${models.filter((each) => each.downloaded).map((each) => html`<option value=${each.title}>${each.title}</option>`)}
      </select>
      <output>${listing?.begun ? counted(listing.total) : ""}</output>
    </div>
    ${listing?.begun && !listing.total
      ? html`<div class="empty"><h2>${search || model ? "No pictures found" : "No pictures yet"}</h2>
          <p>${search || model ? "Try fewer words, or all models." : "Your pictures appear here."}</p></div>`
      : html`<${Grid} listing=${listing} />`}
  </section>`;
}

const counted = (total) => (total === 1 ? "1 picture" : `${total.toLocaleString()} pictures`);

/** Width and scroll position of a scrolling box. */
function useView(box) {
  const [view, change] = useState({ width: 0, height: 0, top: 0 });
  useLayoutEffect(() => {
    const look = () => {
      const { clientWidth, clientHeight, scrollTop } = box.current;
      change({ width: clientWidth, height: clientHeight, top: scrollTop });
    };
    const observer = new ResizeObserver(look);
    observer.observe(box.current);
    box.current.addEventListener("scroll", look, { passive: true });
    return () => observer.disconnect();
  }, []);
  return view;
}

function Grid({ listing }) {
  const box = useRef(null);
  const view = useView(box);
  const [focused, focus] = useState(0);
  const columns = Math.max(2, Math.floor((view.width + GAP) / (LEAST + GAP)));
  const cell = (view.width + GAP) / columns;
  const shots = (listing?.shots ?? []).filter((each) => !hidden.has(each.url));
  const total = (listing?.total ?? 0) - hidden.size;
  const first = Math.max(0, Math.floor(view.top / cell) - AROUND) * columns;
  const last = Math.ceil((view.top + view.height) / cell + AROUND) * columns;
  useEffect(() => {
    listing?.reach(last + hidden.size).catch(complain);
  }, [listing, last]);
  const press = useKeys({ box, shots, columns, cell, focused, focus });
  return html`<div class="grid" ref=${box} onKeyDown=${press}>
    <div class="all" style=${{ height: `${Math.ceil(total / columns) * cell}px` }}>
      ${shots.slice(first, last).map((shot, index) => {
        const at = first + index;
        return html`<${Cell} key=${shot.url} shot=${shot} at=${at} focusable=${at === Math.min(focused, shots.length - 1)}
          place=${{ left: (at % columns) * cell, top: Math.floor(at / columns) * cell, side: cell - GAP }}
          open=${() => set({ dialog: { kind: "detail", shots, at } })} focus=${() => focus(at)} />`;
      })}
    </div>
  </div>`;
}

function Cell({ shot, at, place, focusable, open, focus }) {
  const style = {
    transform: `translate(${place.left}px, ${place.top}px)`,
    width: `${place.side}px`,
    height: `${place.side}px`,
  };
  return html`<button type="button" class="cell" style=${style} data-at=${at} tabindex=${focusable ? 0 : -1}
    onClick=${open} onFocus=${focus} title=${shot.prompt}>
    <${Shot} url=${thumbnail(shot)} alt=${shot.prompt || "A picture without a prompt"} />
  </button>`;
}

/** Key handler of the grid: arrows, Home and End move the focus, Delete and Backspace delete. */
function useKeys({ box, shots, columns, cell, focused, focus }) {
  return (event) => {
    const MOVES = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -focused, End: shots.length };
    if (event.key === "Delete" || event.key === "Backspace") discard(shots[focused]);
    if (!(event.key in MOVES) || !shots.length) return;
    event.preventDefault();
    const to = Math.min(shots.length - 1, Math.max(0, focused + MOVES[event.key]));
    focus(to);
    reveal(box.current, Math.floor(to / columns) * cell, cell);
    // After the cell has been rendered.
    requestAnimationFrame(() => requestAnimationFrame(() => box.current?.querySelector(`[data-at="${to}"]`)?.focus()));
  };
}

function reveal(box, top, cell) {
  if (top < box.scrollTop) box.scrollTop = top;
  else if (top + cell > box.scrollTop + box.clientHeight) box.scrollTop = top + cell - box.clientHeight;
}
