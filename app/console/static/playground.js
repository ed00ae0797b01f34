// Calls the endpoint like any client does, from the browser, and shows the response.

import { csrf, element } from "./page.js";
import { events } from "./sse.js";
import { Tokens, tokens } from "./tokens.js";

const byId = (id) => document.getElementById(id);
const form = byId("request-form");
const completion = new Tokens(byId("text"), byId("alternatives"));
// Of the request under way, for the button that stops it.
let controller = null;

// The request

function body() {
  const stops = byId("stop").value.split("\n").filter(Boolean);
  // An empty field leaves the parameter out, so that the default of the endpoint holds.
  const numbers = ["max_tokens", "temperature", "logprobs"]
    .filter((id) => byId(id).value !== "")
    .map((id) => [id, Number(byId(id).value)]);
  return {
    model: byId("model").value,
    prompt: byId("prompt").value,
    ...Object.fromEntries(numbers),
    ...(stops.length ? { stop: stops } : {}),
    ...(byId("stream").checked ? { stream: true } : {}),
    // Last: what is written as JSON overrides the fields.
    ...JSON.parse(byId("other-params").value || "{}"),
  };
}

function headers() {
  const fields = {};
  for (const line of byId("headers").value.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) fields[line.slice(0, colon).trim()] = line.slice(colon + 1).trim();
  }
  if (byId("config").value) fields["x-portkey-config"] = byId("config").value;
  if (byId("provider").value) fields["x-portkey-provider"] = byId("provider").value;
  return fields;
}

// The response

function showChoice(choice) {
  const choiceTokens = tokens(choice.logprobs);
  // Without logprobs, nothing says where a token ends.
  if (!choiceTokens.length) completion.container.append(choice.text);
  for (const token of choiceTokens) completion.add(token);
  if (choiceTokens.length) byId("token-hint").hidden = false;
}

function showError(error) {
  byId("problem").textContent = error.message ?? String(error);
  byId("problem").hidden = false;
}

/** Shows a whole completion or a chunk of one, and keeps in *result* what it ended with. */
function addChunk(chunk, result) {
  // After the head of a stream, an error can only come as an event.
  if (chunk.error) showError(chunk.error);
  // A last chunk with the usage has no choices.
  for (const choice of chunk.choices ?? []) {
    // Only the first: the chunks of several arrive in any order.
    if (choice.index === 0) showChoice(choice);
    if (choice.finish_reason) result.finish = choice.finish_reason;
  }
  if (chunk.usage) result.usage = chunk.usage;
}

const FACTS = {
  "x-portkey-provider": "Provider",
  "x-portkey-last-used-option-index": "Target",
  "x-lastword-via": "Via",
  "x-lastword-attempts": "Tries",
  "x-portkey-cache-status": "Cache",
  "x-lastword-dropped-params": "Dropped",
  "x-lastword-model-alias": "Alias",
  "x-lastword-warning": "Warning",
  "x-portkey-trace-id": "Trace id",
};

function showFacts(response) {
  const present = Object.entries(FACTS).filter(([name]) => response.headers.get(name));
  const rows = present.map(([name, title]) =>
    element(
      "div",
      {},
      element("dt", { textContent: title }),
      element("dd", { textContent: response.headers.get(name) }),
    ),
  );
  byId("facts").replaceChildren(...rows);
}

/** Shows the response as it arrives; calls *onEvent* with every event of it. */
async function read(response, result, onEvent) {
  const isStream = response.headers.get("content-type")?.startsWith("text/event-stream");
  if (!isStream) {
    addChunk(await response.json(), result);
    onEvent();
    return;
  }
  for await (const data of events(response.body)) {
    onEvent();
    if (data === "[DONE]") result.isWhole = true;
    else addChunk(JSON.parse(data), result);
  }
  // HTTP itself does not tell a cut stream from a whole one: only [DONE] does.
  if (!result.isWhole && byId("problem").hidden) showError("The stream was cut.");
}

function showStart() {
  completion.clear();
  byId("problem").hidden = byId("token-hint").hidden = true;
  byId("facts").replaceChildren();
  byId("status").textContent = "waiting";
  byId("send").disabled = true;
  byId("abort").disabled = false;
  controller = new AbortController();
}

function showEnd() {
  byId("send").disabled = false;
  byId("abort").disabled = true;
  byId("text").setAttribute("aria-busy", "false");
}

/** One line; *start* and *first* are times of `performance.now()`, in milliseconds. */
function summary(result, start, first) {
  const took = `${Math.round(performance.now() - start)} ms`;
  const { usage } = result;
  const counts = usage ? `${usage.prompt_tokens} + ${usage.completion_tokens} tokens` : "";
  const waited = first ? `first event ${Math.round(first - start)} ms` : "";
  return [result.finish, waited, took, counts].filter(Boolean).join(" · ");
}

async function send() {
  // Before anything is cleared, as it throws where the JSON is invalid.
  const request = body();
  const key = byId("key").value;
  showStart();
  const start = performance.now();
  const result = {};
  let first = 0;
  try {
    const response = await fetch(form.dataset.endpoint, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        ...(key ? { Authorization: `Bearer ${key}` } : {}),
        ...headers(),
      },
      body: JSON.stringify(request),
      signal: controller.signal,
      // Without the console's cookie: the endpoint sees what any other client sends.
      credentials: "omit",
    });
    showFacts(response);
    byId("status").textContent = "answering";
    await read(response, result, () => (first ||= performance.now()));
  } finally {
    byId("status").textContent = summary(result, start, first);
    showEnd();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send().catch((error) => {
    // The button that stops it is no failure.
    if (error.name !== "AbortError") showError(error);
  });
});
byId("abort").addEventListener("click", () => controller?.abort());

// The request as code. The server writes it (snippets.py); the key is not sent there, only
// whether there is one.

async function snippets() {
  const key = byId("key").value;
  const response = await fetch(form.dataset.snippets, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf() },
    body: JSON.stringify({ headers: headers(), body: body(), has_key: key !== "" }),
  });
  const result = await response.json();
  if (!response.ok) throw new Error(result.error.message);
  return result;
}

async function copy(name) {
  const text = (await snippets())[name];
  byId("snippet").textContent = text;
  byId("snippet").hidden = false;
  // Browsers allow it only with HTTPS or on localhost; the text is shown in any case.
  await navigator.clipboard.writeText(text).then(
    () => (byId("copied").textContent = "copied"),
    () => (byId("copied").textContent = "not copied: the browser does not allow it"),
  );
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copy(button.dataset.copy).catch(showError));
}
