// Captions whose words are buttons: the selected one shows its attention map over the image. The gallery page and the
// demo use it; weights and colours come from heatmap.py. In the document, a caption is an element with data-attention
// (base64: one byte per weight; empty if there are no maps), data-rows and data-columns, whose children are the words.
//
// root: the document, or an element that has the captions and their images.
// frameOf(word): the element that the map of a word fills, with an <img> that has the size of the image.
// tell(word, place): called with the selected word, or null, and where it attends: [row, column] from 0 to 2, or
// "spread"; undefined without a map.
function followWords(root, { cold, hot, opacity }, frameOf, tell) {
  // One canvas for all captions; a caption's weights are decoded only when one of its words is selected.
  const canvas = document.createElement("canvas");
  const cells = document.createElement("canvas"); // one pixel per cell of the attention grid
  const wordAt = (target) => target?.closest?.("[data-attention] > *") ?? null;
  const focusedWord = () => wordAt(root.getRootNode().activeElement);
  const stepMilliseconds = 900; // of a play-through: long enough to look at each map
  let shownWord = null, timer = null;

  function show(word) {
    if (word === shownWord) return;
    shownWord?.classList.remove("shown");
    shownWord = word;
    canvas.remove();
    word?.classList.add("shown");
    tell(word, word?.parentElement.dataset.attention ? drawMap(word) : undefined);
  }

  function drawMap(word) {
    const caption = word.parentElement;
    const [rows, columns] = [Number(caption.dataset.rows), Number(caption.dataset.columns)];
    const bytes = Uint8Array.from(atob(caption.dataset.attention), (letter) => letter.charCodeAt(0));
    const first = [...caption.children].indexOf(word) * rows * columns;
    const weights = [...bytes.subarray(first, first + rows * columns)]; // row by row; 255 is the maximum
    const colour = (weight) => cold.map((from, i) => from + (weight / 255) * (hot[i] - from));
    const pixels = weights.flatMap((weight) => [...colour(weight), 255 * opacity]);
    [cells.width, cells.height] = [columns, rows];
    cells.getContext("2d").putImageData(new ImageData(Uint8ClampedArray.from(pixels), columns), 0, 0);
    // The canvas has the size of the image, so the same style puts both in the same place; the grid covers all of it.
    const frame = frameOf(word);
    for (const length of ["width", "height"]) canvas[length] = frame.querySelector("img").getAttribute(length);
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(cells, 0, 0, canvas.width, canvas.height);
    frame.append(canvas);
    if (Math.min(...weights) > 127) return "spread";
    const peak = weights.indexOf(255);
    const third = (cell, count) => Math.floor((3 * (cell + 0.5)) / count);
    return [third(Math.floor(peak / columns), rows), third(peak % columns, columns)];
  }

  // A caption is one stop of the Tab key, and one sentence for screen readers.
  function makeSelectable(part) {
    for (const caption of part.querySelectorAll("[data-attention]")) {
      caption.setAttribute("role", "group");
      caption.setAttribute("aria-label", caption.textContent);
      for (const word of caption.children) word.tabIndex = -1;
      if (caption.firstElementChild) caption.firstElementChild.tabIndex = 0;
    }
  }

  // Shows the words one after the other, or stops; ended() is called when either is done.
  function play(caption, ended) {
    stop();
    const words = [...caption.children];
    const next = () => {
      if (!words.length) return stop();
      show(words.shift());
      timer = { ended, id: setTimeout(next, stepMilliseconds) };
    };
    next();
  }

  function stop() {
    if (!timer) return;
    clearTimeout(timer.id);
    const { ended } = timer;
    timer = null;
    ended();
  }

  const choose = (word) => { stop(); show(word); };
  root.addEventListener("pointerover", ({ target, pointerType }) => {
    if (pointerType === "touch" || timer) return; // a touch is handled by click
    const word = wordAt(target);
    // Between two words the map stays.
    if (word || !target.closest("[data-attention]")) show(word ?? focusedWord());
  });
  root.addEventListener("focusin", ({ target }) => {
    const word = wordAt(target);
    if (word || !timer) choose(word);
    for (const other of word?.parentElement.children ?? []) other.tabIndex = other === word ? 0 : -1;
  });
  root.addEventListener("focusout", ({ relatedTarget }) => relatedTarget || timer || show(null));
  root.addEventListener("keydown", (event) => {
    if (event.key === "Escape") choose(null);
    const word = wordAt(event.target), key = ["ArrowLeft", "ArrowRight"].indexOf(event.key);
    if (!word || key < 0 || event.altKey || event.ctrlKey || event.metaKey) return; // Alt + Left: the browser's Back
    const neighbours = [word.previousElementSibling, word.nextElementSibling];
    if (getComputedStyle(word).direction === "rtl") neighbours.reverse();
    const next = neighbours[key] ?? word;
    next.focus();
    choose(next);
    event.preventDefault(); // otherwise a narrow window scrolls sideways
  });

  // Called when something was clicked or tapped.
  function click(target) {
    const word = wordAt(target);
    if (!word && timer) return;
    word?.focus();
    choose(word);
  }
  return { makeSelectable, click, play, stop };
}
