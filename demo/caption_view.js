// A photo with its captions: words are buttons, see words.js, which comes before this file. Data: views.py.
export default function ({ data, parentElement }) {
  const old = parentElement.querySelector(".view");
  if (old.dataset.id === data.id) return; // Streamlit calls this again at every run of the page
  const root = old.cloneNode(false); // without the listeners of the old one
  root.dataset.id = data.id;
  document.documentElement.lang = data.language;
  const make = (tag, className, textContent = "") =>
    Object.assign(document.createElement(tag), { className, textContent });

  const frame = make("div", "frame"), image = make("img", "");
  image.alt = data.alt;
  image.src = data.image;
  image.setAttribute("width", data.width);
  image.setAttribute("height", data.height);
  frame.style.setProperty("--shape", data.width / data.height);
  frame.append(image);
  const band = make("div", "band");
  band.append(frame);
  root.append(band);

  const percent = (share) => `${share < 0.01 ? "< 1" : Math.round(100 * share)} %`;
  const place = make("span", "hidden"); // for screen readers
  const tell = (word, where) => {
    for (const told of root.querySelectorAll(".told")) told.textContent = told.dataset.hint;
    if (!word) return;
    const told = word.closest("section").querySelector(".told");
    const number = [...word.parentElement.children].indexOf(word);
    const { text, probability, others } = data.captions[told.dataset.number].words[number];
    const considered = others.map(([other, share]) => `${other || data.texts.end} ${percent(share)}`).join(", ");
    told.replaceChildren(make("b", "", text), ` ${percent(probability)}`);
    if (considered) told.append(` · ${data.texts.instead} ${considered}`);
    const [rows, columns] = [data.texts.places.slice(0, 3), data.texts.places.slice(3)];
    place.textContent = where === "spread" ? data.texts.spread : where ? `${rows[where[0]]}, ${columns[where[1]]}` : "";
    told.append(place);
  };
  const words = followWords(root, data.colours, () => frame, tell);

  data.captions.forEach(({ title, attention, rows, columns, words: choices, hint }, number) => {
    const section = make("section", "");
    if (title) section.append(make("p", "title", title));
    const heading = make("h2", "caption"), caption = make("span", "");
    heading.dir = "auto";
    Object.assign(caption.dataset, { attention, rows, columns });
    choices.forEach(({ text, gap, probability }, index) => {
      const word = make("span", "word", text);
      word.style.setProperty("--share", probability);
      caption.append(word, index < choices.length - 1 ? gap : "");
    });
    heading.append(choices.length ? caption : data.texts.empty);
    section.append(heading);
    if (choices.length) {
      const told = make("p", "told", hint), play = make("button", "play", `▶ ${data.texts.play}`);
      Object.assign(told.dataset, { hint, number });
      told.setAttribute("aria-live", "polite");
      play.type = "button";
      play.addEventListener("click", () => {
        if (play.dataset.playing) return words.stop();
        words.play(caption, () => {
          delete play.dataset.playing;
          play.textContent = `▶ ${data.texts.play}`;
        });
        play.dataset.playing = true;
        play.textContent = `■ ${data.texts.stop}`;
      });
      section.append(play, told);
    }
    root.append(section);
  });
  words.makeSelectable(root);
  root.addEventListener("click", ({ target }) => words.click(target));
  old.replaceWith(root);
  return () => words.stop();
}
