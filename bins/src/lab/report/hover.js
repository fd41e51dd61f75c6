// Shows the numbers of the slice that is pointed at, and a line through all charts.
(() => {
  const words = JSON.parse(document.getElementById("slices").textContent);
  const charts = document.querySelector(".charts");
  if (!charts) return;
  const box = document.querySelector(".hover");
  const still = box.innerHTML;
  const areas = [...charts.querySelectorAll(".area")];
  const lines = areas.map((area) => {
    const line = document.createElement("i");
    line.className = "pointed";
    area.append(line);
    return line;
  });
  const leave = () => {
    charts.classList.remove("on");
    box.innerHTML = still;
  };
  charts.addEventListener("pointermove", (event) => {
    const area = areas[0].getBoundingClientRect();
    const part = (event.clientX - area.left) / area.width;
    if (part < 0 || part >= 1) return leave();
    charts.classList.add("on");
    for (const line of lines) line.style.left = `${part * 100}%`;
    box.textContent = words[Math.floor(part * words.length)];
  });
  charts.addEventListener("pointerleave", leave);
})();
