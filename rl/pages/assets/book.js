// Opens the book: data, list, question, keyboard and address.

async function open() {
  const index = await unpacked("index");
  const book = { index };
  let list = null;
  const filters = new Filters(book, () => refresh());
  const view = new GroupView(book, (at) => goTo(at, undefined, true));
  list = new List(book, filters, (at, reading) => pick(at, reading));
  const total = index.rollouts.group.length;
  const plain = index.uncoloured ? ` The tokens of ${index.uncoloured.toLocaleString("en")} cannot be told apart.` : "";
  field("note").textContent = visible(`${total.toLocaleString("en")} rollouts. ${index.note}${plain}`);

  function refresh() {
    const { rows, matching } = filters;
    const what = field("rows-are").value === "rollouts" ? "rollouts" : "questions";
    field("counts").textContent =
      `${rows.length.toLocaleString("en")} ${what}, ${matching.size.toLocaleString("en")} of ${total.toLocaleString("en")} rollouts`;
    list.chosen = rows.findIndex((row) => row.group === view.current);
    field("list").scrollTop = 0;
    list.reset();
    list.choose(list.chosen);
  }

  function pick(at, reading) {
    const row = filters.rows[at];
    if (!row) return;
    list.choose(at);
    show(row.group, row.sample, reading);
  }

  function show(group, sample, reading) {
    const { step, place, start } = index.groups[group];
    const chosen = sample === undefined ? "" : `&sample=${index.rollouts.sample[sample]}`;
    const address = `#step=${step}&group=${place}${chosen}`;
    const opens = reading && !document.body.classList.contains("reading");
    history[opens ? "pushState" : "replaceState"](null, "", address);
    if (reading) document.body.classList.add("reading");
    return view.show(group, filters.matching, sample);
  }

  function goTo(group, sample, reading) {
    list.choose(filters.rows.findIndex((row) => row.group === group && (sample === undefined || row.sample === sample)));
    return show(group, sample, reading);
  }

  function fromAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const at = index.groups.findIndex(
      (group) => String(group.step) === wanted.get("step") && String(group.place) === wanted.get("group"));
    if (at < 0) {
      document.body.classList.remove("reading");
      return false;
    }
    const { start, size } = index.groups[at];
    const sample = index.rollouts.sample.findIndex(
      (number, i) => i >= start && i < start + size && String(number) === wanted.get("sample"));
    document.body.classList.add("reading");
    goTo(at, sample < 0 ? undefined : sample, false);
    return true;
  }

  function back() {
    document.body.classList.remove("reading");
    history.replaceState(null, "", "#");
  }

  const nextTime = (by) => {
    const times = view.times.get(view.group?.task) || [];
    const at = times[times.indexOf(view.current) + by];
    if (at !== undefined) goTo(at, undefined, false);
  };
  const nextSample = (by) => {
    const cards = [...document.querySelectorAll(".sample")];
    const at = cards.findIndex((card) => card.classList.contains("chosen"));
    const card = cards[Math.max(0, Math.min(cards.length - 1, at + by))];
    cards[at]?.classList.remove("chosen");
    card?.classList.add("chosen");
    card?.scrollIntoView({ block: "nearest", inline: "start" });
  };
  const move = (by) => pick(Math.max(0, Math.min(filters.rows.length - 1, list.chosen + by)), false);
  const keys = {
    j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
    n: () => nextSample(1), p: () => nextSample(-1), "[": () => nextTime(-1), "]": () => nextTime(1),
    t: () => view.foldThinking(), v: () => view.foldJudged(), c: () => view.nextColour(),
    "/": () => field("query").focus(), "?": () => field("keys").showModal(), Escape: () => back(),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || field("keys").open) return;
    if (event.target.closest("input, select")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    const act = keys[event.key];
    if (!act || (event.target.closest("#detail") && event.key.startsWith("Arrow"))) return;
    event.preventDefault();
    act();
  });
  addEventListener("popstate", fromAddress);
  field("back").addEventListener("click", back);
  field("help").addEventListener("click", () => field("keys").showModal());
  refresh();
  if (!fromAddress() && matchMedia("(min-width: 761px)").matches) pick(0, false);
  document.documentElement.dataset.ready = "yes";
}

function themes() {
  const root = document.documentElement;
  field("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
}

themes();
open().catch((error) => {
  const old = typeof DecompressionStream === "undefined";
  field("note").textContent = old ? "This page needs a browser of 2023 or later." : `The data of this page are damaged: ${error.message}`;
  document.documentElement.dataset.ready = "failed";
});
