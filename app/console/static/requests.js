// Puts requests on top of the list as they end.

const MOST = 200;
const rows = document.getElementById("rows");
const live = document.getElementById("live");

function say(state, text) {
  live.className = `live ${state}`;
  live.lastElementChild.textContent = text;
}

function add(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  for (const row of template.content.querySelectorAll("tr")) row.classList.add("new");
  rows.prepend(template.content);
  while (rows.rows.length > MOST) rows.lastElementChild.remove();
  document.getElementById("none").hidden = true;
}

function follow() {
  const source = new EventSource(rows.dataset.live);
  source.onopen = () => say("on", "following");
  source.addEventListener("requests", (event) => add(JSON.parse(event.data)));
  source.addEventListener("trouble", (event) => say("off", event.data));
  source.onerror = () => {
    say("off", "not following; trying again");
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, 10000);
  };
  addEventListener("pagehide", () => source.close(), { once: true });
}

follow();
