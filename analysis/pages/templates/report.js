"use strict";
const slider = document.getElementById("step");
function show() {
  const steps = JSON.parse(slider.dataset.steps), step = steps[slider.value];
  const words = "step " + step.toLocaleString("en");
  document.getElementById("shown-step").textContent = words;
  slider.setAttribute("aria-valuetext", words);
  for (const grid of document.querySelectorAll(".grid")) {
    let chosen = null;  // the latest that is not later; grids stand in order
    for (const image of grid.querySelectorAll("img")) {
      image.hidden = true;
      if (Number(image.dataset.step) <= step) chosen = image;
    }
    if (chosen) chosen.hidden = false;
    grid.querySelector(".enlarge").hidden = !chosen;
    grid.querySelector(".empty").hidden = Boolean(chosen);
    const own = chosen ? Number(chosen.dataset.step) : 0;
    grid.querySelector(".at.now").textContent = !chosen ? "" : own === step ? words
      : "step " + own.toLocaleString("en") + ", the latest before " + step.toLocaleString("en");
  }
}
if (slider) { slider.addEventListener("input", show); show(); }
const play = document.getElementById("play");
let next = 0;  // the timer of the film, 0 while it stands
function stop() {
  clearTimeout(next);
  next = 0;
  play.textContent = "▶ play";
}
function advance() {
  const last = Number(slider.max);
  slider.value = (Number(slider.value) + 1) % (last + 1);
  show();
  next = setTimeout(advance, Number(slider.value) === last ? 2500 : 350);
}
if (play) {
  slider.addEventListener("input", stop);
  play.addEventListener("click", () => {
    if (next) return stop();
    play.textContent = "■ stop";
    advance();
  });
}
const dialog = document.getElementById("enlarged"), large = new Image();
document.addEventListener("click", event => {
  const button = event.target.closest(".enlarge");
  if (!button) return;
  const image = [...button.querySelectorAll("img")].find(each => !each.hidden);
  large.src = image.src;
  large.alt = image.alt;
  large.className = button.closest(".grid") ? "" : "flat";
  dialog.querySelector("p").textContent = button.closest(".grid") ? image.alt : "";
  dialog.prepend(large);
  dialog.showModal();
});
dialog.addEventListener("click", () => dialog.close());
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(each => { each.open = true; }));
