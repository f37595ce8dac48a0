// The form: what is asked, kept in the link, and what comes back.

import { Failure, key, request } from "./api.js";
import { byId, make, plural } from "./dom.js";
import { column, ranked, showLegend } from "./results.js";

/** Characters of a link above which browsers and chats cut it. */
const LONGEST_LINK = 30_000;

const form = byId("form");
const state = { info: null, pending: null, shown: "" };

// The link. It stands behind #, which browsers keep to themselves, so that no log of a server has it.

const linked = () => new URLSearchParams(location.hash.slice(1));

function readLink() {
  const link = linked();
  if (!link.has("q") && !link.has("p")) return false;
  byId("query").value = link.get("q") ?? "";
  byId("products").value = link.getAll("p").join("\n");
  chooseModels();
  count();
  return true;
}

/** Choose the link's models; where the server has them no more, the default one. */
function chooseModels() {
  for (const id of ["model", "against"]) {
    const { options } = byId(id);
    const place = [...options].findIndex(({ value }) => value === linked().get(id));
    if (options.length) options[Math.max(place, 0)].selected = true;
  }
}

function writeLink(query, lines) {
  const link = new URLSearchParams([["q", query], ...lines.map((line) => ["p", line])]);
  if (!byId("models").hidden) {
    link.set("model", byId("model").value);
    if (byId("against").value) link.set("against", byId("against").value);
  }
  const text = `#${link}`;
  const fits = text.length <= LONGEST_LINK;
  history.replaceState(null, "", fits ? text : location.pathname);
  byId("share").hidden = !fits;
  byId("share").textContent = "Copy link";
}

// What is asked.

const lines = () =>
  byId("products")
    .value.split("\n")
    .map((line) => line.trim())
    .filter(Boolean);

const count = () => {
  const { length } = lines();
  byId("count").textContent = length ? `(${length})` : "";
};

function complain(field, message) {
  byId(`${field}-error`).textContent = message;
  if (message) byId(field).setAttribute("aria-invalid", "true");
  else byId(field).removeAttribute("aria-invalid");
}

/** Return `{query, products}`; where something is missing say so at its field, and return null. */
function read() {
  const problems = { key: "", query: "", products: "" };
  const query = byId("query").value.trim();
  if (!query) problems.query = "Enter a query.";
  const products = [];
  const texts = lines();
  const most = state.info?.max_client_batch_size ?? Infinity;
  if (!texts.length) problems.products = "Enter at least one product.";
  else if (texts.length > most) problems.products = `The server takes at most ${plural(most, "product")}; here are ${texts.length}.`;
  texts.forEach((text, place) => {
    const product = text.startsWith("{") ? object(text) : text;
    if (product === null) problems.products ||= `Product ${place + 1} starts with { but is no JSON object.`;
    products.push(product);
  });
  if (!byId("key-field").hidden) {
    const value = byId("key").value.trim();
    if (!value) problems.key = "Enter the server's API key.";
    else if (!/^[\x21-\x7e]+$/.test(value)) problems.key = "A key has no spaces and no letters beyond ASCII.";
    else key.set(value);
  }
  for (const [field, message] of Object.entries(problems)) complain(field, message);
  const wrong = Object.keys(problems).find((field) => problems[field]);
  if (wrong) byId(wrong).focus();
  return wrong ? null : { query, products };
}

function object(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// What comes back.

function say({ status = "", error = "" }) {
  byId("status").textContent = status;
  byId("error").textContent = error;
  byId("error").hidden = !error;
  if (error) byId("error").scrollIntoView({ block: "nearest" });
}

/** Show a failure; where the server wants a key, its field takes the place of the message. */
function fail(error) {
  if (error.name === "AbortError") return;
  if (!(error instanceof Failure)) throw error;
  const status = state.shown && `Below: the last ranking, for ${state.shown}`;
  if (error.status === 401) {
    say({ status });
    byId("key-field").hidden = false;
    complain("key", error.message);
    byId("key").focus();
  } else say({ status, error: error.message });
}

async function rank() {
  const asked = read();
  if (!asked) return;
  state.pending?.abort();
  const pending = (state.pending = new AbortController());
  const columns = byId("columns");
  byId("rank").setAttribute("aria-busy", "true");
  columns.classList.add("stale");
  say({ status: "Ranking\u2026" });
  try {
    if (!state.info) await loadInfo(pending.signal);
    const models = [byId("model").value, byId("against").value].filter(Boolean);
    const answers = [];
    // One after the other, lest each waits for the other's batch.
    for (const model of models) {
      const body = { query: asked.query, products: asked.products, model };
      answers.push(await request("predict", { body, signal: pending.signal }));
    }
    show(asked, answers);
    writeLink(asked.query, lines());
  } catch (error) {
    if (state.pending === pending) fail(error);
  } finally {
    if (state.pending === pending) {
      byId("rank").removeAttribute("aria-busy");
      columns.classList.remove("stale");
    }
  }
}

function show(asked, answers) {
  const rankings = answers.map(({ body }) => ranked(body.results));
  const two = answers.length > 1;
  byId("columns").classList.toggle("two", two);
  byId("columns").replaceChildren(
    ...answers.map((answer, place) =>
      column({ asked, answer, ranking: rankings[place], before: place ? { ranking: rankings[0], model: answers[0].body.model } : null, titled: state.info.models.length > 1 }),
    ),
  );
  byId("empty").hidden = true;
  showLegend(byId("legend"), modelInfo(answers[0].body.model));
  document.title = `${asked.query} \u2013 manylens`;
  state.shown = `\u201c${asked.query}\u201d`;
  say({ status: `${plural(asked.products.length, "product")} ranked for ${state.shown}` });
  // Where the form fills the screen, they would come unseen.
  if (byId("results").getBoundingClientRect().top > innerHeight / 2) byId("results").scrollIntoView();
}

const modelInfo = (name) => state.info.models.find((model) => model.name === name);

// The start.

async function loadInfo(signal) {
  const { body } = await request("info", { signal });
  state.info = body;
  const options = () => body.models.map(({ name }) => make("option", { value: name }, name));
  byId("model").replaceChildren(...options());
  byId("against").replaceChildren(byId("against").options[0], ...options());
  byId("models").hidden = body.models.length < 2;
  chooseModels();
  if (body.models.length === 1) {
    const [{ name, variant }] = body.models;
    byId("served").textContent = variant ? `${name}, ${variant}` : name;
  } else byId("served").textContent = plural(body.models.length, "model");
}

async function loadExamples() {
  const { body } = await request("page/examples.json");
  byId("examples").replaceChildren(
    ...body.map(({ query, products }) => {
      const take = () => {
        byId("query").value = query;
        byId("products").value = products.join("\n");
        count();
        rank();
      };
      return make("li", {}, make("button", { type: "button", class: "example", click: take }, query));
    }),
  );
}

/** Mark the product that is pointed at in both columns. */
function pointOut(event) {
  const index = event.target.closest(".product")?.dataset.index;
  for (const product of byId("columns").querySelectorAll(".product")) {
    product.classList.toggle("twin", product.dataset.index === index);
  }
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    byId("share").textContent = "Copied";
  } catch {
    say({ status: "The link is in the address bar." });
  }
}

async function start() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    rank();
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    rank();
  });
  byId("products").addEventListener("input", count);
  byId("share").addEventListener("click", copyLink);
  for (const kind of ["mouseover", "focusin"]) byId("columns").addEventListener(kind, pointOut);
  window.addEventListener("hashchange", () => readLink() && rank());
  byId("key").value = key.get();
  try {
    const [, loaded] = await Promise.allSettled([loadExamples(), loadInfo()]);
    if (loaded.status === "rejected") throw loaded.reason;
    if (readLink()) await rank();
  } catch (error) {
    readLink();
    fail(error);
  }
}

start();
