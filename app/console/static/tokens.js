// Shows a completion token by token, each with its alternatives and probabilities.

import { element } from "./page.js";

/** The tokens of a choice's logprobs: text, probability, alternatives, best first. */
export function tokens(logprobs) {
  const texts = logprobs?.tokens ?? [];
  return texts.map((text, i) => ({
    text,
    probability: probability(logprobs.token_logprobs?.[i]),
    // OpenAI's legacy format: an object from token to logprob, for each token.
    alternatives: Object.entries(logprobs.top_logprobs?.[i] ?? {})
      .map(([other, value]) => [other, probability(value)])
      .sort((a, b) => b[1] - a[1]),
  }));
}

// Logprobs are natural logarithms. The first token of an echoed prompt has none.
function probability(logprob) {
  return typeof logprob === "number" ? Math.exp(logprob) : null;
}

/** The CSS class of one of ten shades, from unlikely to certain. */
export function shade(probability) {
  return probability === null ? "p-none" : `p${Math.min(9, Math.floor(10 * probability))}`;
}

/** *text* with blanks that can be seen. A token may be empty, or part of a character. */
export function visible(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "⏎").replaceAll("\t", "⇥") || "∅";
}

function percent(probability) {
  return probability === null ? "–" : `${(100 * probability).toFixed(1)} %`;
}

/**
 * Shows tokens in *container*, and the alternatives of one of them in *popover*.
 *
 * Tab reaches only one token, and the arrow keys move among them ("roving tabindex"): a
 * long completion would else take hundreds of steps to pass.
 * Source: https://www.w3.org/WAI/ARIA/apg/practices/keyboard-interface/
 */
export class Tokens {
  constructor(container, popover) {
    this.container = container;
    this.popover = popover;
    // Listeners on the container alone: tokens come and go. focusin and pointerover
    // bubble, unlike focus and pointerenter.
    container.addEventListener("keydown", (event) => this.move(event));
    container.addEventListener("focusin", (event) => this.show(event.target));
    container.addEventListener("focusout", () => this.hide());
    container.addEventListener("pointerover", (event) => this.show(event.target));
    container.addEventListener("pointerleave", () => this.hide());
  }

  clear() {
    this.container.replaceChildren();
    this.hide();
  }

  add(token) {
    const isFirst = !this.container.querySelector(".token");
    const node = element("span", {
      className: `token ${shade(token.probability)}`,
      textContent: token.text,
      tabIndex: isFirst ? 0 : -1,
    });
    node.setAttribute("role", "button");
    node.setAttribute("aria-label", `${visible(token.text)}, ${percent(token.probability)}`);
    node.setAttribute("aria-describedby", this.popover.id);
    // The token's own data, for `show`.
    node.token = token;
    this.container.append(node);
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const all = [...this.container.querySelectorAll(".token")];
    const current = all.indexOf(document.activeElement);
    if (event.key === "Escape") this.hide();
    const next = all[current + step];
    if (!step || current < 0 || !next) return;
    // Otherwise the arrow keys scroll, too.
    event.preventDefault();
    all[current].tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  show(target) {
    // The pointer may be over the container between two tokens.
    if (!target.token) return;
    const { text, probability: own, alternatives } = target.token;
    const listed = alternatives.length ? alternatives : [[text, own]];
    const rows = listed.map(([other, value]) => {
      // The number is read aloud anyway.
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
    this.position(target.getBoundingClientRect());
  }

  /** Puts the popover below *box*, or above it where there is no room, 8 px from edges. */
  position(box) {
    // It has a size only while it is shown.
    const { offsetWidth: width, offsetHeight: height } = this.popover;
    const left = Math.max(8, Math.min(box.left, innerWidth - width - 8));
    const fitsBelow = box.bottom + 6 + height < innerHeight;
    this.popover.style.left = `${left + scrollX}px`;
    this.popover.style.top = `${(fitsBelow ? box.bottom + 6 : box.top - height - 6) + scrollY}px`;
  }

  hide() {
    this.popover.hidden = true;
  }
}
