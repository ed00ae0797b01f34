// Loads the figures again every few seconds, as long as somebody looks.

const place = document.getElementById("figures");

async function refresh() {
  const reply = await fetch(location.href, { redirect: "error" });
  if (!reply.ok) return;
  const page = new DOMParser().parseFromString(await reply.text(), "text/html");
  const fresh = page.getElementById("figures");
  const busy = place.contains(document.activeElement);
  if (fresh && !busy) place.replaceChildren(...fresh.childNodes);
}

setInterval(() => {
  if (!document.hidden) refresh().catch(() => {});
}, 1000 * Number(place.dataset.every));
