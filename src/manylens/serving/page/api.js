// Requests to the server that the page came from, and what goes wrong with them in words.

const KEY = "manylens.key";

/** A request that failed: `status` is 0 where no answer came. */
class Failure extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => (value ? sessionStorage.setItem(KEY, value) : sessionStorage.removeItem(KEY)),
};

/** Return `{body, headers, milliseconds}` of an answer; a `body` to send makes it a POST. */
async function request(path, { body, signal } = {}) {
  const headers = {};
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const began = performance.now();
  let response, text;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      body: body === undefined ? undefined : JSON.stringify(body),
      headers,
      signal,
    });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure(
      navigator.onLine
        ? "The server does not answer. Is it running?"
        : "This device is offline. Connect it, and rank again.",
      0,
    );
  }
  const milliseconds = performance.now() - began;
  const value = parsed(text);
  if (!response.ok) throw new Failure(words(response, value), response.status);
  if (value === undefined) throw new Failure("The answer is no JSON. Is a proxy in between?", response.status);
  return { body: value, headers: response.headers, milliseconds };
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function words(response, value) {
  const said = typeof value?.error === "string" ? value.error : `status ${response.status}`;
  const wait = Number(response.headers.get("Retry-After"));
  switch (response.status) {
    case 401:
      return key.get() ? "The server does not take this API key." : "The server wants an API key.";
    case 404:
      return sentence(said);
    case 413:
      return `Too much for one request: ${said}.`;
    case 422:
      return `The server cannot read this: ${said}.`;
    case 429:
      return `The server is busy. Try again ${wait > 0 ? `in ${wait} second${wait === 1 ? "" : "s"}` : "soon"}.`;
    case 504:
      return `The server was too slow: ${said}.`;
    default:
      return `The server failed: ${said}.`;
  }
}

const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;

export { Failure, key, request };
