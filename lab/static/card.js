// A lesson's question; lab/card.py says what each trait means.

let rooms = 0;

function fill(node, html) {
  if (node.dataset.html === html) return;
  node.dataset.html = html;
  node.innerHTML = html;
}

function render({ model, el }) {
  const room = `ssl-card-${++rooms}`;
  el.classList.add("ssl-wide");

  const where = make("p");
  const places = make("nav", "", { "aria-label": "Questions" });
  const heading = make("h2", "", { tabindex: "-1", id: `${room}-title` });
  const text = make("div", "ssl-question");
  const legend = make("legend", "", {}, "Your bet");
  const answers = make("fieldset", "", {}, legend);
  const bet = make("button", "ssl-do ssl-first", { type: "button" }, "Bet");
  const ask = make("div", "ssl-ask");
  const going = make("p", "ssl-going");
  const bar = make("progress", "", { max: "1", "aria-label": "Steps done" });
  const trouble = make("p", "ssl-trouble");
  const verdict = make("div", "ssl-verdict", { tabindex: "-1" });
  const why = make("div", "ssl-why");
  const buttons = make("div", "ssl-buttons-row");
  const said = make("div", "ssl-unseen", { role: "status", "aria-live": "polite" });
  const card = make(
    "section", "", { "aria-labelledby": `${room}-title` },
    make("div", "ssl-top-row", {}, where, places),
    heading, text, answers, make("div", "ssl-buttons-row", {}, bet), ask, going, bar, trouble, verdict, why, buttons,
  );
  // In JupyterLab arrows and Enter are the notebook's otherwise.
  el.append(make("div", "ssl-card", { "data-lm-suppress-shortcuts": "true" }, card, said));

  const at = () => model.get("state").at ?? 0;
  const tell = (content) => model.send({ ...content, at: at() });
  const chosen = () => answers.querySelector("input:checked");
  const placeBet = () => {
    const choice = chosen();
    if (choice && !bet.hidden) tell({ bet: Number(choice.value) });
  };
  bet.addEventListener("click", placeBet);
  answers.addEventListener("change", () => (bet.disabled = !chosen()));
  answers.addEventListener("keydown", (event) => {
    if (event.key === "Enter") placeBet();
  });

  let seen = { at: -1, stage: "" };

  function drawAnswers(state) {
    const key = JSON.stringify([state.at, state.answers]);
    if (answers.dataset.key !== key) {
      answers.dataset.key = key;
      answers.replaceChildren(legend);
      state.answers.forEach((answer, number) => {
        const input = make("input", "", { type: "radio", name: room, value: String(number) });
        answers.append(make("label", "", {}, input, make("span", "", {}, answer), make("small")));
      });
    }
    answers.querySelectorAll("label").forEach((label, number) => {
      const [input, , note] = label.children;
      const mine = state.bet === number;
      const came = state.came === number;
      if (mine) input.checked = true;
      else if (state.bet === null && state.locked) input.checked = false;
      input.disabled = state.locked;
      label.classList.toggle("ssl-bet", mine);
      label.classList.toggle("ssl-came", came);
      put(note, [mine ? "your bet" : "", came ? "came out" : ""].filter(Boolean).join(", "));
    });
  }

  function drawPlaces(state) {
    const key = JSON.stringify([state.titles, state.judged, state.at]);
    if (places.dataset.key === key) return;
    places.dataset.key = key;
    const focused = places.contains(document.activeElement);
    places.replaceChildren(
      ...state.titles.map((title, number) => {
        const judged = state.judged.includes(number);
        const label = `Question ${number + 1}: ${title}${judged ? ", answered" : ""}`;
        const button = make("button", `ssl-place${judged ? " ssl-judged" : ""}`, { type: "button", title, "aria-label": label }, String(number + 1));
        if (number === state.at) button.setAttribute("aria-current", "step");
        button.addEventListener("click", () => tell({ go: number }));
        return button;
      }),
    );
    if (focused) places.querySelector("[aria-current]")?.focus();
  }

  // The focus goes to what has just come, if it was on the card or nowhere.
  function moveFocus(state) {
    const first = seen.at < 0;
    const moved = seen.at !== state.at || seen.stage !== state.stage;
    const next = seen.at !== state.at;
    seen = { at: state.at, stage: state.stage };
    if (first || !moved) return;
    const active = document.activeElement;
    if (active && active !== document.body && !card.contains(active)) return;
    if (places.contains(active)) return;
    if (next) heading.focus({ preventScroll: false });
    else if (state.stage === "turn") (buttons.querySelector("button:enabled") ?? heading).focus({ preventScroll: true });
    else if (state.stage === "verdict") verdict.focus({ preventScroll: false });
  }

  function drawState() {
    const state = model.get("state");
    if (!state.titles) return;
    put(where, `Question ${state.at + 1} of ${state.titles.length}`);
    drawPlaces(state);
    put(heading, state.titles[state.at]);
    fill(text, state.text);
    drawAnswers(state);
    bet.hidden = state.locked;
    bet.disabled = !chosen();
    fill(ask, state.ask);
    ask.hidden = !state.ask;
    fill(verdict, state.verdict);
    verdict.hidden = !state.verdict;
    fill(why, state.why);
    why.hidden = !state.why;
    drawGoing();
    moveFocus(state);
  }

  function drawGoing() {
    const now = model.get("going");
    put(going, now.words ?? "");
    const share = now.share ?? null;
    bar.hidden = share === null;
    if (share !== null) bar.value = share;
    put(trouble, now.trouble ?? "");
    trouble.hidden = !now.trouble;
    const wanted = now.buttons ?? [];
    const key = JSON.stringify(wanted.map(({ do: act, words, first }) => [act, words, first]));
    if (buttons.dataset.key !== key) {
      buttons.dataset.key = key;
      const held = buttons.contains(document.activeElement);
      buttons.replaceChildren(
        ...wanted.map(({ do: act, words, first }) => {
          const button = make("button", `ssl-do${first ? " ssl-first" : ""}`, { type: "button" }, words);
          button.addEventListener("click", () => tell({ do: act }));
          return button;
        }),
      );
      if (held) (buttons.querySelector("button:enabled") ?? heading).focus({ preventScroll: true });
    }
    wanted.forEach(({ off }, number) => {
      const button = buttons.children[number];
      // A button that has the focus would lose it when it is disabled.
      if (button.disabled !== Boolean(off)) button.disabled = Boolean(off);
    });
  }

  const drawSaid = () => put(said, model.get("said"));

  model.on("change:state", drawState);
  model.on("change:going", drawGoing);
  model.on("change:said", drawSaid);
  drawState();
  drawSaid();
  return () => {
    model.off("change:state", drawState);
    model.off("change:going", drawGoing);
    model.off("change:said", drawSaid);
  };
}

export default { render };
