// Elements, numbers and names; text becomes text nodes only, never markup.

const byId = (id) => document.getElementById(id);

/** Return a new element; `attributes` that are functions are listeners, and null ones are left out. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Return text for screen readers alone. */
const unseen = (text) => make("span", { class: "unseen" }, text);

const percent = (share) => `${Math.round(100 * share)}\u2009%`;

const decimals = (value, places = 3) => value.toFixed(places).replace("-", "\u2212");

const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

/** Return `user_intent` as `User intent`. */
const titled = (name) => {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
};

export { byId, decimals, make, percent, plural, titled, unseen };
