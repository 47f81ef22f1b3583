// Only comforts: without it every picture and every word is still there.
const cards = [...document.querySelectorAll(".card")].map((card) => ({
  card,
  text: [...card.querySelectorAll("[data-search]")].map((part) => part.textContent).join("\n").toLowerCase(),
}));
const box = document.querySelector("#search");
const count = document.querySelector("#count");
const nothing = document.querySelector("#nothing");
const total = cards.length.toLocaleString("en");

function search() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { card, text } of cards) {
    card.hidden = !words.every((word) => text.includes(word));
    shown += !card.hidden;
  }
  count.textContent = words.length ? `${shown.toLocaleString("en")} of ${total} shown` : "";
  nothing.hidden = shown > 0;
}

let timer; // a screen reader should hear the count once, not after every letter
box.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 150); });

const order = document.querySelector("#order");
function sort() {
  const [score, sign] = order.value.split(" "); // such as "cider 1"; nothing is the order of the file
  const sorted = [...cards];
  if (score) sorted.sort((one, other) => sign * (one.card.dataset[score] - other.card.dataset[score]));
  document.querySelector(".grid").append(...sorted.map(({ card }) => card)); // moved, not copied: Tab and screen readers follow
}
order.addEventListener("change", sort);

search(); // a reloaded page may come back with words in the box
sort();

const details = [...document.querySelectorAll("details")];
const opener = document.querySelector("#open");
opener.addEventListener("click", () => {
  const open = opener.getAttribute("aria-pressed") !== "true";
  opener.setAttribute("aria-pressed", open);
  for (const detail of details) detail.open = open;
});
document.querySelector(".tools").hidden = false;
