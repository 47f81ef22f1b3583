// Fills the cards that the page leaves empty when they come near the window. Their contents are in scripts, because a
// page that is opened from disk can load scripts and images, but no other files.
const files = JSON.parse(lists.dataset.files); // the first has the texts to search for, the others the cards of a list
const empty = cards.filter(({ card }) => !card.firstChild);
const loads = new Map(); // file -> promise of its content

function load(file) {
  if (!loads.has(file)) loads.set(file, new Promise((done, failed) => {
    const script = document.createElement("script");
    script.addEventListener("load", () => script.content ? done(script.content) : failed());
    script.addEventListener("error", failed);
    script.src = file;
    document.head.append(script);
  }));
  return loads.get(file);
}

const tellMissing = () => { document.querySelector("#missing").hidden = false; };

async function fill(number) {
  const contents = await load(files[1 + Math.floor(number / size)]);
  const { card } = empty[number];
  if (card.firstChild) return; // asked for twice
  card.innerHTML = contents[number % size];
  card.dispatchEvent(new Event("filled", { bubbles: true }));
}

const numbers = new Map(empty.map(({ card }, number) => [card, number]));
const observer = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    fill(numbers.get(target)).catch(tellMissing);
  }
}, { rootMargin: "100% 0px" }); // a window's height ahead, so that scrolling and the Tab key find the cards filled
for (const { card } of empty) observer.observe(card);
fillCard = async (card) => {
  if (numbers.has(card)) await fill(numbers.get(card)).catch(tellMissing);
};

let reading;
readTexts = () => reading ??= load(files[0]).then((texts) => {
  texts.forEach((text, number) => { empty[number].text = text.toLowerCase(); });
}, tellMissing);
