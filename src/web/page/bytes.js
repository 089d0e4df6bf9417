// Bytes of captured messages: base64, heads, chunks, compression, hex.
// The document is not used here.

function fromBase64(text) {
  let binary = '';
  try { binary = atob(text || ''); } catch { /* not base64: no bytes */ }
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function latin1(bytes) {
  let text = '';
  for (let i = 0; i < bytes.length; i += 8192) {
    text += String.fromCharCode.apply(null, bytes.subarray(i, i + 8192));
  }
  return text;
}

const toBase64 = (bytes) => btoa(latin1(bytes));

const utf8 = (text) => new TextEncoder().encode(text);

// Returns the text of the bytes, or null if they are not text.
function asText(bytes, charset) {
  let text;
  try {
    text = new TextDecoder(charset || 'utf-8', { fatal: !charset }).decode(bytes);
  } catch {
    return null;
  }
  // eslint-disable-next-line no-control-regex
  return /[\0-\x08\x0e-\x1a]/.test(text.slice(0, 65536)) ? null : text;
}

// Splits a raw message into the lines of its head and the bytes of its body.
function splitMessage(bytes) {
  let end = bytes.length;
  let body = bytes.length;
  for (let i = 0; i < bytes.length; i++) {
    if (bytes[i] !== 10) continue;
    if (bytes[i + 1] === 10) { end = i; body = i + 2; break; }
    if (bytes[i + 1] === 13 && bytes[i + 2] === 10) { end = i; body = i + 3; break; }
  }
  const lines = latin1(bytes.subarray(0, end)).split('\n').map((line) => line.replace(/\r$/, ''));
  const headers = [];
  for (const line of lines.slice(1)) {
    if (/^[ \t]/.test(line) && headers.length) {
      headers[headers.length - 1][1] += ' ' + line.trim();
      continue;
    }
    const colon = line.indexOf(':');
    if (colon > 0) headers.push([line.slice(0, colon), line.slice(colon + 1).trim()]);
  }
  // Names and values are UTF-8 if they can be.
  const readable = (text) => {
    if (!/[\x80-\xff]/.test(text)) return text;
    return asText(Uint8Array.from(text, (c) => c.charCodeAt(0))) ?? text;
  };
  return {
    first: readable(lines[0] || ''),
    headers: headers.map(([name, value]) => [readable(name), readable(value)]),
    body: bytes.subarray(body),
  };
}

function header(headers, name) {
  const found = headers.find(([other]) => other.toLowerCase() === name);
  return found ? found[1] : '';
}

// Returns the content of a chunked body. It is incomplete if it was truncated or is not chunked.
function dechunk(bytes) {
  const pieces = [];
  let at = 0;
  let whole = false;
  while (at < bytes.length) {
    let end = at;
    while (end < bytes.length && bytes[end] !== 10) end++;
    const line = latin1(bytes.subarray(at, end)).split(';')[0].trim();
    if (end >= bytes.length || !/^[0-9a-f]{1,8}$/i.test(line)) break;
    const size = parseInt(line, 16);
    at = end + 1;
    if (size === 0) { whole = true; break; }
    pieces.push(bytes.subarray(at, at + size));
    at += size;
    if (bytes[at] === 13) at++;
    if (bytes[at] === 10) at++;
  }
  return { bytes: join(pieces), whole };
}

function join(pieces) {
  const out = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) { out.set(piece, at); at += piece.length; }
  return out;
}

// Maximum size of a decompressed body: a small body may decompress to any size.
const MOST_UNPACKED = 8 << 20;

// Decompresses by Content-Encoding, as far as the browser supports it.
async function unpack(bytes, encodings) {
  const names = encodings.toLowerCase().split(',').map((name) => name.trim());
  for (const name of names.reverse()) {
    if (!name || name === 'identity') continue;
    const format = { gzip: 'gzip', 'x-gzip': 'gzip', deflate: 'deflate', br: 'brotli', zstd: 'zstd' }[name];
    const pieces = [];
    let size = 0;
    let note = '';
    try {
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format));
      const reader = stream.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        pieces.push(value);
        size += value.length;
        if (size > MOST_UNPACKED) { note = 'unpacked in part, it is large'; reader.cancel(); break; }
      }
    } catch {
      if (!size) return { bytes, note: 'packed with ' + name + ', shown as it is' };
      note = 'unpacked from ' + name + ' up to where it is cut';
    }
    bytes = join(pieces);
    if (note) return { bytes, note };
  }
  return { bytes, note: '' };
}

function hexDump(bytes, from, to) {
  const lines = [];
  for (let at = from; at < Math.min(to, bytes.length); at += 16) {
    const row = bytes.subarray(at, Math.min(at + 16, bytes.length));
    let hex = '';
    let chars = '';
    for (let i = 0; i < 16; i++) {
      hex += i < row.length ? row[i].toString(16).padStart(2, '0') + ' ' : '   ';
      if (i === 7) hex += ' ';
      if (i < row.length) chars += row[i] > 31 && row[i] < 127 ? String.fromCharCode(row[i]) : '.';
    }
    lines.push(at.toString(16).padStart(8, '0') + '  ' + hex + ' ' + chars);
  }
  return lines.join('\n');
}
