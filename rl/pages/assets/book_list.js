// The list of questions or rollouts. Only the rows in view are elements.

const ROW = 76; // pixels; the style sheet says the same
const MOST_DOTS = 20;

function dots(book, group, matching) {
  const line = make("span", "dots");
  const { verdict } = book.index.rollouts;
  for (let i = group.start; i < group.start + Math.min(group.size, MOST_DOTS); i++) {
    const dot = make("span", `dot ${verdict[i]}`, (KINDS[verdict[i]] || ["?"])[0]);
    if (matching && !matching.has(i)) dot.classList.add("out");
    line.append(dot);
  }
  if (group.size > MOST_DOTS) line.append(make("span", "soft", `+${group.size - MOST_DOTS}`));
  return line;
}

class List {
  constructor(book, filters, pick) {
    Object.assign(this, { book, filters, pick, shown: new Map(), chosen: -1, waiting: false });
    this.scroller = field("list");
    this.box = field("rows");
    this.scroller.addEventListener("scroll", () => this.later(), { passive: true });
    new ResizeObserver(() => this.later()).observe(this.scroller);
    this.box.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) pick(Number(row.dataset.at), true);
    });
  }

  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.draw();
    });
  }

  // Start again after the filters have changed.
  reset() {
    this.box.replaceChildren();
    this.shown.clear();
    this.box.style.height = `${this.filters.rows.length * ROW}px`;
    this.draw();
  }

  draw() {
    const { scrollTop, clientHeight } = this.scroller;
    const first = Math.max(0, Math.floor(scrollTop / ROW) - 4);
    const last = Math.min(this.filters.rows.length, Math.ceil((scrollTop + clientHeight) / ROW) + 4);
    for (const [at, element] of this.shown) {
      if (at < first || at >= last) {
        element.remove();
        this.shown.delete(at);
      }
    }
    for (let at = first; at < last; at++) {
      if (!this.shown.has(at)) {
        const element = this.row(at);
        this.shown.set(at, element);
        this.box.append(element);
      }
    }
  }

  row(at) {
    const { group: place, sample } = this.filters.rows[at];
    const { groups, rollouts } = this.book.index;
    const group = groups[place];
    const row = make("div", "row");
    row.dataset.at = at;
    row.style.top = `${at * ROW}px`;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", String(at === this.chosen));
    row.append(group.images.length ? picture(group.images[0], "thumb") : make("span", "thumb", "text"));
    row.append(make("div", "ask", group.question.replace(/\s+/g, " ").slice(0, 300)));
    if (sample === undefined) {
      const own = Array.from({ length: group.size }, (_, i) => group.start + i);
      const length = mean(own.map((i) => rollouts.tokens[i]));
      row.append(dots(this.book, group, this.filters.matching));
      const reward = number(mean(own.map((i) => rollouts.reward[i])), 2);
      row.append(make("div", "facts", `step ${group.step} · reward ${reward} · ${tokensOf(Math.round(length))} · ${group.source}`));
    } else {
      const line = make("span", "dots");
      const kind = rollouts.verdict[sample];
      line.append(make("span", `dot ${kind}`, (KINDS[kind] || ["?"])[0]));
      line.append(make("span", "ask mono", rollouts.extracted[sample] ?? ""));
      row.append(line);
      const facts = [`step ${group.step}`, `reward ${number(rollouts.reward[sample], 2)}`, tokensOf(rollouts.tokens[sample])];
      row.append(make("div", "facts", [...facts, group.source].join(" · ")));
    }
    return row;
  }

  choose(at) {
    this.shown.get(this.chosen)?.setAttribute("aria-selected", "false");
    this.chosen = at;
    const { scrollTop, clientHeight } = this.scroller;
    if (at >= 0 && at * ROW < scrollTop) this.scroller.scrollTop = at * ROW;
    if (at >= 0 && (at + 1) * ROW > scrollTop + clientHeight) this.scroller.scrollTop = (at + 1) * ROW - clientHeight;
    this.draw();
    this.shown.get(at)?.setAttribute("aria-selected", "true");
  }
}
