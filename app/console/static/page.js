// Helpers that several pages share.

/** The CSRF token of this session, which every POST has to carry. */
export function csrf() {
  return document.querySelector('meta[name="csrf"]').content;
}

/** A new element: its tag name, properties, children. */
export function element(name, properties = {}, ...children) {
  // Text goes in as `textContent` or as a text node, never as HTML: completions are
  // not to be trusted.
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}
