// AttentionExplorer's large map of one head, and the text with arcs between its tokens.

const CANNOT = 0xffe9e9e9; // the half of a map that no token may read
const COLOURS = { reads: "0, 114, 178", "is read by": "190, 80, 0" };
const LEAST = 0.02; // thinner arcs are left out

// ---- the chosen head ----

function headMap(data, model, pick) {
  const size = data.places.length;
  const cell = Math.min(44, Math.max(1, Math.round(420 / size)));
  const short = (i) => {
    const letters = [...data.places[i]];
    return letters.length > 11 ? `${letters.slice(0, 10).join("")}…` : letters.join("");
  };
  const side = size * cell, left = longest(data.places.map((_, i) => short(i))) + 8, top = left;
  const canvas = node("canvas", {
    tabindex: 0, role: "application", class: "qk-attention-map",
    "aria-label": "The chosen head: a row for each token that reads; arrow keys choose a token",
  });
  const context = sharp(canvas, left + side + 8, top + side + 8);
  const values = new Int16Array(size * size).fill(-1);
  const every = Math.ceil(14 / cell);

  function draw({ token, arcs, faint }, triangle) {
    for (let row = 0, i = 0; row < size; row++)
      for (let column = 0; column <= row; column++) values[row * size + column] = triangle[i++];
    context.clearRect(0, 0, left + side + 8, top + side + 8);
    context.imageSmoothingEnabled = false;
    context.drawImage(coloured(values, size, size, shadesOf(faint)), left, top, side, side);
    labels(token);
    context.strokeStyle = "#d55e00";
    context.lineWidth = 2;
    const start = token * cell;
    if (arcs === "reads") context.strokeRect(left - 1, top + start - 1, start + cell + 2, cell + 2);
    else context.strokeRect(left + start - 1, top + start - 1, cell + 2, side - start + 2);
  }

  function labels(token) {
    context.textBaseline = "middle";
    for (let i = 0; i < size; i++) {
      if (i !== token && (i % every || Math.abs(i - token) < every)) continue;
      context.font = `${i === token ? "700" : "400"} 12px ui-monospace, monospace`;
      context.fillStyle = i === token ? "#a34700" : "#333";
      const middle = (i + 0.5) * cell;
      context.textAlign = "right";
      context.fillText(short(i), left - 5, top + middle, left - 6);
      context.save();
      context.translate(left + middle, top - 5);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(short(i), 0, 0, top - 6);
      context.restore();
    }
  }

  function under(event) {
    const column = Math.floor((event.offsetX - left) / cell);
    const row = Math.floor((event.offsetY - top) / cell);
    return row >= 0 && row < size && column < size ? [row, column] : null;
  }
  canvas.addEventListener("click", (event) => {
    const place = under(event);
    if (place) pick({ token: chosen(model).arcs === "reads" ? place[0] : Math.max(0, place[1]) });
  });
  keyed(canvas, walkKeys(() => size, () => chosen(model).token, (token) => pick({ token })));
  const words = (event) => {
    const place = under(event);
    if (!place || place[1] < 0) return null;
    const [row, column] = place;
    const share = values[row * size + column];
    return share < 0 ? `${named(data, row)} cannot read the later ${named(data, column)}`
      : `${named(data, row)} reads ${named(data, column)}: ${percent(share / 255)}`;
  };
  const middle = (row, column) => [left + (column + 0.5) * cell, top + (row + 0.5) * cell];
  return { canvas, draw, words, middle };
}

// The width of the longest label, when it is bold.
function longest(labels) {
  const context = node("canvas").getContext("2d");
  context.font = "700 12px ui-monospace, monospace";
  return Math.min(95, Math.max(...labels.map((one) => context.measureText(one).width)));
}

// ---- the text with arcs ----

function tokenText(data, model, pick) {
  const { list, fill, draw: shade } = tokenLine("The text; arrow keys choose a token",
    (token) => pick({ token }));
  list.classList.add("qk-attention-text");
  fill(data.places);
  const tokens = [...list.querySelectorAll("[data-place]")];
  tokens.forEach((token, i) => { token.title = named(data, i); });
  list.insertAdjacentHTML("beforeend", '<svg aria-hidden="true"></svg>');
  const svg = list.lastElementChild;
  let last = null;
  const watch = new ResizeObserver(() => { // also once the list is on the page
    if (!last) return;
    arcs(...last);
    intoSight(list, tokens[last[0].token]);
  });
  watch.observe(list);

  function draw(state, shares) {
    const shades = shares.map((share) => state.faint ? Math.sqrt(share / 255) : share / 255);
    shade(state.token, shades, COLOURS[state.arcs]);
    last = [state, shares];
    arcs(state, shares);
  }

  // A curve from the chosen token to each other one, as wide as the share.
  function arcs(state, shares) {
    const middle = ({ offsetLeft, offsetTop, offsetWidth }) =>
      [offsetLeft + offsetWidth / 2, offsetTop];
    const [x, y] = middle(tokens[state.token]);
    svg.setAttribute("width", list.clientWidth);
    svg.setAttribute("height", list.scrollHeight);
    const strong = shares.map((share, i) => [share / 255, i])
      .filter(([share, i]) => share >= LEAST && i !== state.token);
    svg.innerHTML = strong.map(([share, i]) => {
      const [toX, toY] = middle(tokens[i]);
      const lift = Math.min(20, 8 + Math.abs(toX - x) / 20);
      const path = `M${x},${y} C${x},${y - lift} ${toX},${toY - lift} ${toX},${toY}`;
      const ink = `rgba(${COLOURS[state.arcs]}, ${0.35 + 0.6 * share})`;
      return `<path d="${path}" stroke="${ink}" stroke-width="${1 + 5 * share}" data-to="${i}"/>`;
    }).join("");
  }
  return { list, draw, close: () => watch.disconnect() };
}
