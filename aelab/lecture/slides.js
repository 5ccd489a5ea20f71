// One topic a screen: left and right change the topic, up and down what is shown of it.

const slides = [...document.querySelectorAll(".slide")];
const items = new Map(slides.map((slide) => [slide, [...slide.querySelectorAll(".item")]]));
const at = new Map(slides.map((slide) => [slide, 0]));
let current = Math.max(0, slides.findIndex((slide) => `#${slide.id}` === location.hash));

function show() {
  const slide = slides[current], shown = items.get(slide);
  slides.forEach((each) => each.classList.toggle("shown", each === slide));
  shown.forEach((item, k) => item.classList.toggle("shown", k === at.get(slide)));
  const part = shown.length > 1 ? ` · ${at.get(slide) + 1} of ${shown.length}` : "";
  document.querySelector(".place").textContent = `${current + 1} / ${slides.length}${part}`;
  history.replaceState(null, "", `#${slide.id}`);
  scrollTo(0, 0);
}
function turn(topics, parts) {
  current = Math.min(slides.length - 1, Math.max(0, current + topics));
  const slide = slides[current];
  at.set(slide, Math.min(items.get(slide).length - 1, Math.max(0, at.get(slide) + parts)));
  show();
}

const KEYS = {
  ArrowRight: [1, 0], PageDown: [1, 0], " ": [1, 0], ArrowLeft: [-1, 0], PageUp: [-1, 0],
  ArrowDown: [0, 1], ArrowUp: [0, -1], Home: [-slides.length, 0], End: [slides.length, 0],
};
addEventListener("keydown", (event) => {
  const own = event.target.closest("input, select, summary, dialog") || (event.key === " " && event.target.closest("button, a"));
  if (own || event.ctrlKey || event.altKey || event.metaKey || !KEYS[event.key]) return;
  event.preventDefault();
  turn(...KEYS[event.key]);
});
for (const [name, step] of Object.entries({ previous: [-1, 0], next: [1, 0], above: [0, -1], below: [0, 1] }))
  document.querySelector(`.${name}`).addEventListener("click", () => turn(...step));
addEventListener("hashchange", () => {
  const found = slides.findIndex((slide) => `#${slide.id}` === location.hash);
  if (found >= 0) current = found;
  show();
});
show();
