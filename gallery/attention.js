// Where the model looked as it said a word (heatmap.py has the colours). One canvas for the whole page; nothing is unpacked or drawn until a word is asked about.
const { cold, hot, opacity } = JSON.parse(document.querySelector("main").dataset.colours);
const canvas = document.createElement("canvas");
const grid = document.createElement("canvas");
const where = document.querySelector("#where");
const wordAt = (target) => target.closest?.("[data-attention] > *") ?? null;
let shown = null;

function look(word) {
  if (word === shown) return;
  shown?.classList.remove("shown");
  shown = word;
  canvas.remove();
  where.textContent = "";
  if (!word) return;
  word.classList.add("shown");
  const words = [...word.parentElement.children];
  const bytes = Uint8Array.from(atob(word.parentElement.dataset.attention), (letter) => letter.charCodeAt(0));
  const cells = bytes.length / words.length;
  const first = words.indexOf(word) * cells;
  const weights = [...bytes.subarray(first, first + cells)]; // 255 is this word's greatest
  draw(weights, word.closest(".card").querySelector(".frame"));
  where.textContent = `looked at: ${place(weights)}`;
}

function draw(weights, frame) {
  const side = Math.sqrt(weights.length);
  const pixels = weights.flatMap((weight) => [...cold.map((from, i) => from + (weight / 255) * (hot[i] - from)), 255 * opacity]);
  grid.width = grid.height = side;
  grid.getContext("2d").putImageData(new ImageData(Uint8ClampedArray.from(pixels), side), 0, 0);
  // As large as the picture, so that the same style gives both the same place; the grid covers the picture whole, squeezed to a square.
  for (const length of ["width", "height"]) canvas[length] = frame.querySelector("img").getAttribute(length);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(grid, 0, 0, canvas.width, canvas.height);
  frame.append(canvas);
}

function place(weights) { // for those who hear the page
  if (Math.min(...weights) > 127) return "all of the picture alike";
  const side = Math.sqrt(weights.length), peak = weights.indexOf(255);
  const third = (cell) => Math.floor((3 * (cell + 0.5)) / side);
  return ["top", "middle", "bottom"][third(Math.floor(peak / side))] + " " + ["left", "centre", "right"][third(peak % side)];
}

// A caption is one stop of the Tab key, and still one sentence for screen readers.
for (const said of document.querySelectorAll("[data-attention]")) {
  said.setAttribute("role", "group");
  said.setAttribute("aria-label", said.textContent);
  said.setAttribute("aria-describedby", "keys");
  for (const word of said.children) word.tabIndex = -1;
  said.firstElementChild.tabIndex = 0;
}
document.addEventListener("pointerover", ({ target, pointerType }) => {
  if (pointerType === "touch") return; // a finger taps, see click
  const word = wordAt(target);
  if (word || !target.closest("[data-attention]")) look(word ?? wordAt(document.activeElement)); // between two words nothing changes
});
document.addEventListener("focusin", ({ target }) => {
  const word = wordAt(target);
  look(word);
  for (const other of word?.parentElement.children ?? []) other.tabIndex = other === word ? 0 : -1;
});
document.addEventListener("focusout", ({ relatedTarget }) => relatedTarget || look(null));
document.querySelector("main").addEventListener("click", ({ target }) => { // on document, iOS would not report taps on plain text
  const word = wordAt(target);
  word?.focus();
  look(word);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") look(null);
  const word = wordAt(event.target), key = ["ArrowLeft", "ArrowRight"].indexOf(event.key);
  if (!word || key < 0 || event.altKey || event.ctrlKey || event.metaKey) return; // Alt and left is the browser's way back
  const sides = [word.previousElementSibling, word.nextElementSibling];
  if (getComputedStyle(word).direction === "rtl") sides.reverse();
  const next = sides[key] ?? word;
  next.focus();
  look(next);
  event.preventDefault(); // or a narrow window scrolls sideways
});
document.querySelector("#looks").hidden = false;
