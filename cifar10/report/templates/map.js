"use strict";
{
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const [canvas, tip, said, choice, legend] = ["map-canvas", "map-tip", "map-said", "map-class", "map-legend"].map((id) =>
    document.getElementById(id));
  const count = data.x.length, many = data.classes.length > data.colours.length * data.markers.length;
  let shown = -1, scale = 1, width = 0, height = 0;

  const colour = (label) => many ? data.colours[0] : data.colours[label % data.colours.length];
  const marker = (label) => many ? 0 : Math.floor(label / data.colours.length);
  const wanted = (i) => choice.value === "all" || (choice.value === "errors" ? data.suggested[i] >= 0
    : data.labels[i] === Number(choice.value));
  const left = (i) => 12 + data.x[i] / 1000 * (width - 24);
  const top = (i) => 12 + data.y[i] / 1000 * (height - 24);

  function mark(paint, x, y, r, kind) {
    paint.beginPath();
    if (kind === 0) paint.arc(x, y, r, 0, 7);
    else if (kind === 1) paint.rect(x - r * .9, y - r * .9, r * 1.8, r * 1.8);
    else for (const [dx, dy] of kind === 2 ? [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]] : [[0, -1.2], [1.2, 1], [-1.2, 1]])
      paint.lineTo(x + r * dx, y + r * dy);
    paint.closePath();
    paint.fill();
  }

  function draw() {
    const style = getComputedStyle(document.documentElement), paint = canvas.getContext("2d");
    scale = window.devicePixelRatio || 1;
    width = canvas.clientWidth;
    height = Math.min(560, Math.max(320, width * .75));
    canvas.style.height = `${height}px`;
    [canvas.width, canvas.height] = [width * scale, height * scale];
    paint.scale(scale, scale);
    const r = Math.max(1.8, Math.min(4, width / Math.sqrt(count) / 5)), all = choice.value === "all";
    for (const front of [false, true])
      for (let i = 0; i < count; i++) {
        if (wanted(i) !== front) continue;
        const grey = !front || (many && all);
        paint.globalAlpha = front ? .85 : .25;
        paint.fillStyle = grey ? style.getPropertyValue("--muted") : colour(data.labels[i]);
        mark(paint, left(i), top(i), front && !all ? r * 1.3 : r, marker(data.labels[i]));
      }
    paint.globalAlpha = 1;
    if (shown >= 0) {
      paint.strokeStyle = style.getPropertyValue("--ink");
      paint.lineWidth = 2;
      paint.beginPath();
      paint.arc(left(shown), top(shown), r + 4, 0, 7);
      paint.stroke();
    }
  }

  function show(i) {
    shown = i;
    draw();
    tip.hidden = i < 0;
    if (i >= 0) {
      const side = 96, tile = document.createElement("i"), name = data.classes[data.labels[i]];
      tile.style.backgroundImage = `url(${data.sheet})`;
      tile.style.backgroundSize = `${data.columns * side}px auto`;
      tile.style.backgroundPosition = `${-(i % data.columns) * side}px ${-Math.floor(i / data.columns) * side}px`;
      const lines = [name, `${data.splits[i]}: ${data.files[i]}`];
      if (data.suggested[i] >= 0) lines.push(`more likely ${data.classes[data.suggested[i]]}`);
      tip.replaceChildren(tile, ...lines.map((line) => Object.assign(document.createElement("div"), {textContent: line})));
      said.textContent = lines.join(", ");
      const beside = left(i) + 16 + tip.offsetWidth > width ? left(i) - 16 - tip.offsetWidth : left(i) + 16;
      tip.style.left = `${Math.max(0, Math.min(beside, width - tip.offsetWidth))}px`;
      tip.style.top = `${Math.max(0, Math.min(top(i) - 40, height - tip.offsetHeight))}px`;
    }
  }

  function nearest(distance) {
    let best = -1, least = Infinity;
    for (let i = 0; i < count; i++) {
      const far = wanted(i) ? distance(i) : Infinity;
      if (far < least) [best, least] = [i, far];
    }
    return best;
  }

  function point(event) {
    const box = canvas.getBoundingClientRect(), reach = event.pointerType === "mouse" ? 14 : 28;
    const far = (i) => Math.hypot(left(i) - event.clientX + box.left, top(i) - event.clientY + box.top);
    const found = nearest((i) => far(i) < reach ? far(i) : Infinity);
    if (found !== shown) show(found);
  }

  canvas.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") point(event); });
  canvas.addEventListener("click", point);
  canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") show(-1); });
  canvas.addEventListener("focus", () => {
    if (canvas.matches(":focus-visible") && shown < 0) show(nearest((i) => Math.hypot(data.x[i] - 500, data.y[i] - 500)));
  });
  canvas.addEventListener("blur", () => show(-1));
  canvas.addEventListener("keydown", (event) => {
    const step = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (event.key === "Escape") show(-1);
    if (!step || shown < 0) return;
    event.preventDefault();
    const next = nearest((i) => {
      const [x, y] = [left(i) - left(shown), top(i) - top(shown)];
      const [along, aside] = step[0] ? [x * step[0], Math.abs(y)] : [y * step[1], Math.abs(x)];
      return along > .5 ? along + 2 * aside : Infinity;
    });
    if (next >= 0) show(next);
  });

  const options = [["all", "all classes"], ...data.classes.map((name, label) => [label, name])];
  if (data.suggested.some((label) => label >= 0)) options.splice(1, 0, ["errors", "likely label errors"]);
  choice.append(...options.map(([value, text]) => new Option(text, value)));
  choice.addEventListener("change", () => { show(-1); });
  if (!many)
    legend.append(...data.classes.map((name, label) => {
      const item = document.createElement("li"), button = document.createElement("button");
      const sign = Object.assign(document.createElement("span"), {textContent: `${data.markers[marker(label)]} `});
      sign.style.color = colour(label);
      sign.ariaHidden = "true";
      button.append(sign, name);
      button.addEventListener("click", () => { choice.value = label; show(-1); });
      item.append(button);
      return item;
    }));

  function followLink() {
    const place = Number((location.hash.match(/^#map-(\d+)$/) || [])[1] ?? -1);
    if (place < 0 || place >= count) return;
    choice.value = "all";
    canvas.scrollIntoView({block: "center"});
    show(place);
  }
  new ResizeObserver(() => show(shown)).observe(canvas.parentElement);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("hashchange", followLink);
  draw();
  followLink();
}
