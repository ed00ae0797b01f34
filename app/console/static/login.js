// Logs in with the token of a link that the gateway has logged (`make serve`). The token
// is in the fragment, which browsers do not send: no server or proxy logs it.

const token = decodeURIComponent(location.hash.slice(1));
if (token) {
  // Out of the address bar and the history, before anything else.
  history.replaceState(null, "", location.pathname);
  const field = document.getElementById("token");
  field.value = token;
  field.form.requestSubmit();
}
