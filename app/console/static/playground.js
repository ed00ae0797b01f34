// Asks the endpoint as any caller would, and shows what comes.

import { csrf, element } from "./page.js";
import { events } from "./sse.js";
import { Tokens, tokens } from "./tokens.js";

const at = (id) => document.getElementById(id);
const form = at("ask");
const shown = new Tokens(at("text"), at("alternatives"));
let abort = null;

// The request

function body() {
  const stops = at("stop").value.split("\n").filter(Boolean);
  const numbers = ["max_tokens", "temperature", "logprobs"]
    .filter((id) => at(id).value !== "")
    .map((id) => [id, Number(at(id).value)]);
  return {
    model: at("model").value,
    prompt: at("prompt").value,
    ...Object.fromEntries(numbers),
    ...(stops.length ? { stop: stops } : {}),
    ...(at("stream").checked ? { stream: true } : {}),
    ...JSON.parse(at("more").value || "{}"),
  };
}

function headers() {
  const told = {};
  for (const line of at("headers").value.split("\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) told[line.slice(0, colon).trim()] = line.slice(colon + 1).trim();
  }
  if (at("config").value) told["x-portkey-config"] = at("config").value;
  if (at("provider").value) told["x-portkey-provider"] = at("provider").value;
  return told;
}

// The answer

function plain(text) {
  shown.place.append(text);
}

function show(choice) {
  const found = tokens(choice.logprobs);
  if (!found.length) plain(choice.text);
  for (const token of found) shown.add(token);
  at("keys").hidden = !found.length && at("keys").hidden;
}

function complain(error) {
  at("problem").textContent = error.message ?? String(error);
  at("problem").hidden = false;
}

function take(frame, seen) {
  if (frame.error) complain(frame.error);
  for (const choice of frame.choices ?? []) {
    if (choice.index === 0) show(choice);
    if (choice.finish_reason) seen.finish = choice.finish_reason;
  }
  if (frame.usage) seen.usage = frame.usage;
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

function facts(reply) {
  const told = Object.entries(FACTS).filter(([name]) => reply.headers.get(name));
  const rows = told.map(([name, title]) =>
    element(
      "div",
      {},
      element("dt", { textContent: title }),
      element("dd", { textContent: reply.headers.get(name) }),
    ),
  );
  at("facts").replaceChildren(...rows);
}

async function read(reply, seen, first) {
  const streamed = reply.headers.get("content-type")?.startsWith("text/event-stream");
  if (!streamed) {
    take(await reply.json(), seen);
    first();
    return;
  }
  for await (const data of events(reply.body)) {
    first();
    if (data === "[DONE]") seen.whole = true;
    else take(JSON.parse(data), seen);
  }
  if (!seen.whole && at("problem").hidden) complain("The stream was cut.");
}

function started() {
  shown.clear();
  at("problem").hidden = at("keys").hidden = true;
  at("facts").replaceChildren();
  at("told").textContent = "waiting";
  at("send").disabled = true;
  at("stop-it").disabled = false;
  abort = new AbortController();
}

function ended() {
  at("send").disabled = false;
  at("stop-it").disabled = true;
  at("text").setAttribute("aria-busy", "false");
}

function summary(seen, began, first) {
  const took = `${Math.round(performance.now() - began)} ms`;
  const usage = seen.usage ? `${seen.usage.prompt_tokens} + ${seen.usage.completion_tokens} tokens` : "";
  const waited = first ? `first event ${Math.round(first - began)} ms` : "";
  return [seen.finish, waited, took, usage].filter(Boolean).join(" · ");
}

async function ask() {
  const sent = body();
  const key = at("key").value;
  started();
  const began = performance.now();
  const seen = {};
  let first = 0;
  try {
    const reply = await fetch(form.dataset.endpoint, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        ...(key ? { Authorization: `Bearer ${key}` } : {}),
        ...headers(),
      },
      body: JSON.stringify(sent),
      signal: abort.signal,
      credentials: "omit",
    });
    facts(reply);
    at("told").textContent = "answering";
    await read(reply, seen, () => (first ||= performance.now()));
  } finally {
    at("told").textContent = summary(seen, began, first);
    ended();
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  ask().catch((error) => {
    if (error.name !== "AbortError") complain(error);
  });
});
at("stop-it").addEventListener("click", () => abort?.abort());

// The same elsewhere

async function snippets() {
  const reply = await fetch(form.dataset.snippets, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf() },
    body: JSON.stringify({ headers: headers(), body: body(), has_key: at("key").value !== "" }),
  });
  const told = await reply.json();
  if (!reply.ok) throw new Error(told.error.message);
  return told;
}

async function copy(name) {
  const text = (await snippets())[name];
  at("snippet").textContent = text;
  at("snippet").hidden = false;
  await navigator.clipboard.writeText(text).then(
    () => (at("copied").textContent = "copied"),
    () => (at("copied").textContent = "not copied: the browser does not allow it"),
  );
}

for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copy(button.dataset.copy).catch(complain));
}
