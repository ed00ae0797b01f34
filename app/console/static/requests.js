// Adds requests to the top of the list as they end, from a stream of server-sent events.

// Rows that stay on the page; older ones are removed.
const MAX_ROWS = 200;
const rows = document.getElementById("rows");
const live = document.getElementById("live");

function setStatus(state, text) {
  live.className = `live ${state}`;
  live.lastElementChild.textContent = text;
}

function addRows(html) {
  // Rows are rendered by the server, which escapes what callers sent. A template parses
  // `<tr>` without a table around it; a `<div>` would drop the tags.
  const template = document.createElement("template");
  template.innerHTML = html;
  for (const row of template.content.querySelectorAll("tr")) row.classList.add("new");
  rows.prepend(template.content);
  while (rows.rows.length > MAX_ROWS) rows.lastElementChild.remove();
  document.getElementById("no-requests").hidden = true;
}

function follow() {
  const source = new EventSource(rows.dataset.live);
  source.onopen = () => setStatus("on", "following");
  source.addEventListener("requests", (event) => addRows(JSON.parse(event.data)));
  source.addEventListener("trouble", (event) => setStatus("off", event.data));
  source.onerror = () => {
    setStatus("off", "not following; trying again");
    // The browser reconnects by itself when a connection is cut, but not after an HTTP
    // error such as 503, which leaves the source closed.
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 10000);
  };
  // A page in the back/forward cache would keep its connection, and the server's slot.
  addEventListener("pagehide", () => source.close(), { once: true });
}

follow();
