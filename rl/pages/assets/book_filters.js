// Which questions and rollouts the filters leave, and in which order.

const field = (id) => document.getElementById(id);

class Filters {
  constructor(book, changed) {
    this.book = book;
    this.found = null; // rollouts whose response holds the query; null: not searched
    this.kinds = new Set();
    this.scan = 0;
    this.fill();
    let timer = 0;
    field("filters").addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => this.apply(changed), 150);
    });
    field("filters").addEventListener("submit", (event) => event.preventDefault());
    field("filters").addEventListener("reset", () => {
      this.kinds.clear();
      for (const chip of field("verdicts").children) chip.setAttribute("aria-pressed", "false");
      setTimeout(() => this.apply(changed));
    });
    field("more").addEventListener("click", () => field("filters").classList.toggle("open"));
    this.chips(changed);
    this.compute();
  }

  fill() {
    const { groups } = this.book.index;
    const options = (id, values, all) => {
      field(id).append(new Option(all, ""), ...values.map((value) => new Option(visible(String(value)), value)));
    };
    options("source", [...new Set(groups.map((group) => group.source))].sort(), "all");
    options("step", [...new Set(groups.map((group) => group.step))], "all");
  }

  chips(changed) {
    const counts = {};
    for (const kind of this.book.index.rollouts.verdict) counts[kind] = (counts[kind] || 0) + 1;
    for (const [kind, [sign, title]] of Object.entries(KINDS)) {
      if (!counts[kind]) continue;
      const chip = make("button", "", `${sign} ${title} ${counts[kind].toLocaleString("en")}`);
      chip.type = "button";
      chip.setAttribute("aria-pressed", "false");
      chip.addEventListener("click", () => {
        const on = !this.kinds.has(kind);
        this.kinds[on ? "add" : "delete"](kind);
        chip.setAttribute("aria-pressed", String(on));
        this.apply(changed);
      });
      field("verdicts").append(chip);
    }
  }

  async apply(changed) {
    const scan = ++this.scan;
    const query = field("query").value.trim().toLowerCase();
    this.found = null;
    if (query && field("deep").checked) {
      const found = await this.search(query, scan);
      if (scan !== this.scan) return; // a later search has begun
      this.found = found;
    }
    this.compute();
    changed();
  }

  // The rollouts whose response holds the query. Reads every chunk, a piece at a time, so that the page stays alive.
  async search(query, scan) {
    const { groups, rollouts } = this.book.index;
    const found = new Set();
    for (let at = 0; at < groups.length && scan === this.scan; at++) {
      const group = groups[at];
      const chunk = await chunkOf(group.chunk);
      for (let i = 0; i < group.size; i++) {
        const text = chunk.rollouts[group.at + i].tokens.map((word) => chunk.words[word]).join("");
        if (text.toLowerCase().includes(query)) found.add(group.start + i);
      }
      if (at % 50 === 0) {
        field("counts").textContent = `Searching ${Math.round((100 * at) / groups.length)} %`;
        await new Promise((resume) => setTimeout(resume));
      }
    }
    return found;
  }

  compute() {
    const { groups, rollouts } = this.book.index;
    const query = field("query").value.trim().toLowerCase();
    const [source, step] = [field("source").value, field("step").value];
    const limit = (id, other) => (field(id).value === "" ? other : Number(field(id).value));
    const [rewardFrom, rewardTo] = [limit("reward-from", -Infinity), limit("reward-to", Infinity)];
    const [tokensFrom, tokensTo] = [limit("tokens-from", 0), limit("tokens-to", Infinity)];
    const anyReward = rewardFrom === -Infinity && rewardTo === Infinity;
    this.matching = new Set();
    const kept = [];
    groups.forEach((group, at) => {
      if ((source && group.source !== source) || (step && String(group.step) !== step)) return;
      const whole = !query || [group.question, group.answer, group.task, ...group.choices].some(
        (text) => text.toLowerCase().includes(query));
      let any = false;
      for (let i = group.start; i < group.start + group.size; i++) {
        const [reward, tokens] = [rollouts.reward[i], rollouts.tokens[i]];
        if (this.kinds.size && !this.kinds.has(rollouts.verdict[i])) continue;
        if (!anyReward && (reward === null || reward < rewardFrom || reward > rewardTo)) continue;
        if (tokens < tokensFrom || tokens > tokensTo) continue;
        const said = (rollouts.extracted[i] || "").toLowerCase().includes(query);
        if (!whole && !said && !(this.found && this.found.has(i))) continue;
        this.matching.add(i);
        any = true;
      }
      if (any) kept.push(at);
    });
    this.rows = this.ordered(kept);
  }

  ordered(kept) {
    const { groups, rollouts } = this.book.index;
    const single = field("rows-are").value === "rollouts";
    const samples = (at) => Array.from({ length: groups[at].size }, (_, i) => groups[at].start + i);
    const rows = kept.flatMap((at) =>
      single ? samples(at).filter((i) => this.matching.has(i)).map((i) => ({ group: at, sample: i })) : [{ group: at }]);
    const own = (row) => (row.sample === undefined ? samples(row.group) : [row.sample]);
    const rewards = (row) => own(row).map((i) => rollouts.reward[i]);
    const lengths = (row) => mean(own(row).map((i) => rollouts.tokens[i]));
    const spread = (row) => {
      const values = samples(row.group).map((i) => rollouts.reward[i]).filter((value) => value !== null);
      const middle = mean(values);
      return values.length ? mean(values.map((value) => (value - middle) ** 2)) : -1;
    };
    const keys = {
      worst: (row) => mean(rewards(row)) ?? Infinity,
      best: (row) => -(mean(rewards(row)) ?? -Infinity),
      mixed: (row) => -spread(row),
      longest: (row) => -lengths(row),
      shortest: lengths,
    };
    const key = keys[field("order").value];
    if (!key) return rows;
    const ranked = rows.map((row) => [key(row), row]);
    return ranked.sort((a, b) => a[0] - b[0] || 0).map(([, row]) => row);
  }
}
