// The tokens of a response, coloured by a quantity, and what is said about one of them.

const QUANTITIES = {
  surprise: {
    title: "surprise (−log p)",
    has: (details) => details.surprise,
    of: (details, t) => details.surprise[t] / 100,
    bins: [0.1, 0.5, 1, 2, 4],
    names: ["p > 0.9", "0.6 to 0.9", "0.37 to 0.6", "0.14 to 0.37", "0.02 to 0.14", "below"],
  },
  entropy: {
    title: "entropy",
    has: (details) => details.entropy,
    of: (details, t) => details.entropy[t] / 100,
    bins: [0.1, 0.3, 0.7, 1.2, 2],
    names: ["below 0.1 nats", "0.1 to 0.3", "0.3 to 0.7", "0.7 to 1.2", "1.2 to 2", "more"],
  },
  advantage: {
    title: "advantage",
    has: (details, sample) => details.advantages || sample.advantage !== null,
    of: (details, t, sample) => (details.advantages ? details.advantages[t] / 1000 : sample.advantage),
    bins: [0.05, 0.5, 1],
    names: ["−1 or less", "−1 to −0.5", "−0.5 to 0", "0 to 0.5", "0.5 to 1", "1 or more"],
    both: true,
  },
  ratio: {
    title: "ratio (learner / engine)",
    has: (details) => details.ratio,
    of: (details, t) => details.ratio[t] / 1000,
    bins: [0.02, 0.1, 0.3],
    names: ["below 0.74", "0.74 to 0.9", "0.9 to 0.98", "1.02 to 1.1", "1.1 to 1.35", "above"],
    both: true,
  },
  version: {
    title: "policy version",
    has: (details) => details.versions && details.versions.length,
    of: (details, t) => (details.versions.find(([start, stop]) => t >= start && t < stop) || [0, 0, null])[2],
  },
};

function colourOf(name, details, t, sample) {
  const quantity = QUANTITIES[name];
  if (!quantity || !quantity.has(details, sample)) return "";
  const value = quantity.of(details, t, sample);
  if (value === null || value === undefined) return "";
  if (name === "version") return `v${((value % 6) + 6) % 6}`;
  const size = quantity.bins.filter((bin) => Math.abs(value) >= bin).length;
  if (size === 0) return "";
  return quantity.both ? `${value < 0 ? "n" : "p"}${size}` : `s${size}`;
}

// Appends tokens [from, to) to `place`. The token `details.answer` may hold the end of the thinking, too: its first
// `details.cut` characters; `part` says which side is written.
function writeTokens(place, chunk, details, sample, from, to, name, part) {
  const special = new Set(chunk.special);
  const masked = new Set(details.masked || []);
  for (let t = from; t < to; t++) {
    const word = details.tokens[t];
    let text = chunk.words[word];
    if (t === details.answer && details.cut) {
      const characters = Array.from(text);
      text = (part === "thinking" ? characters.slice(0, details.cut) : characters.slice(details.cut)).join("");
    }
    if (details.plain) {
      writeText(place, text);
      continue;
    }
    const span = make("span", "t");
    writeText(span, text);
    const colour = colourOf(name, details, t, sample);
    if (colour) span.classList.add(colour);
    if (special.has(word)) span.classList.add("special");
    if (masked.has(t)) span.classList.add("masked");
    span.dataset.t = t;
    place.append(span);
  }
}

function writeText(place, text) {
  let from = 0;
  for (const match of text.matchAll(HIDDEN)) {
    place.append(text.slice(from, match.index), make("span", "hidden-char", codeOf(match[0])));
    from = match.index + match[0].length;
  }
  place.append(text.slice(from));
}

function legend(name, book) {
  const quantity = QUANTITIES[name];
  const box = make("span", "legend");
  if (!quantity || !quantity.names) return box;
  const classes = quantity.both ? ["n3", "n2", "n1", "p1", "p2", "p3"] : ["", "s1", "s2", "s3", "s4", "s5"];
  quantity.names.forEach((text, at) => box.append(make("span", classes[at], text)));
  return box;
}

function tokenFacts(details, chunk, sample, t) {
  const lines = [`token ${t + 1} of ${details.tokens.length}: ${JSON.stringify(chunk.words[details.tokens[t]])}`];
  if (details.id) lines.push(`id ${details.id[t]}`);
  if (details.surprise) {
    const value = details.surprise[t] / 100;
    lines.push(`probability ${number(Math.exp(-value), 3)} (log ${number(-value, 2)})`);
  }
  if (details.entropy) lines.push(`entropy ${number(details.entropy[t] / 100, 2)} nats`);
  if (details.ratio) lines.push(`learner / engine ${number(Math.exp(details.ratio[t] / 1000), 3)}`);
  const version = QUANTITIES.version.has(details) ? QUANTITIES.version.of(details, t) : null;
  if (version !== null) lines.push(`policy version ${version}`);
  if (QUANTITIES.advantage.has(details, sample)) {
    lines.push(`advantage ${number(QUANTITIES.advantage.of(details, t, sample), 3)}`);
  }
  if ((details.masked || []).includes(t)) lines.push("not trained on");
  return visible(lines.join("\n"));
}
