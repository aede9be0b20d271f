// The lab's eyes in the page; lab/browser.py says what each trait means.

const BEAT_VISIBLE = 2_000;
const BEAT_HIDDEN = 10_000;
const LEAVING = 5_000;
const KERNEL_CHECK = 8_000;
const MISSES = 2; // One may be a laptop that just woke up.
const KEY = "ssl-lab-visitor";
const BENCH = ".ssl-bench";

// What takes typed text keeps every key; what is pressed or dragged keeps the space bar only.
const TAKES_TEXT = "input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select, [contenteditable], .cm-editor";
const TAKES_SPACE = "button, input, summary, a[href], [role=button], [role=slider], [role=tab], [role=checkbox], .noUi-handle";

const HIDDEN_FROM_EYES =
  "position:absolute;width:1px;height:1px;margin:-1px;padding:0;border:0;overflow:hidden;clip-path:inset(50%);white-space:nowrap";

function voilaPage() {
  const path = window.location.pathname;
  return document.body.dataset.voila !== undefined || /\/voila\/(render\/|$)/.test(path);
}

function isDark() {
  const { jpThemeLight } = document.body.dataset;
  if (jpThemeLight !== undefined) return jpThemeLight === "false";
  if (document.body.matches(".theme-dark, .vscode-dark, .vscode-high-contrast")) return true;
  if (document.body.matches(".theme-light, .vscode-light")) return false;
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

// Elsewhere than under Voila the page's address is not ours: JupyterLab's may hold its token.
function pageQuery() {
  if (!voilaPage()) return {};
  const query = Object.fromEntries(new URLSearchParams(window.location.search));
  delete query.key;
  return query;
}

// By its key a visitor is known again. A key that comes in the address, such as the host's, takes its place, and goes
// out of the address, which is shown on screens and sent around.
function visitorKey() {
  const url = new URL(window.location.href);
  const given = url.searchParams.get("key");
  if (url.searchParams.has("key")) {
    url.searchParams.delete("key");
    window.history.replaceState(window.history.state, "", url);
  }
  let key = given;
  try {
    key = key || window.localStorage.getItem(KEY);
  } catch {
    // A page that may keep nothing: its key is as old as the page.
  }
  key = key || Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
  try {
    window.localStorage.setItem(KEY, key);
  } catch {
    // As above.
  }
  return key;
}

function keyMeaning(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return null;
  const target = event.target instanceof Element ? event.target : document.body;
  if (target.closest(TAKES_TEXT)) return null;
  if (event.key === ".") return "step";
  if (event.key === " " && !event.repeat && !target.closest(TAKES_SPACE)) return "run_pause";
  return null;
}

function showLost(text) {
  let box = document.getElementById("ssl-lost");
  if (!text) return box?.remove();
  if (!box) {
    box = document.createElement("div");
    box.id = "ssl-lost";
    box.setAttribute("role", "alert");
    box.style.cssText =
      "position:fixed;inset:0 0 auto 0;z-index:10000;padding:10px 16px;display:flex;gap:12px;align-items:center;" +
      "flex-wrap:wrap;background:var(--jp-warn-color3,#fdd8b5);color:var(--jp-ui-font-color1,#222);" +
      "font:14px var(--jp-ui-font-family,sans-serif)";
    const words = document.createElement("span");
    const button = document.createElement("button");
    button.textContent = "Reload the page";
    button.addEventListener("click", () => window.location.reload());
    box.append(words, button);
    document.body.append(box);
  }
  box.firstChild.textContent = text;
}

// A Voila page whose kernel has ended, or was started anew without it, looks alive and answers nothing: say so instead.
function watchKernel(model, signal) {
  const config = JSON.parse(document.getElementById("jupyter-config-data")?.textContent ?? "{}");
  if (!config.kernelId) return;
  const url = `${config.baseUrl ?? "/"}api/kernels/${config.kernelId}`;
  let unreached = 0;
  let asked = 0;
  let answered = 0;

  const hear = (content) => {
    if (typeof content?.pong !== "number") return;
    answered = Math.max(answered, content.pong);
    if (answered === asked) showLost("");
  };
  model.on("msg:custom", hear);

  const look = async () => {
    if (document.visibilityState !== "visible") return;
    try {
      // A hub answers only who shows the token of its cookie; it is made anew with each start of a server.
      const token = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/)?.[1];
      const answer = await fetch(url, { signal, cache: "no-store", headers: token ? { "X-XSRFToken": token } : {} });
      unreached = 0;
      if (answer.status === 404) {
        return showLost("This page's kernel has ended, or the page was away for too long. What is recorded is not lost.");
      }
    } catch {
      if (!signal.aborted && ++unreached >= MISSES) showLost("The server does not answer. Is it still running?");
      return;
    }
    // The server is there: is the kernel still this page's? One that died is started anew and knows nothing of it.
    if (asked - answered >= MISSES) showLost("This page's kernel does not answer. What is recorded is not lost.");
    else if (asked === answered) showLost("");
    model.send({ ping: ++asked });
  };
  const timer = window.setInterval(look, KERNEL_CHECK);
  signal.addEventListener("abort", () => {
    window.clearInterval(timer);
    model.off("msg:custom", hear);
  });
  document.addEventListener("visibilitychange", look, { signal });
}

// ---------------------------------------------------------------- names for screen readers

const NAMING = 400; // Milliseconds: what is made in a burst is named at once.
const CONTROLS =
  ".jupyter-widgets :is(select, input:not([type=checkbox], [type=radio]), textarea, .noUi-handle), " +
  ".ssl-knob :is(input[type=checkbox], button.ssl-family), .bqplot > svg";

const words = (node) => (node?.textContent ?? "").replace(/\s+/g, " ").trim();

// A control is called by the label that stands beside it: ipywidgets knows its own label only, and gives its sliders none.
function nameOf(control) {
  const widget = control.closest(".jupyter-widgets");
  const knob = control.closest(".ssl-knob");
  if (control.matches("button")) return control.title.split(". ")[0];
  if (knob) return words(knob.firstElementChild);
  const own = [...(widget?.querySelectorAll(":scope > .widget-label") ?? [])].find((l) => l.style.display !== "none");
  if (words(own)) return words(own);
  for (let before = widget?.previousElementSibling; before; before = before.previousElementSibling) {
    if (before.matches(".widget-html, .widget-label, .widget-html-content") && words(before)) return words(before);
    if (before.querySelector("input, select, button, [role=slider]")) break;
  }
  const explained = control.title || control.closest("[title]")?.title;
  return explained ? explained.split(". ")[0] : "";
}

// A picture is called by its heading and the line under it.
function nameOfPicture(figure) {
  const panel = figure.closest(".ssl-panel") ?? figure.parentElement;
  const heading = words(panel.querySelector("h2, h3, h4"));
  const caption = words(panel.querySelector("p"));
  return [heading, caption].filter(Boolean).join(". ") || "Picture";
}

// What a logarithmic slider is set to stands beside it; its own value is the exponent.
function sayReadout(handle, signal) {
  const readout = handle.closest(".jupyter-widgets")?.querySelector(".widget-readout");
  if (!readout) return;
  const say = () => {
    const text = words(readout);
    if (text && handle.getAttribute("aria-valuetext") !== text) handle.setAttribute("aria-valuetext", text);
  };
  const eyes = new MutationObserver(say);
  eyes.observe(handle, { attributeFilter: ["aria-valuetext"] });
  eyes.observe(readout, { childList: true, characterData: true, subtree: true });
  signal.addEventListener("abort", () => eyes.disconnect());
  say();
}

let described = 0;

// What has a name already, from us or from whoever made it, keeps it.
function giveNames(root, signal) {
  let timer = null;

  const look = () => {
    timer = null;
    for (const control of root.querySelectorAll(CONTROLS)) {
      if (control.hasAttribute("aria-label")) continue;
      if (control.matches("svg")) {
        control.setAttribute("role", "img");
        control.setAttribute("aria-label", nameOfPicture(control));
      } else {
        const name = nameOf(control);
        if (!name) continue;
        control.setAttribute("aria-label", name);
        const help = control.closest(".ssl-knob")?.querySelector(".ssl-help");
        if (help) {
          help.id ||= `ssl-help-${++described}`;
          control.setAttribute("aria-describedby", help.id);
        }
        if (control.matches(".noUi-handle")) sayReadout(control, signal);
      }
    }
  };
  // A picture that moves makes marks and ticks all the time: one look for many of them.
  const soon = () => (timer ??= window.setTimeout(look, NAMING));
  const eyes = new MutationObserver(soon);
  eyes.observe(root, { childList: true, subtree: true });
  signal.addEventListener("abort", () => {
    eyes.disconnect();
    window.clearTimeout(timer);
  });
  look();
}

export default () => {
  let views = 0;
  let stop = null;

  function open(model) {
    const ending = new AbortController();
    const { signal } = ending;
    const here = voilaPage();

    const look = () => {
      model.set("visible", document.visibilityState === "visible");
      model.set("width", window.innerWidth);
      model.set("dark", isDark());
    };
    const beat = () => model.set("alive", model.get("alive") + 1);

    let timer;
    const next = () => {
      window.clearTimeout(timer);
      timer = window.setTimeout(
        () => {
          beat();
          look();
          model.save_changes();
          next();
        },
        document.visibilityState === "visible" ? BEAT_VISIBLE : BEAT_HIDDEN,
      );
    };
    // Coming back is told at once and not at the hidden tab's slow pace.
    const now = () => {
      beat();
      look();
      model.save_changes();
      next();
    };

    let settling;
    const settle = () => {
      window.clearTimeout(settling);
      settling = window.setTimeout(() => {
        look();
        model.save_changes();
      }, 200);
    };
    // A page that is being left has no way to its kernel any more; one that stays after all goes on.
    const leave = () => {
      window.clearTimeout(settling);
      window.clearTimeout(timer);
      timer = window.setTimeout(now, LEAVING);
    };
    for (const name of ["beforeunload", "pagehide"]) window.addEventListener(name, leave, { signal });
    window.addEventListener("resize", settle, { signal });
    document.addEventListener("visibilitychange", now, { signal });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", settle, { signal });
    const theme = new MutationObserver(settle);
    theme.observe(document.body, { attributeFilter: ["data-jp-theme-light", "class"] });

    let spoken = false;
    const showRun = () => {
      const run = model.get("run");
      if (!here || (!run && !spoken)) return;
      spoken = true;
      const url = new URL(window.location.href);
      // What began the run is in its file; in the address it would begin another one.
      for (const name of ["preset", "dataset", "knobs", "seed"]) url.searchParams.delete(name);
      // A file that was dropped here cannot be found again by an address.
      if (run) url.searchParams.set("run", run);
      else url.searchParams.delete("run");
      window.history.replaceState(window.history.state, "", url);
    };
    // Followed by a link to the moment that is shown; what Python has not spoken of is left as it is.
    const showDetail = (name) => () => {
      if (!here) return;
      const url = new URL(window.location.href);
      const value = model.get(name);
      if (value === null || value === "") url.searchParams.delete(name);
      else url.searchParams.set(name, value);
      window.history.replaceState(window.history.state, "", url);
    };
    // Browsers take only so many new addresses a minute, and a person drags through hundreds of steps.
    let resting;
    const showStep = () => {
      window.clearTimeout(resting);
      resting = window.setTimeout(showDetail("step"), 400);
    };
    const showCompare = showDetail("compare");
    const showSweep = showDetail("sweep");
    model.on("change:step", showStep);
    model.on("change:compare", showCompare);
    model.on("change:sweep", showSweep);
    const showTitle = () => {
      if (here && model.get("title")) document.title = model.get("title");
    };
    model.on("change:run", showRun);
    model.on("change:title", showTitle);

    // The first frame holds the picture; when the second one begins, it stands on the screen.
    let asked = 0;
    const answer = () => {
      window.cancelAnimationFrame(asked);
      asked = window.requestAnimationFrame(() => {
        asked = window.requestAnimationFrame(() => {
          model.set("painted", model.get("picture"));
          model.save_changes();
        });
      });
    };
    model.on("change:picture", answer);

    model.set("painted", model.get("picture"));
    // In one message: who comes, and to which address.
    if (here) model.set("key", visitorKey());
    model.set("query", pageQuery());
    now();
    showRun();
    showTitle();
    if (here) watchKernel(model, signal);
    if (here) giveNames(document.body, signal);

    return () => {
      ending.abort();
      theme.disconnect();
      window.clearTimeout(timer);
      window.clearTimeout(settling);
      window.clearTimeout(resting);
      window.cancelAnimationFrame(asked);
      model.off("change:picture", answer);
      model.off("change:run", showRun);
      model.off("change:title", showTitle);
      model.off("change:step", showStep);
      model.off("change:compare", showCompare);
      model.off("change:sweep", showSweep);
    };
  }

  // JupyterLab has keys of its own, and others' widgets: there only what is inside the bench is ours.
  function listen(model, el) {
    const keys = new AbortController();
    const { signal } = keys;
    const press = (event) => {
      const key = event.defaultPrevented || !model.get("listens") ? null : keyMeaning(event);
      if (!key) return;
      event.preventDefault();
      event.stopPropagation();
      model.send({ key });
    };
    if (voilaPage()) {
      document.addEventListener("keydown", press, { signal });
    } else {
      // The view is put into the page after it is rendered.
      window.requestAnimationFrame(() => {
        const bench = el.closest(BENCH) ?? el.parentElement;
        if (signal.aborted || !bench) return;
        if (!bench.hasAttribute("tabindex")) {
          bench.tabIndex = -1;
          bench.style.outline = "none";
        }
        bench.addEventListener("keydown", press, { signal });
        giveNames(bench, signal);
      });
    }
    return () => keys.abort();
  }

  return {
    render({ model, el }) {
      el.style.cssText = HIDDEN_FROM_EYES;
      const said = document.createElement("div");
      said.setAttribute("role", "status");
      said.setAttribute("aria-live", "polite");
      el.append(said);
      const say = () => {
        said.textContent = model.get("announce");
      };
      model.on("change:announce", say);
      say();

      // One page may show the bench twice; it is one pair of eyes all the same.
      if (views++ === 0) stop = open(model);
      const deaf = views === 1 || !voilaPage() ? listen(model, el) : () => {};
      return () => {
        model.off("change:announce", say);
        deaf();
        if (--views === 0) stop?.();
      };
    },
  };
};
