// Search, sorting and the button for all details. Without scripts, every image of the page itself is still there.
const lists = document.querySelector("#lists");
const size = Number(lists.dataset.size); // cards in a list
const cards = [...document.querySelectorAll(".card")].map((card) => ({
  card,
  text: [...card.querySelectorAll("[data-search]")].map((part) => part.textContent).join("\n").toLowerCase(),
}));
const box = document.querySelector("#search");
const order = document.querySelector("#order");
const total = cards.length.toLocaleString("en");
let readTexts = async () => {}; // loading.js sets both: adds the texts of the cards that it fills,
let fillCard = async () => {}; // and fills one

async function arrange() {
  if (box.value.trim()) await readTexts();
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const found = cards.filter(({ text }) => words.every((word) => text.includes(word)));
  const [score, sign] = order.value.split(" "); // such as "cider 1"; empty for the original order
  if (score) found.sort((one, other) => sign * (one.card.dataset[score] - other.card.dataset[score]));
  // Moved in the document, not by style, so that Tab and screen readers follow the order shown.
  lists.replaceChildren();
  for (let first = 0; first < found.length; first += size) {
    const list = document.createElement("ul");
    list.className = "grid";
    list.append(...found.slice(first, first + size).map(({ card }) => card));
    lists.append(list);
  }
  document.querySelector("#count").textContent =
    words.length ? `${found.length.toLocaleString("en")} of ${total} shown` : "";
  document.querySelector("#no-match").hidden = found.length > 0;
}

let timer; // a screen reader should read the count once, not after every letter
box.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(arrange, 150); });
order.addEventListener("change", arrange);
document.addEventListener("DOMContentLoaded", arrange); // after a reload, the browser may restore box and order

const opener = document.querySelector("#open");
function openDetails(part) {
  const open = opener.getAttribute("aria-pressed") === "true";
  for (const details of part.querySelectorAll("details")) details.open = open;
}
opener.addEventListener("click", () => {
  opener.setAttribute("aria-pressed", opener.getAttribute("aria-pressed") !== "true");
  for (const { card } of cards) openDetails(card);
});
document.addEventListener("filled", ({ target }) => openDetails(target));
document.querySelector(".tools").hidden = cards.length === 1;
if (cards.length === 1) cards[0].card.querySelectorAll("details").forEach((details) => { details.open = true; });
