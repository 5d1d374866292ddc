"use strict";
// Reads the book's data. Everything in it was written by models and data sets: it reaches the page as text alone.

const KINDS = {
  correct: ["✓", "correct"],
  wrong: ["✗", "wrong"],
  no_answer: ["–", "no answer"],
  bad_reference: ["!", "bad reference"],
  timeout: ["!", "timeout"],
  crash: ["!", "crash"],
};

async function unpacked(id) {
  const text = document.getElementById(id).textContent.trim();
  const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

// Chunks hold the tokens of some questions. The last ones read stay in memory.
const chunks = new Map();
const MOST_CHUNKS = 24;

function chunkOf(number) {
  const known = chunks.get(number) || unpacked(`chunk-${number}`);
  chunks.delete(number);
  chunks.set(number, known);
  if (chunks.size > MOST_CHUNKS) chunks.delete(chunks.keys().next().value);
  return known;
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = visible(String(text));
  return element;
}

// Characters that move, hide or reorder text are shown by their numbers.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffc]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

function visible(text) {
  return text.replace(HIDDEN, (char) => `⟨${codeOf(char)}⟩`);
}

function codeOf(char) {
  return `U+${char.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

function number(value, digits = 3) {
  return value === null || value === undefined ? "–" : String(Number(value.toFixed(digits)));
}

function tokensOf(count) {
  return `${count.toLocaleString("en")} ${count === 1 ? "token" : "tokens"}`;
}

function mean(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
}

// The picture of a number, as an image element; each data URI stands once in the file.
function picture(at, className) {
  const source = document.getElementById(`image-${at}`).textContent;
  if (!/^data:image\/(png|jpeg|webp);base64,[A-Za-z0-9+/=]+$/.test(source)) {
    return make("div", className ? `${className} missing` : "missing", className ? "" : "image cannot be read");
  }
  const image = make("img", className);
  image.src = source;
  image.alt = "";
  image.decoding = "async";
  return image;
}
