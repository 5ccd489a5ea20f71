// The widgets of the page, the theme, and enlarged figures. Each widget finds its values in the JSON beside it.

document.documentElement.classList.add("js");

function paint(canvas, [channels, height, width], values) {
  canvas.width = width;
  canvas.height = height;
  const pixels = new ImageData(width, height), area = height * width;
  for (let k = 0; k < area; k++) {
    for (let c = 0; c < 3; c++) pixels.data[4 * k + c] = Math.round(255 * Math.min(1, Math.max(0, values[k + area * (channels === 3 ? c : 0)])));
    pixels.data[4 * k + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
}

const signed = (v) => v.toFixed(2).replace("-", "−");

const WIDGETS = {
  // A point z of the plane, moved by mouse, finger or arrow keys, and the image that it stands for.
  plane(widget, { program, points, labels, classes, colours }) {
    const map = widget.querySelector(".map"), image = widget.querySelector(".image"), output = widget.querySelector("output");
    const decode = makeDecoder(program), context = map.getContext("2d"), side = map.width;
    const reach = Math.ceil(2 * Math.max(3, ...points.flat().map(Math.abs))) / 2; // the plane goes from -reach to reach
    const place = (v) => ((v + reach) / (2 * reach)) * side;
    const colour = (label) => (label < 0 ? "#0072B2" : colours[label % colours.length]);
    let z = [0, 0];

    function draw() {
      context.fillStyle = "#fff";
      context.fillRect(0, 0, side, side);
      context.lineWidth = 1;
      context.font = "20px sans-serif";
      for (let v = Math.ceil(-reach); v <= reach; v++) {
        context.strokeStyle = v ? "#e4e4e4" : "#999";
        context.beginPath();
        context.moveTo(place(v), 0);
        context.lineTo(place(v), side);
        context.moveTo(0, place(v));
        context.lineTo(side, place(v));
        context.stroke();
      }
      points.forEach(([x, y], k) => {
        context.fillStyle = colour(labels[k]);
        context.beginPath();
        context.arc(place(x), side - place(y), 4, 0, 7);
        context.fill();
      });
      context.strokeStyle = "#000";
      context.lineWidth = 3;
      context.fillStyle = "#fff";
      context.beginPath();
      context.arc(place(z[0]), side - place(z[1]), 13, 0, 7);
      context.fill();
      context.stroke();
      paint(image, program.image, decode(z));
      map.dataset.z = JSON.stringify(z);
      output.textContent = `z = (${signed(z[0])}, ${signed(z[1])})`;
    }
    function move(x, y) {
      z = [x, y].map((v) => Math.min(reach, Math.max(-reach, v)));
      draw();
    }
    function follow(event) {
      const box = map.getBoundingClientRect();
      move((2 * (event.clientX - box.left) / box.width - 1) * reach, (1 - 2 * (event.clientY - box.top) / box.height) * reach);
    }
    map.addEventListener("pointerdown", (event) => {
      map.setPointerCapture(event.pointerId);
      follow(event);
    });
    map.addEventListener("pointermove", (event) => event.buttons && follow(event));
    map.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      const size = event.shiftKey ? 0.5 : 0.1;
      move(z[0] + size * step[0], z[1] + size * step[1]);
    });
    widget.querySelector(".legend").append(...classes.map((name, k) => {
      const item = document.createElement("li"), dot = document.createElement("span");
      dot.style.background = colour(k);
      item.append(dot, name);
      return item;
    }));
    draw();
  },

  // The codes between those of two test images, on a straight line.
  walk(widget, { program, codes, names, images }) {
    const decode = makeDecoder(program), output = widget.querySelector("output"), slider = widget.querySelector("input");
    const [first, second] = widget.querySelectorAll("select");
    for (const select of [first, second]) select.append(...names.map((name, k) => new Option(name, k)));
    second.value = Math.min(1, names.length - 1);
    const show = (canvas, k) => paint(widget.querySelector(canvas), program.image, images[k].map((v) => v / 255));

    function draw() {
      const t = Number(slider.value), a = codes[first.value], b = codes[second.value];
      paint(widget.querySelector(".image"), program.image, decode(a.map((v, k) => v + t * (b[k] - v))));
      show(".from", first.value);
      show(".to", second.value);
      output.textContent = `t = ${t.toFixed(2)}`;
    }
    for (const control of [first, second, slider]) control.addEventListener("input", draw);
    draw();
  },

  // The samples of the same codes, epoch by epoch.
  epochs(widget, { epochs, pictures, size }) {
    const image = widget.querySelector("img"), output = widget.querySelector("output"), slider = widget.querySelector("input");
    [image.height, image.width] = size;
    slider.max = epochs.length - 1;
    function draw() {
      image.src = pictures[slider.value];
      output.textContent = `after epoch ${epochs[slider.value]}`;
      image.alt = `Samples after epoch ${epochs[slider.value]}`;
    }
    slider.addEventListener("input", draw);
    slider.value = epochs.length - 1;
    draw();
  },
};

for (const widget of document.querySelectorAll(".widget"))
  WIDGETS[widget.dataset.kind](widget, JSON.parse(document.getElementById(widget.dataset.values).textContent));

// Commands are folded on the screen and open on paper.
for (const [event, open] of [["beforeprint", true], ["afterprint", false]])
  addEventListener(event, () => document.querySelectorAll("details").forEach((each) => (each.open = open)));

// The theme is that of the system until the reader chooses another one.
const theme = document.querySelector(".theme"), root = document.documentElement;
const chosen = () => root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
theme.addEventListener("click", () => (root.dataset.theme = chosen() === "dark" ? "light" : "dark"));

const dialog = document.querySelector("dialog");
for (const button of document.querySelectorAll(".enlarge"))
  button.addEventListener("click", () => {
    const { src, alt } = button.querySelector("img");
    Object.assign(dialog.querySelector("img"), { src, alt });
    dialog.showModal();
  });
