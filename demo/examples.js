// Thumbnails of the example images: a click chooses one. Data: views.py.
export default function ({ data, parentElement, setStateValue }) {
  const strip = parentElement.querySelector(".strip");
  document.documentElement.lang = data.language;
  strip.setAttribute("aria-label", data.label);
  strip.replaceChildren(...data.images.map(({ name, source, alt }) => {
    const button = document.createElement("button"), image = document.createElement("img");
    button.type = "button";
    button.setAttribute("aria-pressed", name === data.chosen);
    [image.src, image.alt] = [source, alt];
    button.append(image);
    button.addEventListener("click", () => setStateValue("chosen", name));
    return button;
  }));
}
