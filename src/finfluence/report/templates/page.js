// State lives in the address: #row=17&query=held-out&sort=-mu&find=cat&show=flagged, so that a view can be kept and sent.
function startTable() {
  const byId = (id) => document.getElementById(id);
  const source = byId('data');
  if (!source) return;
  const data = JSON.parse(source.textContent), rows = readRows(data);
  const state = { query: data.queries.length > 1 ? '0' : '', find: '', show: '', sort: 'rank', page: 0 };
  const closeup = byId('closeup'), heads = [...document.querySelectorAll('table.rows th[data-sort]')];
  const narrow = matchMedia('screen and (max-width: 1240px)');
  let chosen = rows[0];

  const count = (n) => n.toLocaleString('en');

  function draw() {
    place(null);
    const found = selectRows(rows, state), size = data.perPage, pages = Math.max(1, Math.ceil(found.length / size));
    state.page = Math.min(Math.max(0, state.page), pages - 1);
    const first = state.page * size, shown = found.slice(first, first + size);
    const lines = shown.map((row) => {
      const line = makeLine(byId('mould'), row);
      line.classList.toggle('chosen', row === chosen);
      line.querySelector('.asked').hidden = state.query !== '' || data.queries.length < 2;
      const button = line.querySelector('.choose');
      button.setAttribute('aria-pressed', String(row === chosen));
      button.addEventListener('click', () => choose(row, line));
      return line;
    });
    byId('lines').replaceChildren(...lines);
    const total = state.query === '' ? rows.length : rows.filter((row) => row.query === Number(state.query)).length;
    byId('status').textContent = found.length ? `${count(found.length)} of ${count(total)} rows` : 'No row fits.';
    byId('where').textContent = `${found.length ? first + 1 : 0} to ${first + shown.length} of ${count(found.length)}`;
    byId('previous').disabled = state.page === 0;
    byId('next').disabled = state.page === pages - 1;
    document.querySelector('.pager').hidden = pages === 1;
    for (const head of heads) {
      const active = state.sort.replace('-', '') === head.dataset.sort;
      const order = state.sort.startsWith('-') ? 'descending' : 'ascending';
      if (active) head.setAttribute('aria-sort', order);
      else head.removeAttribute('aria-sort');
    }
  }

  function showChosen() {
    fill(closeup, chosen);
    fillLook(closeup, chosen);
    drawTradeoff(closeup.querySelector('.tradeoff'), chosen.mu, chosen.lower, chosen.upper);
  }

  function choose(row, line) {
    const again = row === chosen && line.nextElementSibling === byId('inset') && closeup.closest('#inset') !== null;
    chosen = row;
    showChosen();
    for (const other of byId('lines').querySelectorAll('.line')) {
      other.classList.toggle('chosen', other === line);
      other.querySelector('.choose').setAttribute('aria-pressed', String(other === line));
    }
    place(again ? null : line);
    remember();
  }

  // Beside the table where there is room; else under its row, and back below the table when the row is chosen again.
  function place(line) {
    const inset = byId('inset');
    if (line && narrow.matches) {
      const row = make('tr'), cell = row.appendChild(make('td'));
      row.id = 'inset';
      row.role = 'row';
      cell.role = 'cell';
      cell.colSpan = heads.length;
      cell.append(closeup);
      line.after(row);
    } else {
      document.querySelector('.work').append(closeup);
    }
    if (inset) inset.remove();
  }

  function remember() {
    const kept = new URLSearchParams({ row: chosen.id, query: chosen.query_name });
    for (const key of ['sort', 'find', 'show']) if (state[key] && state[key] !== 'rank') kept.set(key, state[key]);
    try { history.replaceState(null, '', `#${kept}`); } catch { /* some viewers keep no history */ }
  }

  function recall() {
    const kept = new URLSearchParams(location.hash.slice(1));
    const query = data.queries.indexOf(kept.get('query')), id = kept.get('row');
    if (query >= 0 && data.queries.length > 1) state.query = String(query);
    if (heads.some((head) => head.dataset.sort === (kept.get('sort') || '').replace('-', ''))) state.sort = kept.get('sort');
    state.find = kept.get('find') || state.find;
    if ([...byId('show').options].some((option) => option.value === kept.get('show'))) state.show = kept.get('show');
    const found = selectRows(rows, state);
    chosen = rows.find((row) => row.id === id && (query < 0 || row.query === query)) || found[0] || chosen;
    state.page = Math.max(0, Math.floor(found.indexOf(chosen) / data.perPage));
    for (const key of ['find', 'query', 'show', 'sort']) if (byId(key)) byId(key).value = state[key];
  }

  function change(key, value) {
    state[key] = value;
    state.page = 0;
    if (byId(key)) byId(key).value = value;
    if (key === 'query') chosen = selectRows(rows, state)[0] || chosen;
    draw();
    showChosen();
    remember();
  }

  for (const head of heads) {
    const key = head.dataset.sort, button = make('button', 'sort', head.textContent);
    button.type = 'button';
    button.addEventListener('click', () => change('sort', state.sort === key ? `-${key}` : key));
    byId('sort').append(new Option(`${head.textContent} ↑`, key), new Option(`${head.textContent} ↓`, `-${key}`));
    head.replaceChildren(button);
  }
  for (const key of ['find', 'query', 'show', 'sort']) {
    const control = byId(key);
    if (control) control.addEventListener('input', () => change(key, control.value));
  }
  for (const [id, step] of [['previous', -1], ['next', 1]]) {
    byId(id).addEventListener('click', () => { state.page += step; draw(); byId('rows').scrollIntoView(); });
  }
  for (const hidden of document.querySelectorAll('.controls, .pager, .hint')) hidden.hidden = false;
  document.querySelector('.static').hidden = true;
  recall();
  draw();
  showChosen();
  narrow.addEventListener('change', () => place(document.querySelector('.line.chosen')));
  window.addEventListener('hashchange', () => {
    if (!location.hash.includes('=')) return;
    recall();
    draw();
    showChosen();
  });
}

function startCopy() {
  const button = document.getElementById('copy');
  if (!button || !navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(document.getElementById('command').textContent);
      button.textContent = 'Copied';
    } catch {
      getSelection().selectAllChildren(document.getElementById('command'));
      button.textContent = 'Selected';
    }
  });
}

startTable();
startCopy();
