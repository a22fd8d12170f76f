// The rows as objects, from the columns in the page.
function readRows(data) {
  const keys = Object.keys(data.rows), count = keys.length ? data.rows.id.length : 0;
  return Array.from({ length: count }, (_, i) => {
    const row = {};
    for (const key of keys) row[key] = data.rows[key][i];
    row.query_name = data.queries[row.query];
    row.look = row.preview < 0 ? null : data.previews[row.preview];
    return row;
  });
}

function haystack(row) {
  if (row.hay === undefined) {
    const look = row.look || {};
    const content = look.text || (look.cells || []).flat().join(' ');
    const parts = [row.id, row.label, row.suggested, row.group, row.action, row.reason, row.direction, content];
    row.hay = parts.join('\n').toLowerCase();
  }
  return row.hay;
}

// The rows that pass search, query and filter, sorted; unknown values come last in either direction.
function selectRows(rows, state) {
  const words = state.find.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = rows.filter((row) =>
    (state.query === '' || row.query === Number(state.query)) &&
    (state.show === '' || (state.show === 'flagged' ? row.flagged : row.action === state.show)) &&
    words.every((word) => haystack(row).includes(word)));
  const names = new Intl.Collator('en', { numeric: true });
  const key = state.sort.replace('-', ''), turn = state.sort.startsWith('-') ? -1 : 1;
  const unknown = (value) => value === null || value === '';
  return kept.sort((a, b) => {
    const p = a[key], q = b[key];
    if (unknown(p) || unknown(q)) return unknown(p) - unknown(q);
    return turn * (typeof p === 'number' ? p - q : names.compare(p, q)) || a.query - b.query || a.rank - b.rank;
  });
}

// Puts the row's values into every element below `root` that asks for one. Data is only ever set as text.
function fill(root, row) {
  for (const spot of root.querySelectorAll('[data-f]')) spot.textContent = row[spot.dataset.f];
  for (const kind of ['harmful', 'helpful']) root.classList.toggle(kind, row.direction === kind);
  root.classList.toggle('sure', row.sure);
}

function fillLook(root, row) {
  const look = row.look || {}, image = root.querySelector('img'), full = root.querySelector('.full');
  image.hidden = look.kind !== 'image';
  image.alt = `row ${row.id}`;
  if (look.kind === 'image') image.src = `data:image/png;base64,${look.image}`;
  else image.removeAttribute('src');
  full.replaceChildren();
  if (look.kind === 'text') full.append(make('p', 'prose', look.text));
  if (look.kind === 'cells') {
    const list = full.appendChild(make('dl', 'cells'));
    for (const [key, value] of look.cells) {
      const pair = list.appendChild(make('div'));
      pair.append(make('dt', '', key), make('dd', '', value));
    }
  }
}

function makeLine(mould, row) {
  const line = mould.content.firstElementChild.cloneNode(true);
  fill(line, row);
  line.classList.toggle('flagged', row.flagged);
  line.querySelector('.whisker').setAttribute('d', row.whisker);
  line.querySelector('.at').setAttribute('transform', `translate(${row.at || -99} 9)`);
  line.querySelector('.action').classList.add(row.action);
  for (const name of ['suggested', 'group']) {
    const spot = line.querySelector(`.${name}`);
    if (spot) spot.hidden = !row[name];
  }
  fillLook(line, row);
  const more = line.querySelector('.more'), summary = row.look && row.look.summary;
  if (summary) more.querySelector('summary bdi').textContent = summary;
  else more.remove();
  return line;
}

function make(name, kind, text) {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  if (text !== undefined) {
    element.textContent = text;
    element.dir = 'auto';
  }
  return element;
}
