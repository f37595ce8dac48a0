// Why a product got its score: confidence, the words that count, the nearest rationales.

import { request } from "./api.js";
import { decimals, make, percent, plural, titled, unseen } from "./dom.js";

/** Fill a panel with the explanation of a pair; rejects where there is none. */
async function explanation(panel, { query, product, model }) {
  panel.replaceChildren(make("p", { class: "waiting", role: "status" }, "Asking the model\u2026"));
  try {
    const { body, headers } = await request("explain", { body: { query, product, model } });
    panel.replaceChildren(
      confidence(body.confidence),
      words(query, body.tokens),
      rationales(body.rationales),
      make("p", { class: "hint" }, `Explained in ${headers.get("x-total-time")} ms.`),
    );
  } catch (error) {
    panel.replaceChildren(make("p", { class: "problem", role: "alert" }, error.message));
    throw error;
  }
}

const section = (title, ...children) => make("section", {}, make("h3", {}, title), ...children);

function confidence({ similarity, percentile, in_domain }) {
  return make(
    "p",
    { class: "confidence" },
    make(
      "span",
      { class: `chip ${in_domain ? "good" : "bad"}` },
      in_domain ? "\u2713 like what it was trained on" : "! unlike what it was trained on",
    ),
    make(
      "span",
      {},
      `Similarity ${decimals(similarity, 2)} to the nearest rationale: at least as near as ${percent(percentile)} of the dev pairs are to theirs.`,
    ),
  );
}

function words(query, { query: ofQuery, product, product_text: text, largest, skipped }) {
  const readout = make("output", { class: "readout" });
  const silent = largest === 0;
  const notes = [
    "The darker a word, the further the latents move without it.",
    silent ? "Here none of them moves them." : `Weight 1 is a shift of ${decimals(largest, 3)}.`,
    skipped ? `${plural(skipped, "word")} at the end left untried.` : "",
  ];
  return section(
    "Words that count",
    weighed("Query", query, ofQuery, readout),
    weighed("Product, as the model reads it", text, product, readout),
    readout,
    make("p", { class: "hint" }, notes.join(" ").trim()),
  );
}

/** Return a text with its weighed words, among which the arrow keys move. */
function weighed(name, text, weights, readout) {
  // Places count characters, where strings of JavaScript count UTF-16 units.
  const characters = Array.from(text);
  const parts = [];
  const marks = [];
  let end = 0;
  for (const word of weights) {
    parts.push(characters.slice(end, word.start).join(""));
    const mark = make(
      "span",
      { class: `word w${Math.round(10 * word.weight)}`, tabindex: "-1" },
      characters.slice(word.start, word.end).join(""),
      unseen(` (${decimals(word.weight, 2)})`),
    );
    const show = () => readout.replaceChildren(make("b", {}, word.text), ` weight ${decimals(word.weight, 2)}`);
    mark.addEventListener("mouseenter", show);
    mark.addEventListener("focus", show);
    parts.push(mark);
    marks.push(mark);
    end = word.end;
  }
  parts.push(characters.slice(end).join(""));
  const most = weights.reduce((best, word, place) => (word.weight > weights[best].weight ? place : best), 0);
  if (marks.length) marks[most].tabIndex = 0;
  return make(
    "p",
    { class: "weighed", role: "group", "aria-label": `${name}: arrow keys move between words`, keydown: (event) => step(event, marks) },
    make("span", { class: "weighed-name" }, name),
    ...parts,
  );
}

function step(event, marks) {
  const here = marks.indexOf(event.target);
  const next = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: marks.length - 1 }[event.key];
  if (here < 0 || next === undefined) return;
  event.preventDefault();
  if (!marks[next]) return;
  marks[here].tabIndex = -1;
  marks[next].tabIndex = 0;
  marks[next].focus();
}

function rationales(perspectives) {
  const groups = Object.entries(perspectives).map(([name, [first, ...others]]) =>
    make(
      "div",
      { class: "perspective" },
      make("h4", {}, titled(name)),
      rationale(first),
      others.length ? make("details", {}, make("summary", {}, `${others.length} more`), ...others.map(rationale)) : null,
    ),
  );
  return section(
    "Nearest rationales of the teacher",
    groups.length ? make("div", { class: "perspectives" }, ...groups) : make("p", {}, "None."),
  );
}

function rationale({ query, title, label, gold_label, rationale: text, similarity }) {
  return make(
    "article",
    { class: "rationale" },
    make(
      "p",
      { class: "about" },
      make("span", { class: "similarity", title: "cosine of the latent and this rationale's vector" }, decimals(similarity, 2)),
      make("span", { class: "chip" }, label),
      gold_label && gold_label !== label ? make("span", { class: "chip gold" }, `labelled ${gold_label}`) : null,
    ),
    make("p", { class: "text" }, text),
    make("p", { class: "source" }, make("q", {}, query), " \u2192 ", title),
  );
}

export { explanation };
