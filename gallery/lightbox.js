// The lightbox: one image large, with its caption and details. Buttons, arrow keys and swipes lead to the next image,
// in the order of the page as it is searched and sorted. Without scripts, an image links to its captioned JPG.
const lightbox = document.querySelector("#lightbox");
const view = lightbox.querySelector(".frame");
const button = (id) => lightbox.querySelector(`#${id}`);
const narrowest = 224; // pixels: MIN_WIDTH of jpegs.py; a captioned JPG of this width may have white margins
const swipe = 50; // pixels that a finger must move
let current = null; // the card shown

const shownCards = () => [...lists.querySelectorAll(".card")];

async function showCard(card) {
  current = card;
  await fillCard(card);
  if (current !== card || !card.firstChild) return; // another one was asked for meanwhile, or its file is missing
  const link = card.querySelector(".frame"), small = link.querySelector("img").cloneNode();
  const [width, height] = ["width", "height"].map((length) => small.getAttribute(length));
  lightbox.style.setProperty("--shape", width / height);
  view.replaceChildren(small);
  // The captioned JPG is larger. Its upper part is the image; the caption below it is cut off.
  const large = new Image();
  large.className = "large";
  large.alt = "";
  large.addEventListener("load", () => {
    if (current === card && large.naturalWidth > narrowest) small.after(large);
  });
  large.src = link.href;
  button("file").href = link.href;
  const text = card.querySelector(".text").cloneNode(true);
  text.querySelector(".shown")?.classList.remove("shown");
  button("side").replaceChildren(text);
  text.dispatchEvent(new Event("filled", { bubbles: true })); // its words become selectable
  for (const details of text.querySelectorAll("details")) details.open = true;
  const all = shownCards(), place = all.indexOf(card);
  button("place").textContent = `${(place + 1).toLocaleString("en")} of ${all.length.toLocaleString("en")}`;
  button("previous").disabled = place === 0;
  button("next").disabled = place === all.length - 1;
  if (!lightbox.open) lightbox.showModal(); // which keeps the focus inside, and closes on Escape
}

function move(step) {
  const all = shownCards(), next = all[all.indexOf(current) + step];
  if (next) showCard(next);
}

lists.addEventListener("click", (event) => {
  const frame = event.target.closest(".frame");
  if (!frame || event.ctrlKey || event.metaKey || event.shiftKey) return; // those open the JPG in a tab or window
  event.preventDefault();
  showCard(frame.closest(".card"));
});
button("previous").addEventListener("click", () => move(-1));
button("next").addEventListener("click", () => move(1));
button("close").addEventListener("click", () => lightbox.close());
document.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  // Between the words of a caption the arrow keys belong to words.js, which is told first.
  if (lightbox.open && step && !event.defaultPrevented && !(event.altKey || event.ctrlKey || event.metaKey)) move(step);
});
lightbox.addEventListener("close", () => {
  const link = current.querySelector(".frame");
  current = null;
  view.replaceChildren();
  link.scrollIntoView({ block: "nearest" });
  link.focus();
});
let touch = null;
view.addEventListener("touchstart", ({ touches }) => { touch = touches.length === 1 ? touches[0] : null; });
view.addEventListener("touchend", ({ changedTouches: [end] }) => {
  const right = touch ? end.clientX - touch.clientX : 0, down = touch ? end.clientY - touch.clientY : 0;
  if (Math.abs(right) > Math.max(swipe, 2 * Math.abs(down))) move(right < 0 ? 1 : -1);
});
