// Pictures: photographs with predicted and annotated people drawn on top, in galleries and enlarged.
// #drawing holds {pictures, before, limbs, joints, classes}; see pipeline/report/pictures.py.

const drawing = JSON.parse((document.getElementById("drawing") || { textContent: "null" }).textContent);

function element(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function drawPerson(group, person, kind, side, label, number) {
  const [x1, y1, x2, y2] = person.box;
  group.append(element("rect", { x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1), class: kind }));
  for (const [a, b] of drawing.limbs) {
    const p = person.joints[a], q = person.joints[b];
    if (p && q) group.append(element("line", { x1: p[0], y1: p[1], x2: q[0], y2: q[1], class: kind }));
  }
  // Joints that lie densely, as on faces and hands, are small.
  const radius = Math.max(0.6, Math.min(side / 110, Math.max(x2 - x1, y2 - y1) / (person.joints.length > 40 ? 140 : 40)));
  for (const joint of person.joints) {
    if (joint && joint.length > 2) {
      group.append(element("circle", { cx: joint[0], cy: joint[1], r: radius, class: `joint ${drawing.classes[joint[2]]}` }));
    }
  }
  const words = [number ? `#${number}` : "", label].filter(Boolean).join(" ");
  if (words) {
    const text = element("text", { x: Math.max(2, x1 + 3), y: Math.max(side / 34, y1 - 4), "font-size": side / (number ? 52 : 36) });
    text.textContent = words;
    group.append(text);
  }
}

const CLASSES = { "false positive": "invented" };

function makeFrame(id, people, numbered) {
  const picture = drawing.pictures[id];
  const shown = people || picture;
  const frame = document.createElement("button");
  frame.type = "button";
  frame.className = "frame";
  frame.style.aspectRatio = `${picture.width} / ${picture.height}`;
  frame.style.setProperty("--ratio", picture.width / picture.height);
  const image = document.createElement("img");
  image.src = picture.src;
  image.alt = id;
  const svg = element("svg", { viewBox: `0 0 ${picture.width} ${picture.height}`, "aria-hidden": "true" });
  const truth = element("g", { class: "truth" }), prediction = element("g", { class: "prediction" });
  const side = Math.max(picture.width, picture.height);
  for (const person of shown.truth) drawPerson(truth, person, person.kind, side, person.kind === "missed" ? "missed" : "");
  shown.people.forEach((person, i) => {
    const kind = CLASSES[person.kind] || (person.kind === "unknown" ? "found" : person.kind);
    const label = person.kind === "false positive" ? String(person.score) : "";
    drawPerson(prediction, person, kind, side, label, numbered ? i + 1 : 0);
  });
  svg.append(truth, prediction);
  frame.append(image, svg);
  return frame;
}

function caption(text) {
  const made = document.createElement("figcaption");
  made.textContent = text;
  return made;
}

function makeFigure(id, text) {
  const figure = document.createElement("figure");
  const frame = makeFrame(id);
  frame.addEventListener("click", () => enlarge(id, text));
  figure.append(frame, caption(text ? `${id}: ${text}` : id));
  return figure;
}

function pairOf(id, numbered) {
  const pair = document.createElement("div");
  pair.className = "pair";
  for (const [name, people] of [["before", drawing.before[id]], ["now", null]]) {
    const figure = document.createElement("figure");
    figure.append(makeFrame(id, people, numbered), caption(name));
    pair.append(figure);
  }
  return pair;
}

function describePeople(id) {
  const list = document.createElement("ol");
  list.className = "people";
  for (const person of drawing.pictures[id].people) {
    const item = document.createElement("li");
    const wrong = {};
    person.joints.forEach((joint, j) => {
      const name = joint && drawing.classes[joint[2]];
      if (name && name !== "good" && name !== "unlabelled") (wrong[name] = wrong[name] || []).push(drawing.joints[j]);
    });
    const errors = Object.entries(wrong).map(([name, joints]) => `${name}: ${joints.join(", ").replaceAll("_", " ")}`);
    const kind = person.kind === "unknown" ? "person" : person.kind === "ignored" ? "not judged" : person.kind;
    item.textContent = [`${kind}, box score ${person.score}`, ...errors].join("; ");
    list.append(item);
  }
  const missed = drawing.pictures[id].truth.filter((person) => person.kind === "missed").length;
  if (missed) {
    const item = document.createElement("p");
    item.textContent = `missed: ${missed}`;
    list.append(item);
  }
  return list;
}

function enlarge(id, text, compared) {
  const dialog = document.getElementById("enlarged");
  const place = dialog.querySelector("div");
  let shown;
  if (compared) {
    shown = pairOf(id, true);
  } else {
    shown = makeFrame(id, null, true);
    shown.classList.add("single");
  }
  place.replaceChildren(shown, caption(text ? `${id}: ${text}` : id), describePeople(id));
  dialog.showModal();
}

if (drawing) {
  for (const gallery of document.querySelectorAll("[data-items]")) {
    gallery.append(...JSON.parse(gallery.dataset.items).map((item) => makeFigure(item.id, item.caption)));
  }
  for (const gallery of document.querySelectorAll("[data-pairs]")) {
    for (const id of JSON.parse(gallery.dataset.pairs)) {
      const pair = pairOf(id);
      pair.firstChild.querySelector("figcaption").textContent = `${id}: before`;
      for (const frame of pair.querySelectorAll(".frame")) frame.addEventListener("click", () => enlarge(id, "", true));
      gallery.append(pair);
    }
  }
  for (const what of ["prediction", "truth"]) {
    const box = document.getElementById(`show-${what}`);
    if (box) box.addEventListener("change", () => document.body.classList.toggle(`hide-${what}`, !box.checked));
  }
}
