"use strict";
// Texts of models reach the page as text nodes alone; nothing here makes HTML of a string.

function element(name, style, ...inside) {
  const made = document.createElement(name);
  if (style) made.className = style;
  made.append(...inside.filter((part) => part !== null && part !== ""));
  return made;
}

function dataOf(name) {
  const block = document.getElementById(name + "-data");
  return block ? JSON.parse(block.textContent) : null;
}

/** A text with what was searched for marked in it. */
function marked(text, wanted) {
  const parts = document.createDocumentFragment();
  if (!wanted) {
    parts.append(text);
    return parts;
  }
  const lower = text.toLowerCase();
  if (lower.length !== text.length) { // a letter whose lower case is longer: places would not be the same
    parts.append(text);
    return parts;
  }
  let at = 0;
  for (let found = lower.indexOf(wanted); found >= 0; found = lower.indexOf(wanted, at)) {
    parts.append(text.slice(at, found), element("mark", "", text.slice(found, found + wanted.length)));
    at = found + wanted.length;
  }
  parts.append(text.slice(at));
  return parts;
}

function paragraph(style, text, wanted) {
  const made = element("p", style, marked(text, wanted));
  made.dir = "auto";
  return made;
}

function answerCard(label, text, tokens, detail, side, wanted) {
  const facts = [tokens === null ? "" : `${tokens} tokens`, detail].filter(Boolean).join(" · ");
  const head = element("header", "", element("b", "", label), facts ? element("span", "", facts) : null);
  const said = text === "" ? element("p", "empty", "(empty)") : paragraph("", text, wanted);
  return element("article", `answer ${side}`, head, said);
}

/** Cards side by side: at most four, and as many in each row, so that none stands alone. */
function row(cards) {
  const made = element("div", "columns", ...cards);
  made.style.setProperty("--most", Math.ceil(cards.length / Math.ceil(cards.length / 4)));
  return made;
}

function option(value, text) {
  const made = element("option", "", text);
  made.value = value;
  return made;
}

function shortened(text, most) {
  const line = text.trim().replace(/\s+/g, " ");
  return line.length > most ? line.slice(0, most - 1) + "…" : line || "(empty)";
}

function turnTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
}

/** One prompt at a time, all policies side by side. */
function showAnswers() {
  const data = dataOf("answers");
  if (!data) return;
  const form = document.querySelector("[data-controls=answers]");
  const viewer = document.querySelector("[data-viewer=answers]");
  const fields = form.elements;
  form.querySelector("[data-seeds]").hidden = data.seeds.length < 2;
  for (const seed of data.seeds) fields.seed.append(option(seed, seed));
  let shown = [];

  function found() {
    const wanted = fields.search.value.trim().toLowerCase();
    const seed = data.seeds.length > 1 ? Number(fields.seed.value) : null;
    return data.entries.filter((entry) => (seed === null || entry.s === seed) && (!wanted ||
      [entry.q, ...entry.a.filter(Boolean).map((one) => one.t)].some((t) => data.texts[t].toLowerCase().includes(wanted))));
  }

  function list() {
    const place = fields.prompt.selectedIndex;
    const before = shown[place];
    shown = found();
    fields.prompt.replaceChildren(...shown.map((entry, i) => option(i, `${i + 1}. ${shortened(data.texts[entry.q], 90)}`)));
    const same = before ? shown.findIndex((entry) => entry.q === before.q) : -1;
    fields.prompt.selectedIndex = same >= 0 ? same : Math.min(0, shown.length - 1);
    show();
  }

  function show() {
    const place = fields.prompt.selectedIndex;
    const entry = shown[place];
    fields.previous.disabled = place <= 0;
    fields.next.disabled = place >= shown.length - 1;
    if (!entry) {
      viewer.replaceChildren(element("p", "empty", "No prompt or answer has this text."));
      return;
    }
    const wanted = fields.search.value.trim().toLowerCase();
    const columns = row(data.policies.map((name, i) => {
      const one = entry.a[i];
      return one ? answerCard(name, data.texts[one.t], one.n, one.d, "", wanted)
        : element("article", "answer", element("header", "", element("b", "", name)), element("p", "empty", "(no answer)"));
    }));
    const item = element("div", "item", paragraph("prompt", data.texts[entry.q], wanted), columns);
    if (entry.j.length) item.append(judgements(entry));
    viewer.replaceChildren(item);
  }

  const pairs = data.policies.flatMap((first, i) => data.policies.slice(i + 1).map((second) => [first, second]));
  const HEADS = ["first", "second", "P(first better), first shown first", "first shown second", "mean"];
  const told = (p) => (p === null ? "no answer" : (p / 10000).toFixed(3));

  function judgements(entry) {
    const head = element("tr", "", ...HEADS.map((name) => element("th", "", name)));
    const rows = pairs.map((names, i) => {
      const [given, swapped] = entry.j.slice(2 * i, 2 * i + 2);
      const mean = given === null || swapped === null ? "–" : ((given + swapped) / 20000).toFixed(3);
      const cells = given === -1 ? ["equal answers", "not asked", "0.500"] : [told(given), told(swapped), mean];
      return element("tr", "", ...[...names, ...cells].map((cell, k) => element(k ? "td" : "th", "", cell)));
    });
    const table = element("table", "", element("thead", "", head), element("tbody", "", ...rows));
    return element("details", "", element("summary", "", `Judgements of this prompt (${rows.length})`), element("div", "scroll", table));
  }

  function step(by) {
    fields.prompt.selectedIndex += by;
    show();
  }

  fields.search.addEventListener("input", list);
  fields.seed.addEventListener("change", list);
  fields.prompt.addEventListener("change", show);
  fields.previous.addEventListener("click", () => step(-1));
  fields.next.addEventListener("click", () => step(1));
  form.addEventListener("submit", (event) => event.preventDefault());
  list();
}

/** Many small cards, filtered and in pages. */
function showPairs() {
  const data = dataOf("pairs");
  if (!data) return;
  const form = document.querySelector("[data-controls=pairs]");
  const viewer = document.querySelector("[data-viewer=pairs]");
  const count = document.querySelector("[data-count=pairs]");
  const turns = [...document.querySelectorAll("[data-page]")];
  const fields = form.elements;
  const PAGE = 20;
  let page = 0;
  let shown = [];
  const small = data.texts.map((text) => text.toLowerCase());
  for (const part of form.querySelectorAll("[data-when]")) {
    const known = data[part.dataset.when];
    part.hidden = Array.isArray(known) ? known.length < 2 : !known;
  }
  for (const round of data.rounds) fields.round.append(option(round, round));
  for (const winner of data.winners) fields.winner.append(option(winner, winner));

  function filter() {
    const wanted = fields.search.value.trim().toLowerCase();
    const round = fields.round.value;
    const winner = fields.winner.value;
    const least = Number(fields.least.value) || 0;
    const most = fields.most.value === "" ? Infinity : Number(fields.most.value);
    shown = data.items.filter((item) => (!round || String(item.r) === round) && (!winner || item.w === winner) &&
      item.n >= least && item.n <= most &&
      (!wanted || [item.q, ...item.a.map((one) => one.t)].some((t) => small[t].includes(wanted))));
    const order = fields.order.value;
    const key = { high: (item) => -(item.p ?? -Infinity), low: (item) => item.p ?? Infinity, long: (item) => -item.n }[order];
    if (key) shown = shown.map((item) => [key(item), item]).sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0)).map((pair) => pair[1]);
    page = 0;
    show();
  }

  function show() {
    const first = page * PAGE;
    const part = shown.slice(first, first + PAGE);
    const wanted = fields.search.value.trim().toLowerCase();
    const of = shown.length === data.items.length ? "" : ` (of ${data.items.length})`;
    count.textContent = part.length ? `${first + 1} to ${first + part.length} of ${shown.length} ${data.name}${of}` : `none of ${data.items.length} ${data.name}`;
    turns[0].disabled = page === 0;
    turns[1].disabled = first + PAGE >= shown.length;
    viewer.replaceChildren(...part.map((item) => {
      const facts = [item.r ? `round ${item.r}` : "", item.p === null || !data.p ? "" : `${data.p} ${item.p.toPrecision(3).replace("-", "−")}`].filter(Boolean);
      return element("div", "item", facts.length ? element("p", "facts", facts.join(" · ")) : null,
        paragraph("prompt", data.texts[item.q], wanted),
        row(item.a.map((one) => answerCard(one.l, data.texts[one.t], one.n, one.d, one.s, wanted))));
    }));
  }

  for (const turn of turns) turn.addEventListener("click", () => { page += Number(turn.dataset.page); show(); });
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  if (data.begin || data.end) {
    const told = element("details", "", element("summary", "", "What all prompts begin and end with (the chat template)"),
      element("pre", "", `${data.begin}…${data.end}`));
    form.before(told);
  }
  filter();
}

/** Says of each table that is wider than its frame that it goes on, until its end is seen. */
function showEdges() {
  const hints = new Map();
  const look = (frame) => {
    const wider = frame.scrollWidth > frame.clientWidth + 1;
    frame.classList.toggle("wider", wider && frame.scrollLeft + frame.clientWidth < frame.scrollWidth - 8);
    if (wider && !hints.has(frame)) {
      const hint = element("p", "hint", "scrolls sideways →");
      frame.before(hint);
      hints.set(frame, hint);
    }
    if (hints.has(frame)) hints.get(frame).hidden = !wider;
  };
  const seen = new ResizeObserver((all) => all.forEach((one) => look(one.target)));
  const begin = (frame) => {
    seen.observe(frame);
    frame.addEventListener("scroll", () => look(frame), { passive: true });
  };
  document.querySelectorAll(".scroll").forEach(begin);
  new MutationObserver((all) => all.forEach((one) => one.addedNodes.forEach((node) => {
    if (node instanceof Element) node.querySelectorAll(".scroll").forEach(begin);
  }))).observe(document.querySelector("main"), { childList: true, subtree: true });
}

document.getElementById("theme").addEventListener("click", turnTheme);
showAnswers();
showPairs();
showEdges();
