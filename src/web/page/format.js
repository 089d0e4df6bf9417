// Formats bodies, differences and commands as text. A formatted text is a list of
// [class, text]; class '' is plain. The document is not used here.

// Maximum depth of indentation: nested brackets must not become megabytes of blanks.
const DEEPEST = 30;

const indentOf = (depth) => '\n' + '  '.repeat(Math.min(depth, DEEPEST));

// Formats JSON with indents. Numbers and strings stay unchanged. `many`: several
// values one after the other. An error has its position and cause.
function prettyJson(source, many) {
  const out = [];
  const open = [];
  let at = 0;
  let want = 'value';
  const indent = () => indentOf(open.length);
  const place = (offset) => {
    const before = source.slice(0, offset).split('\n');
    return `line ${before.length}, column ${before[before.length - 1].length + 1}`;
  };
  const fail = (expected) => {
    const rest = source.slice(at);
    out.push(['bad', rest ? rest[0] : '\u23ce'], ['', rest.slice(1)]);
    return { parts: out, error: `not valid JSON at ${place(at)}: ${expected} expected` };
  };
  const stringEnd = () => {
    for (let i = at + 1; i < source.length; i++) {
      const code = source.charCodeAt(i);
      if (code === 34) return i + 1;
      if (code < 32) return -1;
      if (code === 92) {
        const escape = /^(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/.exec(source.slice(i + 1, i + 6));
        if (!escape) return -1;
        i += escape[0].length;
      }
    }
    return -1;
  };
  const after = () => { want = open.length ? 'comma' : 'end'; };
  for (;;) {
    while (' \t\r\n'.includes(source[at] || '?')) at++;
    const c = source[at];
    if (c === undefined) return want === 'end' ? { parts: out, error: '' } : fail(want === 'comma' ? 'a comma or the end' : 'more');
    if (want === 'end') {
      if (!many) return fail('the end');
      out.push(['', '\n']);
      want = 'value';
    }
    if (want === 'comma') {
      const inside = open[open.length - 1];
      if (c === ',') {
        out.push(['', ',' + indent()]);
        want = inside === '{' ? 'key' : 'value';
      } else if (c === (inside === '{' ? '}' : ']')) {
        open.pop();
        out.push(['', indent() + c]);
        after();
      } else return fail(inside === '{' ? 'a comma or }' : 'a comma or ]');
      at++;
    } else if (want === 'colon') {
      if (c !== ':') return fail('a colon');
      out.push(['', ': ']);
      want = 'value';
      at++;
    } else if (want === 'key') {
      const end = c === '"' ? stringEnd() : -1;
      if (end < 0) return fail('a name in quotes');
      out.push(['key', source.slice(at, end)]);
      at = end;
      want = 'colon';
    } else if (c === '{' || c === '[') {
      const close = c === '{' ? '}' : ']';
      let next = at + 1;
      while (' \t\r\n'.includes(source[next] || '?')) next++;
      if (source[next] === close) {
        out.push(['', c + close]);
        at = next + 1;
        after();
      } else {
        open.push(c);
        out.push(['', c + indent()]);
        want = c === '{' ? 'key' : 'value';
        at++;
      }
    } else if (c === '"') {
      const end = stringEnd();
      if (end < 0) return fail('the end of this text');
      out.push(['str', source.slice(at, end)]);
      at = end;
      after();
    } else {
      const word = /^(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)/.exec(source.slice(at, at + 1024));
      if (!word) return fail('a value');
      out.push([/[a-z]$/.test(word[0]) ? 'lit' : 'num', word[0]]);
      at += word[0].length;
      after();
    }
  }
}

// Formats XML with indents. Element names that do not match are an error.
function prettyXml(source) {
  const out = [];
  const open = [];
  let at = 0;
  let text = '';
  const line = (cls, piece, depth) => out.push(['', out.length ? indentOf(depth) : ''], [cls, piece]);
  const fail = (why) => {
    const rest = source.slice(at);
    const before = source.slice(0, at).split('\n');
    out.push(['', '\n'], ['bad', rest ? rest[0] : '\u23ce'], ['', rest.slice(1)]);
    return { parts: out, error: `not well-formed XML at line ${before.length}, column ${before[before.length - 1].length + 1}: ${why}` };
  };
  const until = (mark) => {
    const end = source.indexOf(mark, at);
    return end < 0 ? -1 : end + mark.length;
  };
  // Not with a pattern: it would search for a missing end again and again.
  const tagEnd = () => {
    let quoted = '';
    for (let i = at + 1; i < source.length; i++) {
      const c = source[i];
      if (quoted) quoted = c === quoted ? '' : quoted;
      else if (c === '"' || c === "'") quoted = c;
      else if (c === '>') return i + 1;
      else if (c === '<') return -1;
    }
    return -1;
  };
  while (at < source.length) {
    if (source[at] !== '<') {
      const next = source.indexOf('<', at);
      text = source.slice(at, next < 0 ? source.length : next).trim();
      at = next < 0 ? source.length : next;
      if (text && !open.length) { at -= text.length; return fail('text outside of the root element'); }
      // Text alone in an element stays on its line.
      if (text && !source.startsWith('</', at)) { line('', text, open.length); text = ''; }
      else if (text && out[out.length - 1][0] !== 'tag') { line('', text, open.length); text = ''; }
      continue;
    }
    const other = [['<!--', '-->'], ['<![CDATA[', ']]>'], ['<?', '?>'], ['<!', '>']].find(([mark]) => source.startsWith(mark, at));
    if (other) {
      const end = until(other[1]);
      if (end < 0) return fail(other[1] + ' expected');
      line('lit', source.slice(at, end), open.length);
      at = end;
      continue;
    }
    const end = tagEnd();
    const name = end > 0 && (/^<\/?([^\s\/>"'<=]+)/.exec(source.slice(at, Math.min(end, at + 1024))) || [])[1];
    if (!name) return fail('a tag expected');
    const whole = source.slice(at, end);
    const close = whole[1] === '/';
    const empty = whole.endsWith('/>');
    if (close) {
      if (open.pop() !== name) return fail(`</${name}> closes no open element`);
      const last = out[out.length - 1];
      const opened = last && last[0] === 'tag' && last[1].startsWith('<' + name) && !last[1].endsWith('/>') && last.depth === open.length;
      if (text || opened) out.push(['', text], ['tag', whole]);
      else line('tag', whole, open.length);
      text = '';
    } else {
      line('tag', whole, open.length);
      out[out.length - 1].depth = open.length;
      if (!empty) open.push(name);
    }
    at += whole.length;
  }
  return open.length ? fail(`</${open.pop()}> expected`) : { parts: out, error: '' };
}

function decodeForm(text) {
  return text.split('&').filter(Boolean).map((pair) => {
    const equals = pair.indexOf('=');
    const [name, value] = equals < 0 ? [pair, ''] : [pair.slice(0, equals), pair.slice(equals + 1)];
    return [name, value].map((part) => {
      const spaced = part.replace(/\+/g, ' ');
      try { return decodeURIComponent(spaced); } catch { return spaced; }
    });
  });
}

// Returns the parts of a multipart form as rows of name and value.
function decodeMultipart(bytes, boundary) {
  const rows = [];
  for (const part of latin1(bytes).split('--' + boundary).slice(1, 100)) {
    if (part.startsWith('--')) break;
    const split = part.indexOf('\r\n\r\n');
    if (split < 0) continue;
    const head = asText(Uint8Array.from(part.slice(0, split), (c) => c.charCodeAt(0))) || '';
    const body = Uint8Array.from(part.slice(split + 4).replace(/\r\n$/, ''), (c) => c.charCodeAt(0));
    const name = /[; ]name="?([^";\r\n]*)/i.exec(head);
    const file = /filename="?([^";\r\n]*)/i.exec(head);
    const type = /content-type: *([^\r\n]*)/i.exec(head);
    const text = file || body.length > 4096 ? null : asText(body);
    rows.push([name ? name[1] : '', text ?? [file && file[1], type && type[1], bytesText(body.length)].filter(Boolean).join(', ')]);
  }
  return rows;
}

// Compares two texts line by line: ['-' | '+' | ' ', line].
function diffLines(a, b) {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let endA = a.length;
  let endB = b.length;
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) { endA--; endB--; }
  const out = a.slice(0, start).map((line) => [' ', line]);
  const n = endA - start;
  const m = endB - start;
  if (n * m > 4e6) {
    for (let i = start; i < endA; i++) out.push(['-', a[i]]);
    for (let j = start; j < endB; j++) out.push(['+', b[j]]);
  } else {
    // Longest common subsequence, from the end.
    const width = m + 1;
    const best = new Uint16Array((n + 1) * width);
    for (let i = n - 1; i >= 0; i--) {
      for (let j = m - 1; j >= 0; j--) {
        best[i * width + j] = a[start + i] === b[start + j]
          ? best[(i + 1) * width + j + 1] + 1
          : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
      }
    }
    let i = 0;
    let j = 0;
    while (i < n || j < m) {
      if (i < n && j < m && a[start + i] === b[start + j]) { out.push([' ', a[start + i]]); i++; j++; }
      else if (j >= m || (i < n && best[(i + 1) * width + j] >= best[i * width + j + 1])) { out.push(['-', a[start + i]]); i++; }
      else { out.push(['+', b[start + j]]); j++; }
    }
  }
  return out.concat(a.slice(endA).map((line) => [' ', line]));
}

// Quotes a text as one word of a POSIX shell.
const quote = (text) => (/^[\w@%+=:,.\/-]+$/.test(text) ? text : "'" + text.replace(/'/g, "'\\''") + "'");

// Returns a command that sends the same request to `base`, a URL without path.
function curl(base, method, uri, headers, body) {
  const words = ['curl'];
  const target = /^https?:/i.test(uri) ? uri : base + (uri.startsWith('/') ? uri : '/' + uri);
  if (/[[\]{}]/.test(target)) words.push('--globoff');
  if (/\/\.\.?(\/|$|\?)/.test(target)) words.push('--path-as-is');
  words.push(quote(target));
  if (method === 'HEAD') words.push('--head');
  else if (method !== (body.length ? 'POST' : 'GET')) words.push('-X ' + quote(method));
  const host = base.replace(/^\w+:\/\//, '');
  const seen = new Set();
  const given = (name) => headers.some(([other]) => other.toLowerCase() === name);
  for (const [name, value] of headers) {
    const lower = name.toLowerCase();
    // A word that begins with @ would be the name of a file.
    if (name.startsWith('@')) continue;
    if (lower === 'host' && (value === host || seen.has(lower))) continue;
    seen.add(lower);
    if (['content-length', 'transfer-encoding', 'connection', 'expect'].includes(lower)) continue;
    if (lower === 'accept-encoding' && /gzip/.test(value)) { words.push('--compressed'); continue; }
    words.push('-H ' + quote(value ? `${name}: ${value}` : name + ';'));
  }
  // Headers that curl would add by itself.
  for (const name of ['User-Agent', 'Accept']) if (!given(name.toLowerCase())) words.push(`-H ${name}:`);
  let before = '';
  if (body.length) {
    if (!given('content-type')) words.push('-H Content-Type:');
    const text = asText(body);
    // A carriage return or a byte order mark would not survive a terminal.
    if (text === null || body[0] === 0xef || /\r/.test(text)) {
      before = `printf %s ${quote(toBase64(body))} | base64 -d | `;
      words.push('--data-binary @-');
    } else words.push('--data-raw ' + quote(text));
  }
  return before + words.join(' \\\n  ');
}

function bytesText(n) {
  if (n < 1000) return n + ' B';
  if (n < 1e6) return (n / 1e3).toFixed(n < 1e4 ? 1 : 0) + ' kB';
  return (n / 1e6).toFixed(n < 1e7 ? 1 : 0) + ' MB';
}

function durationText(ns) {
  const ms = ns / 1e6;
  if (!ns) return '0';
  if (ms < 1) return ms.toFixed(2) + ' ms';
  if (ms < 10) return ms.toFixed(1) + ' ms';
  if (ms < 1000) return Math.round(ms) + ' ms';
  return (ms / 1000).toFixed(ms < 1e4 ? 2 : 1) + ' s';
}

// '>100ms', '<2s', '250', '>10k', '1M' -> a test for numbers; null: cannot be read.
function comparison(text, units) {
  const match = /^([<>]=?|=)?\s*(\d+(?:\.\d+)?)\s*([a-z]*)$/i.exec(text.trim());
  const unit = match && units[match[3].toLowerCase()];
  if (!unit) return null;
  const limit = Number(match[2]) * unit;
  switch (match[1]) {
    case '<': return (n) => n < limit;
    case '<=': return (n) => n <= limit;
    case '=': return (n) => n === limit;
    case '>': return (n) => n > limit;
    default: return (n) => n >= limit;
  }
}

const DURATIONS = { '': 1e6, ns: 1, us: 1e3, ms: 1e6, s: 1e9, m: 6e10 };
const SIZES = { '': 1, b: 1, k: 1e3, kb: 1e3, m: 1e6, mb: 1e6 };

// '4xx', '200,3xx', 'pending' -> a test for status codes.
function statusTest(text) {
  const words = text.toLowerCase().split(/[\s,]+/).filter(Boolean);
  return (code) => words.some((word) => {
    if (!code) return 'pending'.startsWith(word) || word === '-';
    return String(code).startsWith(word.replace(/x+$/, ''));
  });
}
