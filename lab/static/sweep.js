// The trials of a sweep; lab/sweeping/table.py says what each trait means.

const MOST_TICKED = 4; // As many as the bench draws together.
const HEADS = [
  // Title, key, how it is sorted first, kind of the cell.
  ["Trial", "order", 1, ""],
  ["State", "state", 1, ""],
  ["Progress", "share", -1, ""],
  ["steps/s", "rate", -1, "ssl-number"],
  ["kNN", "knn", -1, "ssl-number"],
  ["Accuracy", "accuracy", -1, "ssl-number"],
  ["F", null, 0, "ssl-plain"],
  ["Attempts", "attempts", -1, "ssl-number"],
  ["Where", "where", 1, ""],
];
const STATES = ["running", "retrying", "waiting", "cut", "done", "failed"];
const WORDS = { cut: "cut short", retrying: "retrying" };
const ICONS = {
  waiting: "M5 1a4 4 0 1 0 .01 0Z",
  running: "M2.5 1.5 8.5 5 2.5 8.5Z",
  retrying: "M8.6 5a3.6 3.6 0 1 1-1.2-2.7M8.5.5v2.4H6",
  cut: "M5 1a4 4 0 1 0 .01 0ZM5 5h4",
  done: "M1 5.5 4 8.5 9 1.5",
  failed: "M1.5 1.5l7 7M8.5 1.5l-7 7",
};
const SVG = "http://www.w3.org/2000/svg";

const whole = new Intl.NumberFormat("en-US");
const percent = (value) => (value === null ? "" : `${value.toFixed(1)} %`);
let rooms = 0;

function drawing(className, box, ...paths) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", box);
  if (className) svg.setAttribute("class", className);
  for (const d of paths) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", d);
    svg.append(path);
  }
  return svg;
}

function set(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

// Bars of F's eigenvalues, from the largest on; heights are hundredths of a logarithmic axis of five decades.
function barsOf(heights) {
  const width = 84 / Math.max(heights.length, 1);
  const bar = (h, i) => `M${(width * (i + 0.5)).toFixed(1)} 23V${(23 - 0.21 * Math.max(h, 2)).toFixed(1)}`;
  return heights.map(bar).join("");
}

function wordsOf(heights) {
  const share = (h) => (h <= 0 ? "0" : Number((10 ** (h / 20 - 5)).toPrecision(1)).toString());
  return `Eigenvalues of F as parts of the largest: ${heights.map(share).join(", ")}`;
}

// The bench lies beside this notebook, here and on a server that is not ours; the theme of the address goes along.
function benchAddress(keys) {
  const asked = new URLSearchParams(window.location.search);
  const query = new URLSearchParams();
  query.set("run", keys[0]);
  if (keys.length > 1) query.set("compare", keys.slice(1).join(","));
  for (const name of ["theme", "voila-theme"]) if (asked.has(name)) query.set(name, asked.get(name));
  return `01-bench.ipynb?${query}`;
}

function saveText(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = make("a", "", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  window.setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

function render({ model, el }) {
  const room = `ssl-sweep-${++rooms}`;
  const led = voilaPage() && !model.get("folder"); // Whether addresses lead to the bench.
  el.classList.add("ssl-wide");

  const search = make("input", "", {
    type: "search", placeholder: "name, error or machine", autocomplete: "off", "aria-label": "Filter",
  });
  const states = make("select", "", { "aria-label": "State" }, make("option", "", { value: "" }, "all"));
  for (const state of STATES) states.append(make("option", "", { value: state }, WORDS[state] ?? state));
  const sorts = make("select", "", { "aria-label": "Sort by" });
  for (const [title, key] of HEADS) if (key) sorts.append(make("option", "", { value: key }, title));
  const turn = make("button", "ssl-do", { type: "button", "aria-label": "Sort the other way round" }, "↑↓");
  const open = make("a", "ssl-do", { target: "_blank", rel: "noopener" });
  const csv = make("button", "ssl-do", { type: "button" }, "Save as CSV");
  const tools = make(
    "div", "ssl-tools", {},
    make("label", "", {}, "Filter", search),
    make("label", "", {}, "State", states),
    make("div", "ssl-sorts", {}, make("label", "", {}, "Sort by", sorts), turn),
    make("div", "ssl-end", {}, open, csv),
  );

  const head = make("tr", "", { role: "row" });
  head.append(
    make("th", "ssl-plain", { role: "columnheader", scope: "col" }, make("span", "ssl-unseen", {}, "Draw")),
  );
  const sorters = new Map();
  for (const [title, key, , kind] of HEADS) {
    const cell = make("th", kind, { role: "columnheader", scope: "col" });
    if (key) {
      const button = make("button", "", { type: "button" }, title);
      button.addEventListener("click", () => sortBy(key));
      sorters.set(key, cell);
      cell.append(button);
    } else {
      cell.append(make("span", "", { title: "Eigenvalues of F, from the largest on; five decades" }, title));
    }
    head.append(cell);
  }
  const body = make("tbody", "", { role: "rowgroup" });
  const table = make(
    "table", "", { role: "table", "aria-labelledby": `${room}-head` },
    make("thead", "", { role: "rowgroup" }, head), body,
  );
  const scroll = make("div", "ssl-scroll", { tabindex: "0", role: "region", "aria-labelledby": `${room}-head` }, table);
  const count = make("p", "", { role: "status" });
  const hint = make("p");
  const box = make(
    "div", "ssl-sweep",
    // JupyterLab's keys of one letter or arrow would move or delete cells under the hands.
    { "data-lm-suppress-shortcuts": "true" },
    make("h3", "", { id: `${room}-head` }, "Trials"), tools, scroll, count, hint,
  );
  el.append(box);

  let entries = [];
  let sort = { key: "order", way: 1 };
  let ticked = [];

  const keyOf = (name) => `trial: ${model.get("sweep")}/${name}`;

  function makeEntry([name], order) {
    const id = `${room}-${order}`;
    const box = make("input", "", { type: "checkbox", "aria-label": `draw ${name} on the bench` });
    const tick = make("label", "ssl-tick", {}, box);
    const who = make("th", "ssl-who", { role: "rowheader", scope: "row", id }, name);
    const badge = make("span", "ssl-badge");
    const bar = make("progress", "", { max: "1", "aria-label": `progress of ${name}` });
    const steps = make("span");
    const spectrum = drawing("ssl-bars", "0 0 84 24", "M0 23.5H84", "");
    spectrum.setAttribute("role", "img");
    const cell = (className, title, ...children) => {
      const node = make("td", className, { role: "cell" }, ...children);
      if (title) node.dataset.head = title;
      return node;
    };
    const pick = cell("ssl-pick", "", tick);
    const way = cell("ssl-way", "", bar, steps);
    const rate = cell("ssl-number", "steps/s");
    const knn = cell("ssl-number", "kNN");
    const accuracy = cell("ssl-number", "accuracy");
    const f = cell("ssl-f", "");
    const attempts = cell("ssl-number", "attempts");
    const where = cell("ssl-where ssl-faint", "on");
    const row = make(
      "tr", "ssl-trial", { role: "row" },
      pick, who, cell("ssl-state-cell", "", badge), way, rate, knn, accuracy, f, attempts, where,
    );
    const note = make("span");
    const about = { type: "button", "aria-expanded": "false", "aria-describedby": id };
    const more = make("button", "ssl-do ssl-little", about, "Whole error");
    const text = make("pre", "", { tabindex: "0", hidden: "", "aria-label": `error of ${name}` });
    const why = make(
      "tr", "ssl-why", { role: "row" },
      make("td", "", { role: "cell", colspan: String(HEADS.length + 1) }, make("div", "", {}, note, more, text)),
    );
    const fold = (shut) => {
      text.hidden = shut;
      set(more, "aria-expanded", String(!shut));
      put(more, shut ? "Whole error" : "Hide");
      if (shut) note.hidden = false;
    };
    let linked = null;
    const entry = {
      name, order, row, why, box, note, text, values: {}, seen: "",
      set(live) {
        const now = JSON.stringify(live);
        if (now === entry.seen) return;
        entry.seen = now;
        const [state, step, of, speed, knnNow, accuracyNow, heights, tries, place, error, openable, rest] = live;
        entry.values = {
          order, state: STATES.indexOf(state), share: state === "done" ? 1 : of ? step / of : 0,
          rate: speed || null, knn: knnNow, accuracy: accuracyNow, attempts: tries, where: place || null,
        };
        entry.state = state;
        entry.words = `${name} ${state} ${WORDS[state] ?? ""} ${place} ${error}`.toLowerCase();
        if (badge.dataset.state !== state) {
          badge.dataset.state = state;
          const icon = drawing("", "0 0 10 10", ICONS[state] ?? ICONS.waiting);
          icon.setAttribute("aria-hidden", "true");
          badge.replaceChildren(icon, WORDS[state] ?? state);
        }
        set(bar, "value", entry.values.share.toFixed(3));
        put(steps, `${whole.format(step)} of ${whole.format(of)}`);
        put(rate, speed ? whole.format(speed) : "");
        put(knn, percent(knnNow));
        put(accuracy, percent(accuracyNow));
        if (heights.length) {
          set(spectrum.lastChild, "d", barsOf(heights));
          set(spectrum, "aria-label", wordsOf(heights));
          if (!spectrum.isConnected) f.append(spectrum);
        } else {
          spectrum.remove();
        }
        put(attempts, tries ? String(tries) : "");
        put(where, place);
        if (linked !== openable) {
          linked = openable;
          tick.hidden = !openable;
          const link = { href: led ? benchAddress([keyOf(name)]) : "#", target: "_blank", rel: "noopener" };
          who.replaceChildren(openable && led ? make("a", "", link, name) : name);
          if (openable && led) who.firstChild.title = "Open on the bench, in a new tab";
        }
        put(note, error);
        entry.failed = error !== "";
        more.hidden = !rest;
        if (!rest) fold(true);
        else if (!text.hidden) model.send({ error: name });
      },
    };
    more.addEventListener("click", () => {
      fold(!text.hidden);
      if (!text.hidden) model.send({ error: name });
    });
    box.addEventListener("change", () => {
      ticked = box.checked ? [...ticked, name] : ticked.filter((other) => other !== name);
      showTicks();
    });
    return entry;
  }

  function showTicks() {
    const known = new Set(entries.map(({ name }) => name));
    ticked = ticked.filter((name) => known.has(name));
    const full = ticked.length >= MOST_TICKED;
    for (const { name, box } of entries) {
      box.checked = ticked.includes(name);
      box.disabled = full && !box.checked;
    }
    open.hidden = !led || ticked.length === 0;
    if (!open.hidden) {
      set(open, "href", benchAddress(ticked.map(keyOf)));
      put(open, ticked.length > 1 ? `Draw ${ticked.length} together on the bench` : "Open on the bench");
    }
    // JupyterLab follows no address into a notebook, and no address leads to another folder.
    const [first, ...others] = ticked.map((name) => JSON.stringify(keyOf(name)));
    let code = "";
    if (!led && first) {
      const folder = model.get("folder");
      code = `Bench(run=${first}${folder ? `, results=${JSON.stringify(folder)}` : ""})`;
      if (others.length) code = `bench = ${code}; bench.compare(${others.join(", ")}); bench`;
    }
    // Left as it is while it says the same: somebody may just be copying it.
    if (hint.dataset.code === code) return;
    hint.dataset.code = code;
    if (code) hint.replaceChildren("In a cell, after from lab import Bench: ", make("code", "", {}, code));
    else put(hint, `Tick up to ${MOST_TICKED} trials that have begun, to draw them together on the bench.`);
  }

  function sortBy(key) {
    const usual = HEADS.find(([, known]) => known === key)[2];
    sort = { key, way: sort.key === key ? -sort.way : usual };
    showOrder(true);
  }

  const compare = (a, b) => {
    const [x, y] = [a.values[sort.key] ?? null, b.values[sort.key] ?? null];
    // What is not known stands last, whichever way.
    if (x === null || y === null) return (x === null) - (y === null) || a.order - b.order;
    const difference = typeof x === "string" ? x.localeCompare(y) : x - y;
    return sort.way * difference || a.order - b.order;
  };

  // Rows do not change places under a hand, unless it was the hand that asked for it.
  const inHand = () => body.contains(document.activeElement) || body.matches(":hover");

  function showOrder(asked) {
    for (const [key, cell] of sorters) {
      set(cell, "aria-sort", key !== sort.key ? "none" : sort.way > 0 ? "ascending" : "descending");
    }
    sorts.value = sort.key;
    const words = search.value.trim().toLowerCase();
    let shown = 0;
    for (const entry of entries) {
      const fits = (!words || entry.words.includes(words)) && (!states.value || entry.state === states.value);
      entry.row.hidden = !fits;
      entry.why.hidden = !fits || !entry.failed;
      shown += fits;
    }
    if (asked || !inHand()) {
      const focused = body.contains(document.activeElement) ? document.activeElement : null;
      let place = body.firstChild;
      for (const entry of [...entries].sort(compare)) {
        for (const node of [entry.row, entry.why]) {
          if (node === place) place = place.nextSibling;
          else body.insertBefore(node, place);
        }
      }
      if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
    }
    const all = `${whole.format(entries.length)} trial${entries.length === 1 ? "" : "s"}`;
    put(count, shown === entries.length ? all : `${whole.format(shown)} of ${all} shown`);
  }

  let drawn = "";
  let sweep = "";
  function showTrials() {
    const trials = model.get("trials");
    const key = JSON.stringify([model.get("sweep"), trials]);
    if (key === drawn) return;
    drawn = key;
    // Another sweep may have trials of the same names.
    if (sweep !== model.get("sweep")) ticked = [];
    sweep = model.get("sweep");
    body.replaceChildren();
    entries = trials.map(makeEntry);
    box.hidden = entries.length === 0;
  }

  function showLive() {
    showTrials();
    const live = model.get("live");
    entries.forEach((entry, i) => live[i] && entry.set(live[i]));
    showOrder(false);
    showTicks();
  }

  function hear(content) {
    if (typeof content !== "object" || content === null || typeof content.text !== "string") return;
    if (typeof content.save === "string") saveText(content.save, content.text);
    const entry = entries.find(({ name }) => name === content.error);
    if (entry) {
      put(entry.text, content.text);
      // Its beginning need not stand there twice.
      entry.note.hidden = !entry.text.hidden;
    }
  }

  search.addEventListener("input", () => showOrder(true));
  states.addEventListener("change", () => showOrder(true));
  sorts.addEventListener("change", () => sortBy(sorts.value));
  turn.addEventListener("click", () => sortBy(sort.key));
  csv.addEventListener("click", () => model.send({ csv: true }));

  const heard = { sweep: showLive, trials: showLive, live: showLive, "msg:custom": hear };
  for (const [name, show] of Object.entries(heard)) model.on(name.includes(":") ? name : `change:${name}`, show);
  showLive();

  return () => {
    for (const [name, show] of Object.entries(heard)) model.off(name.includes(":") ? name : `change:${name}`, show);
  };
}

export default { render };
