// Attention maps in the gallery page, see words.js.
const announcement = document.querySelector("#attention-status");
const rows = ["top", "middle", "bottom"], columns = ["left", "centre", "right"];
const words = followWords(
  document,
  JSON.parse(document.querySelector("main").dataset.colours),
  (word) => word.closest(".card, dialog").querySelector(".frame"),
  (word, place) => {
    const cell = Array.isArray(place) && `${rows[place[0]]} ${columns[place[1]]}`;
    const where = place === "spread" ? "spread over the whole image" : cell;
    announcement.textContent = where ? `attention: ${where}` : ""; // for screen readers
  },
);
function makeSelectable(part) {
  words.makeSelectable(part);
  for (const caption of part.querySelectorAll("[data-attention]")) caption.setAttribute("aria-describedby", "keys");
}
makeSelectable(document);
document.addEventListener("filled", ({ target }) => makeSelectable(target)); // see loading.js
// On document, iOS would not report taps on plain text.
for (const part of document.querySelectorAll("main, dialog")) {
  part.addEventListener("click", ({ target }) => words.click(target));
}
document.querySelector("#attention-help").hidden = false;
