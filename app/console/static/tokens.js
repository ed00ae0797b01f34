// An answer as tokens, each with what else could have stood in its place.

import { element } from "./page.js";

/** The tokens of a choice's logprobs: text, probability, alternatives, best first. */
export function tokens(logprobs) {
  const told = logprobs?.tokens ?? [];
  return told.map((text, i) => ({
    text,
    probability: probability(logprobs.token_logprobs?.[i]),
    others: Object.entries(logprobs.top_logprobs?.[i] ?? {})
      .map(([other, value]) => [other, probability(value)])
      .sort((a, b) => b[1] - a[1]),
  }));
}

function probability(logprob) {
  return typeof logprob === "number" ? Math.exp(logprob) : null;
}

/** One of ten shades, from unlikely to certain. */
export function shade(probability) {
  return probability === null ? "p-none" : `p${Math.min(9, Math.floor(10 * probability))}`;
}

export function visible(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
}

function percent(probability) {
  return probability === null ? "–" : `${(100 * probability).toFixed(1)} %`;
}

/** Shows tokens in *place*, one of which the keyboard can be at; and what each hides. */
export class Tokens {
  constructor(place, popover) {
    this.place = place;
    this.popover = popover;
    place.addEventListener("keydown", (event) => this.move(event));
    place.addEventListener("focusin", (event) => this.show(event.target));
    place.addEventListener("focusout", () => this.hide());
    place.addEventListener("pointerover", (event) => this.show(event.target));
    place.addEventListener("pointerleave", () => this.hide());
  }

  clear() {
    this.place.replaceChildren();
    this.hide();
  }

  add(token) {
    const first = !this.place.querySelector(".token");
    const made = element("span", {
      className: `token ${shade(token.probability)}`,
      textContent: token.text,
      tabIndex: first ? 0 : -1,
    });
    made.setAttribute("role", "button");
    made.setAttribute("aria-label", `${visible(token.text)}, ${percent(token.probability)}`);
    made.setAttribute("aria-describedby", this.popover.id);
    made.told = token;
    this.place.append(made);
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const all = [...this.place.querySelectorAll(".token")];
    const at = all.indexOf(document.activeElement);
    if (event.key === "Escape") this.hide();
    if (!step || at < 0 || !all[at + step]) return;
    event.preventDefault();
    all[at].tabIndex = -1;
    all[at + step].tabIndex = 0;
    all[at + step].focus();
  }

  show(target) {
    if (!target.told) return;
    const { text, probability: own, others } = target.told;
    const listed = others.length ? others : [[text, own]];
    const rows = listed.map(([other, value]) => {
      const meter = element("meter", { max: 1, value: value ?? 0 });
      meter.setAttribute("aria-hidden", "true");
      return element(
        "tr",
        { className: other === text ? "own" : "" },
        element("td", {}, element("code", { textContent: visible(other) })),
        element("td", {}, meter),
        element("td", { className: "n", textContent: percent(value) }),
      );
    });
    this.popover.replaceChildren(element("table", {}, element("tbody", {}, ...rows)));
    this.popover.hidden = false;
    this.put(target.getBoundingClientRect());
  }

  put(box) {
    const { offsetWidth: width, offsetHeight: height } = this.popover;
    const left = Math.max(8, Math.min(box.left, innerWidth - width - 8));
    const below = box.bottom + 6 + height < innerHeight;
    this.popover.style.left = `${left + scrollX}px`;
    this.popover.style.top = `${(below ? box.bottom + 6 : box.top - height - 6) + scrollY}px`;
  }

  hide() {
    this.popover.hidden = true;
  }
}
