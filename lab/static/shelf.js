// The list of runs; lab/shelf.py says what each trait means.

const SURE = 5_000; // For which a button waits for the second press.
const COUNTS = ["no run", "one run", "two runs", "three runs", "four runs", "five runs"];
const COLUMNS = ["Draw", "Run", "State", "Step", "kNN", "Preset · data", "From", "Open"];

const grouped = new Intl.NumberFormat("en-US");
let rooms = 0;

function mark(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// A run whose name is still there keeps its row, and the row keeps the focus.
function keyed(parent, create) {
  let entries = new Map();
  return (items) => {
    const focused = parent.contains(document.activeElement) ? document.activeElement : null;
    const next = new Map();
    for (const item of items) {
      if (next.has(item.name)) continue;
      const entry = entries.get(item.name) ?? create();
      entry.set(item);
      next.set(item.name, entry);
    }
    for (const [name, entry] of entries) if (!next.has(name)) entry.node.remove();
    let place = parent.firstChild;
    for (const { node } of next.values()) {
      if (node === place) place = place.nextSibling;
      else parent.insertBefore(node, place);
    }
    entries = next;
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true });
    return [...next.values()];
  };
}

function render({ model, el }) {
  const room = `ssl-shelf-${++rooms}`;
  el.classList.add("ssl-wide");

  // Shown as blocks on a phone, a table is one for a screen reader only where its roles say so.
  const head = make("tr", "", { role: "row" });
  for (const column of COLUMNS) {
    const unseen = column === "Draw" || column === "Open";
    const words = unseen ? make("span", "ssl-unseen", {}, column) : column;
    const cell = make("th", "", { role: "columnheader", scope: "col" }, words);
    if (column === "Step" || column === "kNN") cell.className = "ssl-right-hand";
    head.append(cell);
  }
  const body = make("tbody", "", { role: "rowgroup" });
  const table = make(
    "table",
    "",
    { role: "table", "aria-labelledby": `${room}-head` },
    make("thead", "", { role: "rowgroup" }, head),
    body,
  );
  const scroll = make("div", "ssl-scroll", {}, table);
  const rest = make("p", "ssl-rest");
  const hint = make("p", "ssl-hint-line");
  const spoken = make("span", "ssl-unseen", { role: "status" });
  el.append(
    make(
      "div",
      "ssl-shelf",
      // JupyterLab's keys of one letter or arrow would move or delete cells under the hands.
      { "data-lm-suppress-shortcuts": "true" },
      make("h3", "", { id: `${room}-head` }, "Runs"),
      scroll,
      rest,
      hint,
      spoken,
    ),
  );

  let rows = [];
  let lines = 0;
  // A family is folded away unless it is on the page, or somebody has said otherwise.
  const folds = new Map();
  const isFolded = (run) => folds.get(run.heads) ?? !run.shown;
  const shown = () => model.get("runs").find((run) => run.shown && !run.heads)?.name;
  const together = () => model.get("ticked").filter((name) => name !== shown());
  const seats = () => Math.max(0, model.get("most") - 1);

  const setRows = keyed(body, () => {
    const box = make("input", "", { type: "checkbox" });
    const tick = make("label", "ssl-tick", {}, box);
    const branch = make("span", "ssl-branch", { "aria-hidden": "true" }, "↳");
    const swatch = make("span", "ssl-swatch", { "aria-hidden": "true" });
    const id = `${room}-${++lines}`;
    const name = make("b", "", { id });
    const fold = make("button", "ssl-fold", { type: "button" });
    const badge = make("span", "ssl-badge");
    const open = make("button", "ssl-do ssl-little", { type: "button", "aria-describedby": id }, "Open");
    const remove = make("button", "ssl-do ssl-little ssl-delete", { type: "button", "aria-describedby": id }, "Delete");
    const here = make("span", "ssl-here", {}, "on the page");
    const cell = (className, ...children) => make("td", className, { role: "cell" }, ...children);
    const draw = cell("ssl-draw", tick);
    const step = cell("ssl-right-hand");
    const knn = cell("ssl-right-hand");
    const what = cell("ssl-faint");
    const origin = cell("ssl-faint");
    step.dataset.head = "step";
    knn.dataset.head = "kNN";
    const who = make("div", "ssl-name", {}, branch, fold, swatch, name);
    const node = make(
      "tr",
      "",
      { role: "row" },
      draw,
      cell("ssl-who", who),
      cell("", badge),
      step,
      knn,
      what,
      origin,
      cell("ssl-last", open, remove, here),
    );
    const entry = {
      node,
      box,
      tick,
      item: null,
      set(run) {
        entry.item = run;
        put(name, run.heads ? `${run.label} · ${run.count} runs` : run.name);
        fold.hidden = !run.heads;
        const folded = Boolean(run.heads) && isFolded(run);
        put(fold, folded ? "▸" : "▾");
        mark(fold, "aria-label", run.heads ? `runs of the ${run.label.toLowerCase()}` : null);
        mark(fold, "aria-expanded", run.heads ? String(!folded) : null);
        who.style.setProperty("--ssl-depth", Math.min(run.depth ?? 0, 6));
        branch.hidden = !run.depth || Boolean(run.heads);
        node.classList.toggle("ssl-heads", Boolean(run.heads));
        swatch.hidden = !run.colour;
        swatch.style.background = run.colour ?? "";
        put(badge, run.state);
        mark(badge, "data-state", run.state);
        put(step, grouped.format(run.step));
        put(knn, run.knn ?? "");
        put(what, [run.preset, run.data].filter(Boolean).join(" · "));
        put(origin, run.origin ?? "");
        mark(node, "aria-current", run.shown && !run.heads ? "true" : null);
        tick.hidden = Boolean(run.shown || run.heads);
        mark(box, "aria-label", `draw ${run.name} too`);
        open.hidden = Boolean(run.shown) && !run.heads;
        here.hidden = !run.shown || Boolean(run.heads);
        remove.hidden = !run.deletable;
        if (!run.deletable) calm();
      },
    };

    // What cannot be undone is asked twice, and by the button itself: a dialog would need a hand on the mouse.
    let doubt;
    const calm = () => {
      window.clearTimeout(doubt);
      doubt = undefined;
      remove.classList.remove("ssl-sure");
      put(remove, "Delete");
    };
    remove.addEventListener("click", () => {
      if (doubt !== undefined) {
        calm();
        model.send(entry.item.heads ? { delete_family: entry.item.heads } : { delete: entry.item.name });
        return;
      }
      doubt = window.setTimeout(calm, SURE);
      remove.classList.add("ssl-sure");
      put(remove, "Really delete?");
      put(spoken, `${name.textContent}: press again to delete ${entry.item.heads ? "them" : "it"} for good.`);
    });
    remove.addEventListener("blur", calm);
    remove.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && doubt !== undefined) calm();
    });
    open.addEventListener("click", () =>
      model.send(entry.item.heads ? { open_family: entry.item.heads } : { open: entry.item.name }),
    );
    fold.addEventListener("click", () => {
      folds.set(entry.item.heads, !isFolded(entry.item));
      showAll();
    });
    box.addEventListener("change", () => {
      const name = entry.item.name;
      const others = together().filter((other) => other !== name);
      model.set("ticked", box.checked ? [...others, name] : others);
      model.save_changes();
      showTicks();
    });
    return entry;
  });

  function showTicks() {
    const ticked = together();
    const full = ticked.length >= seats();
    for (const { box, tick, item } of rows) {
      box.checked = ticked.includes(item.name);
      box.disabled = full && !box.checked;
      const why = `At most ${model.get("most")} runs are drawn together: untick one first`;
      mark(tick, "title", box.disabled ? why : `Draw ${item.name} with the run on the page`);
    }
  }

  function showAll() {
    const runs = model.get("runs");
    const more = model.get("more");
    rows = setRows(runs);
    const away = new Set();
    // From the outside in: a heading that is folded away takes what stands under it along.
    for (const run of runs) if (run.heads && (isFolded(run) || away.has(run.group))) away.add(run.heads);
    for (const { node, item } of rows) node.hidden = Boolean(item.group) && away.has(item.group);
    scroll.hidden = runs.length === 0;
    put(rest, runs.length === 0 ? "No run yet." : more > 0 ? `and ${grouped.format(more)} older` : "");
    const count = COUNTS[seats()] ?? `${seats()} runs`;
    put(
      hint,
      `Tick up to ${count} to draw them with this one. ` +
        "Drop a run's file (.sqlite) anywhere on the page to look at it.",
    );
    showTicks();
  }

  const heard = { runs: showAll, more: showAll, most: showAll, ticked: showTicks };
  for (const [name, show] of Object.entries(heard)) model.on(`change:${name}`, show);
  showAll();

  return () => {
    for (const [name, show] of Object.entries(heard)) model.off(`change:${name}`, show);
  };
}

export default { render };
