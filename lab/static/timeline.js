// The scrub bar; lab/timeline.py says what each trait means.

const PACE = 60;
const LEAP = 0.05;
const BIG_LEAP = 0.1;
const SIGNS = { ArrowRight: 1, ArrowUp: 1, PageUp: 1, ArrowLeft: -1, ArrowDown: -1, PageDown: -1 };
const MOVES = new Set([...Object.keys(SIGNS), "Home", "End", "Escape"]);
const UNDO_HINT = "Takes the run back to just before it, as a fork";

const grouped = new Intl.NumberFormat("en-US");
let rooms = 0;

function mark(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// Keeps the children of `parent` in step with a list: an entry whose key is still there keeps its node, and the focus.
function keyed(parent, create, fallback) {
  let entries = new Map();
  return (items, keyOf) => {
    const focused = parent.contains(document.activeElement) ? document.activeElement : null;
    const next = new Map();
    for (const item of items) {
      let key = String(keyOf(item));
      while (next.has(key)) key += "+";
      const entry = entries.get(key) ?? create();
      entry.set(item);
      next.set(key, entry);
    }
    for (const [key, entry] of entries) if (!next.has(key)) entry.node.remove();
    let place = parent.firstChild;
    for (const { node } of next.values()) {
      if (node === place) place = place.nextSibling;
      else parent.insertBefore(node, place);
    }
    entries = next;
    if (focused && document.activeElement !== focused) {
      (focused.isConnected ? focused : fallback()).focus({ preventScroll: true });
    }
    return [...next.values()];
  };
}

function render({ model, el }) {
  const room = `ssl-timeline-${++rooms}`;
  const ending = new AbortController();
  const { signal } = ending;
  el.classList.add("ssl-wide");

  const live = make("button", "ssl-do ssl-live", { type: "button" }, "Live");
  live.title = "Follow the run as it goes on";
  const fill = make("div", "ssl-fill");
  const track = make("div", "ssl-lane ssl-track", {}, fill);
  const marks = make("div", "ssl-lane ssl-marks", { role: "group", "aria-label": "Knobs turned, on the bar" });
  const checkpoints = make("div", "ssl-lane ssl-checkpoints", { "aria-hidden": "true" });
  const range = make("input", "", { type: "range", min: "0", step: "1", "aria-label": "Step shown" });
  const bar = make("div", "ssl-bar", {}, track, marks, checkpoints, range);
  const label = make("span");
  const note = make("small");
  const where = make("div", "ssl-where", {}, label, note);
  const fork = make("button", "ssl-do ssl-fork", { type: "button" }, "Fork here");
  const bubble = make("div", "ssl-bubble", { "aria-hidden": "true", hidden: "" });
  const scrub = make("div", "ssl-scrub", {}, make("div", "ssl-scrub-row", {}, live, bar, where, fork), bubble);
  const list = make("ul", "ssl-event-list", { "aria-labelledby": `${room}-head` });
  const rest = make("p", "ssl-rest");
  const root = make(
    "div",
    "ssl-timeline",
    // JupyterLab's keys of one letter or arrow would move or delete cells under the hands.
    { "data-lm-suppress-shortcuts": "true" },
    scrub,
    make("h3", "", { id: `${room}-head` }, "Knobs turned"),
    list,
    rest,
  );
  el.append(root);

  // ---------------------------------------------------------------- the step

  let dragging = false;
  let held = null; // What the person last chose while dragging.
  let timer = null;
  let told = 0;
  let top = 1; // The bar's right end as drawn: it waits while the thumb is held.

  const end = () => Math.max(1, model.get("last"));

  function tell() {
    window.clearTimeout(timer);
    timer = null;
    told = performance.now();
    model.save_changes();
  }

  function tellSoon() {
    if (timer !== null) return;
    const pause = told + PACE - performance.now();
    if (pause <= 0) tell();
    else timer = window.setTimeout(tell, pause);
  }

  function go(step, { soon = false } = {}) {
    if (dragging) held = step;
    model.set("step", step);
    showStep();
    if (soon) tellSoon();
    else tell();
  }

  function moved() {
    const value = Number(range.value);
    go(value >= top ? -1 : value, { soon: true });
  }

  function leap(steps) {
    const size = Math.max(1, Math.round(Math.abs(steps)));
    range.value = Number(range.value) + Math.sign(steps) * size;
    moved();
  }

  function release() {
    if (!dragging) return;
    dragging = false;
    // The person's word is the last, whatever Python has written meanwhile.
    if (held !== null) model.set("step", held);
    held = null;
    tell();
    showAll();
  }

  range.addEventListener("input", moved);
  range.addEventListener("pointerdown", () => (dragging = true));
  range.addEventListener("change", release);
  for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, release, { signal });
  range.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !MOVES.has(event.key)) return;
    event.stopPropagation();
    const sign = SIGNS[event.key];
    if (event.key === "Escape") go(-1);
    else if (event.key.startsWith("Page")) leap(sign * LEAP * top);
    else if (sign && event.shiftKey) leap(sign * BIG_LEAP * top);
    else return;
    event.preventDefault();
  });
  live.addEventListener("click", () => go(-1));
  fork.addEventListener("click", () => {
    tell();
    model.send({ do: "fork", step: model.get("step") });
  });

  function showStep() {
    const step = held ?? model.get("step");
    const last = model.get("last");
    const isLive = step < 0;
    if (!dragging) {
      top = end();
      mark(range, "max", String(top));
      const value = String(isLive ? top : Math.min(step, top));
      if (range.value !== value) range.value = value;
    }
    fill.style.width = `${(100 * Number(range.value)) / top}%`;
    mark(live, "aria-pressed", String(isLive));
    const place = `step ${grouped.format(isLive ? last : step)} of ${grouped.format(last)}`;
    put(label, isLive ? `live · step ${grouped.format(last)}` : place);
    mark(range, "aria-valuetext", isLive ? `${place}, live` : place);
    for (const entry of rows) entry.node.classList.toggle("ssl-at", entry.item.step === step);
  }

  // ---------------------------------------------------------------- the marks

  let pins = [];
  let rover = null;
  let pointed = null;

  function showBubble(entry) {
    pointed = entry;
    bubble.hidden = !entry;
    if (!entry) return;
    const { item, node } = entry;
    bubble.replaceChildren(make("b", "", {}, String(item.numbers ?? "")), ` ${item.text}`);
    const box = scrub.getBoundingClientRect();
    const at = node.getBoundingClientRect();
    const left = at.left + at.width / 2 - box.left - bubble.offsetWidth / 2;
    bubble.style.left = `${Math.max(0, Math.min(left, box.width - bubble.offsetWidth))}px`;
    // The bar may stick to the window's lower edge: then there is room above it only.
    const below = range.getBoundingClientRect().bottom + 4;
    const fits = below + bubble.offsetHeight <= window.innerHeight;
    bubble.style.top = `${(fits ? below : at.top - bubble.offsetHeight - 4) - box.top}px`;
  }

  // One mark of them all is in the order of Tab; arrows go from one to the next.
  function rove(entry) {
    rover = entry;
    for (const pin of pins) pin.node.tabIndex = pin === entry ? 0 : -1;
  }

  const setMarks = keyed(
    marks,
    () => {
      const badge = make("span", "", { "aria-hidden": "true" });
      const node = make("button", "ssl-mark", { type: "button", tabindex: "-1" }, badge);
      const entry = {
        node,
        item: null,
        set(item) {
          entry.item = item;
          put(badge, String(item.numbers ?? ""));
          mark(node, "aria-label", String(item.text));
        },
      };
      node.addEventListener("click", () => go(entry.item.step));
      node.addEventListener("pointerenter", () => showBubble(entry));
      node.addEventListener("pointerleave", () => {
        if (document.activeElement !== node) showBubble(null);
      });
      node.addEventListener("focus", () => {
        rove(entry);
        showBubble(entry);
      });
      node.addEventListener("blur", () => showBubble(null));
      node.addEventListener("keydown", (event) => {
        const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const ends = { Home: 0, End: pins.length - 1 }[event.key];
        if (event.key === "Escape") showBubble(null);
        else if (by) pins[pins.indexOf(entry) + by]?.node.focus();
        else if (ends !== undefined) pins[ends]?.node.focus();
        else return;
        event.preventDefault();
        event.stopPropagation();
      });
      return entry;
    },
    () => rover?.node ?? range,
  );

  // Asked for only when it may have changed: with a picture under way the page would be laid out for it at once.
  let width = 0;

  function placeMarks() {
    let taken = -Infinity;
    for (const { node, item } of pins) {
      const share = Math.max(0, Math.min(1, item.step / top));
      node.style.left = `${100 * share}%`;
      // A number that would lie on its neighbour's is left to the tooltip.
      const half = Math.max(16, 9 + 6.5 * String(item.numbers ?? "").length) / 2;
      const crowded = share * width - half < taken + 1;
      node.classList.toggle("ssl-crowded", crowded);
      taken = share * width + (crowded ? 4 : half);
    }
    if (pointed && pointed.node.isConnected) showBubble(pointed);
    else if (pointed) showBubble(null);
  }

  function showMarks() {
    if (dragging) return;
    const items = [...model.get("marks")].sort((a, b) => a.step - b.step);
    pins = setMarks(items, (item) => String(item.numbers).split("–")[0]);
    if (!pins.includes(rover)) rove(pins[0] ?? null);
    placeMarks();
  }

  function showCheckpoints() {
    if (dragging) return;
    const steps = model.get("checkpoints");
    while (checkpoints.children.length > steps.length) checkpoints.lastChild.remove();
    while (checkpoints.children.length < steps.length) checkpoints.append(make("i"));
    steps.forEach((step, i) => {
      checkpoints.children[i].style.left = `${100 * Math.min(1, step / top)}%`;
    });
  }

  // ---------------------------------------------------------------- the list

  let rows = [];
  let lines = 0;

  const setRows = keyed(
    list,
    () => {
      const id = `${room}-${++lines}`;
      const number = make("b");
      const words = document.createTextNode("");
      const show = make("button", "ssl-do ssl-little", { type: "button", "aria-describedby": id }, "Show");
      const undo = make("button", "ssl-do ssl-little", { type: "button", "aria-describedby": id }, "Undo");
      const entry = {
        node: make("li", "", {}, make("span", "", { id }, number, words), show, undo),
        item: null,
        set(item) {
          entry.item = item;
          put(number, String(item.number));
          put(words, ` step ${grouped.format(item.step)}: ${item.text}`);
          undo.disabled = item.undo === false;
          mark(undo, "title", item.undo === false ? (item.why ?? "") : UNDO_HINT);
        },
      };
      show.addEventListener("click", () => go(entry.item.step));
      undo.addEventListener("click", () => model.send({ do: "undo", event: entry.item.number }));
      return entry;
    },
    () => range,
  );

  function showEvents() {
    const events = model.get("events");
    const more = model.get("more");
    rows = setRows(events, (item) => item.number);
    list.hidden = events.length === 0;
    put(rest, events.length === 0 ? "No knob turned yet." : more > 0 ? `and ${grouped.format(more)} before` : "");
    showStep();
  }

  function showFork() {
    fork.disabled = !model.get("can_fork");
    mark(fork, "title", model.get("fork_why"));
  }

  const showNote = () => put(note, model.get("note"));

  function showAll() {
    showStep();
    showMarks();
    showCheckpoints();
  }

  const heard = {
    step: showStep,
    last: showAll,
    marks: showMarks,
    checkpoints: showCheckpoints,
    events: showEvents,
    more: showEvents,
    note: showNote,
    can_fork: showFork,
    fork_why: showFork,
  };
  for (const [name, show] of Object.entries(heard)) model.on(`change:${name}`, show);
  const resized = new ResizeObserver(() => {
    width = marks.clientWidth;
    placeMarks();
  });
  resized.observe(bar);

  showEvents();
  showAll();
  showFork();
  showNote();

  return () => {
    ending.abort();
    resized.disconnect();
    if (timer !== null) tell();
    for (const [name, show] of Object.entries(heard)) model.off(`change:${name}`, show);
  };
}

export default { render };
