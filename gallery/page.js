// Search, sorting and the button for all details. Without scripts, every image and caption is still there.
const cards = [...document.querySelectorAll(".card")].map((card) => ({
  card,
  text: [...card.querySelectorAll("[data-search]")].map((part) => part.textContent).join("\n").toLowerCase(),
}));
const box = document.querySelector("#search");
const count = document.querySelector("#count");
const noMatch = document.querySelector("#no-match");
const total = cards.length.toLocaleString("en");

function search() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  let matches = 0;
  for (const { card, text } of cards) {
    card.hidden = !words.every((word) => text.includes(word));
    matches += !card.hidden;
  }
  count.textContent = words.length ? `${matches.toLocaleString("en")} of ${total} shown` : "";
  noMatch.hidden = matches > 0;
}

let timer; // a screen reader should read the count once, not after every letter
box.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 150); });

const order = document.querySelector("#order");
function sort() {
  const [score, sign] = order.value.split(" "); // such as "cider 1"; empty for the original order
  const sorted = [...cards];
  if (score) sorted.sort((one, other) => sign * (one.card.dataset[score] - other.card.dataset[score]));
  // Moved in the document, not by style, so that Tab and screen readers follow the order shown.
  document.querySelector(".grid").append(...sorted.map(({ card }) => card));
}
order.addEventListener("change", sort);

search(); // after a reload, the browser may restore the search box
sort();

const details = [...document.querySelectorAll("details")];
const opener = document.querySelector("#open");
opener.addEventListener("click", () => {
  const open = opener.getAttribute("aria-pressed") !== "true";
  opener.setAttribute("aria-pressed", open);
  for (const detail of details) detail.open = open;
});
document.querySelector(".tools").hidden = cards.length === 1;
