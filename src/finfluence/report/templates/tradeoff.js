// Points of G_mu, as (alpha, beta): beta = phi(z - |mu|) at alpha = phi(-z). The server draws the first row the same way.
function tradeoffCurve(mu) {
  const size = Math.min(Math.abs(mu), 8), count = 96, points = [[1, 0]];
  for (let i = 0; i <= count; i++) {
    const z = -4 + (8 + size) * i / count;
    points.push([phi(-z), phi(z - size)]);
  }
  points.push([0, 1]);
  return points;
}

// The interval of |mu|, or null where it is unknown.
function magnitude(lower, upper) {
  if (lower === null || upper === null) return null;
  const ends = [Math.abs(lower), Math.abs(upper)];
  return [lower <= 0 && upper >= 0 ? 0 : Math.min(...ends), Math.max(...ends)];
}

// Redraws the chart for another row: the same elements, other coordinates.
function drawTradeoff(svg, mu, lower, upper) {
  const left = Number(svg.dataset.left), top = Number(svg.dataset.top), side = Number(svg.dataset.side);
  const x = (alpha) => (left + alpha * side).toFixed(2), y = (beta) => (top + (1 - beta) * side).toFixed(2);
  const path = (points) => 'M' + points.map(([a, b]) => `${x(a)} ${y(b)}`).join('L');
  const known = mu !== null, span = magnitude(lower, upper), mark = svg.querySelector('.mark');
  const band = span && [...tradeoffCurve(span[0]), ...tradeoffCurve(span[1]).reverse()];
  svg.querySelector('.band').setAttribute('d', band ? path(band) + 'Z' : '');
  svg.querySelector('.curve').setAttribute('d', known ? path(tradeoffCurve(mu)) : '');
  mark.classList.toggle('unknown', !known);
  if (!known) return;
  const quantile = Number(svg.dataset.quantile), missed = phi(quantile - Math.abs(mu));
  mark.setAttribute('transform', `translate(${x(phi(-quantile))} ${y(missed)})`);
  mark.querySelector('text').textContent = missed < 0.005 ? '>0.99 noticed' : `${(1 - missed).toFixed(2)} noticed`;
}
