// The page: the list of requests, one request in detail, the status tab.
//
// Captured data comes from other parties. It is inserted into the document as text
// only; the page's policy (CSP with trusted types) allows nothing else.

// Maximum number of entries in the page. The agent may have older ones.
const MOST_ENTRIES = 2000;
// Bytes of a body that are shown at first.
const MOST_SHOWN = 256 << 10;
const MOST_HEX = 16 << 10;
// Interval in milliseconds for polling the agent when it sends no events.
const POLL = 4000;

const $ = (id) => document.getElementById(id);

// Creates an element. Children are elements or text; properties that begin with `on`
// are listeners, all others attributes.
function h(tag, props, ...children) {
  const [name, ...classes] = tag.split('.');
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(' ');
  for (const [key, value] of Object.entries(props || {})) {
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(key, value === true ? '' : value);
  }
  return fill(element, ...children);
}

// Replaces the children of an element by elements and text.
function fill(element, ...children) {
  element.replaceChildren(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const button = (label, title, onclick, props) => h('button', { type: 'button', title, onclick, ...props }, label);

async function api(method, path, body) {
  const init = { method, cache: 'no-store', headers: {} };
  if (body !== undefined) {
    init.headers['Content-Type'] = 'application/json';
    init.body = JSON.stringify(body);
  }
  let answer;
  try {
    answer = await fetch(path, init);
  } catch {
    throw new Error('the agent does not answer');
  }
  if (!answer.ok) {
    let text = '';
    try {
      const { msg, details } = await answer.json();
      text = [msg, details && details.err].filter(Boolean).join(': ');
    } catch { /* no JSON: the status says it */ }
    const error = new Error(text || `${method} ${path}: ${answer.status} ${answer.statusText}`);
    error.status = answer.status;
    throw error;
  }
  return answer;
}

const json = async (path) => (await api('GET', path)).json();

let toastTimer = 0;
function toast(text, bad) {
  const box = $('toast');
  box.textContent = text;
  box.className = bad ? 'shown bad' : 'shown';
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { box.className = ''; }, bad ? 8000 : 3000);
}

// Runs an action of the user and shows its error.
const attempt = (action) => async (...args) => {
  try {
    return await action(...args);
  } catch (error) {
    toast(error.message, true);
  }
};

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(what + ' copied');
  } catch {
    // Not allowed unless the page is on localhost or https.
    dialog('Copy', h('textarea', { readonly: true, rows: 12, 'aria-label': what }, text));
    $('dialog').querySelector('textarea').select();
  }
}

function save(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

function dialog(title, ...children) {
  const box = $('dialog');
  fill(box,
    h('h2', { id: 'dialog-title' }, title),
    button('\u00d7', 'Close (Esc)', () => box.close(), { class: 'close quiet', 'aria-label': 'Close' }),
    ...children,
  );
  if (!box.open) box.showModal();
}

// ---- The entries ----

// id -> {id, summary, row, method, path, ...}; newest first in `order`.
const entries = new Map();
let order = [];
// The last few complete entries.
const whole = new Map();
// Entries that arrived while the list was paused.
let waiting = [];
let paused = false;
let queue = [];
let selected = null;
// Entries that were replayed from this page: id of the copy -> id of the original.
const originals = new Map();
// An entry to select when it arrives.
let expected = '';
let compared = null;
let tunnels = [];
// Number of times that all entries were deleted. Earlier requests are stale then.
let generation = 0;
let catchUp = 0;
// Number of entries that the agent has.
let captured = 0;
let counter = 0;

function receive(list, all) {
  if (!Array.isArray(list)) list = list && Array.isArray(list.requests) ? list.requests : [list];
  list = list.filter((item) => item && item.id && item.request);
  if (paused) {
    waiting = waiting.concat(list).slice(-MOST_ENTRIES);
    showCount();
    return;
  }
  if (!queue.length && list.length) {
    // The next frame is early enough. A page in the background gets no frames.
    if (document.hidden) setTimeout(drain, 500);
    else requestAnimationFrame(drain);
  }
  queue = queue.concat(list).slice(-MOST_ENTRIES);
  // With this number of entries, older ones may be missing.
  if (!all && list.length >= 50 && live && !catchUp) catchUp = setTimeout(() => { catchUp = 0; refresh(); }, 500);
}

function drain() {
  const batch = queue;
  queue = [];
  // Oldest first, so that each new one goes to the top.
  batch.sort((a, b) => Date.parse(a.start) - Date.parse(b.start) || (a.id < b.id ? -1 : 1));
  for (const item of batch) put(item);
  while (order.length > MOST_ENTRIES) drop(order.pop());
  if (order.length === MOST_ENTRIES && !counter) counter = setTimeout(countAll, 1000);
  showCount();
}

async function countAll() {
  try { captured = (await json('/api/requests/http?limit=0')).total || 0; } catch { /* the next one counts */ }
  counter = 0;
  showCount();
}

function put(item) {
  const { request, response } = item;
  let entry = entries.get(item.id);
  // A list that was requested before this response is older than the event.
  if (entry && entry.code && !response) return;
  const isNew = !entry;
  if (isNew) {
    entry = { id: item.id, row: null };
    entries.set(item.id, entry);
  }
  const headersOf = (side) => Object.entries((side && side.headers) || {}).flatMap(([name, values]) => [].concat(values).map((value) => `${name}: ${value}`));
  Object.assign(entry, {
    start: Date.parse(item.start) || 0,
    duration: item.duration || 0,
    method: request.method || '?',
    path: request.uri || '',
    code: response ? response.status_code || parseInt(response.status, 10) || 0 : 0,
    size: item.tunnel ? item.tunnel.received + item.tunnel.sent : response ? sizeOf(response, item) : -1,
    tunnel: item.tunnel,
    err: item.err || '',
    endpoint: item.tunnel_name || '',
    replay: item.replay_of || originals.get(item.id) || '',
    text: [request.method, request.uri, item.tunnel_name, item.remote_addr, response && response.status]
      .concat(headersOf(request), headersOf(response)).join('\n').toLowerCase(),
  });
  whole.delete(item.id);
  drawRow(entry);
  if (isNew) {
    let at = 0;
    // Ids rise: they order entries within a millisecond.
    const newer = (other) => other.start > entry.start || (other.start === entry.start && other.id > entry.id);
    while (at < order.length && newer(order[at])) at++;
    const next = order[at];
    order.splice(at, 0, entry);
    $('list').insertBefore(entry.row, next ? next.row : null);
    offer($('f-method'), entry.method);
    offer($('f-endpoint'), entry.endpoint);
  }
  entry.row.hidden = !matches(entry);
  if (item.id === expected) {
    expected = '';
    select(entry);
  } else if (selected === entry) showDetail();
}

function drop(entry) {
  entries.delete(entry.id);
  whole.delete(entry.id);
  entry.row.remove();
  if (selected === entry) select(null);
}

// Length of the body, from the field, the header or the bytes.
function sizeOf(side) {
  if (typeof side.body_size === 'number') return side.body_size;
  for (const [name, values] of Object.entries(side.headers || {})) {
    if (name.toLowerCase() === 'content-length') return Number([].concat(values)[0]) || 0;
  }
  return side.raw ? splitMessage(fromBase64(side.raw)).body.length : -1;
}

function offer(box, value) {
  if (!value || box.options.length > 50 || [...box.options].some((option) => option.value === value)) return;
  box.append(h('option', { value }, value));
  // With a single endpoint its name on every line is not needed.
  $('side').classList.toggle('several', $('f-endpoint').options.length > 2);
}

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];
let rowNumber = 0;

const timeOf = (start) => new Date(start).toTimeString().slice(0, 8);

const statusClass = (code) => 's' + (code >= 100 && code < 600 ? String(code)[0] : '0');

// Red for a response that never came or broke off.
const colour = (entry) => (entry.err ? 's5' : statusClass(entry.code));

const methodView = (method) => h(METHODS.includes(method) ? 'span.m.' + method : 'span.m', null, method);

function drawRow(entry) {
  if (!entry.row) {
    entry.row = h('div.row', { role: 'option', id: 'row-' + ++rowNumber, 'aria-selected': 'false', onclick: () => { select(entry); openDetail(); } });
  }
  fill(entry.row,
    h('span.t', null, timeOf(entry.start)),
    methodView(entry.method),
    h('span.p', { title: entry.path }, entry.path),
    h('span.s.' + colour(entry), { title: entry.err || (entry.code ? '' : 'no answer yet') }, entry.code ? String(entry.code) : entry.err ? '\u2715' : '\u2026'),
    h('span.d', null, entry.tunnel && entry.tunnel.open ? 'open' : entry.code || entry.err ? durationText(entry.duration) : ''),
    h('span.z', null, entry.size < 0 ? '' : bytesText(entry.size)),
    h('span.e', { title: entry.endpoint }, (entry.replay ? '\u21bb ' : '') + entry.endpoint),
  );
}

// ---- Filters ----

let tests = [];

function readFilters() {
  tests = [];
  const value = (id) => $(id).value.trim();
  const add = (id, make) => {
    const field = $(id);
    const test = field.value.trim() ? make(field.value.trim()) : undefined;
    field.classList.toggle('wrong', test === null);
    if (test) tests.push(test);
  };
  for (const word of value('f-text').toLowerCase().split(/\s+/).filter(Boolean)) {
    tests.push((entry) => entry.text.includes(word));
  }
  add('f-method', (method) => (entry) => entry.method === method);
  add('f-endpoint', (name) => (entry) => entry.endpoint === name);
  add('f-path', (part) => (entry) => entry.path.toLowerCase().includes(part.toLowerCase()));
  add('f-status', (text) => { const test = statusTest(text); return (entry) => test(entry.code || (entry.err ? 'closed' : 0)); });
  add('f-duration', (text) => { const test = comparison(text, DURATIONS); return test && ((entry) => entry.code > 0 && test(entry.duration)); });
  add('f-size', (text) => { const test = comparison(text, SIZES); return test && ((entry) => entry.size >= 0 && test(entry.size)); });
  $('more').classList.toggle('on', [...$('fields').querySelectorAll('input,select')].some((field) => field.value));
  for (const entry of order) entry.row.hidden = !matches(entry);
  showCount();
}

const matches = (entry) => tests.every((test) => test(entry));

const visible = () => order.filter((entry) => !entry.row.hidden);

function showCount() {
  const shown = visible().length;
  const text = shown === order.length ? `${shown} request${shown === 1 ? '' : 's'}` : `${shown} of ${order.length} requests`;
  $('count').textContent = captured > order.length ? `${text}, the newest of ${captured} captured` : text;
  const fresh = $('fresh');
  fresh.hidden = !paused;
  fresh.textContent = waiting.length ? `${waiting.length} new: show` : 'paused: resume';
  const empty = $('empty');
  empty.hidden = shown > 0;
  $('columns').hidden = $('list').hidden = !shown;
  if (shown) return;
  if (order.length) {
    fill(empty, h('p', null, 'No request passes these filters.'), button('Remove the filters', '', () => { $('filters').reset(); readFilters(); }));
    return;
  }
  const web = tunnels.filter((tunnel) => /^https?:/.test(tunnel.public_url || ''));
  fill(empty,
    h('p', null, web.length ? 'No requests yet. Visit' : 'No requests yet, and no HTTP endpoint is up.'),
    web.map((tunnel) => h('p', null, link(tunnel.public_url))),
  );
}

// A link only if it leads to a web page.
function link(url) {
  return /^https?:\/\//i.test(url) ? h('a', { href: url, target: '_blank', rel: 'noreferrer noopener' }, url) : h('span', null, url);
}

// ---- Choosing ----

function select(entry) {
  if (selected) selected.row.setAttribute('aria-selected', 'false');
  selected = entry;
  const list = $('list');
  if (entry) {
    entry.row.setAttribute('aria-selected', 'true');
    entry.row.scrollIntoView({ block: 'nearest' });
    list.setAttribute('aria-activedescendant', entry.row.id);
  } else {
    list.removeAttribute('aria-activedescendant');
    closeDetail();
  }
  showDetail();
}

function step(by) {
  const rows = visible();
  if (!rows.length) return;
  const at = rows.indexOf(selected);
  const next = Math.max(0, Math.min(rows.length - 1, at + by));
  if (rows[next] !== selected) select(rows[next]);
}

// On a narrow screen the detail covers the list.
function openDetail() { document.body.classList.add('detail'); }
function closeDetail() { document.body.classList.remove('detail'); }

// ---- Detail ----

async function load(id) {
  let item = whole.get(id);
  if (item) return item;
  item = await json('/api/requests/http/' + encodeURIComponent(id));
  item.sides = {
    request: await readSide(item.request),
    response: item.response ? await readSide(item.response) : null,
  };
  whole.set(id, item);
  if (whole.size > 20) whole.delete(whole.keys().next().value);
  return item;
}

// One direction of an exchange: the bytes, its headers as sent, and its content.
async function readSide(side) {
  const raw = fromBase64(side.raw);
  const message = splitMessage(raw);
  const notes = [];
  if (!message.headers.length) {
    message.headers = Object.entries(side.headers || {}).flatMap(([name, values]) => [].concat(values).map((value) => [name, value]));
  }
  const length = Number(header(message.headers, 'content-length'));
  let content = message.body;
  let cut = Boolean(side.truncated || side.body_truncated);
  if (/chunked/i.test(header(message.headers, 'transfer-encoding'))) {
    const plain = dechunk(content);
    content = plain.bytes;
    cut = cut || (!plain.whole && content.length > 0);
  } else if (content.length && length > content.length) cut = true;
  const packed = content;
  if (content.length) {
    const unpacked = await unpack(content, header(message.headers, 'content-encoding'));
    content = unpacked.bytes;
    if (unpacked.note) notes.push(unpacked.note);
  }
  if (cut) {
    const total = side.body_size || length;
    notes.unshift(`only the first ${bytesText(packed.length)}${total > packed.length ? ' of ' + bytesText(total) : ''} were kept`);
  }
  const type = header(message.headers, 'content-type');
  return { raw, ...message, packed, content, cut, notes, type, kind: kindOf(type), charset: charsetOf(type) };
}

function kindOf(type) {
  const name = type.split(';')[0].trim().toLowerCase();
  if (/[\/+]json$|ndjson|jsonl|json-seq/.test(name)) return 'json';
  if (/[\/+]xml$/.test(name) && !name.startsWith('image/')) return 'xml';
  if (name === 'application/x-www-form-urlencoded') return 'form';
  if (name === 'multipart/form-data') return 'multipart';
  if (name.startsWith('image/')) return 'image';
  return 'text';
}

function charsetOf(type) {
  const match = /charset="?([\w-]+)/i.exec(type);
  if (!match) return '';
  try {
    return new TextDecoder(match[1]).encoding === 'utf-8' ? '' : match[1];
  } catch {
    return '';
  }
}

let detailNumber = 0;
const views = { request: 'Summary', response: 'Summary' };
let imageUrls = [];

const showDetail = attempt(async () => {
  const box = $('detail');
  const number = ++detailNumber;
  const entry = selected;
  const forget = () => { imageUrls.forEach((url) => URL.revokeObjectURL(url)); imageUrls = []; };
  if (!entry) {
    forget();
    fill(box, h('p.hint', null, 'Choose a request, with the pointer or with ', h('kbd', null, 'j'), ' and ', h('kbd', null, 'k'), '.'));
    return;
  }
  let item;
  try {
    item = await load(entry.id);
  } catch (error) {
    if (number !== detailNumber) return;
    fill(box, h('p.hint', null, error.status === 404 ? 'This request was deleted to make room for newer ones.' : error.message));
    return;
  }
  if (number !== detailNumber) return;
  forget();
  const { request, response } = item.sides;
  const origin = entry.replay && entries.get(entry.replay);
  const facts = [
    new Date(entry.start).toLocaleString(),
    entry.code || entry.err ? durationText(entry.duration) : 'no answer yet',
    entry.tunnel && `${bytesText(entry.tunnel.received)} from the visitor, ${bytesText(entry.tunnel.sent)} back, ${entry.tunnel.open ? 'open' : 'ended'}`,
    entry.code && entry.err,
    item.remote_addr && 'from ' + item.remote_addr,
    entry.endpoint,
    entry.replay && 'replayed',
  ].filter(Boolean);
  const scroll = box.dataset.id === entry.id ? box.scrollTop : 0;
  box.dataset.id = entry.id;
  fill(box,
    h('div.top', null,
      button('\u2039 List', 'Back to the list (Esc)', back, { class: 'back' }),
      h('h1', null, methodView(entry.method), ' ', h('span.p', null, entry.path)),
      h('p.facts', null, h('span.s.' + colour(entry), null, item.response ? item.response.status || String(entry.code) : entry.err || 'pending'), facts.map((fact) => h('span', null, fact))),
      h('div.bar', { role: 'toolbar', 'aria-label': 'Actions' },
        button('Replay', 'Send this request again (r)', () => replay(entry), { class: 'main' }),
        button('Edit and replay', 'Change this request and send it (e)', () => editReplay(entry)),
        button('Copy as curl', 'Copy a command that sends this request (c)', () => copyCurl(entry)),
        origin ? button('Diff with original', 'What differs from the request that was replayed', () => showDiff(origin, entry)) : null,
        button(compared && compared !== entry ? 'Diff with marked' : compared === entry ? 'Marked' : 'Mark for diff', 'Mark one request, then choose another one (d)', () => mark(entry), { 'aria-pressed': String(compared === entry) }),
      ),
    ),
    sideView('request', 'Request', request, item),
    response ? sideView('response', 'Response', response, item) : h('section', null, h('h2', null, 'Response'), h('p.hint', null, entry.err ? 'The connection was ' + entry.err + '.' : 'The upstream has not responded yet.')),
  );
  box.scrollTop = scroll;
});

function back() {
  closeDetail();
  $('list').focus();
}

function sideView(which, title, side, item) {
  const makers = {
    Summary: () => summary(which, side, item),
    Headers: () => table(side.headers, 'no headers'),
    Raw: () => rawText(side),
    Hex: () => hex(side.raw),
  };
  const panel = h('div', { role: 'tabpanel', id: which + '-panel', 'aria-labelledby': `${which}-${views[which]}` });
  const tabs = Object.keys(makers).map((name) => h('button', { type: 'button', role: 'tab', id: `${which}-${name}`, 'aria-controls': which + '-panel', onclick: () => choose(name) }, name));
  const choose = (name) => {
    views[which] = name;
    for (const tab of tabs) {
      const on = tab.textContent === name;
      tab.setAttribute('aria-selected', String(on));
      tab.tabIndex = on ? 0 : -1;
    }
    panel.setAttribute('aria-labelledby', `${which}-${name}`);
    fill(panel, makers[name]());
  };
  const onkeydown = (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    const next = tabs[(tabs.indexOf(event.target) + by + tabs.length) % tabs.length];
    choose(next.textContent);
    next.focus();
    event.preventDefault();
  };
  choose(views[which]);
  const line = which === 'request' ? side.first : side.first || item.response.status;
  return h('section', { id: which + '-side' },
    h('h2', null, title, h('small', null, bytesText(side.packed.length))),
    h('div.tabs', { role: 'tablist', 'aria-label': title, onkeydown }, tabs),
    views[which] && h('code.first', null, line),
    panel);
}

function table(rows, none) {
  if (!rows.length) return h('p.hint', null, none);
  return h('table.pairs', null, h('tbody', null, rows.map(([name, value]) => h('tr', null, h('th', { scope: 'row' }, name), h('td', null, value)))));
}

function note(text) { return h('p.note', null, text); }

// Parts of printed text as elements.
function printed(parts) {
  return h('pre', { tabindex: '0' }, parts.map(([cls, text]) => (cls ? h(cls === 'bad' ? 'mark' : 'span.' + cls, null, text) : text)));
}

function summary(which, side, item) {
  const out = [];
  const query = which === 'request' ? (item.request.uri || '').split('#')[0].split('?').slice(1).join('?') : '';
  if (query) out.push(h('h3', null, 'Query'), table(decodeForm(query), ''));
  const location = which === 'response' && header(side.headers, 'location');
  if (location) out.push(table([['Location', location]], ''));
  if (!side.content.length) {
    out.push(h('p.hint', null, side.cut ? 'The body was not kept.' : 'No body.'));
    return h('div', null, out);
  }
  out.push(h('h3', null, 'Body', h('small', null, [side.type, bytesText(side.content.length)].filter(Boolean).join(', '))));
  out.push(side.notes.map(note));
  out.push(bodyView(side));
  return h('div', null, out);
}

function bodyView(side) {
  if (side.kind === 'image') {
    const url = URL.createObjectURL(new Blob([side.content], { type: side.type.split(';')[0] }));
    imageUrls.push(url);
    const caption = h('figcaption', null, '');
    const image = h('img', { alt: 'the image in this body', src: url });
    image.addEventListener('load', () => { caption.textContent = `${image.naturalWidth} \u00d7 ${image.naturalHeight}`; });
    image.addEventListener('error', () => { caption.textContent = 'not an image that this browser can show'; });
    return h('figure', null, image, caption);
  }
  const text = asText(side.content, side.charset);
  if (text === null && side.kind !== 'multipart') return hex(side.content);
  if (side.kind === 'form') return table(decodeForm(text), 'empty');
  if (side.kind === 'multipart') {
    const boundary = /boundary="?([^";]+)/i.exec(side.type);
    return boundary ? table(decodeMultipart(side.content, boundary[1]), 'no parts') : hex(side.content);
  }
  return textView(text, side);
}

// Text, formatted if its type is known. Long texts are shown in part.
function textView(text, side) {
  const view = h('div');
  const show = (limit) => {
    const long = text.length > limit;
    const part = long ? text.slice(0, limit) : text;
    const { parts, error } = pretty(part, side);
    fill(view,
      // A truncated part may end inside an element.
      error && !long && !side.cut ? h('p.note.wrong', null, error) : '',
      printed(long || side.cut ? parts.map(([cls, piece]) => [cls === 'bad' ? '' : cls, piece]) : parts),
      long ? button(`Show all ${bytesText(text.length)}`, '', () => show(Infinity)) : '',
    );
  };
  show(MOST_SHOWN);
  return view;
}

function pretty(text, side) {
  // JSON without its content type.
  const json = side.kind === 'json' || (!side.type && /^\s*[{[]/.test(text));
  const result = json ? prettyJson(text, /ndjson|jsonl|seq/.test(side.type))
    : side.kind === 'xml' ? prettyXml(text) : { parts: [['', text]], error: '' };
  if (result.parts.length < 30000) return result;
  // This number of elements would be slow: the same without colours.
  return { parts: [['', result.parts.map((part) => part[1]).join('')]], error: result.error };
}

function rawText(side) {
  const text = asText(side.raw) ?? latin1(side.raw);
  const view = h('div');
  const show = (limit) => fill(view,
    side.cut ? note(side.notes[0]) : '',
    printed([['', text.slice(0, limit)]]),
    text.length > limit ? button(`Show all ${bytesText(text.length)}`, '', () => show(Infinity)) : '',
  );
  show(MOST_SHOWN);
  return view;
}

function hex(bytes) {
  const view = h('div');
  const show = (limit) => fill(view,
    printed([['', hexDump(bytes, 0, limit)]]),
    bytes.length > limit ? button(`Show ${limit < 1e6 ? 'more of' : 'all'} ${bytesText(bytes.length)}`, '', () => show(limit < 1e6 ? limit * 16 : Infinity)) : '',
  );
  show(MOST_HEX);
  return view;
}

// ---- Actions ----

const replay = attempt(async (entry) => {
  await send({ id: entry.id }, entry);
});

async function send(body, entry) {
  const answer = await api('POST', '/api/requests/http', body);
  const id = answer.headers.get('X-Culvert-Request-Id') || '';
  if (id) {
    originals.set(id, entry.id);
    if (originals.size > MOST_ENTRIES) originals.delete(originals.keys().next().value);
    const there = entries.get(id);
    if (there) {
      there.replay = entry.id;
      drawRow(there);
      select(there);
    } else expected = id;
  }
  toast('Sent to the upstream');
  if (!live) poll();
}

const editReplay = attempt(async (entry) => {
  const item = await load(entry.id);
  const side = item.sides.request;
  const content = asText(side.packed);
  const edited = { method: entry.method, uri: entry.path };
  const method = h('input', { value: edited.method, spellcheck: 'false', list: 'methods', required: true });
  const uri = h('input', { value: edited.uri, spellcheck: 'false', required: true, autofocus: true });
  // The agent writes the length itself.
  const headers = side.headers.filter(([name]) => !['content-length', 'transfer-encoding'].includes(name.toLowerCase()));
  const lines = h('textarea', { rows: Math.min(12, headers.length + 1), spellcheck: 'false' }, headers.map(([name, value]) => `${name}: ${value}`).join('\n'));
  const bodyText = content === null ? '' : content;
  const body = h('textarea', { rows: 8, spellcheck: 'false', placeholder: content === null ? `${bytesText(side.packed.length)} that are not text are sent as they are, unless you write something here` : '' });
  body.value = bodyText;
  const shown = body.value;
  const target = h('select', null, tunnels.filter((tunnel) => /^https?/.test(tunnel.proto || tunnel.public_url || '')).map((tunnel) => h('option', { value: tunnel.name, selected: tunnel.name === entry.endpoint }, `${tunnel.name} (${(tunnel.config || {}).addr || tunnel.public_url})`)));
  const submit = attempt(async (event) => {
    event.preventDefault();
    const map = {};
    for (const line of lines.value.split('\n')) {
      if (!line.trim()) continue;
      const colon = line.indexOf(':');
      if (colon < 1) throw new Error(`not a header, a colon is missing: ${line}`);
      const name = line.slice(0, colon).trim();
      (map[name] = Object.hasOwn(map, name) ? map[name] : []).push(line.slice(colon + 1).trim());
    }
    // An unchanged body is sent as the original bytes: a text field changes line ends.
    const bytes = body.value === shown ? side.packed : utf8(body.value);
    const request = { id: entry.id, request: { method: method.value.trim(), uri: uri.value.trim(), headers: map, body: toBase64(bytes) } };
    if (target.value && target.value !== entry.endpoint) request.tunnel_name = target.value;
    await send(request, entry);
    $('dialog').close();
  });
  dialog('Edit and replay', h('form.edit', { onsubmit: submit },
    side.cut ? note(`The body is not whole: ${side.notes[0]}.`) : '',
    h('div.pair', null, h('label.short', null, 'Method', method), h('label', null, 'Path and query', uri)),
    h('datalist', { id: 'methods' }, METHODS.map((name) => h('option', { value: name }))),
    h('label', null, 'Headers, one a line', lines),
    h('label', null, 'Body', body),
    target.options.length > 1 ? h('label', null, 'Send to', target) : '',
    h('div.bar', null, h('button.main', { type: 'submit' }, 'Send'), button('Cancel', '', () => $('dialog').close()), h('span.hint', null, 'Goes to the upstream directly, not through the edge.')),
  ));
});

const copyCurl = attempt(async (entry) => {
  const item = await load(entry.id);
  const side = item.sides.request;
  const tunnel = tunnels.find((other) => other.name === entry.endpoint);
  const host = header(side.headers, 'host');
  const base = (tunnel && /^https?:/.test(tunnel.public_url) ? tunnel.public_url : 'http://' + (host || 'localhost')).replace(/\/+$/, '');
  await copy(curl(base, entry.method, entry.path, side.headers, side.packed), 'Command');
  if (side.cut) toast('Copied, but the body is not whole: ' + side.notes[0], true);
});

function mark(entry) {
  if (compared && compared !== entry && entries.has(compared.id)) {
    showDiff(compared, entry);
    compared = null;
  } else compared = compared === entry ? null : entry;
  showDetail();
}

const showDiff = attempt(async (a, b) => {
  const [left, right] = [await load(a.id), await load(b.id)];
  const lines = (side) => {
    if (!side) return ['(none)'];
    const text = asText(side.content, side.charset);
    const body = text === null ? `${hexDump(side.content, 0, 1 << 20)}\n${side.content.length} bytes` : pretty(text, side).parts.map((part) => part[1]).join('');
    return [side.first, ...side.headers.map(([name, value]) => `${name}: ${value}`), ...(side.content.length ? ['', ...body.split('\n')] : [])];
  };
  const view = (title, which) => {
    const diff = diffLines(lines(left.sides[which]), lines(right.sides[which]));
    const changed = diff.filter(([sign]) => sign !== ' ').length;
    // Unchanged lines far from a change are left out.
    const near = diff.map((_, i) => diff.slice(Math.max(0, i - 3), i + 4).some(([sign]) => sign !== ' '));
    const rows = [];
    let hidden = 0;
    const skip = () => { if (hidden) rows.push(h('span.skip', null, `\u22ef ${hidden} equal line${hidden === 1 ? '' : 's'}\n`)); hidden = 0; };
    for (const [i, [sign, line]] of diff.entries()) {
      if (!near[i]) { hidden++; continue; }
      skip();
      if (rows.length >= 4000) { rows.push(h('span.skip', null, '\u22ef and more, too long to show')); break; }
      rows.push(h(sign === '-' ? 'del' : sign === '+' ? 'ins' : 'span', null, `${sign} ${line}\n`));
    }
    skip();
    return h('section', { id: 'diff-' + which }, h('h3', null, title, h('small', null, changed ? `${changed} lines differ` : 'equal')), h('pre', { tabindex: '0' }, rows));
  };
  const name = (sign, entry) => h('p', null, sign, ` ${timeOf(entry.start)} ${entry.method} ${entry.path} `, h('b', null, String(entry.code || entry.err || 'pending')));
  dialog('Difference', h('div.names', null, h('del', null, name('-', a)), h('ins', null, name('+', b))), view('Request', 'request'), view('Response', 'response'));
});

const saveHar = attempt(async () => {
  const list = visible().slice(0, 500);
  const out = [];
  for (const entry of list) {
    let item;
    try {
      item = await load(entry.id);
    } catch (error) {
      if (error.status === 404) continue;
      throw error;
    }
    out.push(harEntry(item, entry, tunnels.find((tunnel) => tunnel.name === entry.endpoint)));
  }
  save('culvert.har', JSON.stringify({ log: { version: '1.2', creator: { name: 'culvert', version: version || '0' }, entries: out.reverse() } }, null, 1));
  toast(`${out.length} requests saved`);
});

function harEntry(item, entry, tunnel) {
  const { request, response } = item.sides;
  const pairs = (list) => list.map(([name, value]) => ({ name, value }));
  const body = (side) => {
    const text = asText(side.content, side.charset);
    return { mimeType: side.type, ...(text === null ? { text: toBase64(side.content), encoding: 'base64' } : { text }), ...(side.cut ? { comment: side.notes[0] } : {}) };
  };
  const base = ((tunnel && tunnel.public_url) || 'http://' + (header(request.headers, 'host') || 'localhost')).replace(/\/+$/, '');
  const ms = entry.duration / 1e6;
  const size = (side) => ({ headersSize: side.raw.length - side.body.length, bodySize: side.body.length });
  return {
    startedDateTime: item.start,
    time: ms,
    request: {
      method: entry.method, url: base + entry.path, httpVersion: item.request.proto || 'HTTP/1.1', cookies: [], headers: pairs(request.headers),
      queryString: pairs(decodeForm(entry.path.split('?').slice(1).join('?'))), ...(request.content.length ? { postData: body(request) } : {}), ...size(request),
    },
    response: response ? {
      status: entry.code, statusText: (item.response.status || '').replace(/^\d+ ?/, ''), httpVersion: item.response.proto || 'HTTP/1.1', cookies: [], headers: pairs(response.headers),
      content: { size: response.content.length, ...body(response) }, redirectURL: header(response.headers, 'location'), ...size(response),
    } : { status: 0, statusText: '', httpVersion: '', cookies: [], headers: [], content: { size: 0, mimeType: '' }, redirectURL: '', headersSize: -1, bodySize: -1 },
    cache: {},
    timings: { send: 0, wait: ms, receive: 0 },
  };
}

const clearAll = attempt(async () => {
  await api('DELETE', '/api/requests/http');
  forgetAll();
  toast('All requests deleted');
  // Entries that arrived since the agent deleted the others.
  refresh();
});

function forgetAll() {
  generation++;
  select(null);
  entries.clear();
  whole.clear();
  order = [];
  waiting = [];
  queue = [];
  compared = null;
  $('list').replaceChildren();
  showCount();
}

function pause() {
  paused = !paused;
  $('pause').setAttribute('aria-pressed', String(paused));
  $('pause').textContent = paused ? 'Resume' : 'Pause';
  if (!paused) {
    const list = waiting;
    waiting = [];
    receive(list);
  }
  showCount();
}

const KEYS = [
  ['j, k, arrows', 'next, previous request'], ['g, G', 'newest, oldest request'], ['Enter', 'into the request'], ['Esc', 'back to the list'],
  ['/', 'search'], ['r', 'replay'], ['e', 'edit and replay'], ['c', 'copy as curl'], ['d', 'mark for diff, then diff'],
  ['p', 'pause, resume'], ['1, 2', 'requests, status'], ['?', 'this help'],
];

function help() {
  dialog('Keys', table(KEYS, ''),
    h('p', null, 'Filters are ANDed. Status takes several: 4xx, 200. Duration takes ns, us, ms, s, as in >100ms; size takes k and M, as in <10k.'),
    h('p', null, 'Requests are kept in memory; the oldest are deleted first. Large bodies are kept in part. A replay goes to the upstream directly.'));
}

// ---- Status ----

let version = '';
// Endpoints that were stopped from this page: name -> how to start them again.
const stopped = new Map();

const rate = (n) => (n ? n.toFixed(2) : '0');

function ageText(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min` : `${seconds} s`;
}

const showStatus = attempt(async () => {
  const box = $('status');
  let state;
  let list;
  let endpoints = [];
  try {
    [state, list] = await Promise.all([json('/api/status'), json('/api/tunnels')]);
    endpoints = (await json('/api/endpoints')).endpoints || [];
  } catch (error) {
    if (!state || !list) {
      fill(box, h('p.hint', null, error.message));
      return;
    }
  }
  tunnels = list.tunnels || [];
  version = state.agent_version || version;
  for (const tunnel of tunnels) stopped.delete(tunnel.name);
  // A form with input of the user stays unchanged.
  if (box.contains(document.activeElement) && document.activeElement.closest('form')) return;
  const legs = (state.session && state.session.legs) || [];
  const sums = tunnels.map((tunnel) => (tunnel.metrics || {}).conns || {});
  const sum = (key) => sums.reduce((total, conns) => total + (conns[key] || 0), 0);
  const card = (name, value, more, cls) => h('div.card', null, h('dt', null, name), h(cls ? 'dd.' + cls : 'dd', null, value || '\u2013', more ? h('small', null, more) : ''));
  const since = state.status_seconds === undefined ? '' : 'for ' + ageText(state.status_seconds);
  const next = state.next_try_seconds === undefined ? '' : `next try in ${state.next_try_seconds} s`;
  const cards = [
    card('Session', state.status, next || since, state.status === 'online' ? 'good' : 'bad'),
    legs.map((leg) => card(leg.region ? 'Latency, ' + leg.region : 'Latency', leg.latency, leg.address)),
    card('Connections', `${sum('gauge')} open`, `${sum('count')} in all`),
    state.sessions > 1 ? card('Reconnects', String(state.sessions - 1)) : '',
    state.account ? card('Account', state.account, state.plan) : '',
    card('Version', state.agent_version),
  ];
  fill(box,
    h('dl.cards', null, cards),
    state.err ? h('p.note.wrong', null, state.err) : '',
    [state.banner, state.deprecation].filter(Boolean).map(note),
    h('h2', null, 'Endpoints'),
    tunnels.length ? tunnels.map((tunnel) => endpointCard(tunnel, endpoints.find((endpoint) => endpoint.name === tunnel.name))) : h('p.hint', null, 'No endpoint is up.'),
    [...stopped].map(([name, input]) => h('div.endpoint.off', null, h('div.head', null, h('h3', null, name), h('span', null, 'stopped'), button('Start again', '', attempt(async () => {
      await api('POST', '/api/endpoints', input);
      stopped.delete(name);
      toast(`${name} started`);
      showStatus();
    }))))),
    h('h2', null, 'Start an endpoint'),
    startForm(),
  );
});

function endpointCard(tunnel, endpoint) {
  const { conns = {}, http = {} } = tunnel.metrics || {};
  const addr = (endpoint && endpoint.upstream && endpoint.upstream.url) || (tunnel.config || {}).addr || '';
  const labels = (tunnel.labels || []).concat(endpoint && endpoint.pooling_enabled ? 'pooled' : [], tunnel.config && tunnel.config.inspect === false ? 'not inspected' : []);
  const cells = (name, m, open) => h('tr', null, h('th', { scope: 'row' }, name), [m.count || 0, open, rate(m.rate1), rate(m.rate5), rate(m.rate15), ...['p50', 'p90', 'p95', 'p99'].map((p) => durationText(m[p] || 0))].map((value) => h('td', null, String(value))));
  return h('div.endpoint', null,
    h('div.head', null, h('h3', null, tunnel.name || '(no name)'), h('span.url', null, link(tunnel.public_url || ''), ' \u2192 ', h('code', null, addr)), labels.map((label) => h('span.label', null, String(label))),
      tunnel.status ? h('span.bad', null, [tunnel.status, tunnel.err].filter(Boolean).join(': ')) : '',
      button('Stop', `Stop ${tunnel.name}`, attempt(async () => {
        await api('DELETE', tunnel.uri || '/api/tunnels/' + encodeURIComponent(tunnel.name));
        if (endpoint) {
          const { uri, metrics, ...input } = endpoint;
          stopped.set(tunnel.name, input);
        }
        toast(`${tunnel.name} stopped`);
        showStatus();
      }))),
    h('div.wide', null, h('table.numbers', null,
      h('thead', null, h('tr', null, ['', 'total', 'open', '/s, 1 min', '/s, 5 min', '/s, 15 min', 'p50', 'p90', 'p95', 'p99'].map((name) => h('th', { scope: 'col' }, name)))),
      h('tbody', null, cells('Connections', conns, conns.gauge || 0), /^http/.test(tunnel.proto || '') ? cells('HTTP requests', http, '') : ''))));
}

function startForm() {
  const name = h('input', { required: true, placeholder: 'web', spellcheck: 'false' });
  const upstream = h('input', { required: true, placeholder: '8080, host:port, http://\u2026, tcp://\u2026', spellcheck: 'false' });
  const url = h('input', { placeholder: 'https://app.example.com, tcp://, or empty', spellcheck: 'false' });
  const onsubmit = attempt(async (event) => {
    event.preventDefault();
    const input = { name: name.value.trim(), upstream: { url: upstream.value.trim() } };
    if (url.value.trim()) input.url = url.value.trim();
    await api('POST', '/api/endpoints', input);
    toast(`${input.name} started`);
    document.activeElement.blur();
    showStatus();
  });
  return h('form.start', { onsubmit }, h('label', null, 'Name', name), h('label', null, 'Upstream', upstream), h('label', null, 'Public URL', url), h('button.main', { type: 'submit' }, 'Start'));
}

// ---- Live ----

let live = false;
let source = null;
let pollTimer = 0;

function showLive(text, cls) {
  const box = $('live');
  if (box.textContent !== text) box.textContent = text;
  box.className = cls;
}

function connect() {
  if (!window.EventSource) { poll(); return; }
  source = new EventSource('/api/events');
  source.addEventListener('open', () => {
    live = true;
    clearTimeout(pollTimer);
    showLive('live', 'good');
    refresh();
  });
  source.addEventListener('requests', (event) => { try { receive(JSON.parse(event.data)); } catch { /* the next one will do */ } });
  source.addEventListener('cleared', forgetAll);
  source.addEventListener('status', (event) => {
    let state = {};
    try { state = JSON.parse(event.data) || {}; } catch { /* only a hint to look */ }
    sessionState(state.status);
    if (!$('status').hidden) showStatus();
    else loadTunnels();
  });
  source.addEventListener('error', () => {
    live = false;
    // The browser tries again by itself, unless the request was refused.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 30000);
    poll();
  });
}

function sessionState(status) {
  if (!live || !status) return;
  if (status === 'online') showLive('live', 'good');
  else showLive(String(status), 'bad');
}

async function loadTunnels() {
  try {
    tunnels = (await json('/api/tunnels')).tunnels || [];
    for (const tunnel of tunnels) offer($('f-endpoint'), tunnel.name);
    showCount();
  } catch { /* said by the next look */ }
}

async function refresh() {
  try {
    const before = generation;
    const all = await json(`/api/requests/http?limit=${MOST_ENTRIES}&raw=false`);
    captured = all.total || 0;
    if (before === generation) receive(all.requests || [], true);
    const state = await json('/api/status');
    version = state.agent_version || version;
    sessionState(state.status);
  } catch (error) {
    if (!live) showLive('no answer', 'bad');
    return false;
  }
  loadTunnels();
  return true;
}

// Polling, when the agent sends no events or is not reachable.
async function poll() {
  clearTimeout(pollTimer);
  if (live) return;
  if (!document.hidden && (await refresh()) && !live) showLive('every 4 s', 'warn');
  if (!live) pollTimer = setTimeout(poll, POLL);
}

// ---- Views and keys ----

function route() {
  const status = location.pathname === '/status';
  $('status').hidden = !status;
  $('requests').hidden = status;
  for (const [id, on] of [['nav-status', status], ['nav-requests', !status]]) {
    if (on) $(id).setAttribute('aria-current', 'page');
    else $(id).removeAttribute('aria-current');
  }
  document.title = status ? 'Status \u2013 culvert' : 'Requests \u2013 culvert';
  if (status) showStatus();
}

function go(path) {
  if (location.pathname !== path) history.pushState(null, '', path);
  route();
}

document.addEventListener('click', (event) => {
  const target = event.target.closest('header a');
  if (!target || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  closeDetail();
  go(target.getAttribute('href'));
});
window.addEventListener('popstate', route);

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $('dialog').open) return;
  const target = event.target;
  const typing = target.matches('input, textarea, select');
  if (event.key === 'Escape') {
    if (typing) target.blur();
    back();
    return;
  }
  if (typing) return;
  if (event.key === '1') return go('/inspect/http');
  if (event.key === '2') return go('/status');
  if (event.key === '?') return help();
  if ($('requests').hidden) return;
  const inList = target === document.body || $('list').contains(target);
  const actions = {
    j: () => step(1), k: () => step(-1), g: () => step(-Infinity), G: () => step(Infinity), p: pause,
    '/': () => $('f-text').focus(),
    r: () => selected && replay(selected),
    e: () => selected && editReplay(selected),
    c: () => selected && copyCurl(selected),
    d: () => selected && mark(selected),
  };
  if (inList) {
    Object.assign(actions, {
      ArrowDown: actions.j, ArrowUp: actions.k, Home: actions.g, End: actions.G, PageDown: () => step(10), PageUp: () => step(-10),
      Enter: () => {
        if (!selected) step(1);
        openDetail();
        $('detail').focus();
      },
    });
  }
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

$('filters').addEventListener('submit', (event) => event.preventDefault());
$('filters').addEventListener('input', readFilters);
$('filters').addEventListener('change', readFilters);
$('more').addEventListener('click', () => {
  const open = document.body.classList.toggle('fields');
  $('more').setAttribute('aria-expanded', String(open));
});
$('pause').addEventListener('click', pause);
$('fresh').addEventListener('click', pause);
$('clear').addEventListener('click', clearAll);
$('har').addEventListener('click', saveHar);
$('help-button').addEventListener('click', help);
document.addEventListener('visibilitychange', () => { if (!document.hidden && !live) poll(); });
// Rates change without events.
setInterval(() => { if (!document.hidden && !$('status').hidden) showStatus(); }, POLL);

route();
showCount();
showDetail();
connect();
