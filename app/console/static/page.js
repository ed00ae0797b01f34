// What the pages share.

/** The token that every POST has to name. */
export function csrf() {
  return document.querySelector('meta[name="csrf"]').content;
}

/** A new element: its name, properties, children. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}
