// Files out of the page and into it; lab/files.py says what each message means.

const PIECE_OUT = 256 * 1024; // As lab/files.py cuts them.
const PIECE_IN = 512 * 1024;
const AHEAD = 8; // Pieces asked for at once: a fast server need not wait for a slow publisher.
const ASK_AGAIN = 5_000;
const MOST_ASKED = 24;
const NO_ANSWER = 70_000;
const BENCH = ".ssl-bench";

const megabytes = (bytes) => Math.round(bytes / 1e6).toLocaleString("en-US");

function save(name, blob) {
  const url = URL.createObjectURL(blob);
  const link = make("a", "", { href: url, download: name });
  link.style.display = "none";
  document.body.append(link);
  link.click();
  link.remove();
  // The browser reads it after the click, and a slow disk may take its time.
  window.setTimeout(() => URL.revokeObjectURL(url), 120_000);
}

// Files that Python offers, saved one after the other.
function saver(model, complain) {
  const waiting = [];
  const seen = new Set();
  let now = null;
  let timer;

  const watch = () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(again, ASK_AGAIN);
  };

  function again() {
    if (!now) return;
    if (++now.misses > MOST_ASKED) return fail();
    for (const at of now.asked) model.send({ want: now.id, at });
    watch();
  }

  function fail() {
    complain(`${now.name} could not be saved.`);
    now = null;
    window.clearTimeout(timer);
    next();
  }

  function ask() {
    while (now.asked.size < AHEAD && now.next < now.size) {
      now.asked.add(now.next);
      model.send({ want: now.id, at: now.next });
      now.next += PIECE_OUT;
    }
    watch();
  }

  function next() {
    if (now || waiting.length === 0) return;
    now = { ...waiting.shift(), pieces: new Map(), asked: new Set(), next: 0, misses: 0 };
    if (now.size > 0) ask();
    else finish();
  }

  function finish() {
    const order = [...now.pieces.keys()].sort((a, b) => a - b);
    save(now.name, new Blob(order.map((at) => now.pieces.get(at)), { type: now.mime }));
    model.send({ done: now.id });
    now = null;
    window.clearTimeout(timer);
    next();
  }

  return (content, buffers) => {
    if ("offer" in content) {
      // An offer is repeated until it is answered.
      if (seen.has(content.offer)) return;
      seen.add(content.offer);
      waiting.push({ id: content.offer, name: content.name, mime: content.mime, size: content.size });
      next();
    } else if ("gone" in content) {
      if (now?.id === content.gone) fail();
    } else if ("piece" in content && now?.id === content.piece && now.asked.delete(content.at)) {
      const { buffer, byteOffset, byteLength } = buffers[0];
      now.pieces.set(content.at, new Uint8Array(buffer.slice(byteOffset, byteOffset + byteLength)));
      now.misses = 0;
      if (now.asked.size > 0 || now.next < now.size) ask();
      else finish();
    }
  };
}

// A file that a person gives, sent piece by piece, each after Python has got the one before.
function sender(model, complain) {
  let now = null;
  let timer;

  const watch = () => {
    window.clearTimeout(timer);
    timer = window.setTimeout(() => end("The kernel does not answer."), NO_ANSWER);
  };

  function end(why = "") {
    window.clearTimeout(timer);
    if (why) complain(`${now.file.name} was not opened. ${why}`);
    now = null;
  }

  async function sendPiece(drop, at) {
    try {
      const piece = await drop.file.slice(at, at + PIECE_IN).arrayBuffer();
      if (now === drop) model.send({ drop: drop.id, at }, undefined, [piece]);
    } catch {
      if (now === drop) end("The browser could not read it.");
    }
  }

  return {
    give(file) {
      if (now) return complain(`${file.name} was not opened. Another file is still coming in.`);
      complain("");
      const most = model.get("most_bytes");
      if (file.size > most) {
        return complain(`${file.name} was not opened. It is too large: at most ${megabytes(most)} MB are taken.`);
      }
      now = { id: Math.floor(Math.random() * 2 ** 52), file };
      watch();
      model.send({ drop: now.id, name: file.name, size: file.size });
    },
    hear(content) {
      if (!now) return;
      if (content.refused === now.id) {
        end(content.why);
      } else if (content.got === now.id) {
        if (content.at >= now.file.size) return end();
        watch();
        sendPiece(now, content.at);
      }
    },
  };
}

// Shows where a file may be dropped while one is held over it, and takes it.
function dropZone(zone, whole, give, signal) {
  let overlay = null;
  let timer;

  const hide = () => {
    window.clearTimeout(timer);
    overlay?.remove();
    overlay = null;
  };

  const show = () => {
    if (!overlay) {
      overlay = make("div", "ssl-drop-here", {}, "Drop a run's file to look at it");
      document.body.append(overlay);
    }
    const box = whole ? new DOMRect(0, 0, window.innerWidth, window.innerHeight) : zone.getBoundingClientRect();
    const inset = whole ? 10 : 0;
    overlay.style.left = `${Math.max(0, box.left) + inset}px`;
    overlay.style.top = `${Math.max(0, box.top) + inset}px`;
    overlay.style.width = `${Math.min(window.innerWidth, box.right) - Math.max(0, box.left) - 2 * inset}px`;
    overlay.style.height = `${Math.min(window.innerHeight, box.bottom) - Math.max(0, box.top) - 2 * inset}px`;
    // Leaving a page is told unreliably; that nothing is held over it any more shows by itself.
    window.clearTimeout(timer);
    timer = window.setTimeout(hide, 900);
  };

  const over = (event) => {
    if (event.defaultPrevented || !event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
    event.dataTransfer.dropEffect = "copy";
    show();
  };

  zone.addEventListener("dragenter", over, { signal });
  zone.addEventListener("dragover", over, { signal });
  zone.addEventListener("dragleave", (event) => event.relatedTarget === null && hide(), { signal });
  zone.addEventListener(
    "drop",
    (event) => {
      const file = event.defaultPrevented ? null : event.dataTransfer?.files[0];
      hide();
      if (!file) return;
      event.preventDefault();
      event.stopPropagation();
      give(file);
    },
    { signal },
  );
  signal.addEventListener("abort", hide);
}

export default () => {
  const refusals = new Set();
  let give = () => {};

  const complain = (text) => {
    for (const line of refusals) line.textContent = text;
  };

  return {
    // Once a page, however often it shows the widget.
    initialize({ model }) {
      const fetchFile = saver(model, complain);
      const sending = sender(model, complain);
      give = sending.give;
      const hear = (content, buffers) => {
        if (typeof content !== "object" || content === null) return;
        fetchFile(content, buffers);
        sending.hear(content);
      };
      model.on("msg:custom", hear);
      return () => model.off("msg:custom", hear);
    },

    render({ model, el }) {
      const ending = new AbortController();
      const { signal } = ending;
      el.classList.add("ssl-wide");

      const open = make("button", "ssl-do ssl-little ssl-open-file", { type: "button" }, "Open a file…");
      open.title = "Look at a run's file (.sqlite) from your computer";
      const input = make("input", "", { type: "file", accept: ".sqlite", hidden: "", "aria-label": "A run's file" });
      const progress = make("span", "ssl-progress");
      const refusal = make("span", "ssl-refusal", { role: "alert" });
      el.append(
        make("div", "ssl-files", { "data-lm-suppress-shortcuts": "true" }, open, input, progress, refusal),
      );
      refusals.add(refusal);

      open.addEventListener("click", () => input.click());
      input.addEventListener("change", () => {
        const [file] = input.files;
        if (file) give(file);
        // So that the same file can be chosen again.
        input.value = "";
      });

      const show = () => {
        progress.textContent = model.get("progress");
      };
      model.on("change:progress", show);
      show();

      if (voilaPage()) {
        dropZone(document, true, (file) => give(file), signal);
      } else {
        // The view is put into the page after it is rendered.
        window.requestAnimationFrame(() => {
          const bench = el.closest(BENCH);
          if (bench && !signal.aborted) dropZone(bench, false, (file) => give(file), signal);
        });
      }

      return () => {
        ending.abort();
        refusals.delete(refusal);
        model.off("change:progress", show);
      };
    },
  };
};
