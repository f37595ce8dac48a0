// Ranked products with a bar of classes each, in one column or in two that are compared.

import { explanation } from "./explain.js";
import { decimals, make, percent, plural, unseen } from "./dom.js";

/** Colours that a bar has: the first class has the first one, the last class the last one. */
const COLOURS = 6;
/** A segment below this share has no number in it. */
const NUMBERED = 0.12;

const colour = (place, count) => `c${place === count - 1 ? COLOURS - 1 : Math.min(place, COLOURS - 2)}`;

/** Fill the legend with a model's classes. */
function showLegend(list, { labels, gains }) {
  list.replaceChildren(
    ...labels.map((label, place) =>
      make(
        "li",
        {},
        make("span", { class: `swatch ${colour(place, labels.length)}`, "aria-hidden": "true" }),
        make("span", {}, label),
        make("span", { class: "gain", title: "its gain in the score" }, `gain ${Number(gains[place].toFixed(3))}`),
      ),
    ),
  );
  list.hidden = false;
}

/** Return the classified products of an answer, best first; equal scores keep their order. */
const ranked = (results) => [...results].sort((a, b) => b.score - a.score || a.index - b.index);

/**
 * Return a column of ranked products.
 *
 * `asked` has the query and the products; `before` is the ranking that this one is compared with and its model, or null.
 */
function column({ asked, answer, ranking, before, titled }) {
  const places = before && new Map(before.ranking.map((result, place) => [result.index, place]));
  const list = make("ol", { class: "ranking" });
  ranking.forEach((result, place) => {
    list.append(row({ asked, result, place, moved: places ? places.get(result.index) - place : null, model: answer.body.model }));
  });
  return make(
    "section",
    { class: "column", "aria-label": `Ranked by ${answer.body.model}` },
    make(
      "header",
      { class: "column-head" },
      titled ? make("h2", {}, answer.body.model) : null,
      make("p", { class: "latency" }, ...latency(answer)),
      places ? make("p", { class: "moves" }, moves(ranking, places, before.model)) : null,
    ),
    list,
  );
}

function latency({ headers, milliseconds, body }) {
  const ms = (name) => headers.get(`x-${name}-time`);
  const parts = ["queue", "tokenization", "inference"].map((name) => `${name} ${ms(name)}`).join(", ");
  return [
    make("b", {}, `${ms("total")} ms`),
    ` in the server (${parts}), ${Math.round(milliseconds)} ms round trip, ${plural(body.usage.total_tokens, "token")}`,
  ];
}

function moves(ranking, places, model) {
  const count = ranking.filter((result, place) => places.get(result.index) !== place).length;
  return count ? `${count} of ${plural(ranking.length, "product")} elsewhere than with ${model}` : `The same order as with ${model}`;
}

function row({ asked, result, place, moved, model }) {
  const product = asked.products[result.index];
  const title = typeof product === "string" ? product : (product.title ?? product.text ?? "");
  const brand = typeof product === "object" && product.brand ? product.brand : null;
  const shares = Object.entries(result.probabilities);
  const panel = make("div", { class: "panel", hidden: "", id: `why-${++panels}` });
  const why = make("button", { type: "button", class: "why", "aria-expanded": "false", "aria-controls": panel.id }, "Why?");
  why.append(unseen(` ${title}`));
  let shown = null;
  why.addEventListener("click", () => {
    const open = why.getAttribute("aria-expanded") !== "true";
    why.setAttribute("aria-expanded", String(open));
    panel.hidden = !open;
    if (open && !shown) {
      shown = explanation(panel, { query: asked.query, product, model });
      // What failed is asked again when it is opened again.
      shown.catch(() => (shown = null));
    }
  });
  return make(
    "li",
    { class: "product", "data-index": result.index },
    make("div", { class: "place" }, String(place + 1), moved === null ? null : change(moved)),
    make(
      "div",
      { class: "body" },
      make("div", { class: "title" }, title, brand ? make("span", { class: "brand" }, brand) : null),
      bar(shares),
      make(
        "div",
        { class: "line" },
        make("span", { class: "verdict" }, `${result.label} ${percent(result.probabilities[result.label])}`),
        make("span", { class: "score" }, unseen("score "), decimals(result.score)),
        why,
      ),
    ),
    panel,
  );
}

let panels = 0;

function change(moved) {
  if (moved === 0) return make("span", { class: "move" }, make("span", { "aria-hidden": "true" }, "="), unseen("the same place"));
  const up = moved > 0;
  const text = `${up ? "\u25b2" : "\u25bc"}\u2009${Math.abs(moved)}`;
  return make(
    "span",
    { class: `move ${up ? "up" : "down"}` },
    make("span", { "aria-hidden": "true" }, text),
    unseen(`${up ? "up" : "down"} ${Math.abs(moved)}`),
  );
}

/** Return a stacked bar of `[label, share]`, which screen readers get as text. */
function bar(shares) {
  const text = shares.map(([label, share]) => `${label} ${percent(share)}`).join(", ");
  const element = make("div", { class: "bar", role: "img", "aria-label": text, title: text });
  shares.forEach(([, share], place) => {
    const part = make("span", { class: colour(place, shares.length) }, share >= NUMBERED ? percent(share) : "");
    part.style.flexGrow = share;
    element.append(part);
  });
  return element;
}

export { column, ranked, showLegend };
