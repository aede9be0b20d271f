// Questions with a bet; lab/theory/bets.py says what comes and goes.

let rooms = 0;

function render({ model, el }) {
  const room = `ssl-bets-${++rooms}`;
  el.classList.add("ssl-wide");

  const bets = model.get("questions").map((first, question) => {
    const name = `${room}-${question}`;
    const choices = first.choices.map((words, choice) => make("input", "", { type: "radio", name, value: String(choice) }));
    const bet = make("button", "ssl-do", { type: "button" }, "Bet");
    const show = make("button", "ssl-do", { type: "button" }, "Show me");
    const task = make("p", "ssl-task");
    const says = make("p", "ssl-says");
    const verdict = make("b");
    const why = make("p");
    const equation = make("p", "ssl-equation");
    // What changes with every picture is not read out; the verdict is.
    const heard = make("p", "", { role: "status" }, verdict);
    const box = make("div", "ssl-verdict", {}, heard, says, why, equation);
    const chosen = () => choices.findIndex((input) => input.checked);
    const look = () => {
      bet.disabled = chosen() < 0;
    };
    for (const input of choices) input.addEventListener("change", look);
    bet.addEventListener("click", () => model.send({ do: "bet", question, choice: chosen() }));
    show.addEventListener("click", () => model.send({ do: "show", question }));
    const node = make("fieldset", "ssl-bet", { "data-question": String(question) },
      make("legend", "", {}, `${question + 1}. ${first.text}`),
      ...choices.map((input, i) => make("label", "", {}, input, first.choices[i])),
      make("div", "ssl-buttons", {}, bet, show), task, box);
    look();
    return {
      node,
      set(state) {
        const has = state.bet !== null && state.bet !== undefined;
        put(bet, has ? "Bet again" : "Bet");
        // Who has not bet yet is shown nothing.
        show.disabled = !has;
        show.title = has ? "Turns it for you" : "Bet first";
        put(task, has && !state.verdict ? state.task : "");
        put(says, has ? state.says : "");
        put(verdict, state.verdict);
        put(why, state.why);
        put(equation, state.equation);
        box.hidden = !(has && state.says);
        box.classList.toggle("ssl-won", state.won === true);
        box.classList.toggle("ssl-lost", state.won === false);
      },
    };
  });

  el.append(make("div", "ssl-lesson", { "data-lm-suppress-shortcuts": "true", role: "group", "aria-labelledby": room },
    make("h3", "", { id: room }, "Bet first, then turn"),
    make("div", "ssl-questions", {}, ...bets.map(({ node }) => node))));

  const change = () => model.get("questions").forEach((state, i) => bets[i]?.set(state));
  model.on("change:questions", change);
  change();
  return () => model.off("change:questions", change);
}

export default { render };
