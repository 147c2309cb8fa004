// Shows the figures under the pointer. Without it the page lacks nothing but that.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  for (const svg of document.querySelectorAll("svg[data-probe]")) {
    const probes = JSON.parse(svg.dataset.probe);
    const rule = svg.querySelector(".rule");
    const hide = () => {
      tip.hidden = true;
      rule.setAttribute("visibility", "hidden");
    };
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("pointermove", (event) => {
      const x = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse()).x;
      const [at, words] = probes.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));
      rule.setAttribute("transform", `translate(${at} 0)`);
      rule.setAttribute("visibility", "visible");
      tip.textContent = words;
      tip.hidden = false;
      const right = event.pageX + 14 + tip.offsetWidth > document.documentElement.clientWidth;
      tip.style.left = `${Math.max(4, right ? event.pageX - tip.offsetWidth - 14 : event.pageX + 14)}px`;
      tip.style.top = `${event.pageY + 12}px`;
    });
  }
})();
