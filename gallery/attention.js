// Shows the attention map of a word over its image. The weights and the colours come from heatmap.py.
// One canvas serves the whole page; a caption's weights are decoded only when one of its words is selected.
const { cold, hot, opacity } = JSON.parse(document.querySelector("main").dataset.colours);
const canvas = document.createElement("canvas");
const cells = document.createElement("canvas"); // one pixel per cell of the attention grid
const announcement = document.querySelector("#attention-status");
const wordAt = (target) => target.closest?.("[data-attention] > *") ?? null;
let shownWord = null;

function show(word) {
  if (word === shownWord) return;
  shownWord?.classList.remove("shown");
  shownWord = word;
  canvas.remove();
  announcement.textContent = "";
  if (!word) return;
  word.classList.add("shown");
  const caption = word.parentElement;
  const [rows, columns] = [Number(caption.dataset.rows), Number(caption.dataset.columns)];
  const bytes = Uint8Array.from(atob(caption.dataset.attention), (letter) => letter.charCodeAt(0));
  const first = [...caption.children].indexOf(word) * rows * columns;
  const weights = [...bytes.subarray(first, first + rows * columns)]; // row by row; 255 is the maximum
  draw(weights, rows, columns, word.closest(".card").querySelector(".frame"));
  announcement.textContent = `attention: ${describe(weights, rows, columns)}`;
}

function draw(weights, rows, columns, frame) {
  const colour = (weight) => cold.map((from, i) => from + (weight / 255) * (hot[i] - from));
  const pixels = weights.flatMap((weight) => [...colour(weight), 255 * opacity]);
  [cells.width, cells.height] = [columns, rows];
  cells.getContext("2d").putImageData(new ImageData(Uint8ClampedArray.from(pixels), columns), 0, 0);
  // The canvas has the size of the image, so the same style puts both in the same place; the grid covers all of it.
  for (const length of ["width", "height"]) canvas[length] = frame.querySelector("img").getAttribute(length);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(cells, 0, 0, canvas.width, canvas.height);
  frame.append(canvas);
}

function describe(weights, rows, columns) { // for screen readers
  if (Math.min(...weights) > 127) return "spread over the whole image";
  const peak = weights.indexOf(255);
  const third = (cell, count) => Math.floor((3 * (cell + 0.5)) / count);
  const vertical = ["top", "middle", "bottom"][third(Math.floor(peak / columns), rows)];
  return `${vertical} ${["left", "centre", "right"][third(peak % columns, columns)]}`;
}

// A caption is one stop of the Tab key, and one sentence for screen readers.
function makeSelectable(part) {
  for (const caption of part.querySelectorAll("[data-attention]")) {
    caption.setAttribute("role", "group");
    caption.setAttribute("aria-label", caption.textContent);
    caption.setAttribute("aria-describedby", "keys");
    for (const word of caption.children) word.tabIndex = -1;
    caption.firstElementChild.tabIndex = 0;
  }
}
makeSelectable(document);
document.addEventListener("filled", ({ target }) => makeSelectable(target)); // see loading.js
document.addEventListener("pointerover", ({ target, pointerType }) => {
  if (pointerType === "touch") return; // a touch is handled by click
  const word = wordAt(target);
  // Between two words the map stays.
  if (word || !target.closest("[data-attention]")) show(word ?? wordAt(document.activeElement));
});
document.addEventListener("focusin", ({ target }) => {
  const word = wordAt(target);
  show(word);
  for (const other of word?.parentElement.children ?? []) other.tabIndex = other === word ? 0 : -1;
});
document.addEventListener("focusout", ({ relatedTarget }) => relatedTarget || show(null));
// On document, iOS would not report taps on plain text.
document.querySelector("main").addEventListener("click", ({ target }) => {
  const word = wordAt(target);
  word?.focus();
  show(word);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") show(null);
  const word = wordAt(event.target), key = ["ArrowLeft", "ArrowRight"].indexOf(event.key);
  if (!word || key < 0 || event.altKey || event.ctrlKey || event.metaKey) return; // Alt + Left is the browser's Back
  const neighbours = [word.previousElementSibling, word.nextElementSibling];
  if (getComputedStyle(word).direction === "rtl") neighbours.reverse();
  const next = neighbours[key] ?? word;
  next.focus();
  show(next);
  event.preventDefault(); // otherwise a narrow window scrolls sideways
});
document.querySelector("#attention-help").hidden = false;
