// Refreshes the numbers and plots every few seconds, while the page is visible.
//
// It loads the whole page again and takes one element out of it: the server has a single
// way to render it, and the page works without JavaScript.

const stats = document.getElementById("stats");

async function refresh() {
  // After the end of a session the server redirects to the login, which is no overview.
  const response = await fetch(location.href, { redirect: "error" });
  if (!response.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.getElementById("stats");
  // Replacing an element takes the keyboard focus away from whoever is using it.
  const hasFocus = stats.contains(document.activeElement);
  if (fresh && !hasFocus) stats.replaceChildren(...fresh.childNodes);
}

setInterval(() => {
  // A failure needs no message: the next refresh may succeed.
  if (!document.hidden) refresh().catch(() => {});
}, 1000 * Number(stats.dataset.every));
