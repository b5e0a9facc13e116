(() => {
  "use strict";
  const content = JSON.parse(document.getElementById("curves-content").textContent);
  const get = (id) => document.getElementById(id);
  const [view, metric, log, further, svg, tip, legend] =
    ["view", "metric", "log", "further", "chart", "tip", "legend"].map(get);
  const W = 1000, H = 520, LEFT = 58, RIGHT = 14, TOP = 12, BOTTOM = 46;
  const hidden = new Set();
  let points = [];

  for (const name of Object.keys(content.views)) view.add(new Option(name));
  for (const name of Object.keys(content.axis)) metric.add(new Option(name));
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`);

  const add = (name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== undefined) element.textContent = text;
    svg.append(element);
    return element;
  };

  function ticks(low, high) {
    const raw = (high - low) / 7, unit = 10 ** Math.floor(Math.log10(raw));
    const step = unit * [1, 2, 5, 10].find((factor) => factor * unit >= raw);
    const out = [];
    for (let i = Math.ceil(low / step); i * step <= high + 1e-9; i++) out.push(Number((i * step).toPrecision(6)));
    return out;
  }

  function draw() {
    const mean = view.selectedIndex === 0, key = metric.value;
    get("further-label").hidden = !mean;
    const usable = (series) => series[key] && series.bpp.length;
    const measured = content.views[view.value].filter(usable);
    const published = mean && further.checked ? content.further.filter(usable) : [];
    const all = [...published.map((each) => ({ ...each, thin: true })), ...measured];
    const seen = all.filter((each) => !hidden.has(each.name));
    const inside = seen.flatMap((each) => each.bpp.map((rate, i) => [rate, each[key][i]])).filter(([rate]) => rate <= content.most);
    const least = Math.min(0.2, ...inside.map(([rate]) => rate));
    const values = inside.map(([, value]) => value).sort((a, b) => a - b);
    const low = Math.floor(values[Math.floor(values.length * .02)] ?? 20), high = Math.ceil(values.at(-1) ?? 40);
    const [from, to] = log.checked ? [Math.log(.9 * least), Math.log(content.most)] : [0, content.most];
    const px = (rate) => LEFT + (W - LEFT - RIGHT) * ((log.checked ? Math.log(rate) : rate) - from) / (to - from);
    const py = (value) => H - BOTTOM - (H - TOP - BOTTOM) * (value - low) / (high - low);

    svg.replaceChildren();
    const clip = add("clipPath", { id: "inside" });
    clip.append(add("rect", { x: LEFT, y: TOP, width: W - LEFT - RIGHT, height: H - TOP - BOTTOM }));
    const rates = log.checked ? [.03, .05, .1, .2, .3, .5, 1, 2, 3].filter((rate) => Math.log(rate) > from && rate <= content.most)
      : ticks(0, content.most);
    for (const rate of rates) {
      add("line", { class: "grid", x1: px(rate), x2: px(rate), y1: TOP, y2: H - BOTTOM });
      add("text", { x: px(rate), y: H - BOTTOM + 18, "text-anchor": "middle" }, rate);
    }
    for (const value of ticks(low, high)) {
      add("line", { class: "grid", x1: LEFT, x2: W - RIGHT, y1: py(value), y2: py(value) });
      add("text", { x: LEFT - 8, y: py(value) + 4, "text-anchor": "end" }, value);
    }
    add("text", { x: (LEFT + W - RIGHT) / 2, y: H - 8, "text-anchor": "middle" }, "bits per pixel of the file");
    add("text", { x: -(TOP + H - BOTTOM) / 2, y: 15, "text-anchor": "middle", transform: "rotate(-90)" }, content.axis[key]);

    points = [];
    for (const each of seen) {
      const stroke = each.colour || "#999";
      const path = each.bpp.map((rate, i) => `${i ? "L" : "M"}${px(rate).toFixed(1)} ${py(each[key][i]).toFixed(1)}`).join("");
      add("path", { d: path, fill: "none", stroke, "stroke-width": each.thin ? 1 : 2.6, "clip-path": "url(#inside)" });
      each.bpp.forEach((rate, i) => {
        const x = px(rate), y = py(each[key][i]);
        if (x > W - RIGHT + 1 || y < TOP - 1 || y > H - BOTTOM + 1) return;
        add("circle", { cx: x, cy: y, r: each.thin ? 2 : 4, fill: stroke });
        points.push({ x, y, text: `${each.name}: ${rate.toFixed(3)} bpp, ${each[key][i].toFixed(2)} dB` });
      });
    }
    legend.replaceChildren(...[...measured, ...all.filter((each) => each.thin)].map((each) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = each.name;
      button.style.setProperty("--colour", each.colour || "#999");
      button.style.setProperty("--weight", each.thin ? "1px" : "3px");
      button.setAttribute("aria-pressed", !hidden.has(each.name));
      button.addEventListener("click", () => {
        if (!hidden.delete(each.name)) hidden.add(each.name);
        draw();
        [...legend.children].find((other) => other.textContent === each.name).focus();
      });
      return button;
    }));
  }

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), scale = W / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    const far = (point) => Math.hypot(point.x - x, point.y - y);
    const near = points.reduce((a, b) => (a && far(a) <= far(b) ? a : b), null);
    tip.hidden = !near || far(near) > 40;
    if (tip.hidden) return;
    tip.textContent = near.text;
    const right = near.x > W / 2;
    tip.style.left = right ? "auto" : `${near.x / scale + 12}px`;
    tip.style.right = right ? `${box.width - near.x / scale + 12}px` : "auto";
    tip.style.top = `${near.y / scale - 14}px`;
  });
  svg.addEventListener("pointerleave", () => { tip.hidden = true; });
  for (const control of [view, metric, log, further]) control.addEventListener("change", draw);
  draw();
})();
