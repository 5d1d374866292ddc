// One question: its images, its samples side by side, and how its answers changed over the steps.

const UNFOLDED = 400; // tokens of thinking that are unfolded at first
const FIRST_TOKENS = 3000; // of a part of a response; the others wait behind a button

class GroupView {
  constructor(book, go) {
    Object.assign(this, { book, go, thinking: null, judged: false, colour: "surprise" });
    this.place = field("detail");
    this.times = new Map(); // task -> its groups, in the order of the steps
    book.index.groups.forEach((group, at) => {
      if (!this.times.has(group.task)) this.times.set(group.task, []);
      this.times.get(group.task).push(at);
    });
    this.place.addEventListener("mouseover", (event) => this.tip(event));
    this.place.addEventListener("click", (event) => this.tip(event));
    this.place.addEventListener("mouseleave", () => (field("tip").hidden = true));
    this.place.addEventListener("scroll", () => (field("tip").hidden = true), { passive: true });
  }

  async show(at, matching, chosen) {
    const group = this.book.index.groups[at];
    this.current = at;
    const chunk = await chunkOf(group.chunk);
    if (this.current !== at) return; // another was chosen meanwhile
    Object.assign(this, { group, chunk, matching, chosen });
    field("tip").hidden = true;
    this.place.replaceChildren(this.question(), this.history(), this.tools(), this.samples());
    this.place.scrollTop = 0;
    this.place.querySelector(".sample.chosen")?.scrollIntoView({ block: "nearest", inline: "start" });
  }

  question() {
    const { group } = this;
    const box = make("div", "question");
    if (group.images.length) {
      const pictures = make("div", "pictures");
      for (const at of group.images) {
        const image = picture(at);
        image.addEventListener("load", () => image.classList.toggle("tiny", image.naturalHeight < 130));
        image.addEventListener("click", () => image.classList.toggle("large"));
        pictures.append(image);
      }
      box.append(pictures);
    }
    const words = make("div", "words");
    const text = make("div", "text");
    writeText(text, group.question);
    text.dir = "auto";
    words.append(text);
    if (group.choices.length) {
      const list = make("ol");
      list.type = "A";
      list.append(...group.choices.map((choice) => make("li", "", choice)));
      words.append(list);
    }
    const answer = make("div", "facts-line", "reference ");
    answer.append(make("b", "mono", group.answer));
    const facts = [`step ${group.step}`, `source ${group.source}`, `verifier ${group.verifier}`];
    if (group.difficulty !== null) facts.push(`difficulty ${number(group.difficulty, 2)}`);
    words.append(answer, make("div", "facts-line soft", [...facts, `task ${group.task}`].join(" · ")));
    box.append(words);
    return box;
  }

  history() {
    const times = this.times.get(this.group.task);
    if (times.length < 2) return "";
    const { groups, rollouts } = this.book.index;
    const box = make("details", "history");
    box.open = times.length <= 8;
    box.append(make("summary", "", `Over the run: ${times.length} times`));
    for (const at of times) {
      const group = groups[at];
      const line = make("button");
      line.type = "button";
      line.setAttribute("aria-current", String(at === this.current));
      const said = new Map();
      for (let i = group.start; i < group.start + group.size; i++) {
        const answer = rollouts.extracted[i] ?? "none";
        said.set(answer, (said.get(answer) || 0) + 1);
      }
      const sorted = [...said].sort((a, b) => b[1] - a[1]).slice(0, 8);
      const answers = sorted.map(([answer, count]) => `${answer.slice(0, 40)}${count > 1 ? ` ×${count}` : ""}`);
      line.append(make("span", "", `step ${group.step}`), dots(this.book, group), make("span", "answers mono", answers.join("   ")));
      line.addEventListener("click", () => this.go(at));
      box.append(line);
    }
    return box;
  }

  tools() {
    const bar = make("div", "tools");
    const fold = make("button", "", "Fold or unfold thinking");
    fold.addEventListener("click", () => this.foldThinking());
    const judged = make("button", "", "Verifier's steps");
    judged.addEventListener("click", () => this.foldJudged());
    const label = make("label", "soft", "colour tokens by ");
    const select = make("select");
    select.id = "colour";
    select.append(new Option("nothing", ""), ...this.quantities().map((name) => new Option(QUANTITIES[name].title, name)));
    select.value = this.colour;
    select.addEventListener("change", () => this.recolour(select.value));
    label.append(select);
    bar.append(fold, judged, label, legend(this.colour));
    return bar;
  }

  // What the log has of this question; a quantity without numbers is not offered.
  quantities() {
    const any = (name) => this.each().some(([details, sample]) => !details.plain && QUANTITIES[name].has(details, sample));
    const names = Object.keys(QUANTITIES).filter(any);
    if (!names.includes(this.colour)) this.colour = this.colour && names.length ? names[0] : "";
    return names;
  }

  each() {
    const { group, chunk } = this;
    const { rollouts } = this.book.index;
    return Array.from({ length: group.size }, (_, i) => {
      const sample = Object.fromEntries(Object.entries(rollouts).map(([name, column]) => [name, column[group.start + i]]));
      return [chunk.rollouts[group.at + i], sample, group.start + i];
    });
  }

  samples() {
    const box = make("div", "samples");
    box.append(...this.each().map(([details, sample, at]) => this.card(details, sample, at)));
    return box;
  }

  card(details, sample, at) {
    const card = make("article", "sample");
    card.dataset.verdict = sample.verdict;
    card.dataset.at = at;
    if (this.matching && !this.matching.has(at)) card.classList.add("out");
    if (at === this.chosen) card.classList.add("chosen");
    const [sign, title] = KINDS[sample.verdict] || ["?", sample.verdict];
    const top = make("div", "top");
    top.append(make("span", `badge ${sample.verdict}`, `${sign} ${title}`));
    top.append(make("span", "", `reward ${number(sample.reward)}`));
    if (sample.advantage !== null) top.append(make("span", "", `advantage ${number(sample.advantage)}`));
    top.append(make("span", "soft", tokensOf(sample.tokens)));
    if (sample.finish !== "stop") top.append(make("span", "badge wrong", sample.finish === "length" ? "cut off" : sample.finish));
    const versions = sample.first === sample.last ? `v${sample.first}` : `v${sample.first} to ${sample.last}`;
    if (sample.first !== null) top.append(make("span", "soft", versions));
    card.append(top, ...this.parts(details, sample), this.pair(sample), this.verifier(details, sample));
    return card;
  }

  // The thinking, which folds, and the answer after it.
  parts(details, sample) {
    const parts = [];
    if (details.thinks) {
      const thought = make("details", "thought");
      thought.open = this.thinking ?? details.answer <= UNFOLDED;
      const size = details.plain ? "" : ` · ${tokensOf(details.answer)}`;
      thought.append(make("summary", "", `thinking${size}`));
      const body = this.text(details, sample, 0, details.answer + (details.cut ? 1 : 0), "thinking");
      if (thought.open) body.fill();
      thought.addEventListener("toggle", () => thought.open && body.fill());
      thought.append(body.element);
      parts.push(thought);
    }
    const final = this.text(details, sample, details.thinks ? details.answer : 0, details.tokens.length, "answer");
    final.element.classList.add("final");
    final.fill();
    return [...parts, final.element];
  }

  // A part of a response: written when `fill` is called, a long one in pieces.
  text(details, sample, from, to, part) {
    const element = make("pre", "response");
    element.dir = "auto";
    let next = from;
    const fill = () => {
      if (next > from || next >= to) return;
      const more = (count) => {
        const end = Math.min(to, next + count);
        const piece = make("span"); // one element: with dir="auto" each that is added costs a look at all before it
        writeTokens(piece, this.chunk, details, sample, next, end, this.colour, part);
        element.append(piece);
        next = end;
        if (next >= to) return;
        const button = make("button", "", `${(to - next).toLocaleString("en")} more tokens`);
        button.addEventListener("click", () => {
          button.remove();
          more(20_000);
        });
        element.append(button);
      };
      more(FIRST_TOKENS);
    };
    element.recolour = () => {
      for (const span of element.querySelectorAll(".t")) {
        span.className = span.className.replace(/ [spnv]\d/g, "");
        const colour = colourOf(this.colour, details, Number(span.dataset.t), sample);
        if (colour) span.classList.add(colour);
      }
    };
    element.facts = (t) => tokenFacts(details, this.chunk, sample, t);
    return { element, fill };
  }

  pair(sample) {
    const list = make("dl", "pair");
    list.append(make("dt", "", "read"), make("dd", "", sample.extracted ?? "nothing"));
    list.append(make("dt", "", "reference"), make("dd", "", this.group.answer));
    return list;
  }

  verifier(details) {
    const judged = make("details", "judged");
    judged.open = this.judged;
    judged.append(make("summary", "", "how it was judged"));
    const list = make("ol");
    list.append(...details.steps.map((step) => make("li", "", step)));
    judged.append(list);
    return judged;
  }

  foldThinking() {
    this.thinking = !(this.thinking ?? this.place.querySelector(".thought")?.open ?? false);
    for (const thought of this.place.querySelectorAll(".thought")) thought.open = this.thinking;
  }

  foldJudged() {
    this.judged = !this.judged;
    for (const judged of this.place.querySelectorAll(".judged")) judged.open = this.judged;
  }

  recolour(name) {
    this.colour = name;
    for (const part of this.place.querySelectorAll(".response")) part.recolour();
    this.place.querySelector(".legend").replaceWith(legend(name));
    field("colour").value = name;
  }

  nextColour() {
    const names = [...this.quantities(), ""];
    this.recolour(names[(names.indexOf(this.colour) + 1) % names.length]);
  }

  tip(event) {
    const span = event.target.closest?.(".t");
    const tip = field("tip");
    tip.hidden = !span;
    if (!span) return;
    tip.textContent = span.closest(".response").facts(Number(span.dataset.t));
    const box = span.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8))}px`;
    const below = box.bottom + 6;
    tip.style.top = `${below + tip.offsetHeight > innerHeight ? box.top - tip.offsetHeight - 6 : below}px`;
  }
}
