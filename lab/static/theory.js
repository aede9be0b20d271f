// The controls of the theory; lab/theory/board.py says what each trait means.

const LOG_STEPS = 100;
const MOVES = /^(Arrow|Page|Home|End)/;
let boards = 0;

function words(knob, value) {
  if (knob.log) return String(Number(value.toPrecision(2)));
  return value.toFixed(Math.max(0, Math.ceil(-Math.log10(knob.step) - 1e-9)));
}

// A logarithmic slider is one of places, so that arrow keys go in like ratios.
const place = (knob, value) => (knob.log ? (LOG_STEPS * Math.log(value / knob.low)) / Math.log(knob.high / knob.low) : value);
const valueAt = (knob, at) =>
  knob.log ? Number((knob.low * (knob.high / knob.low) ** (at / LOG_STEPS)).toPrecision(3)) : at;

function render({ model, el }) {
  const room = `ssl-board-${++boards}`;
  const ending = new AbortController();
  const { signal } = ending;
  el.classList.add("ssl-wide");

  // ---------------------------------------------------------------- what is said to Python: once a frame, the latest

  let frame = 0;
  const tell = () => {
    if (!frame) {
      frame = window.requestAnimationFrame(() => {
        frame = 0;
        model.save_changes();
      });
    }
  };

  // ---------------------------------------------------------------- transport

  const button = (text, title, what) => {
    const node = make("button", "ssl-do", { type: "button", title }, text);
    node.addEventListener("click", () => model.send({ do: what() }));
    return node;
  };
  const play = button("Pause", "Space", () => (model.get("playing") ? "pause" : "play"));
  play.classList.add("ssl-play");
  const again = button("Restart", "From the start, with the settings as they are", () => "restart");
  const onward = button("Step", "Five units of time (.)", () => "step");
  const speed = make("select", "", { id: `${room}-speed` });
  for (const [text, value] of model.get("speeds")) speed.append(make("option", "", { value: String(value) }, text));
  speed.addEventListener("change", () => {
    model.set("speed", Number(speed.value));
    tell();
  });
  const zoom = make("input", "", { type: "checkbox", id: `${room}-zoom` });
  zoom.addEventListener("change", () => {
    model.set("zoom", zoom.checked);
    tell();
  });
  const transport = make("div", "ssl-buttons", { role: "group", "aria-label": "Time" },
    play, again, onward, make("span", "ssl-speed", {}, make("label", "", { for: `${room}-speed` }, "Speed"), speed),
    make("label", "ssl-zoom", {}, zoom, "Zoom in on p₋ and the basin of collapse"));
  // Nobody is made to watch what moves.
  if (window.matchMedia("(prefers-reduced-motion: reduce)").matches) model.send({ do: "pause" });

  // ---------------------------------------------------------------- sliders

  const sliders = [];
  let held = null; // The slider under the person's hands: their word is the last.

  function slider(knob) {
    const id = `${room}-${knob.name}`;
    const input = make("input", "", {
      type: "range", id, "aria-describedby": `${id}-help`,
      min: String(knob.log ? 0 : knob.low), max: String(knob.log ? LOG_STEPS : knob.high), step: String(knob.log ? 1 : knob.step),
    });
    const shown = make("output", "", { for: id, "aria-hidden": "true" });
    const help = make("small", "", { id: `${id}-help` }, knob.help);
    const row = make("div", "ssl-turn", { "data-name": knob.name },
      make("label", "", { for: id }, `${knob.label} `, make("i", "", {}, knob.symbol)), shown, input, help);
    const say = (value) => {
      put(shown, words(knob, value));
      input.setAttribute("aria-valuetext", words(knob, value));
    };
    input.addEventListener("input", () => {
      const value = valueAt(knob, Number(input.value));
      say(value);
      model.set("values", { ...model.get("values"), [knob.name]: value });
      tell();
    });
    input.addEventListener("pointerdown", () => (held = input));
    // JupyterLab's own arrow keys stay out of it.
    input.addEventListener("keydown", (event) => MOVES.test(event.key) && event.stopPropagation());
    sliders.push({
      show() {
        const value = model.get("values")[knob.name];
        const idle = model.get("idle")[knob.name] ?? "";
        put(help, idle ? `No effect now: ${idle}.` : knob.help);
        if (held === input || value === undefined) return;
        say(value);
        const at = String(place(knob, value));
        if (input.value !== at) input.value = at;
      },
    });
    return row;
  }
  for (const name of ["pointerup", "pointercancel"]) {
    window.addEventListener(name, () => {
      if (!held) return;
      held = null;
      tell();
    }, { signal });
  }

  // ---------------------------------------------------------------- what can be taken away

  const switches = [];
  function toggle({ name, label }) {
    const id = `${room}-${name}`;
    const input = make("input", "", { type: "checkbox", role: "switch", id, "aria-describedby": `${id}-why` });
    const sentence = make("span");
    const equation = make("b");
    const why = make("small", "", { id: `${id}-why` }, sentence, equation);
    input.addEventListener("change", () => {
      model.set("switches", { ...model.get("switches"), [name]: input.checked });
      tell();
    });
    switches.push({
      show() {
        const on = Boolean(model.get("switches")[name]);
        if (input.checked !== on) input.checked = on;
        const [text = "", formula = ""] = model.get("why")[name] ?? [];
        put(sentence, text);
        put(equation, formula);
      },
    });
    return make("div", "ssl-switch", { "data-name": name }, input, make("label", "", { for: id }, label), why);
  }

  const group = (heading, ...rows) => {
    const id = `${room}-${boards}-${heading.replaceAll(" ", "-")}`;
    return make("div", "ssl-group", { role: "group", "aria-labelledby": id }, make("h3", "", { id }, heading), ...rows);
  };
  el.append(
    make("div", "ssl-board", { "data-lm-suppress-shortcuts": "true" },
      transport,
      group("What if it were taken away?", ...model.get("offered").map(toggle)),
      ...model.get("groups").map(([heading, knobs]) => group(heading, ...knobs.map(slider)))),
  );

  // ---------------------------------------------------------------- what Python says

  const shows = {
    "change:playing": () => put(play, model.get("playing") ? "Pause" : "Play"),
    "change:speed": () => (speed.value = String(model.get("speed"))),
    "change:zoom": () => (zoom.checked = model.get("zoom")),
    "change:values change:idle": () => sliders.forEach((one) => one.show()),
    "change:switches change:why": () => switches.forEach((one) => one.show()),
  };
  for (const [events, show] of Object.entries(shows)) {
    model.on(events, show);
    show();
  }
  return () => {
    ending.abort();
    window.cancelAnimationFrame(frame);
    for (const [events, show] of Object.entries(shows)) model.off(events, show);
  };
}

export default { render };
