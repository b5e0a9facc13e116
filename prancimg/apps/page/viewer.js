(() => {
  "use strict";
  const content = JSON.parse(document.getElementById("viewer-content").textContent);
  const part = (name) => document.getElementById("viewer-" + name);
  const stage = part("stage"), divider = part("divider"), ORIGINAL = "Original", MOST = 12;
  let scene, split = 50, zoom = 1, x = 0, y = 0; // x, y: the shift of the pictures in pixels of the screen

  const fill = (select, names) => select.replaceChildren(...names.map((name, i) => new Option(name, i)));
  fill(part("scene"), content.scenes.map((each) => each.name));
  fill(part("rate"), content.rates.map((rate) => `≈ ${Number(rate.toPrecision(2))} bpp`));
  for (const side of ["left", "right"])
    part(side).replaceChildren(...[...content.codecs, ORIGINAL].map((name) => new Option(name, name)));
  part("left").value = content.codecs[0];
  part("right").value = ["JPEG", ...content.codecs, ORIGINAL].find((name) =>
    name !== content.codecs[0] && [...content.codecs, ORIGINAL].includes(name));

  const nearest = (name, size) => {
    if (name === ORIGINAL) return scene.original;
    const distance = (each) => Math.abs(Math.log(each.size / size));
    return (scene.versions[name] || []).reduce((a, b) => (a && distance(a) <= distance(b) ? a : b), null);
  };

  function show() {
    scene = content.scenes[part("scene").value];
    const asked = content.rates[part("rate").value] * scene.width * scene.height / 8;
    const left = nearest(part("left").value, asked);
    const right = nearest(part("right").value, left && left !== scene.original ? left.size : asked);
    for (const [side, picture, other] of [["left", left, right], ["right", right, left]]) {
      const name = part(side).value, image = part(side + "-image"), label = document.createElement("b");
      label.textContent = name;
      let text = picture ? picture.caption : "cannot reach any of the rates";
      if (side === "right" && picture && other && picture !== scene.original && other !== scene.original) {
        const more = Math.round(100 * (picture.size / other.size - 1));
        text += more ? ` · file ${Math.abs(more)} % ${more > 0 ? "larger" : "smaller"} than the left one` : " · files of equal size";
      }
      part(side + "-caption").replaceChildren(label, text);
      image.src = picture ? picture.source : scene.original.source;
      image.alt = `${scene.name}, ${name}: ${text}`;
    }
    stage.style.aspectRatio = `${scene.width} / ${scene.height}`;
    stage.style.width = `min(100%, calc(82vh * ${scene.width / scene.height}))`;
    place();
  }

  function place() {
    const width = stage.clientWidth, height = stage.clientHeight;
    x = Math.min(0, Math.max(width * (1 - zoom), x));
    y = Math.min(0, Math.max(height * (1 - zoom), y));
    for (const side of ["left", "right"])
      part(side + "-image").style.transform = `translate(${x}px, ${y}px) scale(${zoom})`;
    stage.classList.toggle("zoomed", zoom > 1);
    stage.classList.toggle("pixels", zoom * width > 2 * scene.width);
    part("scale").textContent = zoom === 1 ? "fit" : `${Math.round(100 * zoom * width / scene.width)} %`;
    part("over").style.clipPath = `inset(0 0 0 ${split}%)`;
    divider.style.left = `${split}%`;
    divider.setAttribute("aria-valuenow", Math.round(split));
    divider.setAttribute("aria-valuetext", `${Math.round(split)} % of the left picture`);
  }

  function scaleTo(next, event) {
    const box = stage.getBoundingClientRect();
    const px = event ? event.clientX - box.left : box.width / 2, py = event ? event.clientY - box.top : box.height / 2;
    next = Math.min(MOST, Math.max(1, next));
    x = px - (px - x) * next / zoom;
    y = py - (py - y) * next / zoom;
    zoom = next;
    place();
  }

  function drag(target, move) {
    target.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.stopPropagation();
      target.setPointerCapture(event.pointerId);
      target.addEventListener("pointermove", move);
      const stop = () => target.removeEventListener("pointermove", move);
      for (const end of ["pointerup", "pointercancel"]) target.addEventListener(end, stop, { once: true });
    });
  }
  drag(divider, (event) => {
    const box = stage.getBoundingClientRect();
    split = Math.min(100, Math.max(0, 100 * (event.clientX - box.left) / box.width));
    place();
  });
  drag(stage, (event) => {
    x += event.movementX;
    y += event.movementY;
    place();
  });
  divider.addEventListener("keydown", (event) => {
    const step = event.shiftKey ? 10 : 2;
    const to = { ArrowLeft: split - step, ArrowRight: split + step, Home: 0, End: 100 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    split = Math.min(100, Math.max(0, to));
    place();
  });
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    scaleTo(zoom * 1.0015 ** -event.deltaY, event);
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => scaleTo(zoom > 1 ? 1 : 4, event));
  part("in").addEventListener("click", () => scaleTo(zoom * 1.5));
  part("out").addEventListener("click", () => scaleTo(zoom / 1.5));
  part("fit").addEventListener("click", () => scaleTo(1));
  for (const name of ["scene", "rate", "left", "right"]) part(name).addEventListener("change", show);
  new ResizeObserver(() => place()).observe(stage);
  part("difference").addEventListener("change", (event) =>
    stage.classList.toggle("difference", event.target.checked));
  part("scenes").hidden = content.scenes.length < 2;
  part("rates").hidden = content.rates.length < 2;
  part("rate").value = Math.min(1, content.rates.length - 1);
  show();
})();
